"""Files that a job adds to its results: plots, masks, tables, checkpoints.

A job puts its files into :attr:`ingest.jobs.base.Finding.files`. :func:`ingest.jobs.base.run_job`
stores their content and attaches them. A plot must not be the only record of its numbers. They are
recorded as effects, scores or evaluations, or stored as a table or tensors with the plot, so that
it can be drawn again.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.files.attachments import Attachment, AttachmentOwner, described, named_apart

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from registry.ledger.base import Batch
    from registry.records import Run
    from registry.registry import Registry

__all__ = ["NamedFile", "plot_file", "store_files", "tensor_file"]


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file to attach to the run, or to a record of the finding or the registry.

    Attributes:
        name: A plain file name, unique for its owner.
        content: The bytes, or a file on the disk, which is copied in pieces.
        says: Its description, in one line.
        of: Full id of the circuit, edit or prompt set that owns it; None for the run.
    """

    name: str
    content: bytes | Path
    says: str
    of: str | None = None


def plot_file(name: str, figure: Figure, says: str, *, of: str | None = None) -> NamedFile:
    """Write a figure as a file; equal figures give equal files.

    Args:
        name: Ends in ``.svg``, ``.png`` or ``.pdf``.
        figure: A matplotlib figure, such as :func:`registry.figures.empty_figure` makes.
        says: Its description, in one line.
        of: See :class:`NamedFile`.

    Raises:
        BadInput: The name has another ending.
    """
    from registry.figures import figure_bytes

    return NamedFile(name, figure_bytes(figure, Path(name).suffix), says, of)


def tensor_file(
    name: str, tensors: Mapping[str, Tensor], says: str, *, of: str | None = None
) -> NamedFile:
    """Write tensors as a safetensors file.

    Args:
        name: Such as ``mask.safetensors``.
        tensors: Tensors by name, of any shapes; describe each axis in ``says``.
        says: Their description, in one line.
        of: See :class:`NamedFile`.
    """
    from safetensors.torch import save

    content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    return NamedFile(name, content, says, of)


def store_files(
    registry: Registry, files: Sequence[NamedFile], batch: Batch, run: Run
) -> list[Attachment]:
    """Store contents, and return the records that attach them.

    If a file with other content already has the name, digits of the content's hash are added to the
    new name.

    Args:
        registry: The registry to store in.
        files: The files of a job.
        batch: Its results; files may belong to its records.
        run: The run to which the other files belong.

    Raises:
        BadInput: A name is not a plain file name, or a path is not a file.
        NotFound: The owner of a file is neither in the batch nor recorded.
    """
    found = {new.circuit.id: AttachmentOwner.CIRCUIT for new in batch.circuits}
    found |= {edit.id: AttachmentOwner.EDIT for edit in batch.edits}
    found |= {prompts.id: AttachmentOwner.PROMPT_SET for prompts in batch.prompt_sets}
    attached = []
    for file in files:
        if file.of is None:
            owner = AttachmentOwner.RUN, run.id
        elif file.of in found:
            owner = found[file.of], file.of
        else:
            owner = registry.ledger.owner(file.of)
        attached.append(_stored(registry, file, owner))
    return named_apart(registry.ledger, attached)


def _stored(registry: Registry, file: NamedFile, owner: tuple[AttachmentOwner, str]) -> Attachment:
    source = file.content if isinstance(file.content, Path) else io.BytesIO(file.content)
    said = described(owner, source, name=file.name, media_type=None, says=file.says)
    if isinstance(file.content, Path):
        address, size = registry.store_file(file.content), file.content.stat().st_size
    else:
        address, size = registry.store_artifact(file.content), len(file.content)
    return said.model_copy(update={"sha256": address, "size_bytes": size})
