"""Reading a model of transformers from a folder, a GGUF file or the hub.

What is no causal language model is refused from its configuration, before its weights are read.
Whatever the libraries below say of a broken checkpoint becomes one line.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
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

from ingest.discovery.faults import first_line
from ingest.model_cache import kept_folder, read_gguf
from ingest.model_hub import download
from ingest.model_names import Place, PlaceKind, find_built_in
from registry.errors import BadInput, CircuitsError, MissingExtra, UnsupportedModel

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
"""``auto``, a device, or where each module goes; as transformers reads it."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class Checkpoint:
    """What was read: a model, its tokenizer if it has one, and its commit on the hub."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    revision: str | None = None


def read(
    place: Place,
    dtype: torch.dtype,
    device_map: DeviceMap | None = None,
    check: Callable[[Path], None] | None = None,
) -> Checkpoint:
    """Read a model's weights and, where it has one, its tokenizer.

    Weights come in ``dtype`` where that is float32, else in the checkpoint's own type: rounding
    them is left to the caller, who hashes them first. They lie on the CPU, or where ``device_map``
    puts them. ``check`` is given the folder of a model that has one before they are read.

    Raises:
        NotFound: The hub has no such model or cannot be reached; a package is missing.
        BadInput: The checkpoint is broken or lacks weights.
        UnsupportedModel: Not a causal language model, or TransformerLens has no adapter for it.
        MissingExtra: Reading it needs a package of the extra ``discover``.
        StorageError: The cache for models built in cannot be written.
    """
    if place.kind is PlaceKind.GGUF:
        if device_map is not None:
            raise BadInput(
                f"a GGUF file such as {place.source!r} is read whole, without device_map; save it "
                "as a folder by save_pretrained, or give a device"
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
    hint = "; remove that folder to have it made anew"
    return _read_folder(place, folder, dtype, hint, device_map=device_map)


def _checked(place: Place, folder: Path, check: Callable[[Path], None] | None) -> None:
    _check(place, folder)
    if check is not None:
        check(folder)


def _check(place: Place, folder: Path) -> PretrainedConfig:
    """Read a configuration and refuse what is no causal language model."""
    with said_plainly(f"the model in {str(folder)!r} cannot be read"):
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
    with said_plainly(f"the model in {str(folder)!r} cannot be read", hint):
        model = _read_model(place, folder, config, dtype, device_map)
        tokenizer = None
        # Of an absent tokenizer transformers may make an empty one instead of complaining.
        if any((folder / name).is_file() for name in _TOKENIZER_FILES):
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **_LOCAL)
        return Checkpoint(model, tokenizer)


def _read_model(
    place: Place,
    folder: Path,
    config: PretrainedConfig,
    dtype: torch.dtype,
    device_map: DeviceMap | None,
) -> PreTrainedModel:
    # Halves are cast after hashing, so that the hash is the checkpoint's; see weights_hash.
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
    model, found = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    missing = sorted(found["missing_keys"])
    if missing:  # transformers would fill them with random numbers and only warn
        raise BadInput(
            f"the model {place} lacks {len(missing)} of its weights, such as {missing[0]!r}"
        )
    _require_everything_placed(place, model)
    return model


def _require_everything_placed(place: Place, model: PreTrainedModel) -> None:
    """Refuse a model of which parts found no room: they would be fetched anew at every step."""
    absent = [name for name, weight in model.named_parameters() if weight.is_meta]
    if absent:
        raise BadInput(
            f"the devices hold the model {place} but for {len(absent)} of its weights, such as "
            f"{absent[0]!r}; free memory, give more devices or a smaller dtype"
        )


def architecture_of(config: PretrainedConfig, name: str) -> str:
    """Return the architecture's name if it is a causal language model with an adapter."""
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
def said_plainly(what: str, hint: str = "") -> Iterator[None]:
    """Turn whatever a library says of a broken model into one line of ours."""
    try:
        yield
    except CircuitsError:
        raise
    except ImportError as error:
        raise MissingExtra(f"reading this model ({first_line(error)})", "discover") from error
    except Exception as error:
        raise BadInput(f"{what}: {first_line(error)}{hint}") from error


@contextlib.contextmanager
def wrapped_plainly(name: str) -> Iterator[None]:
    """Refuse by name a model that TransformerLens fails to wrap, whatever it says of it."""
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
    """Silence advice and progress bars of the libraries below; errors are raised all the same."""
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
