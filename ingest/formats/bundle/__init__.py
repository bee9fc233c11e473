"""Bundles: records of a registry in one file, read and written."""
