"""A model whose probabilities are written down, so that scores can be worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

A, B, C, D = range(4)


class Table(nn.Module):
    """A model whose next-token probabilities depend on the last token alone."""

    def __init__(self, *rows: tuple[float, float, float, float]) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(rows, dtype=torch.float64).log())

    def forward(self, ids: Tensor) -> Tensor:
        return self.log[ids]
