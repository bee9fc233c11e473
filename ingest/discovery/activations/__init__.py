"""Activations of any sites over any prompts, in memory or on disk."""
