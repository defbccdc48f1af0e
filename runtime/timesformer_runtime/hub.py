"""Files from the Hugging Face Hub, by huggingface_hub, with errors that say what to do.

The standard variables (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE, ...) are honoured by
that library. It is imported on first use only: models on this machine run without it.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from timesformer_runtime.errors import HubError, MissingDependencyError, ModelNotFoundError

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(f"{_NAME}/{_NAME}")
_FILE_SUFFIXES = (
    *(".bin", ".ckpt", ".json", ".onnx", ".ort", ".pt", ".pth", ".pyth", ".safetensors", ".zip"),
    *(".avi", ".mkv", ".mov", ".mp4", ".webm"),
)
_LOGIN = "run `hf auth login` or set HF_TOKEN"


def looks_like_hub_id(text: str) -> bool:
    """Whether ``text`` reads as ``owner/name`` on the Hub rather than as a path to a file."""
    return is_hub_id(text) and PurePosixPath(text).suffix.lower() not in _FILE_SUFFIXES


def is_hub_id(text: str) -> bool:
    """Whether ``text`` can be a name ``owner/name`` on the Hub."""
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
        local_files_only: Take what the cache has, and never use the network.

    Returns:
        The file's path in the cache, ``.../snapshots/<commit>/<filename>``.

    Raises:
        ModelNotFoundError: There is no such repository, revision or file.
        HubError: The Hub cannot be reached, refuses access, or broke off.
        MissingDependencyError: huggingface_hub is not installed.
    """
    with _translated(repo_id, revision, filename):
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 (an optional dependency)

        return Path(
            hf_hub_download(repo_id, filename, revision=revision, local_files_only=local_files_only)
        )


def list_files(
    repo_id: str, *, revision: str | None = None, local_files_only: bool = False
) -> list[str]:
    """The files of a model repository, as paths with forward slashes.

    Offline (``local_files_only`` or HF_HUB_OFFLINE) these are the files in the Hub's cache.

    Raises:
        ModelNotFoundError: There is no such repository or revision.
        HubError: The Hub cannot be reached, or refuses access.
        MissingDependencyError: huggingface_hub is not installed.
    """
    with _translated(repo_id, revision, None):
        # An optional dependency.
        from huggingface_hub import HfApi, constants, snapshot_download  # noqa: PLC0415

        if not local_files_only and not constants.HF_HUB_OFFLINE:
            return HfApi().list_repo_files(repo_id, revision=revision)
        folder = Path(
            snapshot_download(repo_id, revision=revision, local_files_only=True, allow_patterns=[])
        )
        return sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )


@contextlib.contextmanager
def _translated(repo_id: str, revision: str | None, filename: str | None) -> Iterator[None]:
    """Turns what huggingface_hub raises into our errors, in one line each."""
    try:
        from huggingface_hub import errors  # noqa: PLC0415 (an optional dependency)
    except ImportError as error:
        raise MissingDependencyError(
            f"{repo_id} is taken for a model on the Hugging Face Hub, which needs huggingface_hub; "
            'run `pip install "timesformer-onnx[hub]"`'
        ) from error

    # OSErrors, those of the HTTP library that this version of huggingface_hub uses, and the
    # RuntimeErrors of its other way to download, Xet.
    network_errors: tuple[type[BaseException], ...] = (
        OSError,
        RuntimeError,
        *errors.HfHubHTTPError.__bases__,
    )
    where = f"{repo_id} at revision {revision}" if revision else repo_id
    try:
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
        raise ModelNotFoundError(f"{repo_id} is no name of a model on the Hub: {error}") from error
    except errors.HfHubHTTPError as error:
        raise _refused(where, error) from error
    except network_errors as error:
        raise _broken_off(f"{filename or 'the list of files'} of {where}", error) from error


def _not_cached(
    where: str, filename: str | None, error: Exception
) -> HubError | ModelNotFoundError:
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
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in {401, 403}:
        return HubError(f"the Hub refused access to {where} (HTTP {status}): {_LOGIN}")
    return HubError(f"the Hub answered HTTP {status} for {where}; try again later")


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
    return lines[0] if lines else type(error).__name__
