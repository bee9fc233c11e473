"""Import of files into the registry: find them, read them, record them, and report."""
