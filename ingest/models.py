"""Language models as TransformerLens bridges: load, describe, and refuse early.

:func:`load` reads any causal language model of transformers and wraps it in a
``TransformerBridge`` with its weights as they are (nothing folded or centred) and eager attention,
without which attention patterns have no hooks and Gemma's soft-capping is lost.

``TransformerBridge.boot_transformers`` is not used: it insists on a tokenizer, and puts one in its
place that prepends a BOS token whether or not the model's own does. Here ``bridge.tokenizer`` is
the model's own, so ``bridge.tokenizer(text)`` and ``bridge.to_tokens(text)`` follow its habit.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.model_cache import kept_folder, read_gguf
from ingest.model_names import Place, PlaceKind, find_built_in, locate, resolve, what_works
from registry.errors import BadInput, CircuitsError, MissingExtra, NotFound, UnsupportedModel
from registry.records import Model

try:
    import huggingface_hub
    import torch
    import transformers
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources._bridge_builder import (
        build_bridge_config_from_hf,
        build_bridge_from_module,
    )
    from transformer_lens.model_bridge.sources._hf_format import (
        determine_architecture_from_hf_config,
    )
except ModuleNotFoundError as error:
    raise MissingExtra("loading models", "discover") from error

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["default_bos", "describe", "load", "resolve", "weights_hash", "wrap"]

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "half": torch.float16,
    "float64": torch.float64,
    "double": torch.float64,
}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)
_HUB_SECONDS = 5.0
_ORIGIN = "circuits_origin"
"""Attribute of a bridge that holds its :class:`_Origin`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Origin:
    """What is known of a bridge's weights and tokenizer only before they are wrapped."""

    slug: str | None
    source: str | None
    revision: str | None
    weights_sha256: str
    prepends_bos: bool


def load(
    name_or_path: str,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
) -> TransformerBridge:
    """Load a causal language model, wrapped but otherwise as it is.

    Args:
        name_or_path: A model built in or its alias, a folder that ``save_pretrained`` wrote (with
            or without tokenizer), a ``.gguf`` file, or a name on the hub, where ``@revision`` may
            follow.
        device: Such as ``cpu``, ``cuda:1``, ``mps``. CUDA where there is one, else the CPU.
        dtype: Floating-point type of the weights. ``float32``, whatever the checkpoint holds.
        revision: A branch, tag or commit on the hub.

    Returns:
        A bridge in evaluation mode. Its ``tokenizer`` is None where the checkpoint has none.

    Raises:
        NotFound: No such path; not on the hub, or the hub cannot be reached; or the package that
            brings a built-in model is missing.
        BadInput: The name, device or dtype is wrong, or the checkpoint is broken or incomplete.
        UnsupportedModel: Not a causal language model, or TransformerLens has no adapter for it.
        MissingExtra: Reading it needs a package of the extra ``discover``.
    """
    place = locate(name_or_path, revision)
    wanted = _dtype(dtype)
    target = _device(device)
    with _quiet():
        model, tokenizer = _read(place, wanted)
        return wrap(
            model,
            tokenizer=tokenizer,
            slug=place.slug,
            source=place.source,
            revision=getattr(model.config, "_commit_hash", None) or place.revision,
            device=target,
            dtype=wanted,
        )


