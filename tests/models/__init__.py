"""Small models whose weights are checked in."""

from pathlib import Path

__all__ = ["WORDS"]

WORDS = Path(__file__).parent / "words"
"""The folder of a model that reads whole words, trained by :mod:`tests.models.training`."""
