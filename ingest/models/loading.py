"""Language models as TransformerLens bridges: load, describe, and refuse early.

:func:`load` reads any causal language model of transformers and wraps it in a
``TransformerBridge``. Its weights are unchanged (not folded or centred), and its attention is
eager; without this, attention patterns have no hooks and Gemma's soft-capping is lost.

``TransformerBridge.boot_transformers`` is not used: it requires a tokenizer, and replaces it by one
that prepends a BOS token even if the model's own does not. Here ``bridge.tokenizer`` is the model's
own, so ``bridge.tokenizer(text)`` and ``bridge.to_tokens(text)`` prepend BOS only if it does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.models.names import DTYPES, locate, resolve
from ingest.tokens.openings import around_of, opening_of
from registry.errors import BadInput, IncompatibleModel, MissingExtra
from registry.models.known_models import unlike_common
from registry.records import Model

try:
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
    from transformers.core_model_loading import build_glob_alternation

    from ingest.discovery.model.weights import hash_of_tensors, weights_sha256
    from ingest.models.proof import (
        all_logits,
        not_finite,
        require_finite,
        require_finite_logits,
        require_one_attention,
        require_running,
        require_same_logits,
    )
    from ingest.models.reading import (
        DeviceMap,
        architecture_of,
        quiet,
        read,
        said_plainly,
        wrapped_plainly,
    )
except ModuleNotFoundError as error:
    raise MissingExtra("loading models", "discover") from error

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "authors_code",
    "default_bos",
    "describe",
    "load",
    "resolve",
    "unused_weights",
    "weights_hash",
    "wrap",
]

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
_ORIGIN = "circuits_origin"
"""Attribute of a bridge that holds its :class:`_Origin`."""
_HASHING_THREADS = 4
_SWITCH_SECONDS = 5e-5
_UNUSED = "circuits_unused_weights"
"""Attribute of a loaded bridge: the result of :func:`unused_weights`."""


@dataclass(frozen=True)
class _Origin:
    """Facts about a bridge's weights and tokenizer that are known only before wrapping."""

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
    device_map: DeviceMap | None = None,
    check: Callable[[Path], None] | None = None,
) -> TransformerBridge:
    """Load a causal language model and wrap it, otherwise unchanged.

    Args:
        name_or_path: A built-in model or its alias, a folder of ``save_pretrained`` (with or
            without tokenizer), a ``.gguf`` file, or a name on the hub, optionally with
            ``@revision``.
        device: Such as ``cpu``, ``cuda:1``, ``mps``. By default CUDA if available, else the CPU.
        dtype: Floating-point type of the weights. By default ``float32``, for any checkpoint.
        revision: A branch, tag or commit on the hub.
        device_map: How transformers distributes the weights over devices, instead of ``device``:
            ``auto`` fills several GPUs in turn; a device's name or a dictionary from modules to
            devices defines it completely. Needs accelerate; every weight must fit on some device.
        check: Receives the model's folder before its weights are read or downloaded; raises to
            refuse the model.

    Returns:
        A bridge in evaluation mode. Its ``tokenizer`` is None if the checkpoint has none.

    Raises:
        NotFound: The path does not exist; the model is not on the hub, or the hub cannot be
            reached; or the package of a built-in model is missing.
        BadInput: The name, device or dtype is wrong, or the checkpoint is broken, incomplete, or
            belongs to another model than its config.json.
        UnsupportedModel: See :func:`wrap`.
        MissingExtra: Reading it needs a package of the extra ``discover``.
    """
    place = locate(name_or_path, revision)
    wanted = _dtype(dtype)
    if device is not None and device_map is not None:
        raise BadInput("device and device_map contradict each other; give one of them")
    with quiet():
        target = _device(device) if device_map is None else None
        checkpoint = read(place, wanted, device_map, check)
        bridge = wrap(
            checkpoint.model,
            tokenizer=checkpoint.tokenizer,
            slug=place.slug,
            source=place.source,
            revision=checkpoint.revision,
            device=target,
            dtype=wanted,
        )
    setattr(bridge, _UNUSED, checkpoint.unused)
    return bridge


def unused_weights(bridge: TransformerBridge) -> tuple[str, ...]:
    """Return the weights in a loaded model's files of parts that it does not have.

    For example, the head of a classifier: such weights do not change its computations on a text. A
    model that omits weights of its own parts is refused when it is loaded.
    """
    found: tuple[str, ...] = getattr(bridge, _UNUSED, ())
    return found


