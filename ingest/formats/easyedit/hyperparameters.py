"""Hyperparameters of EasyEdit (YAML): an editor's configuration and the modules it edited.

EasyEdit's result files do not name model, editor or edited layers; this file does. It names the
modules in one of three ways: ``layers`` with ``rewrite_module_tmp``, ``inner_params``, or
``edit_modules``. Some editors (in-context editing) edit no module. The file itself has nothing to
record: results are read with it if a user names it (``--hyperparameters``).
"""

from __future__ import annotations

import datetime
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported, Limits
from ingest.formats.plain_yaml import read_yaml
from registry.errors import BadInput
from registry.records import Model

__all__ = [
    "FORMAT",
    "EasyEditHyperparameters",
    "Hyperparameters",
    "parts_of",
    "read_hyperparameters",
    "summarised",
]

_LONGEST_NAME = 500
_MAX_LAYERS = 10_000
_MAX_VALUES = 100_000
_MAX_DEPTH = 50
_SHOWN = 3
_NAMING = (
    "alg_name", "alg", "model_name", "name_or_path", "layers", "rewrite_module_tmp",
    "inner_params", "edit_modules",
)  # fmt: skip
"""Fields of which every file of hyperparameters has one: which editor, which model, which parts."""
_KEYS = re.compile(
    rb"^(alg_name|rewrite_module_tmp|inner_params|edit_modules)[ \t]*:", re.MULTILINE
)
# YAML 1.1 reads 5e-1 as text, because it requires a decimal point and a sign.
_SCIENTIFIC = re.compile(r"[+-]?\d{1,30}(?:\.\d{0,30})?[eE][+-]?\d{1,3}")
_IN_BLOCK = re.compile(
    r"(?:^|\.)(?:h|layers?|blocks?|decoder_layers)(?:\.|\[)(?P<layer>\d{1,9})(?:\]|(?=\.)|$)"
    r"\.?(?P<module>.*)"
)
_OTHER_TOWER = re.compile(r"visi|visual|image|audio|q_?former", re.IGNORECASE)
_OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
_ATTENTION = re.compile(
    r"(?:attn|self_attn|self_attention|attention)(?:\.attention)?(?:\.(?P<projection>\w+))?"
)
_MLP = re.compile(r"(?:mlp|feed_forward|ffn|block_sparse_moe|fc\d|fc_in|fc_out)(?:[.\[]|$)")


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The configuration of an editor.

    Attributes:
        alg_name: The editor: ``ROME``, ``MEMIT``, ...
        model_name: A path or a name, as in the file.
        layers: Layers it names.
        rewrite_module_tmp: The module in each of them, with ``{}`` for the layer.
        edited_modules: Full names of the edited modules, as the file gives or defines them.
        given_by: The field that gives them: ``layers``, ``inner_params``, ``edit_modules``.
        values: The whole file as JSON.
    """

    alg_name: str | None = None
    model_name: str | None = None
    layers: tuple[int, ...] | None = None
    rewrite_module_tmp: str | None = None
    edited_modules: tuple[str, ...] = ()
    given_by: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


class EasyEditHyperparameters:
    """The format; recognised so that a folder's report can explain the purpose of such a file."""

    name = "easyedit-hyperparameters"
    summary = "EasyEdit hyperparameters (YAML), which EasyEdit results are read with"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure if a YAML file names an editor or its modules as EasyEdit does."""
        is_yaml = path.suffix.lower() in {".yaml", ".yml"}
        return 0.9 if is_yaml and _KEYS.search(head) else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Record nothing; explain the purpose of the file."""
        found = read_hyperparameters(path, context.limits)
        modules = summarised(found.edited_modules) or "no module"
        return Imported(
            notes=[
                f"hyperparameters of {found.alg_name or 'an editor'} for"
                f" {found.model_name or 'some model'} ({modules}): give them to results with"
                " --hyperparameters, or 'hyperparameters:' in circuits-import.yaml"
            ]
        )


FORMAT = EasyEditHyperparameters()


