"""Commands that import, find and export circuits: one module per command."""
