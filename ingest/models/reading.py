"""Reading a model of transformers from a folder, a GGUF file or the hub.

A model that is not a causal language model is refused by its configuration, before its weights are
read. Any error of the libraries below about a broken checkpoint becomes one line.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf
from transformer_lens.model_bridge.sources._hf_format import determine_architecture_from_hf_config
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ingest.discovery.model.faults import first_line
from ingest.models.config_values import require_usable_values
from ingest.models.families import read_config
from ingest.models.faults import unreadable
from ingest.models.fit import require_fitting_weights, require_plausible_layers
from ingest.models.gguf import kept_folder, read_gguf
from ingest.models.hub import download
from ingest.models.leftovers import require_whole
from ingest.models.names import Place, PlaceKind, find_built_in
from ingest.models.shards import require_own_files
from registry.errors import BadInput, CircuitsError, UnsupportedModel

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Checkpoint",
    "DeviceMap",
    "architecture_of",
    "quiet",
    "read",
    "said_plainly",
    "wrapped_plainly",
]

DeviceMap = str | Mapping[str, str | int]
"""``auto``, a device, or the device of each module; as transformers reads it."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)
_TOKENIZER_JSON = tuple(name for name in _TOKENIZER_FILES if name.endswith(".json"))
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class Checkpoint:
    """A model that was read.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer; None if it has none.
        revision: Its commit on the hub.
        unused: Weights in its files of parts that it does not have, such as a classifier's head.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    revision: str | None = None
    unused: tuple[str, ...] = ()


def read(
    place: Place,
    dtype: torch.dtype,
    device_map: DeviceMap | None = None,
    check: Callable[[Path], None] | None = None,
) -> Checkpoint:
    """Read a model's weights and, if it has one, its tokenizer.

    Weights have type ``dtype`` if that is float32, else the checkpoint's own type: the caller
    rounds them, after hashing them. They are on the CPU, or on the devices of ``device_map``.
    ``check`` receives the folder of a model that has one before they are read.

    Raises:
        NotFound: The hub has no such model or cannot be reached; a package is missing.
        BadInput: The checkpoint is broken or lacks weights.
        UnsupportedModel: It is not a causal language model, or TransformerLens has no adapter.
        MissingExtra: Reading it needs a package of the extra ``discover``.
        StorageError: The cache for built-in models cannot be written.
    """
    if place.kind is PlaceKind.GGUF:
        if device_map is not None:
            raise BadInput(
                f"a GGUF file such as {place.source!r} is read whole, without device_map; save it "
                "as a folder with save_pretrained, or give a device"
            )
        with said_plainly(f"GGUF file {place.source!r} cannot be read"):
            return Checkpoint(*read_gguf(Path(place.source)))
    if place.kind is PlaceKind.HUB:
        folder = download(place, lambda folder: _checked(place, folder, check))
        found = _read_folder(place, folder, dtype, device_map=device_map)
        return replace(found, revision=folder.name)
    built_in = find_built_in(place.source) if place.kind is PlaceKind.BUILT_IN else None
    if built_in is None:
        if check is not None:
            check(Path(place.source))
        return _read_folder(place, Path(place.source), dtype, device_map=device_map)
    with said_plainly(f"the model {place.slug} cannot be read"):
        folder = kept_folder(built_in)
    hint = "; remove that folder to have it made again"
    return _read_folder(place, folder, dtype, hint, device_map=device_map)


def _checked(place: Place, folder: Path, check: Callable[[Path], None] | None) -> None:
    _check(place, folder)
    if check is not None:
        check(folder)


def _check(place: Place, folder: Path) -> PretrainedConfig:
    """Read a configuration and refuse a model that is not a causal language model."""
    written = read_config(folder) or {}
    require_usable_values(str(place), written)
    # Before headers of files are read.
    require_own_files(str(place), folder, written.get("transformers_weights"))
    require_plausible_layers(str(place), written, folder)
    with said_plainly(f"the model in {str(folder)!r} cannot be read", folder=folder):
        config = transformers.AutoConfig.from_pretrained(folder, **_LOCAL)
    architecture_of(config, str(place))
    return config


def _read_folder(
    place: Place,
    folder: Path,
    dtype: torch.dtype,
    hint: str = "",
    *,
    device_map: DeviceMap | None,
) -> Checkpoint:
    config = _check(place, folder)
    with said_plainly(f"the model in {str(folder)!r} cannot be read", hint, folder):
        model, unused = _read_model(place, folder, config, dtype, device_map)
    what = f"the tokenizer of the model in {str(folder)!r} cannot be read"
    with said_plainly(what, hint, folder, files=_TOKENIZER_JSON):
        tokenizer = None
        # If a tokenizer is absent, transformers may make an empty one instead of raising an error.
        if any((folder / name).is_file() for name in _TOKENIZER_FILES):
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **_LOCAL)
    return Checkpoint(model, tokenizer, unused=unused)


def _read_model(
    place: Place,
    folder: Path,
    config: PretrainedConfig,
    dtype: torch.dtype,
    device_map: DeviceMap | None,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Return a model, and the weights in its files of parts that it does not have."""
    # Half-precision weights are cast after hashing, to keep the checkpoint's hash; see
    # weights_hash.
    half = dtype in (torch.float16, torch.bfloat16)
    options: dict[str, Any] = {
        "config": config,
        "dtype": "auto" if half else torch.float32,
        "attn_implementation": "eager",
        "output_loading_info": True,
        **_LOCAL,
    }
    if device_map is not None:
        options["device_map"] = device_map
    adapter = ArchitectureAdapterFactory.select_architecture_adapter(
        build_bridge_config_from_hf(
            config, architecture_of(config, str(place)), str(place), torch.float32
        )
    )
    adapter.prepare_loading(str(folder), options)
    require_fitting_weights(str(place), folder, options["config"])
    model, found = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    _require_everything_placed(place, model)
    return model, require_whole(str(place), model, found)


