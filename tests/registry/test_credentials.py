"""No part of a password is in any text that is shown, logged, raised or recorded."""

from __future__ import annotations

import io
import logging
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import ArgumentError

from registry.cli.failures import describe
from registry.cli.logs import _Full, _Line
from registry.credentials import (
    has_password,
    has_stray_password,
    redacted,
    remember_secrets,
    scrubbed,
    shown_place,
    shown_url,
)
from registry.errors import BadInput
from registry.files.artifacts import ArtifactStore
from registry.graph.open import open_graph
from registry.ledger.engine import foreign_errors, parse_url, shown
from registry.settings.local import create_home, load_settings
from tests.few import n_examples

_ODD = st.sampled_from("@/:?#&=%+ ;,.'\"\\[]{}()!$*~é日")
_WORDS = ("Zqxj7", "wVk9Q", "日本の秘密", "J-0-J")
# Words that no message of ours has, joined by what may end a password for one reader or another.
passwords = st.lists(st.sampled_from(_WORDS) | _ODD | st.text(max_size=2), min_size=1).map("".join)
passwords = passwords.filter(lambda text: any(word in text for word in _WORDS))
HOST = "203.0.113.9:1"
TEMPLATES = (
    "postgresql://ada:{}@203.0.113.9:1/db",
    "postgresql+psycopg://ada:{}@203.0.113.9:1/db?sslmode=require",
    "postgresql://ada@203.0.113.9:1/db?password={}",
    "postgresql://:{}@203.0.113.9:1/db",
    "ftp://ada:{}@203.0.113.9:1/files",
    "nowhere://ada:{}@203.0.113.9:1/files",
    "simplecache::nowhere://ada:{}@203.0.113.9:1/files",
    "zip://inner::nowhere://ada:{}@203.0.113.9:1/files.zip",
    "memory://files?secret_key={}",
    "memory://files?sig={}&x=1",
    "bolt://ada:{}@203.0.113.9:1",
    "neo4j+s://ada:{}@203.0.113.9:1/db",
    "redis://ada:{}@203.0.113.9:1",
    "ada:{}@203.0.113.9:1/db",
)


def pieces(password: str) -> set[str]:
    """What of a password must not be seen: all of it, and every word that a library may cut out."""
    return {word for word in _WORDS if word in password}


def texts_of(url: str) -> list[str]:
    """Every text that this program makes where it is given a URL, in whatever place."""
    texts: list[str] = []

    def attempt(make: Callable[[], object]) -> None:
        try:
            made = make()
        except Exception as error:  # noqa: BLE001 - whatever it is, its text is of interest
            texts.extend((str(error), repr(error), describe(error).line))
            texts.extend(logged(error))
        else:
            texts.extend((str(made), repr(made)))

    with tempfile.TemporaryDirectory() as folder:
        home = create_home(Path(folder) / "home")
        # What has no "://" is a folder's name as a place of artifacts, and shown as one.
        names = ("ledger", "graph", "artifacts")[: 3 if "://" in url else 2]
        for name in names:
            attempt(lambda name=name: load_settings(home, **{name: url}))  # type: ignore[misc]
            attempt(lambda name=name: load_settings(home, **{name: url}).describe())  # type: ignore[misc]
            attempt(lambda name=name: create_home(Path(folder) / "new", **{name: url}))  # type: ignore[misc]
    attempt(lambda: shown(parse_url(url)))
    attempt(lambda: raise_within(url))
    attempt(lambda: open_graph(url, writing=False))
    if "://" in url and not url.startswith("ftp"):  # which would be connected to
        attempt(lambda: ArtifactStore(url))
        attempt(lambda: ArtifactStore(url).get("0" * 64))
    return texts


def raise_within(url: str) -> None:
    with foreign_errors(parse_url(url)):
        raise ArgumentError(f"cannot use {url}")


def logged(error: Exception) -> list[str]:
    """The traceback, as ``--log-level debug`` and a log file show it, without lines of source."""
    texts = []
    for formatter in (_Line(tracebacks=True), _Full()):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        info = (type(error), error, None)
        handler.handle(logging.LogRecord("registry", 10, "x", 1, "failed: %s", (error,), info))
        handler.handle(logging.LogRecord("fsspec", 10, "x", 1, "failed: %s", (error,), info))
        texts.append(stream.getvalue())
    return texts


@settings(max_examples=n_examples(200), suppress_health_check=[HealthCheck.too_slow])
@given(password=passwords, template=st.sampled_from(TEMPLATES), encoded=st.booleans())
@example(password="p@Zqxj7", template=TEMPLATES[0], encoded=False)
@example(password="p@wVk9Q/Zqxj7@x", template=TEMPLATES[0], encoded=False)
@example(password="wVk9Q/Zqxj7", template=TEMPLATES[4], encoded=False)
@example(password="12/3456@Zqxj7", template=TEMPLATES[0], encoded=False)
@example(password="wVk9Q::Zqxj7", template=TEMPLATES[5], encoded=False)
@example(password="wVk9Q Zqxj7", template=TEMPLATES[0], encoded=False)
@example(password="#wVk9Q?Zqxj7", template=TEMPLATES[5], encoded=False)
@example(password="::Zqxj7", template=TEMPLATES[8], encoded=False)
@example(password="a://wVk9Q@Zqxj7", template=TEMPLATES[13], encoded=False)
def test_no_text_shows_a_piece_of_a_password(password: str, template: str, encoded: bool) -> None:
    if "={}" in template:  # where it ends a key in every reading
        password = password.replace("&", "_")
    url = template.format(quote(password, safe="") if encoded else password)
    shown_texts = "\n".join(texts_of(url))
    secret = pieces(password) | {quote(piece, safe="") for piece in pieces(password)}
    assert {piece for piece in secret if piece in shown_texts} == set()


