"""Prompt sets: one family of tasks per module."""
