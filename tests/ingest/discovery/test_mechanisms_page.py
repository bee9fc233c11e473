"""The examples of docs/mechanisms.md run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.ingest import tiny_models

PAGE = Path(__file__).parents[3] / "docs" / "mechanisms.md"


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tiny_models.save(tmp_path / "model", tiny_models.gpt2())
    names: dict[str, Any] = {"folder": folder}
    examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(examples) >= 3
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)
    assert names["found"].effects.shape == (3,)
    assert names["two"].shape == (2, 2, tiny_models.D_VOCAB)
