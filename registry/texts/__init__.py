"""Texts for people and other programs: words, markup, cells, and errors in plain words."""
