"""The interface of a foreign format, and the user's statements about files.

Few tools record model, task, metric, ablation or sign. The user gives what is known
(:class:`Said`); what neither the file nor the user gives stays unknown. A format's module turns one
file into records. In addition it opens only the files of the same folder that belong to it by name
(:attr:`Format.companions`). It follows no path that a file names, and it never unpickles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from registry import plugins
from registry.errors import BadInput
from registry.ledger.base import Batch
from registry.records import (
    Ablation,
    Circuit,
    Edit,
    Evaluation,
    Model,
    Name,
    Number,
    Outcome,
    PromptSet,
    Slug,
    Task,
)

__all__ = [
    "FORMATS_GROUP",
    "Context",
    "Format",
    "Imported",
    "Limits",
    "ModelDoubt",
    "NoRecords",
    "Said",
    "SignConvention",
    "UnknownFormat",
    "find_format",
    "formats",
    "recognised",
]

FORMATS_GROUP = "circuits.formats"
SignConvention = Literal["helps-positive", "hurts-positive", "unsigned", "unknown"]


def _no_truth(value: Any) -> Any:
    """Return a value that is not a boolean; Python treats booleans as the numbers 1 and 0.

    Raises:
        ValueError: It is a boolean; YAML reads ``yes`` and ``on`` as such.
    """
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()}, no number")
    return value


_Count = Annotated[int, BeforeValidator(_no_truth)]
_Size = Annotated[Number, BeforeValidator(_no_truth)]
_Share = Annotated[float, BeforeValidator(_no_truth)]


class Said(BaseModel):
    """The user's statements about a file; None: not given.

    Attributes:
        sign: Meaning of a positive score in the file. ``hurts-positive`` is negated on import;
            ``unsigned`` scores are absolute values, so none may be negative.
        top: Select this many edges, largest first, instead of the circuit that the file marks; if
            it has no edges, nodes (:mod:`ingest.formats.choosing`).
        threshold: Or select all of at least this size.
        columns: For tables: our name of a column to the file's.
        node_threshold: For attribution graphs: keep the nodes that hold this share of influence.
        edge_threshold: For attribution graphs: keep the links that hold this share of influence.
        dictionary: For features: name of the transcoders or autoencoders, if the file does not give
            it.
        hyperparameters: For edits: the file of the editor's hyperparameters, next to its results.
        protocol: For edits: how the metrics were measured, if the file does not give it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str | None = None
    task: Slug | None = None
    method: Name | None = None
    metric: str | None = None
    higher_is_better: bool | None = None
    ablation: Ablation | None = None
    sign: SignConvention = "unknown"
    kv_heads: Literal["grouped", "per-query-head"] | None = None
    top: _Count | None = Field(None, ge=1)
    threshold: _Size | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    node_threshold: _Share | None = Field(None, gt=0, le=1)
    edge_threshold: _Share | None = Field(None, gt=0, le=1)
    dictionary: Name | None = None
    hyperparameters: Path | None = None
    protocol: Name | None = None

    @model_validator(mode="after")
    def _one_choice(self) -> Said:
        if self.top is not None and self.threshold is not None:
            raise ValueError("top and threshold are alternatives; give only one of them")
        return self

    def need(self, name: str, *others: str) -> str:
        """Return a field that every circuit must have.

        Args:
            name: The field.
            others: Fields that are needed too, so that one error names all missing fields.

        Raises:
            BadInput: The field, or one of the others, was not given.
        """
        missing = [one for one in (name, *others) if getattr(self, one) is None]
        if missing:
            them = "it" if len(missing) == 1 else "them"
            flags = " and ".join(f"--{one}" for one in missing)
            raise BadInput(
                f"the file does not name its {' and '.join(missing)}; give {them} with {flags} or"
                " in circuits-import.yaml"
            )
        return str(getattr(self, name))


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a file may be before it is refused."""

    max_bytes: int = 2**30
    max_edges: int = 5_000_000


def _nobody(_title: str) -> Callable[[int, int], None]:
    return lambda _done, _total: None


class ModelDoubt(str):
    """A note that a file names another model than the user; it may lead to a refusal."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Context:
    """The settings with which a format reads a file.

    Attributes:
        said: The user's statements about it.
        limits: Its allowed size.
        stage: Is called with a title if reading takes long; the function that it returns receives
            the amount done and the total.
    """

    said: Said = field(default_factory=Said)
    limits: Limits = field(default_factory=Limits)
    stage: Callable[[str], Callable[[int, int], None]] = _nobody


