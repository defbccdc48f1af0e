"""Downloads files from the Hugging Face Hub with huggingface_hub; errors say what to do.

The library honours the standard variables (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE, ...).
This module imports the library on first use only: models on this machine run without it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from timesformer_runtime.errors import (
    HubError,
    MissingDependencyError,
    ModelNotFoundError,
    quoted,
)

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(f"{_NAME}/{_NAME}")
_FILE_SUFFIXES = (
    *(".bin", ".ckpt", ".json", ".onnx", ".ort", ".pt", ".pth", ".pyth", ".safetensors", ".zip"),
    *(".gz", ".h5", ".npz", ".onnx_data", ".pkl", ".tar", ".tgz"),
    *(".avi", ".mkv", ".mov", ".mp4", ".webm"),
)
_ATTEMPTS = 2  # to get the list of files
_PAUSE = 1.0  # seconds between two attempts
_PATIENCE = 5  # seconds for an answer, unless HF_HUB_ETAG_TIMEOUT is set
_BUSY = {408, 429, 500, 502, 503, 504}  # HTTP statuses after which another attempt makes sense
_LONGEST_REASON = 300  # characters of what a library says
_SECRETS = re.compile(r"(?<=Bearer )[^\s'\"]+|(?<=//)[^/@\s]+(?=@)")
_LOGIN = "run `hf auth login` or set HF_TOKEN"


def looks_like_hub_id(text: str) -> bool:
    """True for ``owner/name``, unless it ends like the name of a file."""
    return is_hub_id(text) and PurePosixPath(text).suffix.lower() not in _FILE_SUFFIXES


def is_hub_id(text: str) -> bool:
    """True for a name ``owner/name`` that the Hub allows."""
    return (
        _HUB_ID.fullmatch(text) is not None
        and len(text) <= 96  # the Hub's limit
        and ".." not in text
        and "--" not in text
    )


def download(
    repo_id: str, filename: str, *, revision: str | None = None, local_files_only: bool = False
) -> Path:
    """Downloads a file of a model repository into the Hub's cache, unless it is there already.

    Args:
        repo_id: ``owner/name``.
        filename: Path of the file in the repository.
        revision: Branch, tag or commit; None for ``main``.
        local_files_only: True to use only the cache, and never the network.

    Returns:
        The file's path in the cache, ``.../snapshots/<commit>/<filename>``.

    Raises:
        ModelNotFoundError: There is no such repository, revision or file.
        HubError: The Hub cannot be reached, refuses access, or broke off.
        MissingDependencyError: huggingface_hub is not installed.
    """
    _check_name(repo_id, filename)
    with _translated(repo_id, revision, filename):
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 (an optional dependency)

        return Path(
            hf_hub_download(repo_id, filename, revision=revision, local_files_only=local_files_only)
        )


def list_files(
    repo_id: str, *, revision: str | None = None, local_files_only: bool = False
) -> list[str]:
    """Lists the files of a model repository, as paths with forward slashes.

    Offline (``local_files_only`` or HF_HUB_OFFLINE) these are the files in the Hub's cache.

    Raises:
        ModelNotFoundError: There is no such repository or revision.
        HubError: The Hub cannot be reached, or refuses access.
        MissingDependencyError: huggingface_hub is not installed.
    """
    with _translated(repo_id, revision, None):
        # An optional dependency.
        from huggingface_hub import constants, snapshot_download  # noqa: PLC0415

        if local_files_only or constants.HF_HUB_OFFLINE:
            folder = Path(
                snapshot_download(
                    repo_id, revision=revision, local_files_only=True, allow_patterns=[]
                )
            )
            return sorted(
                path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
            )
        names = _request_files(repo_id, revision)
    for name in names:
        _check_name(repo_id, name)
    return names


def _request_files(repo_id: str, revision: str | None) -> list[str]:
    """Asks the Hub for the names of the files; asks again, once, after a brief failure.

    One request gives all names. Requests for pages would follow the address that each page names,
    whatever host it is on. huggingface_hub's own function makes six attempts, in 23 seconds.
    """
    from huggingface_hub import HfApi, constants, errors  # noqa: PLC0415 (an optional dependency)

    patience = _PATIENCE
    if constants.HF_HUB_ETAG_TIMEOUT != constants.DEFAULT_ETAG_TIMEOUT:
        patience = constants.HF_HUB_ETAG_TIMEOUT
    attempts_left = _ATTEMPTS
    while True:
        attempts_left -= 1
        start = time.monotonic()
        try:
            info = HfApi().model_info(repo_id, revision=revision, timeout=patience)
            return [str(file.rfilename) for file in info.siblings or ()]
        except _network_errors() as error:
            is_final = isinstance(error, errors.HfHubHTTPError) and _status(error) not in _BUSY
            is_slow = time.monotonic() - start > patience / 2
            if is_final or is_slow or not attempts_left:
                raise
        time.sleep(_PAUSE)


def _check_name(repo_id: str, name: str) -> None:
    """Checks that the name of a file cannot lead out of the cache, where it becomes a path."""
    path = PurePosixPath(name)
    if path.is_absolute() or not {"..", "."}.isdisjoint(name.split("/")) or {*name} & {*"\\\0"}:
        raise HubError(
            f"{repo_id} lists a file {quoted(name)}, which is outside of the repository: do not "
            "trust it"
        )


def _network_errors() -> tuple[type[BaseException], ...]:
    """Lists the errors of downloads: of the system, of huggingface_hub's HTTP library, and of Xet.

    The HTTP library depends on the version of huggingface_hub. Xet, the Hub's other protocol for
    downloads, raises RuntimeErrors.
    """
    from huggingface_hub import errors  # noqa: PLC0415 (an optional dependency)

    return (OSError, RuntimeError, *errors.HfHubHTTPError.__bases__)


@contextlib.contextmanager
def _translated(repo_id: str, revision: str | None, filename: str | None) -> Iterator[None]:
    """Turns errors of huggingface_hub into errors of this package, in one line each."""
    errors = _errors_of_the_library(repo_id)
    where = f"{repo_id} at revision {revision}" if revision else repo_id
    what = f"{filename or 'the list of files'} of {where}"
    try:
        with _quiet():
            yield
    except errors.GatedRepoError as error:  # before RepositoryNotFoundError, its base class
        raise HubError(
            f"{repo_id} is gated: ask for access on its page on the Hub, then {_LOGIN}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"there is no model {repo_id} on the Hub, or it is private: check the name, or {_LOGIN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError(
            f"{repo_id} has no revision {revision}; give a branch, tag or commit that is there"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise _not_cached(where, filename, error) from error
    except errors.EntryNotFoundError as error:
        raise ModelNotFoundError(f"{where} has no file {filename}") from error
    except errors.HFValidationError as error:
        raise ModelNotFoundError(
            f"{repo_id} is not a name that a model on the Hub can have: {error}"
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refused(where, error) from error
    except Exception as error:  # the library can raise anything when a server is not a Hub
        raise _other_error(what, error) from error


def _errors_of_the_library(repo_id: str) -> Any:
    """Imports huggingface_hub; returns the module of its errors."""
    _check_endpoint()
    try:
        from huggingface_hub import errors  # noqa: PLC0415 (an optional dependency)
    except ImportError as error:
        raise MissingDependencyError(
            f"{repo_id} is taken for a model on the Hugging Face Hub, which needs huggingface_hub; "
            'run `pip install "timesformer-onnx[hub]"`'
        ) from error
    return errors


def _check_endpoint() -> None:
    """Checks HF_ENDPOINT, because the import of huggingface_hub fails for some of its values."""
    endpoint = os.environ.get("HF_ENDPOINT")
    if not endpoint:
        return
    try:
        address = urlsplit(endpoint)
        is_valid = address.scheme in {"http", "https"} and address.hostname and address.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise HubError(
            f"HF_ENDPOINT is {quoted(_SECRETS.sub('***', endpoint))}; it must be an address such "
            "as https://huggingface.co"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings about single attempts, unless the user has set another level of the log."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if level == logging.WARNING:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _not_cached(
    where: str, filename: str | None, error: Exception
) -> HubError | ModelNotFoundError:
    """Makes the error for a file that is neither in the cache nor reachable on the Hub."""
    what = f"{filename} of {where}" if filename else where
    if getattr(error.__cause__, "response", None) is not None:
        return _refused(where, error.__cause__)
    if error.__cause__ is not None and "OfflineMode" not in type(error.__cause__).__name__:
        return HubError(
            f"{what} is not in the Hub's cache, and the Hub cannot be reached "
            f"({_first_line(error.__cause__)}); check the network and run it again"
        )
    return ModelNotFoundError(
        f"{what} is not in the Hub's cache, and downloads are switched off; "
        "run it once without `local_files_only` and HF_HUB_OFFLINE"
    )


def _refused(where: str, error: BaseException | None) -> HubError:
    status = _status(error)
    if status in {401, 403}:
        return HubError(f"the Hub refused access to {where} (HTTP {status}): {_LOGIN}")
    return HubError(f"the Hub answered HTTP {status} for {where}; try again later")


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _other_error(what: str, error: Exception) -> HubError | MissingDependencyError:
    if isinstance(error, ImportError):  # a library for the kind of proxy that is set is missing
        return MissingDependencyError(
            f"{what} cannot be downloaded ({_first_line(error)}): install what is missing, or "
            "change ALL_PROXY, HTTPS_PROXY and HTTP_PROXY"
        )
    if isinstance(error, _network_errors()) and not isinstance(error, ValueError):
        return _broken_off(what, error)
    return _not_understood(what, error)


def _not_understood(what: str, error: BaseException) -> HubError:
    return HubError(
        f"{what} cannot be downloaded, because the answer is not that of a Hub, or an address or "
        f"token is not valid ({_first_line(error)}); check HF_ENDPOINT, HF_TOKEN and the proxy, "
        "and whether the network wants a login in a browser first"
    )


def _broken_off(what: str, error: BaseException) -> HubError:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return HubError(
            f"{what} does not fit on the disk of the Hub's cache; make room there, or point "
            "HF_HOME to another disk"
        )
    return HubError(
        f"downloading {what} failed ({_first_line(error)}); check the network and run it again, "
        "or set HF_HUB_OFFLINE=1 to use what was downloaded before"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    line = _SECRETS.sub("***", lines[0]) if lines else type(error).__name__
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."
