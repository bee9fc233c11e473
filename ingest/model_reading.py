"""Reading a model of transformers from a folder, a GGUF file or the hub.

What is no causal language model is refused from its configuration, before its weights are read.
Whatever the libraries below say of a broken checkpoint becomes one line.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import torch
import transformers
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf
from transformer_lens.model_bridge.sources._hf_format import determine_architecture_from_hf_config
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ingest.model_cache import kept_folder, read_gguf
from ingest.model_names import Place, PlaceKind, find_built_in, what_works
from registry.errors import BadInput, CircuitsError, MissingExtra, NotFound, UnsupportedModel

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["architecture_of", "quiet", "read", "said_plainly"]

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)
_HUB_SECONDS = 5.0

_log = logging.getLogger(__name__)


def read(
    place: Place, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Read a model's weights and, where it has one, its tokenizer.

    Weights come in ``dtype`` where that is float32, else in the checkpoint's own type: rounding
    them is left to the caller, who hashes them first.

    Raises:
        NotFound: The hub has no such model or cannot be reached; a package is missing.
        BadInput: The checkpoint is broken or lacks weights.
        UnsupportedModel: Not a causal language model, or TransformerLens has no adapter for it.
        MissingExtra: Reading it needs a package of the extra ``discover``.
    """
    if place.kind is PlaceKind.GGUF:
        file = Path(place.source)
        with said_plainly(f"GGUF file {place.source!r} cannot be read"):
            return read_gguf(file)
    if place.kind is PlaceKind.HUB:
        return _read_hub(place, dtype)
    folder = place.source
    built_in = find_built_in(place.source) if place.kind is PlaceKind.BUILT_IN else None
    hint = ""
    if built_in:
        with said_plainly(f"the model {place.slug} cannot be read"):
            folder = str(kept_folder(built_in))
        hint = "; remove that folder to have it made anew"
    with said_plainly(f"the model in {folder!r} cannot be read", hint):
        has_tokenizer = any((Path(folder) / name).is_file() for name in _TOKENIZER_FILES)
        where = {"pretrained_model_name_or_path": folder, "local_files_only": True}
        model = _read_model(place, where, dtype)
        return model, (_read_tokenizer(where) if has_tokenizer else None)


def _read_hub(
    place: Place, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    reachable = _hub_answers()
    where = {
        "pretrained_model_name_or_path": place.source,
        "revision": place.revision or "main",
        "local_files_only": not reachable,
    }
    try:
        with said_plainly(f"the model {place} cannot be read from the hub"):
            model = _read_model(place, where, dtype)
    except BadInput as error:
        raise _hub_error(place, error, reachable) from error
    try:
        tokenizer = _read_tokenizer(where)
    except (OSError, ValueError):  # what transformers raises where a repository has none
        _log.warning("%s has no tokenizer that can be read: token ids only", place)
        tokenizer = None
    return model, tokenizer


def _read_model(place: Place, where: dict[str, Any], dtype: torch.dtype) -> PreTrainedModel:
    """Read configuration, then weights, so that an unfit model is refused before they are read."""
    config = transformers.AutoConfig.from_pretrained(**where, trust_remote_code=False)
    architecture = architecture_of(config, str(place))
    # Halves are cast after hashing, so that the hash is the checkpoint's; see weights_hash.
    half = dtype in (torch.float16, torch.bfloat16)
    options: dict[str, Any] = {
        "config": config,
        "dtype": "auto" if half else torch.float32,
        "attn_implementation": "eager",
        "trust_remote_code": False,
        "output_loading_info": True,
    }
    adapter = ArchitectureAdapterFactory.select_architecture_adapter(
        build_bridge_config_from_hf(config, architecture, str(place), torch.float32)
    )
    adapter.prepare_loading(where["pretrained_model_name_or_path"], options)
    model, found = transformers.AutoModelForCausalLM.from_pretrained(**where, **options)
    missing = sorted(found["missing_keys"])
    if missing:  # transformers would fill them with random numbers and only warn
        raise BadInput(
            f"the model {place} lacks {len(missing)} of its weights, such as {missing[0]!r}"
        )
    return model


def _read_tokenizer(where: dict[str, Any]) -> PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(**where, trust_remote_code=False)


def _hub_answers() -> bool:
    """Say whether the hub can be reached, as transformers would try for half a minute."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(huggingface_hub.constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_HUB_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # The hub's own client may trust other certificates than Python does.
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False


def _hub_error(place: Place, error: BadInput, reachable: bool) -> CircuitsError:
    """Turn what the hub's client said into an error that tells what to do."""
    errors = huggingface_hub.errors
    causes = list(_causes(error))
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        return BadInput(f"access to {place} must be asked for on the hub; then run 'hf auth login'")
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return NotFound("revision", place.revision or "main", f"{place.source} has others")
    if any(isinstance(cause, errors.LocalEntryNotFoundError) for cause in causes) or not reachable:
        why = "the hub cannot be reached and it was not downloaded before"
        return NotFound("model", str(place), f"{why}; {what_works(place.source)}")
    if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
        why = "it is not on the hub, or is private ('hf auth login')"
        return NotFound("model", str(place), f"{why}; {what_works(place.source)}")
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
        raise MissingExtra(f"reading this model ({_first_line(error)})", "discover") from error
    except Exception as error:
        raise BadInput(f"{what}: {_first_line(error)}{hint}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300].rstrip(" .:")


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
