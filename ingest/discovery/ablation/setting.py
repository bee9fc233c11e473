"""One prepared setting for all computations: a model, prompts, a metric and an ablation.

Attribution, evaluation, curves, controls, patching and ablated parts need the same prompts, the
same ablation with its reference run, and a proof that the model has the assumed structure. Most of
them also need the metric of the clean run and of the ablated run. These are computed once, when
they are first needed, and kept: numbers per prompt, means of activations, one ablated stream per
length of prompts. Logits and activations of all prompts are never kept.

Kept results are valid only for the model in its present state. Each computation compares the model
with its earlier state (:mod:`ingest.discovery.model.present`). If the model has changed, everything
is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from ingest.discovery.ablation.inputs import Inputs, read_inputs
from ingest.discovery.ablation.patched_run import run_patched
from ingest.discovery.ablation.replacement import Ablation, Replacement, Stream, record_stream
from ingest.discovery.ablation.structure import prove_structure
from ingest.discovery.model.anatomy import Anatomy, frozen, read_anatomy
from ingest.discovery.model.batches import PromptBatch
from ingest.discovery.model.metrics import Metric, per_prompt
from ingest.discovery.model.present import Present, present
from ingest.discovery.model.texts import Prompts
from registry.errors import NonFiniteScores, SettingNeeded
from registry.models.edge_space import EdgeSpace

__all__ = ["Ends", "Ready", "Setting", "in_a_setting", "prepare_setting"]

_STREAM_BYTES = 2**26
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, eq=False, repr=False)
class Ends:
    """The two runs that define the scale of faithfulness: nothing ablated, and everything.

    Attributes:
        full: The metric of each prompt in the clean run, ``[prompt]``, float64.
        empty: The metric with every edge ablated; with ``resample`` this is the corrupt run.
    """

    full: Tensor
    empty: Tensor

    def __repr__(self) -> str:
        full, empty = (float(metric.mean()) for metric in (self.full, self.empty))
        return f"<Ends of {len(self.full)} prompts: full {full:.3g}, empty {empty:.3g}>"


@dataclass(eq=False, repr=False)
class Kept:
    """Results of a setting so far, as long as its model is unchanged.

    Attributes:
        anatomy: Anatomy of the model in its present state.
        proven: Proven properties: the ablation for which the structure was proven, and
            ``gradients``.
        ends: Metrics of the clean and the ablated run; None until they were run.
        replacement: What senders write instead; None until it was needed.
        streams: For a constant ablation, the ablated run by length of prompts, for one prompt.
    """

    anatomy: Anatomy
    proven: set[str] = field(default_factory=set)
    ends: Ends | None = None
    replacement: Replacement | None = None
    streams: dict[int, Stream] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Ready:
    """A setting in use: its model is frozen, and kept results are valid for its present state.

    Attributes:
        model: A TransformerLens ``TransformerBridge``.
        inputs: Prompts, anatomy and ablation.
        metric: One number per prompt.
        kept: Results so far.
    """

    model: Any
    inputs: Inputs
    metric: Metric
    kept: Kept

    @property
    def anatomy(self) -> Anatomy:
        """The anatomy of the model."""
        return self.inputs.anatomy

    @property
    def n_prompts(self) -> int:
        """The number of prompts."""
        return len(self.inputs.prompts)

    @property
    def replacement(self) -> Replacement:
        """Return what senders write instead; the first time, run the reference prompts if any.

        The model is frozen during this run.
        """
        if self.kept.replacement is None:
            self.kept.replacement = self.inputs.replacement(self.model)
        return self.kept.replacement

    def prove_structure(self, replacement: Replacement | None = None) -> None:
        """Prove once, on the first prompt, that the model has the assumed structure.

        Args:
            replacement: What senders write instead; None for the setting's replacement.

        Raises:
            UnsupportedModel: It has another structure.
        """
        instead = replacement or self.replacement
        if instead.kind not in self.kept.proven:
            prove_structure(self.model, self.anatomy, self.inputs.first(), instead)
            self.kept.proven.add(instead.kind)

    def ablated(self, batch: PromptBatch) -> tuple[Stream, Tensor | None]:
        """Return the run of a batch with every sender ablated, and the metric of both ends.

        Args:
            batch: Prompts of one length.

        Returns:
            The stream, and the metric ``[empty/full, batch]``, float64, on the CPU; None instead of
            the metric if it is kept already.
        """
        if self.replacement.constant is not None:
            return self._ablated_by_constant(batch)
        ablated, logits = record_stream(self.model, self.anatomy, batch.counterpart())
        if self.kept.ends is not None:
            return ablated, None
        empty = self._metric(logits, batch)
        del logits  # the logits of both runs at once would take twice the memory
        full = self._metric(self.anatomy.run(self.model, batch.clean, []), batch)
        return ablated, torch.stack([empty, full])

    def note(self, ends: Tensor) -> Ends:
        """Keep the metric of both ends of all prompts, ``[empty/full, prompt]``."""
        self.kept.ends = Ends(full=ends[1], empty=ends[0])
        return self.kept.ends

    def _ablated_by_constant(self, batch: PromptBatch) -> tuple[Stream, Tensor | None]:
        """Return one stream for all prompts of a length; the first call needs a clean run."""
        kept = self.kept.streams.get(batch.clean.shape[1])
        if kept is not None and self.kept.ends is not None:
            return kept, None
        clean, full = record_stream(self.model, self.anatomy, batch.clean)
        ablated, _ = self.replacement.stream(self.model, self.anatomy, batch, clean)
        self._keep(ablated, batch.clean.shape[1])
        if self.kept.ends is not None:
            return ablated, None
        nothing = self.anatomy.as_matrix(())
        empty = run_patched(self.model, self.anatomy, batch.clean, nothing, ablated)
        return ablated, torch.stack([self._metric(empty, batch), self._metric(full, batch)])

    def _keep(self, ablated: Stream, n_positions: int) -> None:
        """Keep the stream of prompts of one length, if all kept streams stay small."""
        streams = self.kept.streams
        if n_positions in streams:
            return
        one = ablated.one()
        if sum(each.n_bytes for each in (*streams.values(), one)) <= _STREAM_BYTES:
            streams[n_positions] = one

    def _metric(self, logits: Tensor, batch: PromptBatch) -> Tensor:
        return per_prompt(self.metric, logits, batch.index).double().cpu()


@dataclass(eq=False)
class _Known:
    """The kept results of a setting, and the state of the model that they belong to."""

    of: Present | None = None
    kept: Kept | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Setting:
    """A model, prompts, a metric and an ablation, ready for any number of computations.

    Made by :func:`prepare_setting`. Shared results are computed once, when first needed, and again
    if the model has changed in between: a weight, a hook, a part.

    Attributes:
        model: A TransformerLens ``TransformerBridge``.
        metric: One number per prompt from the logits at its last real position.
        kv_heads: ``grouped`` or ``per-query-head``.
        inputs: Prompts and ablation, checked.
    """

    model: Any
    metric: Metric
    kv_heads: str
    inputs: Inputs
    _known: _Known = field(default_factory=_Known)

    def __repr__(self) -> str:
        name = self.inputs.anatomy.name
        return f"<Setting of {name}, {self.ablation}, on {self.n_prompts} prompts>"

    @property
    def n_prompts(self) -> int:
        """The number of prompts, or of pairs of prompts."""
        return len(self.inputs.prompts)

    @property
    def ablation(self) -> Ablation:
        """What senders write instead: ``resample``, ``mean`` or ``zero``."""
        return self.inputs.ablation

    @property
    def space(self) -> EdgeSpace:
        """All edges of the model, with key/value heads as the setting counts them."""
        return self.inputs.anatomy.space

    @property
    def ends(self) -> Ends:
        """The metric of each prompt with nothing ablated and with everything ablated; run once.

        Raises:
            UnsupportedModel: The model does not have the assumed structure.
            NonFiniteScores: The metric of a prompt is not finite.
        """
        with self.at_work() as ready:
            if ready.kept.ends is not None:
                return ready.kept.ends
            ready.prove_structure()
            found = torch.zeros(2, ready.n_prompts, dtype=torch.float64)

            def work(batch: PromptBatch) -> None:
                both = ready.ablated(batch)[1]
                assert both is not None
                found[:, batch.index] = both

            ready.inputs.each_batch(work, None)
            require_finite(found)
            return ready.note(found)

    @contextmanager
    def at_work(self) -> Iterator[Ready]:
        """Yield the kept results; the model is frozen, without gradients, until the block ends."""
        with frozen(self.model), torch.no_grad():
            yield self._ready()

    def with_batch_size(self, batch_size: int | None) -> Setting:
        """Return the setting with another batch size; both settings share the kept results.

        Raises:
            BadInput: It is less than 1.
        """
        prompts, anatomy = self.inputs.prompts, self.inputs.anatomy
        start = anatomy.batch_size(len(prompts), prompts.longest, batch_size)
        return replace(self, inputs=replace(self.inputs, size=batch_size, start=start))

    def with_own_heads(self) -> Setting:
        """Return the setting with key/value heads as the model has them."""
        if self.kv_heads == "grouped":
            return self
        inputs = replace(self.inputs, anatomy=read_anatomy(self.model))
        return replace(self, kv_heads="grouped", inputs=inputs, _known=_Known())

    def _ready(self) -> Ready:
        now, known = present(self.model), self._known
        if known.kept is None or known.of is None or not known.of.same(now):
            known.of, known.kept = now, Kept(read_anatomy(self.model, self.kv_heads))
        inputs = replace(self.inputs, anatomy=known.kept.anatomy)
        return Ready(self.model, inputs, self.metric, known.kept)


def prepare_setting(
    model: Any,
    clean: Prompts,
    corrupt: Prompts | None,
    metric: Metric,
    *,
    ablation: Ablation = "resample",
    reference: Prompts | None = None,
    kv_heads: str = "grouped",
    batch_size: int | None = None,
    attention_mask: Tensor | None = None,
    reference_mask: Tensor | None = None,
) -> Setting:
    """Check a model and prompts, and prepare any number of computations on them.

    Args:
        model: A TransformerLens ``TransformerBridge``. Its weights are frozen while it runs.
        clean: Texts, or token ids ``[prompt, position]``.
        corrupt: Each prompt's counterpart, with the same number of tokens. None if the ablation is
            not ``resample``.
        metric: A function ``metric(logits, index)`` that gives one number per prompt from the
            logits ``[prompt, word]`` at its last real position. ``index`` ``[prompt]`` says which
            of the given prompts these are, counted from 0.
        ablation: What senders write instead: ``resample``: their output on the corrupt prompt;
            ``mean``: their mean over all real tokens of ``reference``; ``zero``: zero.
        reference: Texts or token ids of any number and length, for ``mean``.
        kv_heads: ``grouped``: the model's own key/value heads. ``per-query-head``: a copy for every
            query head that reads them, as EAP-IG and MIB count.
        batch_size: Prompts per batch; None: as memory allows, beginning with the number whose
            senders' outputs fit into 256 MiB. Results do not depend on it.
        attention_mask: 1 at real tokens, 0 at padding on either side, ``[prompt, position]``.
        reference_mask: The same for ``reference``.

    Raises:
        UnsupportedModel: A part is missing, or TransformerLens changes the model on prompts of this
            length.
        BadInput: Prompts, ablation or batch size are malformed, or prompts are padded without a
            mask.
    """
    inputs = read_inputs(
        model, clean, corrupt, ablation=ablation, reference=reference, kv_heads=kv_heads,
        batch_size=batch_size, attention_mask=attention_mask, reference_mask=reference_mask,
    )  # fmt: skip
    return Setting(model, metric, kv_heads, inputs, _Known(present(model), Kept(inputs.anatomy)))


def in_a_setting(
    function: Callable[Concatenate[Setting, P], R],
) -> Callable[Concatenate[Setting, P], R]:
    """Make a function refuse a first argument that is not a setting.

    The error names the function. Without this check, a model instead of a setting would cause an
    unclear error.
    """

    @wraps(function)
    def asked(*args: Any, **more: Any) -> R:
        given = args[0] if args else more.get("setting")
        if not isinstance(given, Setting):
            raise SettingNeeded(function.__name__, type(given).__name__)
        return function(*args, **more)

    return asked


def require_finite(metrics: Tensor) -> None:
    """Refuse metrics ``[run, prompt]`` that are not all finite.

    Raises:
        NonFiniteScores: One is not; the text names the first prompt.
    """
    bad = (~torch.isfinite(metrics).all(0)).nonzero()
    if len(bad):
        raise NonFiniteScores(int(bad[0]))
