"""Keep passwords and keys out of every text that is printed, logged or raised.

Three tools for three kinds of text: :func:`shown_url` for a given URL, :func:`redacted` for a line
of our own that may repeat a URL, and :func:`scrubbed` for messages of libraries, which may repeat
any part of a URL. The last one knows the secrets of every URL that was passed to
:func:`remember_secrets`.

Has almost no imports, because ``circuits --help`` imports it through
:mod:`registry.settings.table`.
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
"""Schemes of URLs that have only a path."""
_SCHEME = re.compile(r"(?:[a-z0-9+.\-]+::)*[a-z][a-z0-9+.\-]*://", re.IGNORECASE)
# To the last "@" of the word: a password may contain "@", "/", ":", "?" and "#" in clear.
_USERINFO = re.compile(
    rf"(?P<before>\b(?!{_PATHS}[+:])[a-z][a-z0-9+.\-]*://[^\s:@]*:)(?P<secret>\S+)(?P<place>@\S*)",
    re.IGNORECASE,
)
_QUERY = re.compile(rf"(?P<before>[?&]{_SECRET_NAME}=)[^&\s]+", re.IGNORECASE)
_QUERY_OF_URL = re.compile(rf"(?P<before>[?&]{_SECRET_NAME}=)[^&]+", re.IGNORECASE)
_SHORTEST = 4
"""Minimum length of a secret that :func:`scrubbed` looks for; shorter ones are in every text."""

_secrets: set[str] = set()


def redacted(text: str) -> str:
    """Replace the passwords and keys of URLs in a line of text by ``***``.

    A password that contains a space is recognised up to the space. A text that may contain one is
    passed through :func:`shown_url` or :func:`scrubbed` first.
    """
    return _QUERY.sub(r"\g<before>***", _USERINFO.sub(_without_secret, text))


def scrubbed(text: str) -> str:
    """Replace every known secret, and everything that :func:`redacted` recognises, by ``***``.

    For messages of libraries and for tracebacks. If a password is a common word, it replaces more
    than necessary.
    """
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return redacted(text)


def shown_url(url: str) -> str:
    """A URL that is safe to show: password and keys are ``***``, for any possible end of them.

    A path, alone or in a URL that has only a path, is shown unchanged.
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
    """A URL, or a chain of them, without parts that may be secret: user, password and query.

    A path is shown unchanged.
    """
    scheme, rest = _split(url)
    if "://" not in url or _is_path(scheme, rest):
        return url
    before, at, place = rest.rpartition("@")
    if "?" in before:
        return scheme + "..."
    # For a chain, everything from the first user or password up to the last link is removed.
    return scheme + ("...@" if "::" in before else "") + (place if at else rest).partition("?")[0]


def has_password(url: str) -> bool:
    """Whether a URL contains a password or a key; a text without ``://`` is a path without one."""
    return "://" in url and shown_url(url) != url


def has_stray_password(url: str) -> bool:
    """Whether a URL, or a link of a chain, has a word as its port and no ``@`` after it.

    This happens if a password contains ``/``, ``?``, ``#`` or ``::`` in clear. Such a URL is
    refused, because some libraries would treat the password as a port and repeat it in an error.
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
    """Store the passwords and keys of a URL for :func:`scrubbed`."""
    _secrets.update(secret for secret in _secrets_of(url) if len(secret) >= _SHORTEST)


def _secrets_of(url: str) -> Iterator[str]:
    scheme, rest = _split(url)
    if _is_path(scheme, rest):
        return
    found = [match[0].partition("=")[2] for match in _QUERY_OF_URL.finditer(rest)]
    # For every possible end of the password, in every link of a chain.
    for start in (0, *(match.end() for match in re.finditer("://", rest))):
        link = rest[start:]
        found += [link[: at.start()].partition(":")[2] for at in re.finditer("@", link)]
    for secret in found:
        # A library that reads chains treats the text after "::" as another link.
        for part in (secret, *secret.split("::")):
            yield part
            yield unquote(part)


def _without_secret(match: re.Match[str]) -> str:
    # An "@" after a "?" may end a password, or be part of a key; then the rest is not shown.
    place = "" if "?" in match["before"] + match["secret"] else match["place"]
    return f"{match['before']}***{place}"


def _is_path(scheme: str, rest: str) -> bool:
    if not scheme:
        return rest.startswith(("/", "~", "./", "../"))
    return bool(re.match(rf"{_PATHS}(?:\+\w+)?://\Z", scheme)) and "://" not in rest


def _split(url: str) -> tuple[str, str]:
    """The scheme, with the schemes of a chain before it and ``://``, and the rest."""
    match = _SCHEME.match(url)
    return (match[0], url[match.end() :]) if match else ("", url)
