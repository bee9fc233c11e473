"""Null models of circuits, and what they predict by chance."""
