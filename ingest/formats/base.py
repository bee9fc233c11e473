"""What a foreign format is, and what a user says of files that do not say it themselves.

Hardly any tool writes down model, task, metric, ablation or sign. Whoever imports says what is
known (:class:`Said`); what neither the file nor the user says stays unknown. A format's module
turns one file into records; besides it opens at most the files beside it that it is known to come
with (:attr:`Format.companions`), follows no path that a file names, and never unpickles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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


class Said(BaseModel):
    """What a user says of a file; None: nothing.

    Attributes:
        sign: What a positive score means in the file. ``hurts-positive`` is turned on import;
            ``unsigned`` scores are sizes, of which none may be negative.
        top: Take so many edges, by size, whatever the file marks as its circuit; nodes, where it
            has no edges (:mod:`ingest.formats.choosing`).
        threshold: Or all of at least this size.
        columns: For tables: our name of a column to the file's.
        node_threshold: For attribution graphs: keep the nodes that hold this share of influence.
        edge_threshold: For attribution graphs: keep the links that hold this share of influence.
        dictionary: For features: what the transcoders or autoencoders are called, where the file
            does not say.
        hyperparameters: For edits: the file with what the editor was told, beside its results.
        protocol: For edits: how the metrics were taken, where the file does not say.
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
    top: int | None = Field(None, ge=1)
    threshold: Number | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    node_threshold: float | None = Field(None, gt=0, le=1)
    edge_threshold: float | None = Field(None, gt=0, le=1)
    dictionary: Name | None = None
    hyperparameters: Path | None = None
    protocol: Name | None = None

    def need(self, name: str, *others: str) -> str:
        """A field that a circuit cannot do without.

        Args:
            name: Which one.
            others: Fields that are needed as well, so that one error names all that lack.

        Raises:
            BadInput: It, or one of the others, was not said.
        """
        missing = [one for one in (name, *others) if getattr(self, one) is None]
        if missing:
            them = "it" if len(missing) == 1 else "them"
            options = " and ".join(f"--{one}" for one in missing)
            raise BadInput(
                f"the file does not name its {' and '.join(missing)}; say {them} with {options} or"
                " in circuits-import.yaml"
            )
        return str(getattr(self, name))


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a file may be before it is refused."""

    max_bytes: int = 2**30
    max_edges: int = 5_000_000


def first_problem(error: ValidationError) -> str:
    """Field and fault of the first thing that is wrong with a record, in a line."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    what = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def _nobody(_title: str) -> Callable[[int, int], None]:
    return lambda _done, _total: None


class ModelDoubt(str):
    """A note that a file names another model than its user; a refusal may come of it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a format reads a file with.

    Attributes:
        said: What the user says of it.
        limits: How large it may be.
        stage: Called with a title where reading takes long; what it gives is told how much is
            done, and of how much.
    """

    said: Said = field(default_factory=Said)
    limits: Limits = field(default_factory=Limits)
    stage: Callable[[str], Callable[[int, int], None]] = _nobody


@dataclass(frozen=True)
class Imported:
    """What a file holds, without where it came from.

    Attributes:
        models: Shapes that the file tells.
        outcomes: Of the edits here.
        artifacts: Further files to keep, such as full scores, which circuits name by hash.
        beside: Further files that were read; their originals are kept too.
        notes: What a user should know: names read as others, what was left out.
        batch: In place of all records: records that say themselves where they came from, as a
            bundle's do. They are recorded as they stand, and their file is not kept.
    """

    circuits: Sequence[Circuit] = ()
    models: Sequence[Model] = ()
    tasks: Sequence[Task] = ()
    prompt_sets: Sequence[PromptSet] = ()
    evaluations: Sequence[Evaluation] = ()
    edits: Sequence[Edit] = ()
    outcomes: Sequence[Outcome] = ()
    artifacts: Iterable[bytes] = ()
    beside: Sequence[Path] = ()
    notes: Sequence[str] = ()
    batch: Batch | None = None


class Format(Protocol):
    """One tool's files."""

    @property
    def name(self) -> str:
        """``eap-ig-json``; recorded with what is imported."""

    @property
    def summary(self) -> str:
        """Which tool writes it, in a line."""

    @property
    def companions(self) -> Sequence[str]:
        """Names, as globs, of files beside it that it reads too: ``io.txt``, ``intkey_*.bin``."""

    def sniff(self, path: Path, head: bytes) -> float:
        """How surely a file is of this format, 0 to 1, from its name and first bytes."""

    def read(self, path: Path, context: Context) -> Imported:
        """Read a file.

        Raises:
            BadInput: It is malformed, too large, or does not say what only it or the user can say.
        """


def formats() -> dict[str, Format]:
    """All registered formats by name, without those that are broken."""
    return {one.name: format for one, format in plugins.usable(FORMATS_GROUP).items()}


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        NotFound: There is none; the text names all there are.
        PluginBroken: It is another package's and broken.
    """
    found: Format = plugins.find(FORMATS_GROUP, name)
    return found


class UnknownFormat(BadInput):
    """No format knows a file."""


class NoRecords(BadInput):
    """A file is of a known kind that holds nothing to record; in a folder it is passed over."""


def recognised(path: Path) -> Format:
    """The format that a file most surely has.

    Raises:
        UnknownFormat: None knows it.
        BadInput: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    sure = {
        one: _sureness(one, format, path, head)
        for one, format in plugins.usable(FORMATS_GROUP).items()
    }
    surest = min(sure, key=lambda one: (-sure[one], one.name), default=None)
    if surest is None or sure[surest] <= 0:
        raise UnknownFormat(f"no format knows {path.name}; 'circuits import --formats' lists them")
    found: Format = surest.load()
    return found


def _sureness(plugin: plugins.Plugin, format: Format, path: Path, head: bytes) -> float:
    """How surely a file is of a format; 0 where it fails to say, after which it is left out."""
    try:
        found = format.sniff(path, head)
        if not 0 <= found <= 1:
            raise ValueError(f"sniff gives {found!r:.40}, which is not from 0 to 1")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - what another package raises is anything
        plugins.leave_out(plugin, error)
        return 0.0
    return float(found)
