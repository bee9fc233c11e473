"""A check that the weights of a folder match its config.json, before the model is created.

transformers fills any number of missing weights with random numbers, and reports this only
afterwards. So names and shapes are compared first: those in the headers of the files with those of
the model on the device "meta", which has no numbers. If transformers or a quantiser converts
weights while reading them, errors are left to transformers.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import initialization
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from registry.errors import BadInput

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["misshapen", "require_fitting_weights", "require_plausible_layers"]

Shape = tuple[int, ...]

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
_MOST_LAYERS = 10_000
"""The deepest model of transformers has a hundredth of this number."""
_NUMBERS_A_BYTE = 8
"""No format can hold more weights."""
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Errors of reading a malformed index."""
_WHOLE = ("model.safetensors", "pytorch_model.bin")
"""Files that transformers reads first, each before its index of several files."""


def require_plausible_layers(name: str, config: Mapping[str, Any], folder: Path | None) -> None:
    """Refuse a number of layers for which there cannot be weights.

    transformers creates lists of that length when it reads a configuration.

    Args:
        name: Name of the model.
        config: The content of its config.json.
        folder: Folder of its weights; None if they are not there yet.

    Raises:
        BadInput: There are more layers than tensors, or more than any model has.
    """
    key, n_layers = _most_layers(config)
    if n_layers > _MOST_LAYERS:
        raise BadInput(
            f"the model {name} cannot be read: its config.json has {key}: {n_layers}, and no "
            f"model has more than {_MOST_LAYERS} layers"
        )
    stored = None if folder is None else _stored(folder)
    if stored and n_layers > len(stored):
        raise BadInput(
            f"the model {name} cannot be read: its config.json has {key}: {n_layers}, and its "
            f"files hold {len(stored)} weights, fewer than one for each layer"
        )


def require_fitting_weights(name: str, folder: Path, config: PretrainedConfig) -> None:
    """Refuse a folder whose weights differ from those that its configuration requires.

    Raises:
        BadInput: Weights are missing or have another shape; the text names the first.
    """
    elsewhere = getattr(config, "transformers_weights", None)  # the name of another file
    if elsewhere is not None or getattr(config, "quantization_config", None) is not None:
        return
    model = _empty_model(config)
    if model is None:
        return
    stored = _stored(folder)
    if stored is None:
        _require_enough_bytes(name, folder, model)
        return
    found = _compared(model, stored)
    if found.missing and not found.fitting:
        raise BadInput(
            f"the model {name} cannot be read: its config.json requires no weight in its files "
            f"({config.model_type}): they hold {min(stored)!r}, and {found.missing[0]!r} "
            "is missing; give the config.json of these weights"
        )
    if found.missing and not found.converted:
        raise BadInput(
            f"the model {name} lacks {len(found.missing)} of its weights, such as "
            f"{found.missing[0]!r}"
        )
    if found.misshapen:
        raise misshapen(f"the model {name} cannot be read", found.misshapen)


def misshapen(what: str, weights: Mapping[str, tuple[Shape, Shape]]) -> BadInput:
    """Return the error for weights whose shapes differ from the configuration.

    Args:
        what: The model, and that it cannot be read.
        weights: The shape in the file and the required shape, by name.
    """
    first = min(weights)
    theirs, asked = weights[first]
    more = f" ({len(weights)} weights differ in this way)" if len(weights) > 1 else ""
    return BadInput(
        f"{what}: its config.json requires {first!r} of shape {_shown(asked)}, and its files hold "
        f"{_shown(theirs)}{more}; give the config.json of these weights"
    )


@dataclass
class _Compared:
    """The weights that a model requires, compared with those in its files."""

    fitting: bool = False
    converted: bool = False
    missing: list[str] = field(default_factory=list)
    misshapen: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)


