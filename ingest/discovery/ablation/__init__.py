"""Runs of a model in which some of its edges or parts carry other values."""
