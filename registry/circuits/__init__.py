"""Circuits in use: made from the results of a search, annotated, ranked, as networks."""
