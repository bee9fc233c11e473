"""Conversion of texts to token ids, without torch."""
