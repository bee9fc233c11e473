"""Files of edge scores: out and in again, and what is none."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from safetensors.numpy import save

from registry.errors import BadInput
from registry.files.score_files import read_score_file, score_file, score_metadata
from registry.records import Sign

SENDERS, RECEIVERS = ("input", "m0"), ("m0", "logits", "a1.h0<q>")
MATRIX = numpy.array([[0.5, numpy.nan, -1.0], [0.0, 2.0, 1e-40]])


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_a_matrix_with_its_names_survives(dtype: type) -> None:
    matrix: Any = MATRIX.astype(dtype)
    kept = read_score_file(score_file(matrix, SENDERS, RECEIVERS, "nats", Sign.UNSIGNED))
    assert (kept.senders, kept.receivers, kept.sign) == (SENDERS, RECEIVERS, Sign.UNSIGNED)
    assert kept.matrix.dtype == dtype
    assert numpy.array_equal(kept.matrix, matrix, equal_nan=True)


def test_the_same_scores_make_the_same_bytes() -> None:
    first, again = (
        score_file(MATRIX, SENDERS, RECEIVERS, None, Sign.UNKNOWN) for _ in range(2)
    )  # fmt: skip
    assert first == again


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 64,
        save({"scores": MATRIX}),
        save({"scores": MATRIX}, {"circuits": "["}),
        save({"scores": MATRIX}, {"circuits": "[]"}),
        save({"other": MATRIX}, score_metadata(SENDERS, RECEIVERS, None, Sign.UNKNOWN)),
        save({"scores": MATRIX}, score_metadata(SENDERS[:1], RECEIVERS, None, Sign.UNKNOWN)),
        save({"scores": MATRIX}, {"circuits": '{"senders": [], "receivers": [], "sign": "x"}'}),
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="not a file of edge scores"):
        read_score_file(data)
