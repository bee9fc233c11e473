"""Plots of answers: one module per answer, and the modules that they share."""
