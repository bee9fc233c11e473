"""Faults inside a model's own forward pass, reported with family and part.

A model's code may require a dtype, a kernel, or a size. torch's error then names neither the model
nor a remedy. A fault in our own hooks does not belong to the model, and is raised unchanged.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from ingest.discovery.model.batches import out_of_memory
from registry.errors import CircuitsError, UnsupportedModel

__all__ = ["first_line", "told_by_part", "unknown_arithmetic"]

_OURS = str(Path(__file__).parents[1])
_LIBRARIES = ("torch", "transformer_lens", "accelerate")


@contextmanager
def told_by_part(
    model: nn.Module, name: str, dtype: torch.dtype, *, wrapped: bool = True
) -> Iterator[None]:
    """Refuse a model by name if its forward pass fails.

    Args:
        model: The model that runs.
        name: Name of the model or its architecture.
        dtype: Its precision.
        wrapped: Whether TransformerLens has replaced its parts.

    Raises:
        UnsupportedModel: It fails for another reason than lack of memory.
    """
    try:
        yield
    except CircuitsError:
        raise
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        part = _failing_part(frames[1:], model)
        if part is None or out_of_memory(error):
            raise
        kind = str(dtype).removeprefix("torch.")
        raise UnsupportedModel(
            f"{name} cannot be run in {kind}{' once it is wrapped' if wrapped else ''}: its "
            f"forward pass fails in {part} ({first_line(error)}); {_remedy(dtype)}"
        ) from error


def unknown_arithmetic(name: str, reason: str) -> UnsupportedModel:
    """Return the error for a model that does not have the assumed properties."""
    return UnsupportedModel(f"edge attribution does not know the arithmetic of {name}: {reason}")


def first_line(error: BaseException) -> str:
    """Return an error's text in one line; for a bare assertion, the assertion."""
    text = str(error).strip()
    if not text:
        last = traceback.extract_tb(error.__traceback__)[-1:]
        text = f"{type(error).__name__}: {last[0].line}" if last else type(error).__name__
    return text.splitlines()[0][:300].rstrip(" .:")


def _remedy(dtype: torch.dtype) -> str:
    known = "docs/models.md lists the families that are known to work"
    return known if dtype == torch.float32 else f"use float32; {known}"


def _failing_part(frames: list[FrameType], model: nn.Module) -> str | None:
    """Return the innermost module that was running; None if our own code ran inside it."""
    found = None
    for frame in frames:
        if frame.f_code.co_filename.startswith(_OURS):
            found = None
            continue
        module = frame.f_locals.get("self")
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if isinstance(module, nn.Module) and (package not in _LIBRARIES or found is None):
            found = module
    return None if found is None else _described(found, model)


def _described(part: nn.Module, model: nn.Module) -> str:
    where: Any = next((name for name, each in model.named_modules() if each is part), "")
    path = ".".join(step for step in where.split(".") if not step.endswith("original_component"))
    return f"{type(part).__name__} at {path}" if path else type(part).__name__
