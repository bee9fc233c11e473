"""Other tools' spellings of the parts of a model, converted to ours.

The same head is ``a9.h6``, ``A9.6``, ``<a9.6>``, ``L9H6``, ``head.9.6``, ``attn.9.head.6``,
``blocks.9.attn.hook_result[6]`` or, in tables that people write, ``L9.H6`` and ``l9h6``. Ports
follow as ``<q>``, ``.q``, ``_q`` or ``.Q``. A hook point's index may also name every axis (``[:, :,
6]``), be in double brackets (``[[:, :, 6]]``), or follow the name, as ACDC has it in Python. Norms
and the unembedding are also read by TransformerLens' names of their hook points and parameters
(``blocks.5.ln1.hook_normalized``, ``blocks.5.ln1.w``, ``unembed.W_U``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from registry.errors import BadIdentifier
from registry.identifiers import NORMS, Port, parse_local
from registry.texts.words import listed

__all__ = ["SPELLINGS", "Read", "notes_on_names", "read_exactly", "read_head", "read_name"]

Read = Callable[[str], tuple[str, Port | None]]
"""Reads the name of a part, and the port that it names."""
_N = r"(\d{1,9})"
_PORT = r"(?:(?:[._]|(?P<angle><))(?P<port>[qkvQKV])(?(angle)>))?"
_HEADS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"a(?P<layer>\d{{1,9}})\.h(?P<head>\d{{1,9}}){_PORT}",
        rf"[aA](?P<layer>\d{{1,9}})\.(?P<head>\d{{1,9}}){_PORT}",
        rf"[lL](?P<layer>\d{{1,9}})[._ ]?[hH](?P<head>\d{{1,9}}){_PORT}",
        rf"head\.(?P<layer>\d{{1,9}})\.(?P<head>\d{{1,9}}){_PORT}",
        rf"attn\.(?P<layer>\d{{1,9}})\.head\.(?P<head>\d{{1,9}}){_PORT}",
        rf"Head (?P<layer>\d{{1,9}})\.(?P<head>\d{{1,9}})(?:\.O|{_PORT})",
        r"blocks\.(?P<layer>\d{1,9})\.attn\.hook_(?:result|z)\[(?P<head>\d{1,9})\]",
        r"blocks\.(?P<layer>\d{1,9})\.attn\.hook_(?:result|z)\.(?P<head>\d{1,9})",
        r"blocks\.(?P<layer>\d{1,9})\.(?:attn\.)?hook_(?P<port>[qkv])(?:_input)?\[(?P<head>\d{1,9})\]",
    )
)
_ALL_OF_AN_AXIS = r"(?:(?:None|COL|:)\s*,\s*)*"
_HOOK_POINT = re.compile(
    r"\(?\s*['\"]?(?P<hook>(?:blocks\.\d{1,9}\.[a-z0-9_.]+|ln_final\.[a-z_]+|hook_[a-z_]+))['\"]?\s*,?\s*"
    rf"(?P<twice>\[\s*(?=\[))?[\[(]\s*{_ALL_OF_AN_AXIS}(?:(?P<head>\d{{1,9}})|None|COL|:)?\s*,?\s*"
    r"[\])](?(twice)\s*\])\s*\)?"
)
"""``blocks.9.attn.hook_result[6]``, ``("blocks.9.attn.hook_result", (None, None, 6))``,
``blocks.9.attn.hook_result[[:, :, 6]]``."""
_PAIR = re.compile(
    r"(?:(?P<round>\()|(?P<square>\[))?\s*(?P<layer>\d{1,9})\s*(?:,\s*|\.)(?P<head>\d{1,9})\s*"
    r"(?(round)\))(?(square)\])"
)
"""``9.6``, ``(9, 6)``: a head in a list that contains only heads."""
_MLP = re.compile(
    rf"(?:m|M|(?:mlp|MLP)[._ ]?){_N}|[lL]{_N}[._ ]?(?:mlp|MLP)"
    rf"|blocks\.{_N}\.(?:hook_mlp_(?:in|out)|mlp\.hook_out)"
)
_OF_A_NORM = r"(?:\.(?:hook_(?:scale|normalized)|[wb]))?"
_NORM = re.compile(
    rf"blocks\.{_N}\.(?:attn\.(?=[qk]_norm))?(?P<norm>{'|'.join(NORMS)}){_OF_A_NORM}"
    rf"|ln_final{_OF_A_NORM}"
)
_UNEMBED = re.compile(r"unembed\.[Wb]_U")
_INPUT = frozenset(
    {"input", "inputs", "embed", "embeds", "tok_embeds", "pos_embeds", "hook_embed"}
    | {"hook_pos_embed", "Resid Start", "pos_embed", "token_embeds", "blocks.0.hook_resid_pre"}
    | {"Embeddings", "Input", "Embed", "tok_embed"}
)
_LOGITS = re.compile(
    r"[lL]ogits|resid_post|Resid End|[oO]utput|[uU]nembed|blocks\.\d{1,9}\.hook_resid_post"
)

_NOTES_EACH = 10
_LONGEST = 1_000

SPELLINGS: dict[str, tuple[str, ...]] = {
    "a9.h6": ("a9.h6", "A9.6", "a9.6", "<a9.6>", "L9H6", "head.9.6", "attn.9.head.6",
              "Head 9.6", "Head 9.6.O", "L9.H6", "L9_H6", "L9 H6", "l9h6",
              "blocks.9.attn.hook_result[6]", "blocks.9.attn.hook_z[6]",
              "blocks.9.attn.hook_z.6", "blocks.9.attn.hook_result[[:, :, 6]]",
              "blocks.9.attn.hook_result[[None, None, 6]]",
              "blocks.9.attn.hook_result[:, :, 6]", "blocks.9.attn.hook_result[COL, COL, 6]",
              '("blocks.9.attn.hook_result", (None, None, 6))'),
    "a9.h6<k>": ("a9.h6<k>", "a9.h6.k", "<a9.6_k>", "A9.6.K", "head.9.6.k",
                 "L9H6<k>", "attn.9.head.6.k", "Head 9.6.K", "blocks.9.hook_k_input[6]",
                 "blocks.9.attn.hook_k[6]",
                 "blocks.9.hook_k_input[[:, :, 6]]", '("blocks.9.hook_k_input", (None, None, 6))'),
    "m3": ("m3", "<m3>", "MLP 3", "MLP3", "mlp.3", "mlp3", "mlp_3", "L3.MLP", "l3.mlp",
           "blocks.3.hook_mlp_out", "blocks.3.hook_mlp_in[:]", "blocks.3.hook_mlp_out[[:]]",
           '("blocks.3.hook_mlp_out", (None,))'),
    "input": ("input", "inputs", "embed", "<embed>", "embeds", "tok_embeds", "pos_embeds",
              "tok_embed", "token_embeds", "Embed", "Embeddings", "Input", "Resid Start",
              "hook_embed", "hook_pos_embed",
              "blocks.0.hook_resid_pre", "hook_embed[:]"),
    "logits": ("logits", "<logits>", "resid_post", "<resid_post>", "Resid End", "Output",
               "Logits", "output", "unembed", "Unembed",
               "blocks.11.hook_resid_post"),
    "l5.ln1": ("l5.ln1", "blocks.5.ln1", "blocks.5.ln1.hook_normalized", "blocks.5.ln1.hook_scale",
               "blocks.5.ln1.w", "blocks.5.ln1.b", "blocks.5.ln1.hook_normalized[:]"),
    "l5.ln2_post": ("l5.ln2_post", "blocks.5.ln2_post.w", "blocks.5.ln2_post.hook_normalized"),
    "l5.q_norm": ("l5.q_norm", "blocks.5.attn.q_norm.w", "blocks.5.attn.q_norm.hook_normalized"),
    "ln_final": ("ln_final", "ln_final.w", "ln_final.b", "ln_final.hook_normalized",
                 "ln_final.hook_scale", "ln_final.hook_normalized[:]"),
    "unembed": ("unembed.W_U", "unembed.b_U"),
}  # fmt: skip
"""Our spelling, and every spelling that is converted to it; the table of the documentation."""


@lru_cache(maxsize=65_536)
def read_name(text: str) -> tuple[str, Port | None]:
    """Read a part's name in any spelling: its local name, and the port it names.

    Raises:
        BadIdentifier: It is not a known spelling.
    """
    if len(text) > _LONGEST:  # patterns with backtracking take long on long texts
        raise BadIdentifier(text[:40] + "...", "a part's name: it is too long for one")
    bare = text.strip().strip('"')
    if bare.startswith("<") and bare.endswith(">"):
        bare = bare[1:-1]
    if "hook" in bare and (found := _HOOK_POINT.fullmatch(" ".join(bare.split()))):
        bare = found["hook"] + (f"[{found['head']}]" if found["head"] else "")
    for pattern in _HEADS:
        if found := pattern.fullmatch(bare):
            named = found.groupdict()
            port = named.get("port")
            local = f"a{int(named['layer'])}.h{int(named['head'])}"
            return str(parse_local(local)), _as_port(port)
    if found := _MLP.fullmatch(bare):
        return f"m{int(found[found.lastindex or 1])}", None
    if found := _NORM.fullmatch(bare):
        return (f"l{int(found[1])}.{found['norm']}" if found["norm"] else "ln_final"), None
    if _UNEMBED.fullmatch(bare):
        return "unembed", None
    if bare in _INPUT:
        return "input", None
    if _LOGITS.fullmatch(bare):
        return "logits", None
    try:
        return str(parse_local(bare)), None
    except BadIdentifier:
        raise BadIdentifier(
            text, "a part of a model in a known spelling, such as a9.h6, <a9.6>, L9H6 or mlp.3"
        ) from None


def read_head(text: str) -> str | None:
    """Return the head of a layer and a number, as in ``9.6``, ``9, 6``, ``(9, 6)`` or ``[9, 6]``.

    Returns:
        None if the text has none of these forms. They name a part only in a list of heads.
    """
    found = _PAIR.fullmatch(text.strip()) if len(text) < _LONGEST else None
    return f"a{int(found['layer'])}.h{int(found['head'])}" if found else None


def read_exactly(text: str) -> tuple[str, Port | None]:
    """Read a part's name only in our own spelling, as our own files have it.

    Raises:
        BadIdentifier: The grammar has no such name.
    """
    return str(parse_local(text)), None


def notes_on_names(read_as: Mapping[str, str]) -> list[str]:
    """Return notes on names that were converted, one note each or, if many, all in one."""
    others = {theirs: ours for theirs, ours in read_as.items() if theirs != ours}
    if len(others) <= _NOTES_EACH:
        return [f"{theirs} read as {ours}" for theirs, ours in others.items()]
    each = [f"{theirs} as {ours}" for theirs, ours in others.items()]
    return [f"{len(each):,} names read as ours: {listed(each)}"]


def _as_port(text: str | None) -> Port | None:
    match (text or "").lower():
        case "q":
            return "q"
        case "k":
            return "k"
        case "v":
            return "v"
        case _:
            return None