@dataclass(frozen=True)
class Imported:
    """The content of a file, without its origin.

    Attributes:
        models: Shapes that the file gives.
        outcomes: Outcomes of these edits.
        artifacts: Further files to keep, such as full scores, which circuits name by hash.
        addressed: Like ``artifacts`` for large files: each with the address that it must have, in
            pieces, which are read before the next file is requested.
        beside: Further files that were read; their originals are kept too.
        notes: Notes for the user: names read as others, omitted content.
        batch: Instead of all records: records that give their own origin, as in a bundle. They are
            recorded unchanged, and their file is not kept.
    """

    circuits: Sequence[Circuit] = ()
    models: Sequence[Model] = ()
    tasks: Sequence[Task] = ()
    prompt_sets: Sequence[PromptSet] = ()
    evaluations: Sequence[Evaluation] = ()
    edits: Sequence[Edit] = ()
    outcomes: Sequence[Outcome] = ()
    artifacts: Iterable[bytes] = ()
    addressed: Iterable[tuple[str, Iterable[bytes]]] = ()
    beside: Sequence[Path] = ()
    notes: Sequence[str] = ()
    batch: Batch | None = None


class Format(Protocol):
    """The files of one tool."""

    @property
    def name(self) -> str:
        """``eap-ig-json``; recorded with what is imported."""

    @property
    def summary(self) -> str:
        """The tool that writes it, in one line."""

    @property
    def companions(self) -> Sequence[str]:
        """Names, as globs, of files in the same folder that it also reads: ``io.txt``."""

    def sniff(self, path: Path, head: bytes) -> float:
        """Return how surely a file has this format, 0 to 1, by its name and first bytes."""

    def read(self, path: Path, context: Context) -> Imported:
        """Read a file.

        Raises:
            BadInput: It is malformed, too large, or neither it nor the user gives a required fact.
        """


def formats() -> dict[str, Format]:
    """All registered formats by name, without those that are broken."""
    return {one.name: format for one, format in plugins.usable(FORMATS_GROUP).items()}


def find_format(name: str) -> Format:
    """Return the format with this name.

    Raises:
        NotFound: No format has this name; the text lists all names.
        PluginBroken: It is from another package and broken.
    """
    found: Format = plugins.find(FORMATS_GROUP, name)
    return found


class UnknownFormat(BadInput):
    """The format of a file is unknown."""


class NoRecords(BadInput):
    """A file of a known kind has nothing to record; in a folder it is skipped."""


def recognised(path: Path, among: Mapping[plugins.Plugin, Format] | None = None) -> Format:
    """Return the most likely format of a file.

    Args:
        path: The file.
        among: The formats to choose from; by default all registered ones. Give them for many files.

    Raises:
        UnknownFormat: No format recognises it.
        BadInput: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    if among is None:
        among = plugins.usable(FORMATS_GROUP)
    sure = {one: _sureness(one, format, path, head) for one, format in among.items()}
    surest = min(sure, key=lambda one: (-sure[one], one.name), default=None)
    if surest is None or sure[surest] <= 0:
        hint = ""
        if path.suffix.lower() == ".json" and head.lstrip().startswith(b"["):
            hint = "; rows of a table are read as JSON Lines, one object a line in a .jsonl file"
        raise UnknownFormat(
            f"no format recognises {path.name}{hint}; see 'circuits import --formats'"
        )
    found: Format = among[surest]
    return found


def _sureness(plugin: plugins.Plugin, format: Format, path: Path, head: bytes) -> float:
    """Return how surely a file has a format; 0 if this fails, and the format is then omitted."""
    try:
        found = format.sniff(path, head)
        if not 0 <= found <= 1:
            raise ValueError(f"sniff returns {found!r:.40}, which is not from 0 to 1")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - what another package raises is anything
        plugins.leave_out(plugin, error)
        return 0.0
    return float(found)