def _compared(model: Any, stored: Mapping[str, Shape | None]) -> _Compared:
    """Rename weights as transformers does when it reads them, and compare."""
    expected = model.state_dict()
    found, targets = _Compared(), set()
    for name, target, converter in _renamed(model, expected, stored):
        found.converted |= converter is not None
        found.fitting |= target in expected
        targets |= _all_targets(target, converter)
        shape = stored[name]
        if target in expected and converter is None and shape is not None:
            asked = tuple(expected[target].shape)
            if shape != asked:
                found.misshapen[target] = shape, asked
    tied = model.all_tied_weights_keys
    found.missing = sorted(expected.keys() - targets - tied.keys() - set(tied.values()))
    found.missing = [each for each in found.missing if not _may_be_missing(model, each)]
    return found


def _renamed(
    model: Any, expected: Mapping[str, Any], stored: Mapping[str, Any]
) -> Iterator[tuple[str, str, WeightConverter | None]]:
    """Return each stored name, its name in the model, and its conversion."""
    mapping = get_model_conversion_mapping(model)
    renamings = [each for each in mapping if isinstance(each, WeightRenaming)]
    converters = [each for each in mapping if isinstance(each, WeightConverter)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    prefix = model.base_model_prefix
    for name in stored:
        target, pattern = rename_source_key(name, renamings, converters, prefix, expected)
        if target not in expected and name in expected:
            target, pattern = name, None
        yield name, target, None if pattern is None else by_pattern[pattern]


def _all_targets(target: str, converter: WeightConverter | None) -> set[str]:
    if converter is None:
        return {target}
    first, *others = converter.target_patterns
    return {target, *(target.replace(first, other) for other in others)}


def _may_be_missing(model: Any, name: str) -> bool:
    patterns = model._keys_to_ignore_on_load_missing or ()
    return any(re.search(pattern, name) for pattern in patterns)


def _require_enough_bytes(name: str, folder: Path, model: Any) -> None:
    """Compare sizes if the names and shapes in the files are unknown."""
    sizes = [file.stat().st_size for file in folder.glob("pytorch_model*.bin")]
    tied = model.all_tied_weights_keys
    asked = sum(math.prod(t.shape) for n, t in model.state_dict().items() if n not in tied)
    if asked > _NUMBERS_A_BYTE * sum(sizes) > 0:
        raise BadInput(
            f"the model {name} cannot be read: its config.json requires {asked:,} numbers, and its "
            f"files hold {sum(sizes):,} bytes; give the config.json of these weights"
        )


def _empty_model(config: PretrainedConfig) -> PreTrainedModel | None:
    """Return the model without numbers; None if transformers cannot build it, and reports so."""
    try:
        with torch.device("meta"), initialization.no_init_weights():
            return transformers.AutoModelForCausalLM.from_config(
                copy.deepcopy(config), trust_remote_code=False
            )
    except Exception:  # noqa: BLE001  whatever it is, it comes again when the model is read
        return None


def _stored(folder: Path) -> dict[str, Shape | None] | None:
    """Return names and shapes of the weights that transformers would read; None if unknown."""
    try:
        for file in _WHOLE:
            if (folder / file).is_file():
                return _shapes(folder / file)
            index = folder / f"{file}.index.json"
            if index.is_file():
                return _sharded(folder, json.loads(index.read_bytes())["weight_map"])
    except (*_BROKEN, SafetensorError):
        return None  # transformers reports the error
    return None


def _sharded(folder: Path, weights: Mapping[str, str]) -> dict[str, Shape | None]:
    found: dict[str, Shape | None] = {}
    for file in sorted(set(weights.values())):
        found |= _shapes(folder / file) or {}
    return found or dict.fromkeys(weights)


def _shapes(file: Path) -> dict[str, Shape | None] | None:
    """Return names and shapes of a safetensors file; only its header is read."""
    if file.suffix != ".safetensors":
        return None
    with safe_open(file, framework="pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def _most_layers(config: Mapping[str, Any]) -> tuple[str, int]:
    """Return the largest number of layers in a configuration or its parts."""
    inner = [each for each in config.values() if isinstance(each, dict)]
    named = [
        (key, each[key])
        for each in (config, *inner)
        for key in _LAYERS
        if isinstance(each.get(key), int)
    ]
    return max(named, key=lambda pair: pair[1], default=("", 0))


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "no axis"
