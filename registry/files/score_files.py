"""Files of edge scores: matrices with the names of their rows and columns; without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import BadInput
from registry.records import Sign

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KeptScores", "read_score_file", "score_file", "score_metadata"]

_FORMAT = "circuits-edge-scores/1"


@dataclass(frozen=True, eq=False)
class KeptScores:
    """The content of a file of edge scores.

    Attributes:
        matrix: ``[sender, receiver]``; NaN if an edge has no score, 0 or NaN if there is no edge.
        senders: Local names of rows.
        receivers: Local names of columns, with their ports: ``a0.h0<q>``.
        sign: Meaning of a positive score.
    """

    matrix: NDArray[Any]
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    sign: Sign


def score_file(
    matrix: NDArray[Any],
    senders: Sequence[str],
    receivers: Sequence[str],
    unit: str | None,
    sign: Sign,
) -> bytes:
    """One matrix ``[sender, receiver]`` as safetensors."""
    from safetensors.numpy import save

    data: bytes = save({"scores": matrix}, score_metadata(senders, receivers, unit, sign))
    return data


def read_score_file(data: bytes) -> KeptScores:
    """Undo :func:`score_file`; also reads the files that discovery stores.

    Raises:
        BadInput: It is not such a file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        matrix = load(data)["scores"]
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        about = json.loads(header["__metadata__"]["circuits"])
        senders, receivers = tuple(about["senders"]), tuple(about["receivers"])
        sign = Sign(about["sign"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"not a file of edge scores: {error!r}") from error
    if about.get("format") != _FORMAT or matrix.shape != (len(senders), len(receivers)):
        raise BadInput(f"not a file of edge scores of format {_FORMAT} with a name for every row")
    return KeptScores(matrix, senders, receivers, sign)


def score_metadata(
    senders: Sequence[str],
    receivers: Sequence[str],
    unit: str | None,
    sign: Sign = Sign.HELPS_POSITIVE,
) -> dict[str, str]:
    """Metadata of a safetensors file whose matrices are ``[sender, receiver]``."""
    about = {
        "format": _FORMAT,
        "axes": ["sender", "receiver"],
        "senders": senders,
        "receivers": receivers,
        "unit": unit,
        "sign": sign.value,
    }
    # Only one key: safetensors writes several keys in an order that changes from run to run.
    return {"circuits": json.dumps(about, sort_keys=True, separators=(",", ":"))}
