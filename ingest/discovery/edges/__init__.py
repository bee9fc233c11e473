"""Scores of all edges of a model, and the proof that they are correct."""
