"""Names of videos in messages and results: paths as they are, URLs without their secrets.

Cameras and services take passwords as user information, in the query and in the path. A password
may hold any character, so a URL can be read in several ways. Messages leave out whatever belongs to
a password in one of these ways.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

_HIDDEN = "***"
_MOST_ENCODINGS = 5  # times that a part of a URL may be percent-encoded
# Patterns that few videos need: ``re`` compiles each of them at its first use.
_URL = r"([A-Za-z][A-Za-z0-9+.-]{1,31}):[/\\]+"  # one letter: a drive of Windows
_IN_TEXT = r"[A-Za-z][A-Za-z0-9+.-]{1,31}:[/\\]{2}[^\s'\"<>]*[^\s'\"<>:;,.)]"
# Text in front of "@" that may be user information, after a mistyped scheme or without a scheme. A
# path may look like this too.
_MISTYPED = r"(?i)\W{0,9}(?:rtsps?|rtp|rtmps?|srt|udp|tcp|tls|https?|ftp)\W{0,3}//"
_WITHOUT_SCHEME = r"//[^/@]*:"
_USER = r"[^/\s@]*:[^/@]*"
_HOST_FOLLOWS = r"[^/@\s]+[/:]"
_HOST = r"(?:[\w.-]*|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\])(?::\d{1,5})?"
# A part of a path that holds one of these characters is not an ordinary name.
_OUTSIDE_NAMES = r"[^\w.~+()!*'-]"
_CREDENTIAL = (
    r"(?i)pass|pwd|psw|secret|token|credential|auth|login|user|usr|admin|session|sign|api.?key"
    r"|(?<![a-z])(?:key|sig|jwt|pin|pw|sid)(?![a-z])"
    r"|[a-z0-9]{24}|(?=[a-z0-9]{16})(?=[a-z]*\d)\d*[a-z]"  # long, of letters and digits
    r"|(?:[a-z0-9]{4}-){3}[a-z0-9]{4}"
)
# Television services name their channels by user, password and number.
_CHANNEL = r"((?:/(?:live|movie|series|timeshift))?/)[^/]+/[^/]+/\d+(?:\.\w+)?/?"


def shown(name: str) -> str:
    """Names a video for messages and results: a path as it is, a URL without its secrets.

    A URL keeps its scheme, its host and the beginning of its path; ``***`` stands for user
    information, the query, and the path from the first part on that looks like a credential.
    """
    url = re.search(_URL, name)
    is_url = url is not None and "//" in url[0].replace("\\", "/")
    if not is_url and ((url is None and not _is_like_url(name)) or _exists(name)):
        return name
    if url is None:
        return _without_secrets("", name.strip())
    scheme, rest = url[1].lower(), name[url.end() :].rstrip()
    if scheme == "file" and not re.search(r"[@?#]", rest):
        return name
    return f"{scheme}://{_without_secrets(scheme, rest)}"


def hide_secrets(text: str, *sources: str) -> str:
    """Replaces the sources in a text, and other URLs that have secrets, by their ``shown`` names.

    Args:
        text: A message, such as one that a library wrote.
        sources: Names of videos that the text may contain.
    """
    for source in sources:
        name = shown(source)
        if name != source:
            for form in _forms_of(source):
                text = text.replace(form, name)
    return re.sub(
        _IN_TEXT, lambda url: shown(url[0]) if set("?@#=") & set(url[0]) else url[0], text
    )


def _is_like_url(name: str) -> bool:
    user, at, host = name.rpartition("@")
    if not at:
        return False
    if re.match(_MISTYPED, user) or re.search(_WITHOUT_SCHEME, user):
        return True
    return re.fullmatch(_USER, user) is not None and re.match(_HOST_FOLLOWS, host) is not None


def _forms_of(source: str) -> tuple[str, ...]:
    """Lists the forms in which messages may contain a source, longer ones first."""
    value = source.partition("=")[2] if source.startswith("-") else source  # --option=value
    forms = {source, value, value.strip(), str(Path(value))}
    forms |= {" ".join(form.split()) for form in forms} | {repr(form)[1:-1] for form in forms}
    return tuple(sorted(filter(None, forms), key=len, reverse=True))


def _without_secrets(scheme: str, rest: str) -> str:
    """Removes secrets from the part of a URL after its scheme."""
    authority = re.split(r"[/\\?#]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    if "@" in tail:
        return _HIDDEN  # this "@" may end a password that holds a slash, or be a part of one
    user, at, host = authority.rpartition("@")
    if not re.fullmatch(_HOST, host):
        return _HIDDEN
    path = re.split(r"[?#]", tail, maxsplit=1)[0]
    query = f"?{_HIDDEN}" if len(path) < len(tail) else ""
    return f"{_HIDDEN if user else ''}{at}{host}{_path(scheme, path)}{query}"


def _path(scheme: str, path: str) -> str:
    """Cuts a path before the first part that looks like a credential."""
    channel = re.fullmatch(_CHANNEL, path) if scheme in {"http", "https"} else None
    if channel is not None:
        return f"{channel[1]}{_HIDDEN}"
    parts = re.split(r"[/\\]", path)
    for number, part in enumerate(parts):
        is_key = scheme.startswith("rtmp") and number > 1  # rtmp://host/application/key
        if part and (is_key or _is_secret(part)):
            return "/".join([*parts[:number], _HIDDEN])
    return path


def _is_secret(part: str) -> bool:
    for _ in range(_MOST_ENCODINGS):
        part = unquote(part)
    return re.search(_OUTSIDE_NAMES, part) is not None or re.search(_CREDENTIAL, part) is not None


def _exists(name: str) -> bool:
    try:
        return os.path.lexists(name)
    except ValueError:
        return False
