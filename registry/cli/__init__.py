"""The command line ``circuits``."""
