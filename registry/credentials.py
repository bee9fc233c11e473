"""Keeping passwords and keys out of every text that is printed, logged or raised.

Three tools for three kinds of text: :func:`shown_url` for a URL that was given, :func:`redacted`
for a line of our own that may repeat one, and :func:`scrubbed` for what a library says, which may
repeat any part of one. The last knows the secrets of every URL that went through
:func:`remember_secrets`.

Imports nothing of ours and little else: ``circuits --help`` reads it by way of
:mod:`registry.settings_table`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

__all__ = [
    "has_password",
    "has_stray_password",
    "redacted",
    "remember_secrets",
    "scrubbed",
    "shown_place",
    "shown_url",
]

_SECRET_NAME = r"[^=&\s?]*(?:pass|pwd|secret|token|key|cred|auth|\bsig|signature)[^=&\s]*"
_PATHS = "(?:sqlite|kglite|file|local)"
"""Schemes of URLs that have a path and nothing else."""
_SCHEME = re.compile(r"(?:[a-z0-9+.\-]+::)*[a-z][a-z0-9+.\-]*://", re.IGNORECASE)
# To the last "@" of the word: a password may hold "@", "/", ":", "?" and "#" in clear.
_USERINFO = re.compile(
    rf"(?P<before>\b(?!{_PATHS}[+:])[a-z][a-z0-9+.\-]*://[^\s:@]*:)(?P<secret>\S+)(?P<place>@\S*)",
    re.IGNORECASE,
)
_QUERY = re.compile(rf"(?P<before>[?&]{_SECRET_NAME}=)[^&\s]+", re.IGNORECASE)
_QUERY_OF_URL = re.compile(rf"(?P<before>[?&]{_SECRET_NAME}=)[^&]+", re.IGNORECASE)
_SHORTEST = 4
"""Characters of a secret that :func:`scrubbed` looks for; shorter ones stand in every text."""

_secrets: set[str] = set()


def redacted(text: str) -> str:
    """Replace the passwords and keys of URLs in a line of text by ``***``.

    A password with a space in it is recognised up to the space; what may hold one goes through
    :func:`shown_url` or :func:`scrubbed` first.
    """
    return _QUERY.sub(r"\g<before>***", _USERINFO.sub(_without_secret, text))


def scrubbed(text: str) -> str:
    """Replace every secret that is known, and what :func:`redacted` recognises, by ``***``.

    For words of libraries and for tracebacks: it blots out more than it needs to where a password
    is an everyday word.
    """
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return redacted(text)


def shown_url(url: str) -> str:
    """A URL as it may be shown: password and keys as ``***``, wherever their end may be.

    A path, by itself or in a URL that has nothing but one, is shown as it is.
    """
    scheme, rest = _split(url)
    if _is_path(scheme, rest):
        return url
    before, at, place = rest.rpartition("@")
    user, _, secret = before.partition(":")
    if at and secret:
        rest = f"{user}:***" + ("" if "?" in before else at + place)
    return scheme + _QUERY_OF_URL.sub(r"\g<before>***", rest)


def shown_place(url: str) -> str:
    """A URL, or a chain of them, without all that may be secret: user, password and query.

    A path is shown as it is.
    """
    scheme, rest = _split(url)
    if "://" not in url or _is_path(scheme, rest):
        return url
    before, at, place = rest.rpartition("@")
    if "?" in before:
        return scheme + "..."
    # Users and passwords of a chain's first links go with everything between them and the last.
    return scheme + ("...@" if "::" in before else "") + (place if at else rest).partition("?")[0]


def has_password(url: str) -> bool:
    """Whether a URL carries a password or a key; what has no ``://`` is a path and carries none."""
    return "://" in url and shown_url(url) != url


def has_stray_password(url: str) -> bool:
    """Whether a URL, or a link of a chain, has a word where a port should be, and no ``@`` after.

    So reads a password that holds ``/``, ``?``, ``#`` or ``::`` in clear. Such a URL is refused:
    some library would take it for a port, say so, and repeat it.
    """
    return any(map(_has_word_for_port, url.split("::")))


def _has_word_for_port(link: str) -> bool:
    scheme, rest = _split(link)
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if not scheme or "@" in authority or authority.startswith("["):  # "[": an IPv6 address
        return False
    _, colon, port = authority.partition(":")
    return bool(colon) and bool(port) and not (port.isascii() and port.isdigit())


def remember_secrets(url: str) -> None:
    """Note the passwords and keys of a URL, for :func:`scrubbed`."""
    _secrets.update(secret for secret in _secrets_of(url) if len(secret) >= _SHORTEST)


def _secrets_of(url: str) -> Iterator[str]:
    scheme, rest = _split(url)
    if _is_path(scheme, rest):
        return
    found = [match[0].partition("=")[2] for match in _QUERY_OF_URL.finditer(rest)]
    # Under every reading of where the password ends, in every link of a chain.
    for start in (0, *(match.end() for match in re.finditer("://", rest))):
        link = rest[start:]
        found += [link[: at.start()].partition(":")[2] for at in re.finditer("@", link)]
    for secret in found:
        # A library that reads chains takes what follows "::" for another link.
        for part in (secret, *secret.split("::")):
            yield part
            yield unquote(part)


def _without_secret(match: re.Match[str]) -> str:
    # An "@" after a "?" may end a password, or stand in a key: then what follows is not shown.
    place = "" if "?" in match["before"] + match["secret"] else match["place"]
    return f"{match['before']}***{place}"


def _is_path(scheme: str, rest: str) -> bool:
    if not scheme:
        return rest.startswith(("/", "~", "./", "../"))
    return bool(re.match(rf"{_PATHS}(?:\+\w+)?://\Z", scheme)) and "://" not in rest


def _split(url: str) -> tuple[str, str]:
    """The scheme, with those of a chain before it and ``://``, and the rest."""
    match = _SCHEME.match(url)
    return (match[0], url[match.end() :]) if match else ("", url)