def _require_everything_placed(place: Place, model: PreTrainedModel) -> None:
    """Refuse a model if some parts did not fit: they would be loaded again at every step."""
    absent = [name for name, weight in model.named_parameters() if weight.is_meta]
    if absent:
        raise BadInput(
            f"the devices hold the model {place} except for {len(absent)} of its weights, such as "
            f"{absent[0]!r}; free memory, give more devices or a smaller dtype"
        )


def architecture_of(
    config: PretrainedConfig, name: str, built: type[PreTrainedModel] | None = None
) -> str:
    """Return the architecture's name if it is a causal language model with an adapter.

    Args:
        config: Of the model.
        name: Of the model, for errors.
        built: Class of a model in memory; used where the configuration names no architecture, as
            transformers writes it there only when it saves a model.

    Raises:
        UnsupportedModel: It is none, or has no adapter.
    """
    if not config.architectures and built is not None:
        config = copy(config)
        config.architectures = [built.__name__]
    causal = {
        each
        for value in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        for each in ([value] if isinstance(value, str) else value)
    }
    named = list(config.architectures or [])
    is_causal = (
        bool(causal.intersection(named))
        if named
        else config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    )
    what = named[0] if named else config.model_type
    if getattr(config, "is_encoder_decoder", False) or not is_causal:
        raise UnsupportedModel(
            f"{name} is a {what}, not a causal language model: only models that predict the next "
            "token from those before it have circuits here"
        )
    try:
        return str(determine_architecture_from_hf_config(config))
    except ValueError as error:
        raise UnsupportedModel(
            f"{name} is a {what}, for which TransformerLens has no adapter"
        ) from error


@contextlib.contextmanager
def said_plainly(
    what: str, hint: str = "", folder: Path | None = None, files: Sequence[str] = ()
) -> Iterator[None]:
    """Turn any error of a library about a broken model into one line of ours.

    Args:
        what: The model, and that it cannot be read.
        hint: What to do, with its leading punctuation.
        folder: The model's folder, because a wrong value in its config.json may be the reason.
        files: JSON files in that folder that may be the reason, instead of its config.json.
    """
    try:
        yield
    except CircuitsError:
        raise
    except Exception as error:
        raise unreadable(what, error, hint, folder, files) from error


@contextlib.contextmanager
def wrapped_plainly(name: str) -> Iterator[None]:
    """Refuse by name a model that TransformerLens fails to wrap, for any error."""
    try:
        yield
    except CircuitsError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise UnsupportedModel(
            f"{name} cannot be wrapped: TransformerLens {version('transformer_lens')} does not "
            f"know this configuration of it ({Path(last.filename).stem}, {last.name}: "
            f"{first_line(error)}); docs/models.md lists the families that are known to work"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence advice and progress bars of the libraries below; errors are still raised."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