def wrap(
    model: PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    slug: str | None = None,
    source: str | None = None,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> TransformerBridge:
    """Wrap a model of transformers that is in memory, as :func:`load` does.

    The model is changed in place: switched to evaluation and eager attention, moved and cast where
    asked for, its parts replaced by bridges. What it is said to be (``slug``, ``source``,
    ``revision``) comes back from :func:`describe`.

    Raises:
        UnsupportedModel: Not a causal language model, or TransformerLens has no adapter for it.
        BadInput: The device or dtype is wrong, or too small for the model.
    """
    architecture = _architecture(model.config, slug or type(model).__name__)
    origin = _Origin(
        slug=slug,
        source=source,
        revision=revision,
        weights_sha256=weights_hash(model),
        prepends_bos=_prepends_bos(tokenizer, model.config),
    )
    model.eval()
    with _said_plainly(f"the model {slug or architecture} cannot be prepared"):
        model.set_attn_implementation("eager")
        if dtype is not None:
            _cast(model, _dtype(dtype))
        if device is not None:
            model.to(_device(device))
        bridge = build_bridge_from_module(
            model, architecture, hf_config=model.config, model_name=slug or architecture
        )
    if tokenizer is not None:
        _give_tokenizer(bridge, tokenizer)
    bridge.cfg.default_prepend_bos = origin.prepends_bos
    setattr(bridge, _ORIGIN, origin)
    return bridge


def describe(
    bridge: TransformerBridge, *, slug: str | None = None, source: str | None = None
) -> Model:
    """Return the record of a bridge's model.

    ``weights_sha256`` is that of :func:`weights_hash` when the model was loaded; None for a
    bridge that neither :func:`load` nor :func:`wrap` made. Heads are None where there is no
    attention.

    Args:
        bridge: The model.
        slug: The name to store it under; by default the one it was loaded under.
        source: Where it came from; by default where it was loaded from.

    Raises:
        BadInput: No slug is given and none is known.
    """
    origin: _Origin | None = getattr(bridge, _ORIGIN, None)
    slug = slug or (origin.slug if origin else None)
    if not slug:
        raise BadInput("this model has no name: give describe() a slug, such as 'my-gpt2'")
    cfg = bridge.cfg
    has_heads = any(hasattr(block, "attn") for block in bridge.blocks)
    return Model(
        slug=slug,
        source=source or (origin.source if origin else None),
        revision=origin.revision if origin else None,
        weights_sha256=origin.weights_sha256 if origin else None,
        architecture=cfg.architecture,
        n_layers=cfg.n_layers,
        n_heads=cfg.n_heads if has_heads else None,
        n_kv_heads=(cfg.n_key_value_heads or cfg.n_heads) if has_heads else None,
        d_model=cfg.d_model,
        d_head=cfg.d_head if has_heads else None,
        d_mlp=cfg.d_mlp or None,
        d_vocab=cfg.d_vocab,
        parallel_attn_mlp=bool(cfg.parallel_attn_mlp),
    )


def default_bos(bridge: TransformerBridge) -> bool:
    """Say whether the model's family puts a BOS token before every text.

    Its own tokenizer tells: does ``tokenizer(text)`` begin with BOS? (Gemma and Llama 3 do, GPT-2
    and SmolLM2 do not, though all four have one.) Without a tokenizer: True for Gemma, which is
    useless without BOS, else False.

    For a bridge that :func:`load` or :func:`wrap` did not make, the tokenizer is judged as it is
    now; the one that ``boot_transformers`` puts in place always prepends.
    """
    origin: _Origin | None = getattr(bridge, _ORIGIN, None)
    if origin:
        return origin.prepends_bos
    return _prepends_bos(bridge.tokenizer, bridge.original_model.config)


def weights_hash(model: PreTrainedModel) -> str:
    """Return a SHA-256 of a model's parameters that does not depend on how they are stored.

    The hash of the sorted lines ``name shape dtype sha256-of-bytes``, one per parameter, tied
    ones once; names as transformers has them. Half-precision values are widened to float32 first,
    which is exact: a bfloat16 checkpoint has one hash, loaded as bfloat16 or as float32.
    """
    parameters = sorted(model.named_parameters(), key=lambda pair: pair[0])
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing releases the interpreter's lock
        lines = pool.map(lambda pair: _line(*pair), parameters)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _line(name: str, parameter: torch.Tensor) -> str:
    values = parameter.detach().to("cpu")
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.to(torch.float32)
    # Bytes, as numpy has no name for some of torch's types.
    data = values.contiguous().reshape(-1).view(torch.uint8).numpy()
    shape = "x".join(str(size) for size in values.shape)
    dtype = str(values.dtype).removeprefix("torch.")
    return f"{name} {shape} {dtype} {hashlib.sha256(data).hexdigest()}\n"


def _read(
    place: Place, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    if place.kind is PlaceKind.GGUF:
        file = Path(place.source)
        with _said_plainly(f"GGUF file {place.source!r} cannot be read"):
            return read_gguf(file)
    if place.kind is PlaceKind.HUB:
        return _read_hub(place, dtype)
    folder = place.source
    built_in = find_built_in(place.source) if place.kind is PlaceKind.BUILT_IN else None
    hint = ""
    if built_in:
        with _said_plainly(f"the model {place.slug} cannot be read"):
            folder = str(kept_folder(built_in))
        hint = "; remove that folder to have it made anew"
    with _said_plainly(f"the model in {folder!r} cannot be read", hint):
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
        with _said_plainly(f"the model {place} cannot be read from the hub"):
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
    architecture = _architecture(config, str(place))
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


def _architecture(config: PretrainedConfig, name: str) -> str:
    """Return the architecture's name if it is a causal language model with an adapter."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

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


def _dtype(given: str | torch.dtype | None) -> torch.dtype:
    if given is None:
        return torch.float32
    name = str(given).removeprefix("torch.").casefold()
    if name not in _DTYPES:
        raise BadInput(
            f"{str(given)!r} is not a dtype for weights: float32, bfloat16, float16 or float64"
        )
    return _DTYPES[name]


def _device(given: str | torch.device | None) -> torch.device:
    if given is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    present = ["cpu"]
    present += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    present += ["mps"] if torch.backends.mps.is_available() else []
    try:
        device = torch.device(given)
        torch.zeros(1, device=device).item()  # a device that computes, which "meta" does not
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BadInput(f"no device {str(given)!r} here; there is {', '.join(present)}") from error
    return device


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast parameters alone: rotary frequencies and masks are buffers that must stay exact."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype


def _prepends_bos(tokenizer: PreTrainedTokenizerBase | None, config: PretrainedConfig) -> bool:
    if tokenizer is None:
        return str(config.model_type).startswith("gemma")
    if tokenizer.bos_token_id is None:
        return False
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    return bool(len(full) > len(bare) and full[0] == tokenizer.bos_token_id)


def _give_tokenizer(bridge: TransformerBridge, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a bridge use a tokenizer as it is; its own wiring would load another with BOS."""
    if tokenizer.pad_token is None:  # to_tokens() pads, though here texts are of equal length
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    side = getattr(bridge.cfg, "default_padding_side", None)
    tokenizer.padding_side = side or tokenizer.padding_side or "right"
    bridge.tokenizer = tokenizer
    bridge._driver.tokenizer = tokenizer
    ids = tokenizer("a")["input_ids"]
    bridge.cfg.tokenizer_prepends_bos = _prepends_bos(tokenizer, bridge.original_model.config)
    bridge.cfg.tokenizer_appends_eos = len(ids) > 1 and ids[-1] == tokenizer.eos_token_id


@contextlib.contextmanager
def _said_plainly(what: str, hint: str = "") -> Iterator[None]:
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
def _quiet() -> Iterator[None]:
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