def authors_code(bridge: TransformerBridge) -> str | None:
    """The class of its authors' own code that a model's config.json names, if any.

    Such code (``auto_map``) is never run: the model is the class of transformers for its
    ``model_type``, which may compute something else.
    """
    named = getattr(bridge.original_model.config, "auto_map", None)
    if not isinstance(named, dict):
        return None
    found = named.get("AutoModelForCausalLM") or named.get("AutoModel")
    return str(found) if found else None


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

    The model is changed in place: it is switched to evaluation and eager attention, configured to
    return only logits, moved and cast if requested, and its parts are replaced by bridges. Its
    identity (``slug``, ``source``, ``revision``) is returned by :func:`describe`.

    Raises:
        UnsupportedModel: It is not a causal language model; TransformerLens has no adapter for it,
            or changes its computations; its eager attention differs; it cannot be run in this
            dtype, or a weight is not finite.
        BadInput: The device or dtype is wrong, or too small for the model.
    """
    architecture = architecture_of(model.config, slug or type(model).__name__, type(model))
    wanted = None if dtype is None else _dtype(dtype)
    with _halved_cores() as n_threads, ThreadPoolExecutor(max_workers=1) as beside:
        # Hashing does not need the interpreter's lock and takes longer than comparing logits.
        looked = beside.submit(_hash_and_fault, _tensors(model), n_threads)
        if wanted not in (None, model.dtype):
            looked.result()  # so that cast weights are not held twice
        bridge = _wrapped(model, architecture, slug, wanted, device)
        weights_sha256, fault = looked.result()
        require_finite(_full_name(architecture, slug), fault)
        origin = _Origin(
            slug=slug,
            source=source,
            revision=revision,
            weights_sha256=weights_sha256,
            prepends_bos=_prepends_bos(tokenizer, model.config),
        )
    if tokenizer is not None:
        _give_tokenizer(bridge, tokenizer)
    bridge.cfg.default_prepend_bos = origin.prepends_bos
    setattr(bridge, _ORIGIN, origin)
    return bridge


@contextmanager
def _halved_cores() -> Iterator[int]:
    """Leave torch half of its threads; yield the number of threads for hashing.

    A hashing thread requests the interpreter's lock after each weight, and would wait for it longer
    than it hashes: by default Python releases it after 5 ms.
    """
    n_threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(max(1, n_threads // 2))
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield max(1, min(_HASHING_THREADS, n_threads // 2))
    finally:
        sys.setswitchinterval(interval)
        torch.set_num_threads(n_threads)


def _wrapped(
    model: PreTrainedModel,
    architecture: str,
    slug: str | None,
    dtype: torch.dtype | None,
    device: str | torch.device | None,
) -> TransformerBridge:
    """Make a bridge around a model that still is the same model."""
    name = _full_name(architecture, slug)
    model.eval()
    _give_logits_alone(model.config)
    with said_plainly(f"the model {name} cannot be prepared"):
        model.set_attn_implementation("eager")
        if dtype is not None:
            _cast(model, dtype)
        if dtype is torch.float16:  # the only dtype without large values
            require_finite(name, not_finite(model.named_parameters()))
        if device is not None:
            model.to(_device(device))
        if model.dtype == torch.float64 and model._can_set_experts_implementation():
            model.set_experts_implementation("eager")  # the grouped product has no float64
    require_one_attention(name, model)
    before = all_logits(model, name)
    require_finite_logits(name, model, before)
    with wrapped_plainly(name):
        bridge = build_bridge_from_module(
            model, architecture, hf_config=model.config, model_name=slug or architecture
        )
    require_same_logits(name, before, all_logits(bridge, name))
    if torch.finfo(model.dtype).bits < torch.finfo(torch.float32).bits:
        require_running(bridge, name)  # what is compared is computed in float32
    return bridge


def _full_name(architecture: str, slug: str | None) -> str:
    return architecture if slug is None else f"{slug} ({architecture})"


def describe(
    bridge: TransformerBridge, *, slug: str | None = None, source: str | None = None
) -> Model:
    """Return the record of a bridge's model.

    ``weights_sha256`` is the result of :func:`weights_hash` when the model was loaded; None for a
    bridge that neither :func:`load` nor :func:`wrap` made. Heads are None if there is no attention.

    Args:
        bridge: The model.
        slug: The name to store it under; by default the name under which it was loaded.
        source: Its origin; by default the place from which it was loaded.

    Raises:
        BadInput: No slug is given and none is known.
        IncompatibleModel: No slug is given, and the one it was loaded under is that of a common
            model of another shape.
    """
    origin: _Origin | None = getattr(bridge, _ORIGIN, None)
    given, slug = slug, slug or (origin.slug if origin else None)
    if not slug:
        raise BadInput("this model has no name: give describe() a slug, such as 'my-gpt2'")
    cfg = bridge.cfg
    has_heads = any(hasattr(block, "attn") for block in bridge.blocks)
    model = Model(
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
    unlike = None if given else unlike_common(model)
    if unlike is not None:
        raise IncompatibleModel(
            f"this model has {unlike}: it cannot be recorded under that name; rename its folder or"
            " file, whose name circuits are stored under, or give --revision for one on the hub"
        )
    return model


def default_bos(bridge: TransformerBridge) -> bool:
    """Return whether the model's tokenizer puts a BOS token before every text.

    Its own tokenizer decides: whether ``tokenizer(text)`` begins with BOS. (It does for Gemma and
    Llama 3, and does not for GPT-2 and SmolLM2, although all four have a BOS token.) Without a
    tokenizer: True for Gemma, which needs BOS to work, else False.

    For a bridge that :func:`load` or :func:`wrap` did not make, the current tokenizer decides; the
    tokenizer of ``boot_transformers`` always prepends.
    """
    origin: _Origin | None = getattr(bridge, _ORIGIN, None)
    if origin:
        return origin.prepends_bos
    return _prepends_bos(bridge.tokenizer, bridge.original_model.config)


def weights_hash(model: PreTrainedModel | TransformerBridge) -> str:
    """Return a SHA-256 of a model's parameters that does not depend on how they are stored.

    The hash of the sorted lines ``name shape dtype sha256-of-bytes``, one per parameter, tied
    parameters once; names as in transformers. Half-precision values are widened to float32 first,
    which is exact: a bfloat16 checkpoint has the same hash, loaded as bfloat16 or as float32.
    """
    return weights_sha256(model)


def _tensors(model: PreTrainedModel) -> list[tuple[str, torch.Tensor]]:
    """Return a model's parameters by name, as they are now, independent of later changes."""
    return [(name, parameter.detach()) for name, parameter in model.named_parameters()]


