"""Folders of pyvene."""
