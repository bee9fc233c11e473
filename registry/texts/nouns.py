"""Nouns in messages, with their number or their indefinite article."""

from __future__ import annotations

__all__ = ["counted", "with_article"]


def counted(n: int, noun: str) -> str:
    """A number with its noun, which adds ``s`` in the plural: ``1 artifact``, ``1,354 files``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def with_article(noun: str) -> str:
    """A noun with its indefinite article: ``a tag``, ``an exporter``."""
    return f"an {noun}" if noun[:1].lower() in "aeio" else f"a {noun}"
