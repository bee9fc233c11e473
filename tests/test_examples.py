"""The notebooks of examples/ run, and print what they show where they are read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
RENEW = "CIRCUITS_TEST_RENEW_GOLDEN"

pytestmark = pytest.mark.seconds


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_prints_what_is_written_in_it(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(path, tmp_path))
    ran = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", copy],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(copy.read_text("utf-8"))
    if os.environ.get(RENEW):
        text = json.dumps(_tidy(found), indent=1, ensure_ascii=False, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")
    stored = json.loads(path.read_text("utf-8"))
    assert [_printed(cell) for cell in found["cells"]] == [
        _printed(cell) for cell in stored["cells"]
    ], f"renew it with {RENEW}=1 pytest tests/{Path(__file__).name}, and read the diff"


def _printed(cell: Any) -> str:
    """What a cell wrote; tables and pictures may look otherwise with another version."""
    outputs = cell.get("outputs", ())
    return "".join("".join(one["text"]) for one in outputs if one["output_type"] == "stream")


def _tidy(notebook: Any) -> Any:
    """Without the times at which cells ran."""
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    notebook["metadata"] = {"kernelspec": notebook["metadata"]["kernelspec"]}
    return notebook