def _hash_and_fault(
    tensors: list[tuple[str, torch.Tensor]], n_threads: int
) -> tuple[str, str | None]:
    """Return the hash, and the first weight with a value that is not finite."""
    return hash_of_tensors(tensors, n_threads), not_finite(tensors)


def _dtype(given: str | torch.dtype | None) -> torch.dtype:
    if given is None:
        return torch.float32
    name = str(given).removeprefix("torch.").casefold()
    if name not in _DTYPES:
        raise BadInput(f"{str(given)!r} is not a dtype for weights: {DTYPES}")
    return _DTYPES[name]


def _device(given: str | torch.device | None) -> torch.device:
    if given is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    present = ["cpu"]
    present += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    present += ["mps"] if torch.backends.mps.is_available() else []
    try:
        device = torch.device(given)
        torch.zeros(1, device=device).item()  # the device must compute, unlike "meta"
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BadInput(f"no device {str(given)!r} here, only {', '.join(present)}") from error
    return device


def _give_logits_alone(config: PretrainedConfig) -> None:
    """Turn off options that do not change logits, except the form in which a model returns them."""
    config.return_dict = True
    config.output_attentions = False
    config.output_hidden_states = False


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast only parameters: rotary frequencies and masks are buffers that must stay exact.

    Weights that transformers keeps in float32 in this dtype are not cast: routers of mixtures of
    experts make other decisions if they are rounded.
    """
    plan = model._get_dtype_plan(dtype)
    pattern = build_glob_alternation(list(plan))[0] if plan else None
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            kept = pattern is not None and pattern.search(name) is not None
            parameter.data = parameter.data.to(torch.float32 if kept else dtype)
    model.config.dtype = dtype


def _prepends_bos(tokenizer: PreTrainedTokenizerBase | None, config: PretrainedConfig) -> bool:
    if tokenizer is None:
        return str(config.model_type).startswith("gemma")
    if tokenizer.bos_token_id is None:
        return False
    return opening_of(tokenizer)[:1] == (tokenizer.bos_token_id,)


def _give_tokenizer(bridge: TransformerBridge, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a bridge use a tokenizer unchanged; its own method would load another one with BOS."""
    if tokenizer.pad_token is None:  # to_tokens() pads, but here texts have equal length
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    side = getattr(bridge.cfg, "default_padding_side", None)
    tokenizer.padding_side = side or tokenizer.padding_side or "right"
    bridge.tokenizer = tokenizer
    bridge._driver.tokenizer = tokenizer
    after = around_of(tokenizer).after
    bridge.cfg.tokenizer_prepends_bos = _prepends_bos(tokenizer, bridge.original_model.config)
    bridge.cfg.tokenizer_appends_eos = bool(after) and after[-1] == tokenizer.eos_token_id