def read_hyperparameters(path: Path, limits: Limits | None = None) -> Hyperparameters:
    """Read a file of hyperparameters.

    Raises:
        BadInput: It cannot be read, is no mapping of fields to values, or names neither an editor,
            a model nor a part of one.
    """
    try:
        values = _Plain(path.name).copied(read_yaml(path, limits))
    except RecursionError as error:
        raise BadInput(f"{path.name} is nested too deeply") from error
    if not isinstance(values, dict):
        raise BadInput(f"{path.name} holds no hyperparameters: expected fields such as alg_name")
    if not values.keys() & set(_NAMING):
        raise BadInput(
            f"{path.name} holds no hyperparameters of an editor: it has none of the fields"
            f" {', '.join(_NAMING)}"
        )
    template = _text(values, "rewrite_module_tmp")
    layers = _layers(values)
    modules, given_by = _modules(values, layers, template)
    return Hyperparameters(
        alg_name=_text(values, "alg_name") or _text(values, "alg"),
        model_name=_text(values, "model_name") or _text(values, "name_or_path"),
        layers=layers,
        rewrite_module_tmp=template,
        edited_modules=modules,
        given_by=given_by,
        values=values,
    )


def parts_of(module: str, model: Model | None = None) -> tuple[str, ...]:
    """Return the parts of a model to which a module's weights belong: ``m17`` for an MLP.

    Attention's weights belong to all heads of a block; weights of keys and values to the heads that
    have them. A module's name does not give the number of heads, so ``model`` must give it. Empty
    for modules of other kinds, and if the number of heads is unknown.
    """
    found = None if _OTHER_TOWER.search(module) else _IN_BLOCK.search(module)
    if found is None:
        return ()
    layer, within = int(found["layer"]), found["module"]
    if _MLP.match(within):
        return (f"m{layer}",)
    if model is None or model.n_heads is None or not (attention := _ATTENTION.match(within)):
        return ()
    grouped = model.n_kv_heads is not None and model.n_kv_heads < model.n_heads
    query = tuple(f"a{layer}.h{head}" for head in range(model.n_heads))
    keys = tuple(f"a{layer}.kv{head}" for head in range(model.n_kv_heads or 0) if grouped)
    projection = attention["projection"]
    if projection in {"k_proj", "v_proj"}:
        return keys or query
    return query if projection in {"q_proj", *_OUTPUTS} else (*query, *keys)


def summarised(names: Sequence[str]) -> str:
    """Return names in one line; of many only the first and the last."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{names[0]} ... {names[-1]} ({len(names)})"


def _modules(
    values: Mapping[str, Any], layers: Sequence[int] | None, template: str | None
) -> tuple[tuple[str, ...], str | None]:
    if layers and template and template.count("{}") == 1:
        return tuple(template.replace("{}", str(layer)) for layer in layers), "layers"
    for name in ("inner_params", "edit_modules"):
        if listed := _texts(values.get(name)):
            return listed, name
    return (), None


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    named = isinstance(value, str) and value.strip() and len(value) <= _LONGEST_NAME
    return value if named else None


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    named = (one for one in value if isinstance(one, str) and one.strip())
    return tuple(dict.fromkeys(one for one in named if len(one) <= _LONGEST_NAME))


def _layers(values: Mapping[str, Any]) -> tuple[int, ...] | None:
    value = values.get("layers")
    if not isinstance(value, list):
        return None
    found = (one for one in value if isinstance(one, int) and not isinstance(one, bool))
    return tuple(itertools.islice((one for one in found if 0 <= one < 10**9), _MAX_LAYERS))


class _Plain:
    """Converts YAML's values to JSON's; refuses aliases that expand to many values."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._left = _MAX_VALUES

    def copied(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            raise BadInput(
                f"{self._file} has more values, or deeper ones, than hyperparameters have"
            )
        if isinstance(value, dict):
            return {str(key): self.copied(one, depth + 1) for key, one in value.items()}
        if isinstance(value, list | tuple | set):
            return [self.copied(one, depth + 1) for one in _ordered(value)]
        return _scalar(value)


def _ordered(value: Any) -> Iterator[Any]:
    return iter(sorted(value, key=str) if isinstance(value, set) else value)


def _scalar(value: Any) -> Any:
    if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return value