@given(password=passwords, template=st.sampled_from([t for t in TEMPLATES if "ada:{}@" in t]))
def test_the_host_is_still_told(password: str, template: str) -> None:
    assert HOST in shown_url(template.format(password.replace("?", "!")))
    assert HOST in shown_place(template.format(quote(password, safe="")))


@given(password=passwords, template=st.sampled_from(TEMPLATES[:9]))
def test_a_line_that_repeats_a_url_shows_no_password(password: str, template: str) -> None:
    password = re.sub(r"[\s&]", "_", password)
    line = redacted(f"no answer from '{template.format(password)}' now")
    assert line.startswith(f"no answer from '{template.partition('://')[0]}://")
    assert {piece for piece in pieces(password) if piece in line} == set()


@given(password=passwords, template=st.sampled_from(TEMPLATES))
def test_what_a_library_says_shows_no_secret_that_is_known(password: str, template: str) -> None:
    remember_secrets(template.format(quote(password, safe="")))
    said = scrubbed(f"login of ada with {password} ({quote(password, safe='')}) failed")
    assert password not in said
    assert said.startswith("login of ada")


@pytest.mark.parametrize(
    "text",
    [
        "bolt://localhost:7687",
        "postgresql://me@host:5432/db",
        "postgresql:///db?host=/run/postgresql&user=me",
        "postgresql://postgres:@/db?host=/run",
        "sqlite:////data/a:b@c/ledger.sqlite",
        "kglite:////data/a:b@c/graph.kgl",
        "file:///a:b@c/d",
        "/data/a:b@c",
        "./a:b@c",
        "s3://bucket/prefix",
        "simplecache::s3://bucket/prefix",
        "bolt://[::1]:7687",
    ],
)
def test_what_holds_no_password_is_shown_as_it_is(text: str) -> None:
    assert redacted(text) == text
    assert shown_url(text) == text
    assert not has_password(text)
    line = f"give postgresql://USER@HOST/DATABASE, not {text}, or see me@example.org"
    assert redacted(line) == line


@pytest.mark.parametrize(
    ("url", "shown_as"),
    [
        ("sftp://u:p@h/x?key=1", "sftp://h/x"),
        ("sftp://u:p@ss@h/x", "sftp://h/x"),
        ("sftp://u:p?s@h/x", "sftp://..."),
        ("memory://a?key=x@y", "memory://..."),
        ("simplecache::s3://bucket/x?secret=1", "simplecache::s3://bucket/x"),
        ("simplecache::sftp://u:p@h/x", "simplecache::sftp://h/x"),
        ("zip://in::sftp://u:p@h/x.zip?a=b", "zip://...@h/x.zip"),
        ("/data/q?one@two", "/data/q?one@two"),
    ],
)
def test_a_place_is_shown_without_all_that_may_be_secret(url: str, shown_as: str) -> None:
    assert shown_place(url) == shown_as


@pytest.mark.parametrize(
    ("url", "stray"),
    [
        ("bolt://h:7687", False),
        ("bolt://h", False),
        ("bolt://[::1]:7687", False),
        ("bolt://[2001:db8::1]", False),
        ("sftp://u:p@h", False),
        ("sftp://u:p@s@h:22/x", False),
        ("http://h:80/a@b", False),
        ("zip://a::sftp://u:p@h/b", False),
        ("sftp://u:p/s@h", True),
        ("sftp://u:p?s@h", True),
        ("sftp://u:p#s@h", True),
        ("sftp://u:p::s@h", True),
        ("zip://a::sftp://u:p/s@h/b", True),
        ("bolt://neo4j:secret", True),
        ("bolt://h:٣", True),
    ],
)
def test_a_word_where_a_port_should_be_is_noticed(url: str, stray: bool) -> None:
    assert has_stray_password(url) is stray


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p@ss@host/db",
        "postgresql://me:p@s/s@host/db",
        "postgresql://me:p@s?s@host/db",
        "postgresql://m/e:pass@host/db",
    ],
)
def test_a_ledger_whose_password_ends_nobody_knows_where_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match="must be percent-encoded: @ is %40") as caught:
        parse_url(url)
    assert not {"ss", "pass", "host"} & set(re.findall(r"\w+", str(caught.value)))


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgresql://me:p%40ss@host/db", "p@ss"),
        ("postgresql://me:p:s/s?s#s s@host/db", "p:s/s?s#s s"),
        ("postgresql://me@host/db?user=a@b", None),
        ("postgresql://host/db?user=a@b", None),
        ("postgresql://postgres:@/db?host=/run/x", ""),
    ],
)
def test_a_ledger_s_password_is_what_stands_before_the_at(url: str, password: str | None) -> None:
    assert parse_url(url).password == password


def test_debugging_shows_the_traceback_of_a_library_without_secrets() -> None:
    url = "ftp://ada:S3cretOfAda@203.0.113.9:1/x"
    remember_secrets(url)
    try:
        raise ValueError(f"530 no such user with S3cretOfAda; {url}")
    except ValueError:
        record = logging.LogRecord("registry", 10, "x", 1, "failed", (), sys.exc_info())
    text = _Line(tracebacks=True).format(record)
    assert "ValueError: 530 no such user with ***; ftp://ada:***@203.0.113.9:1/x" in text
    assert "Traceback" in text
    assert "S3cretOfAda" in "".join(traceback.format_exception_only(record.exc_info[1]))  # type: ignore[index]
