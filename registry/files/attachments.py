"""Named files of circuits, runs, edits and prompt sets: plots, masks, bases, checkpoints, tables.

An attachment is a record that names an artifact. Its content is an immutable file under its hash,
which is always streamed and never read into memory as a whole. Attachments are not part of their
owner's id. Like all records, they are never changed or deleted: each name of an owner refers to one
content.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo

from registry.errors import BadInput, StorageError
from registry.files.whole_files import whole_file
from registry.limits import check_length, is_stored, limited
from registry.records import Record, Sha256
from registry.texts.problems import first_problem

if TYPE_CHECKING:
    from registry.files.artifacts import ArtifactStore
    from registry.ledger.base import Ledger

__all__ = [
    "Attachment",
    "AttachmentOwner",
    "StoredAttachment",
    "described",
    "media_type_of",
    "named_apart",
    "other_name",
    "stored_source",
]

_SEPARATING = frozenset('/\\:*?"<>|')
"""Characters that separate parts of a path, or that some file system does not allow in names."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
"""Names of devices on Windows, with any ending."""
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+\-]*/[a-z0-9][a-z0-9!#$&^_.+\-]*")
_UNKNOWN_TYPE = "application/octet-stream"
_OTHER_TYPES = {
    ".jsonl": "application/jsonl",
    ".npy": _UNKNOWN_TYPE,
    ".npz": "application/zip",
    ".parquet": "application/vnd.apache.parquet",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_PIECE_BYTES = 1 << 20
_DIGITS = 8


class AttachmentOwner(StrEnum):
    """The kind of record that an attachment belongs to."""

    CIRCUIT = "circuit"
    RUN = "run"
    EDIT = "edit"
    PROMPT_SET = "prompt_set"

    @property
    def words(self) -> str:
        """``prompt set``."""
        return self.value.replace("_", " ")


def _plain_name(name: str) -> str:
    """A name that is a plain file name on every system; stored names are checked too."""
    if not name or name != name.strip():
        raise ValueError("is empty or has a space at an end")
    for letter in name:
        if letter in _SEPARATING:
            raise ValueError(f"contains {letter!r}; an attachment's name is a plain file name")
        # Control, invisible and unassigned characters, line and paragraph breaks.
        if unicodedata.category(letter)[0] == "C" or unicodedata.category(letter) in ("Zl", "Zp"):
            raise ValueError(f"contains the character {letter!a}, which does not print")
    if name.startswith(".") or name.endswith("."):
        raise ValueError("begins or ends with a dot")
    if _RESERVED.fullmatch(name):
        raise ValueError("is a device's name on Windows")
    check_length("attachment's name", name)
    return name


def _media_type(text: str) -> str:
    lower = text.lower()
    if not _MEDIA_TYPE.fullmatch(lower):
        raise ValueError("is not a media type, such as image/png")
    check_length("media type", lower)
    return lower


def _one_line(text: str, info: ValidationInfo) -> str:
    if not is_stored(info) and any(unicodedata.category(one) in ("Cc", "Zl", "Zp") for one in text):
        raise ValueError("must be one line of text, without breaks and other control characters")
    return text


class Attachment(Record):
    """A named file of a circuit, run, edit or prompt set.

    Attributes:
        owner_kind: Kind of its owner.
        owner: Full id of its owner.
        name: A plain file name, unique within the owner.
        media_type: ``image/svg+xml``, ``text/csv``, ...
        size_bytes: Size of the content.
        sha256: Address of the artifact that holds the content.
        says: Description in one line.
    """

    owner_kind: AttachmentOwner
    owner: Annotated[str, Field(pattern=r"^([0-9a-f]{32}|[0-9a-f]{64})$")]
    name: Annotated[str, AfterValidator(_plain_name)]
    media_type: Annotated[str, AfterValidator(_media_type)] = _UNKNOWN_TYPE
    size_bytes: int = Field(ge=0, le=2**63 - 1)
    sha256: Sha256
    says: Annotated[str, limited("line"), AfterValidator(_one_line)] = ""

    @property
    def key(self) -> tuple[AttachmentOwner, str, str]:
        """Its unique key: its owner and name."""
        return self.owner_kind, self.owner, self.name


@dataclass(frozen=True, slots=True)
class StoredAttachment:
    """An attachment as the registry keeps it, with access to its content.

    Attributes:
        attachment: The record.
        artifacts: The store of its content.
    """

    attachment: Attachment
    artifacts: ArtifactStore

    @property
    def name(self) -> str:
        """Its file name."""
        return self.attachment.name

    @property
    def media_type(self) -> str:
        """``image/svg+xml``, ``text/csv``, ..."""
        return self.attachment.media_type

    @property
    def size_bytes(self) -> int:
        """Size of its content."""
        return self.attachment.size_bytes

    @property
    def sha256(self) -> str:
        """Address of the artifact that holds its content."""
        return self.attachment.sha256

    @property
    def says(self) -> str:
        """Description in one line; may be empty."""
        return self.attachment.says

    def __repr__(self) -> str:
        return f"<StoredAttachment {self.name!r}: {self.media_type}, {self.size_bytes:,} bytes>"

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Check the content in pieces and open it for reading.

        Raises:
            ArtifactNotFound, ArtifactCorrupt, StorageError: It cannot be read.
        """
        with self.artifacts.open(self.sha256) as file:
            yield file

    def save(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write the content into a folder under its name, and return the path.

        The folder is made if it is missing. The file is written completely or not at all.

        Raises:
            BadInput: A file of that name exists, unless ``overwrite``; or it is a folder.
            ArtifactNotFound, ArtifactCorrupt, StorageError: The content cannot be read or written.
        """
        path = Path(folder) / self.name
        if path.is_dir():
            raise BadInput(f"{path} is a folder; the attachment {self.name!r} needs that name")
        if os.path.lexists(path) and not overwrite:
            raise BadInput(f"{path} exists already; choose another folder, or overwrite it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self.open() as source, whole_file(path) as target:
                shutil.copyfileobj(source, target, _PIECE_BYTES)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
        return path


def described(
    owner: tuple[AttachmentOwner, str],
    source: Path | str | IO[bytes],
    *,
    name: str | None,
    media_type: str | None,
    says: str,
) -> Attachment:
    """The record of a file to be attached, checked before its content is stored.

    Its size and hash are those of an empty file until the content is stored.

    Raises:
        BadInput: It is not a regular file or an open one; the name is not a plain file name, or is
            not given and the file has none; or the media type or description is not valid.
    """
    if not (isinstance(source, Path | str) or hasattr(source, "read")):
        raise BadInput(
            "a file to attach is a path or a file open for reading bytes, not an object of type"
            f" {type(source).__name__}; wrap bytes in io.BytesIO"
        )
    if isinstance(source, Path | str) and not Path(source).is_file():
        what = "is not a regular file" if Path(source).exists() else "does not exist"
        raise BadInput(f"{source} {what}; name a file to attach")
    if name is None:
        known = source if isinstance(source, Path | str) else getattr(source, "name", None)
        if not isinstance(known, Path | str):
            raise BadInput("an open file without a name needs one: name=...")
        name = Path(known).name
    try:
        return Attachment(
            owner_kind=owner[0],
            owner=owner[1],
            name=name,
            media_type=media_type_of(name) if media_type is None else media_type,
            size_bytes=0,
            sha256=hashlib.sha256().hexdigest(),
            says=says,
        )
    except ValidationError as error:
        raise BadInput(f"the file cannot be attached: {first_problem(error)}") from error


def stored_source(artifacts: ArtifactStore, source: Path | str | IO[bytes]) -> tuple[str, int]:
    """Store a file's content piece by piece, and return its address and size in bytes.

    Raises:
        BadInput: It is not a file that gives bytes.
        StorageError: It cannot be read, or the artifacts cannot be written.
    """
    if isinstance(source, Path | str):
        address = artifacts.put_file(Path(source))
    else:
        try:
            with tempfile.TemporaryDirectory(prefix="circuits-attach-") as folder:
                path = Path(folder) / "content"
                with path.open("wb") as copy:
                    _copy_bytes(source, copy)
                address = artifacts.put_file(path)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"cannot copy the file to attach: {error.strerror or error}"
            ) from error
    return address, artifacts.size_bytes(address)


def _copy_bytes(source: IO[bytes], target: IO[bytes]) -> None:
    while (piece := _read_piece(source)) != b"":
        if piece is None:
            raise BadInput(
                "the file has no bytes yet: its read() returned None, as that of a stream without"
                " blocking; open it with blocking"
            )
        if not isinstance(piece, bytes):
            raise BadInput("the file gives text; open it for reading bytes, as with mode 'rb'")
        target.write(piece)


def _read_piece(source: IO[bytes]) -> object:
    """The next bytes of a file, or what an object gives that only looks like one."""
    try:
        return source.read(_PIECE_BYTES)
    except StorageError:
        raise
    except OSError as error:
        why = error.strerror or error
        raise StorageError(f"the file to attach cannot be read: {why}") from error
    except ValueError as error:  # it is closed
        raise BadInput(f"the file to attach cannot be read: {error}") from error


def media_type_of(name: str) -> str:
    """The media type of a file's ending, the same on every machine."""
    ending = Path(name).suffix.lower()
    if ending in _OTHER_TYPES:
        return _OTHER_TYPES[ending]
    # Not mimetypes.guess_type, which also reads the configuration of this machine.
    found, packed = mimetypes.MimeTypes().guess_type(name.replace("/", "_"))
    return _PACKED.get(packed, _UNKNOWN_TYPE) if packed else found or _UNKNOWN_TYPE


def named_apart(ledger: Ledger, attachments: Sequence[Attachment]) -> list[Attachment]:
    """New attachments, renamed if their owner already has a different file of that name.

    Such an attachment gets :func:`other_name`. The others keep their names.
    """
    if not attachments:
        return []
    known = {one.key: one.sha256 for one in ledger.attachments()}
    return [
        one if known.get(one.key, one.sha256) == one.sha256 else other_name(one)
        for one in attachments
    ]


def other_name(attachment: Attachment) -> Attachment:
    """The same content under a unique name: ``plot-3f9a02c4.png``.

    This is used if the owner has a different file of that name. The digits are those of the
    content's hash, so repeating an import gives the same name.
    """
    stem, dot, ending = attachment.name.rpartition(".")
    if not dot:
        stem, ending = attachment.name, ""
    mark = f"-{attachment.sha256[:_DIGITS]}{dot}{ending}"
    while True:
        try:
            return Attachment.model_validate({**attachment.model_dump(), "name": f"{stem}{mark}"})
        except ValueError:  # the name is too long with these digits
            if not stem:
                raise
            stem = stem[:-1].rstrip()
