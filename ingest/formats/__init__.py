"""Formats of other tools: a folder or module per tool, with ``sniff``, ``read`` and exporters."""
