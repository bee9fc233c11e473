"""The site in a model that a component of pyvene refers to.

A component is a word (``block_output``) together with a layer, or the path of a module with its
side (``model.layers[15].mlp.output``). A component without a site here is refused by its name: a
subspace at a wrong site would be worse than none.
"""

from __future__ import annotations

import re

from registry.errors import BadInput

__all__ = ["site_of"]

_PATH = re.compile(
    r"(?:\w{1,64}\.){0,8}(?:h|layers|blocks)(?:\[|\.)(?P<layer>\d{1,9})\]?"
    r"(?:\.(?P<module>[\w.]{1,64}))?\.(?P<side>input|output)",
    re.ASCII,
)
_ATTENTION = frozenset({"attn", "self_attn", "attention"})
_WRITERS = {
    "mlp.down_proj": "mlp", "mlp.c_proj": "mlp", "mlp.dense_4h_to_h": "mlp", "mlp.fc_out": "mlp",
    "attn.c_proj": "attention", "attn.out_proj": "attention", "attention.dense": "attention",
    "self_attn.o_proj": "attention",
}  # fmt: skip
_ACTIVATIONS = frozenset({"mlp.act", "mlp.act_fn"})
_GATED = (
    "llama", "gemma", "mistral", "mixtral", "qwen", "olmo", "phi-3", "phi3", "smollm", "deepseek",
)  # fmt: skip
_REFUSED = {
    "mlp_input": "the input of an MLP after its norm",
    "attention_input": "the input of attention after its norm",
    "attention_value_output": "the values of all heads of a layer at once",
    "query_output": "the queries of all heads of a layer at once",
    "key_output": "the keys of all heads of a layer at once",
    "value_output": "the values of all heads of a layer at once",
    "attention_weight": "the pattern of attention",
}


def site_of(component: str, layer: int, about: str, where: str) -> str:
    """Return the site of a component, such as ``l8.resid_post``.

    Args:
        component: Pyvene's name.
        layer: Layer of the block, counted from 0; a module's path has its own layer.
        about: Text that names the model, to know whether its MLPs are gated.
        where: The intervention and its file, for errors.

    Raises:
        BadInput: It has no site.
    """
    named = component
    if found := _PATH.fullmatch(component):
        layer, named = int(found["layer"]), _word(found["module"], found["side"])
    match named:
        case "block_output":
            return f"l{layer}.resid_post"
        case "block_input":
            return f"l{layer - 1}.resid_post" if layer else "l0.resid_pre"
        case "mlp_output":
            return f"m{layer}"
        case "attention_output":
            return f"l{layer}.attn_out"
        case "mlp_hidden":
            return f"m{layer}.hidden"
        case "mlp_activation":
            if not any(family in about.lower() for family in _GATED):
                return f"m{layer}.hidden"
    raise BadInput(f"{where}: {_why_not(component, named)}")


def _word(module: str | None, side: str) -> str:
    """Return the word for one side of a module, or its path if there is no word."""
    if module is None:
        return f"block_{side}"
    if module in _WRITERS and side == "output":
        return f"{_WRITERS[module]}_output"
    if module in _WRITERS:
        return "mlp_hidden" if _WRITERS[module] == "mlp" else "attention_value_output"
    if module in _ACTIVATIONS and side == "output":
        return "mlp_activation"
    if module == "mlp":
        return f"mlp_{side}"
    return f"attention_{side}" if module in _ATTENTION else f"{module}.{side}"


def _why_not(component: str, named: str) -> str:
    shown = component[:80]
    if named == "mlp_activation":
        return (
            f"{shown!r} in a gated MLP is only the gate, not the input of the MLP's output matrix;"
            " it has no site here"
        )
    if named.startswith("head_"):
        return (
            f"{shown!r} belongs to one head, and pyvene does not record which: the head is chosen"
            " when the intervention runs"
        )
    if named in _REFUSED:
        return f"{shown!r} ({_REFUSED[named]}) has no site here"
    return (
        f"no site here for {shown!r}; known are block_input, block_output, mlp_output,"
        " mlp_activation and attention_output, or the paths of these modules"
    )
