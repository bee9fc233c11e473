"""Language models as TransformerLens bridges: load, describe, and refuse early.

:func:`load` reads any causal language model of transformers and wraps it in a
``TransformerBridge`` with its weights as they are (nothing folded or centred) and eager attention,
without which attention patterns have no hooks and Gemma's soft-capping is lost.

``TransformerBridge.boot_transformers`` is not used: it insists on a tokenizer, and puts one in its
place that prepends a BOS token whether or not the model's own does. Here ``bridge.tokenizer`` is
the model's own, so ``bridge.tokenizer(text)`` and ``bridge.to_tokens(text)`` follow its habit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.model_names import locate, resolve
from ingest.openings import opening_of
from registry.errors import BadInput, MissingExtra
from registry.records import Model

try:
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
    from transformers.core_model_loading import build_glob_alternation

    from ingest.model_proof import all_logits, require_same_logits
    from ingest.model_reading import (
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
_ORIGIN = "circuits_origin"
"""Attribute of a bridge that holds its :class:`_Origin`."""


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
    device_map: DeviceMap | None = None,
    check: Callable[[Path], None] | None = None,
) -> TransformerBridge:
    """Load a causal language model, wrapped but otherwise as it is.

    Args:
        name_or_path: A model built in or its alias, a folder that ``save_pretrained`` wrote (with
            or without tokenizer), a ``.gguf`` file, or a name on the hub, where ``@revision`` may
            follow.
        device: Such as ``cpu``, ``cuda:1``, ``mps``. CUDA where there is one, else the CPU.
        dtype: Floating-point type of the weights. ``float32``, whatever the checkpoint holds.
        revision: A branch, tag or commit on the hub.
        device_map: How transformers is to spread the weights over devices, in ``device``'s place:
            ``auto`` fills several GPUs in turn, a device's name or a dictionary from modules to
            devices says it all. Needs accelerate; every weight must find room on some device.
        check: Is given the model's folder before its weights are read or downloaded; raises to
            refuse the model.

    Returns:
        A bridge in evaluation mode. Its ``tokenizer`` is None where the checkpoint has none.

    Raises:
        NotFound: No such path; not on the hub, or the hub cannot be reached; or the package that
            brings a built-in model is missing.
        BadInput: The name, device or dtype is wrong, or the checkpoint is broken or incomplete.
        UnsupportedModel: As for :func:`wrap`.
        MissingExtra: Reading it needs a package of the extra ``discover``.
    """
    place = locate(name_or_path, revision)
    wanted = _dtype(dtype)
    if device is not None and device_map is not None:
        raise BadInput("device and device_map contradict each other; give one of them")
    with quiet():
        target = _device(device) if device_map is None else None
        checkpoint = read(place, wanted, device_map, check)
        return wrap(
            checkpoint.model,
            tokenizer=checkpoint.tokenizer,
            slug=place.slug,
            source=place.source,
            revision=checkpoint.revision,
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
        UnsupportedModel: Not a causal language model; TransformerLens has no adapter for it, or
            makes another model of it; or it cannot be run in this dtype.
        BadInput: The device or dtype is wrong, or too small for the model.
    """
    architecture = architecture_of(model.config, slug or type(model).__name__)
    origin = _Origin(
        slug=slug,
        source=source,
        revision=revision,
        weights_sha256=weights_hash(model),
        prepends_bos=_prepends_bos(tokenizer, model.config),
    )
    model.eval()
    name = architecture if slug is None else f"{slug} ({architecture})"
    with said_plainly(f"the model {name} cannot be prepared"):
        model.set_attn_implementation("eager")
        if dtype is not None:
            _cast(model, _dtype(dtype))
        if device is not None:
            model.to(_device(device))
        if model.dtype == torch.float64 and model._can_set_experts_implementation():
            model.set_experts_implementation("eager")  # the grouped product has no float64
    before = all_logits(model, name)
    with wrapped_plainly(name):
        bridge = build_bridge_from_module(
            model, architecture, hf_config=model.config, model_name=slug or architecture
        )
    require_same_logits(name, before, all_logits(bridge, name))
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
    data = values.contiguous().reshape(-1).view(torch.uint8).numpy().data
    shape = "x".join(str(size) for size in values.shape)
    dtype = str(values.dtype).removeprefix("torch.")
    return f"{name} {shape} {dtype} {hashlib.sha256(data).hexdigest()}\n"


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
    """Cast parameters alone: rotary frequencies and masks are buffers that must stay exact.

    What transformers keeps in float32 when it loads in this dtype stays so: routers of mixtures of
    experts decide otherwise where they are rounded.
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
