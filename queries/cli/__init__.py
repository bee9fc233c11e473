"""Commands that compare circuits: one module per command, and the options they share."""
