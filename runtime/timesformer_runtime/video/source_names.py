"""Names of videos in messages and results: paths as they are, URLs without what is secret in them.

Cameras and services take passwords as user information, in the query and in the path; a password
may hold any character, so that a URL can be read in several ways. Whatever may be a part of one,
in any of them, is left out.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

_HIDDEN = "***"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):[/\\]+")  # one letter is a drive of Windows
# Without a scheme, or with a mistyped one; a path may look like that as well.
_LIKE_URL = re.compile(
    r"^\W*(?:rtsps?|rtp|rtmps?|srt|udp|tcp|tls|https?|ftp)\W*//.*@|//[^/@]*:.*@"
    r"|^[^/\s@]*:[^/@]*@[^/@\s]+[/:]",
    re.DOTALL | re.IGNORECASE,
)
_IN_TEXT = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]+:[/\\]{2,}[^\s'\"<>]*[?@#=][^\s'\"<>]*[^\s'\"<>:;,.)]"
)
_HOST = re.compile(r"(?:[\w.-]*|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\])(?::\d{1,5})?")
_OUTSIDE_NAMES = re.compile(r"[^\w.~+()!*'-]")
_CREDENTIAL = re.compile(
    r"pass|pwd|psw|secret|token|credential|auth|login|user|usr|admin|session|sign|api.?key"
    r"|(?<![a-z])(?:key|sig|jwt|pin|pw|sid)(?![a-z])"
    r"|[a-z0-9]{24}|(?=[a-z0-9]{16})(?=[a-z]*\d)\d*[a-z]"  # long, of letters and digits
    r"|(?:[a-z0-9]{4}-){3}[a-z0-9]{4}",
    re.IGNORECASE,
)
# As services of television name their channels: by user, password and number.
_CHANNEL = re.compile(r"((?:/(?:live|movie|series|timeshift))?/)[^/]+/[^/]+/\d+(?:\.\w+)?/?")


def shown(name: str) -> str:
    """Names a video for messages and results: a path as it is, a URL without its secrets.

    Of a URL the scheme, the host and the beginning of the path are left; ``***`` stands for user
    information, the query, and parts of the path that look like credentials.
    """
    url = _URL.search(name)
    is_url = url is not None and "//" in url[0].replace("\\", "/")
    if not is_url and ((url is None and not _LIKE_URL.search(name)) or _exists(name)):
        return name
    if url is None:
        return _without_secrets("", name.strip())
    scheme, rest = url[1].lower(), name[url.end() :].rstrip()
    if scheme == "file" and not re.search(r"[@?#]", rest):
        return name
    return f"{scheme}://{_without_secrets(scheme, rest)}"


def hide_secrets(text: str, *sources: str) -> str:
    """Names the sources in a text as ``shown`` does, and whatever else in it is a URL with secrets.

    Args:
        text: A message, such as one that a library wrote.
        sources: Names that may stand in it.
    """
    for source in sources:
        name = shown(source)
        if name != source:
            for form in _written(source):
                text = text.replace(form, name)
    return _IN_TEXT.sub(lambda url: shown(url[0]), text)


def _written(source: str) -> tuple[str, ...]:
    """The ways in which messages write a source, longer ones first."""
    value = source.partition("=")[2] if source.startswith("-") else source  # of an option
    forms = {source, value, value.strip(), str(Path(value))}
    forms |= {" ".join(form.split()) for form in forms} | {repr(form)[1:-1] for form in forms}
    return tuple(sorted(filter(None, forms), key=len, reverse=True))


def _without_secrets(scheme: str, rest: str) -> str:
    """The part of a URL behind its scheme, without secrets."""
    authority = re.split(r"[/\\?#]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    if "@" in tail:
        return _HIDDEN  # it may end a password that began before, or be in one
    user, at, host = authority.rpartition("@")
    if not _HOST.fullmatch(host):
        return _HIDDEN
    path = re.split(r"[?#]", tail, maxsplit=1)[0]
    query = f"?{_HIDDEN}" if len(path) < len(tail) else ""
    return f"{_HIDDEN if user else ''}{at}{host}{_path(scheme, path)}{query}"


def _path(scheme: str, path: str) -> str:
    """A path up to the first part that looks like a credential."""
    channel = _CHANNEL.fullmatch(path) if scheme in {"http", "https"} else None
    if channel is not None:
        return f"{channel[1]}{_HIDDEN}"
    parts = re.split(r"[/\\]", path)
    for place, part in enumerate(parts):
        is_key = scheme.startswith("rtmp") and place > 1  # of a stream; behind the application
        if part and (is_key or _is_secret(part)):
            return "/".join([*parts[:place], _HIDDEN])
    return path


def _is_secret(part: str) -> bool:
    while (decoded := unquote(part)) != part:
        part = decoded
    return _OUTSIDE_NAMES.search(part) is not None or _CREDENTIAL.search(part) is not None


def _exists(name: str) -> bool:
    try:
        return os.path.lexists(name)
    except ValueError:
        return False
