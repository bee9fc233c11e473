"""Jobs: configuration in, records out."""
