"""Exact outputs kept in ``tests/golden``; ``make golden`` writes them anew."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"
RENEW = "CIRCUITS_TEST_RENEW_GOLDEN"


def check_golden(name: str, text: str) -> None:
    """Compare a text with the file of that name, or write it where ``make golden`` asks for it."""
    path = FOLDER / name
    if os.environ.get(RENEW):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    wanted = path.read_text(encoding="utf-8") if path.exists() else ""
    difference = "\n".join(
        difflib.unified_diff(wanted.splitlines(), text.splitlines(), name, "now", lineterm="")
    )
    assert wanted == text, f"{difference}\n'make golden' writes it anew; read the diff then"
