"""Small attribution graphs of our own making, as circuit-tracer writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ingest.formats.attribution_graph.nodes import cantor

__all__ = ["error", "feature", "graph", "link", "logit", "token", "written"]


def feature(layer: int, index: int, position: int, **more: Any) -> dict[str, Any]:
    return {
        "node_id": f"{layer}_{index}_{position}", "feature": cantor(layer, index),
        "layer": str(layer), "ctx_idx": position, "feature_type": "cross layer transcoder",
        "clerp": "", "influence": 0.5, "activation": 2.5, **more,
    }  # fmt: skip


def error(layer: int, position: int, **more: Any) -> dict[str, Any]:
    return {
        "node_id": f"0_{layer}_{position}", "feature": -1, "layer": str(layer),
        "ctx_idx": position, "feature_type": "mlp reconstruction error", **more,
    }  # fmt: skip


def token(number: int, position: int, **more: Any) -> dict[str, Any]:
    return {
        "node_id": f"E_{number}_{position}", "feature": position, "layer": "E",
        "ctx_idx": position, "feature_type": "embedding", **more,
    }  # fmt: skip


def logit(number: int, position: int, probability: float | None = 0.75, **more: Any) -> Any:
    return {
        "node_id": f"9_{number}_{position}", "feature": number, "layer": "9",
        "ctx_idx": position, "feature_type": "logit", "token_prob": probability,
        "is_target_logit": True, **more,
    }  # fmt: skip


def link(source: str, target: str, weight: Any = 1.0) -> dict[str, Any]:
    return {"source": source, "target": target, "weight": weight}


def graph(**changes: Any) -> dict[str, Any]:
    """A graph of two features, an error, a token and a logit."""
    return {
        "metadata": {
            "slug": "small", "scan": "gemma-2-2b", "transcoder_list": [], "prompt": "<bos>a",
            "prompt_tokens": ["<bos>", "a"], "node_threshold": 0.8, "schema_version": 1,
            "info": {"transcoder_set": "mntss/small-set", "generator": {"name": "tracer"}},
        },
        "qParams": {"pinnedIds": ["9_7_1"], "supernodes": [["pair", "0_3_1", "2_4_1"]]},
        "nodes": [
            feature(0, 3, 1, clerp="letters", influence=0.25),
            feature(2, 4, 1, influence=0.5, activation=None),
            error(1, 1, influence=0.75, clerp="Err: mlp"),
            token(2, 1, influence=0.9),
            logit(7, 1),
        ],
        "links": [
            link("E_2_1", "0_3_1", 2.0), link("0_3_1", "2_4_1", -3.5),
            link("0_1_1", "2_4_1", 0.5), link("2_4_1", "9_7_1", 18),
        ],
        **changes,
    }  # fmt: skip


def written(folder: Path, content: Any, name: str = "graph.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path
