"""Uploads a finished export to the Hugging Face Hub.

The library huggingface_hub makes the requests, so its environment variables (HF_ENDPOINT, HF_TOKEN,
...) apply.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer_runtime.errors import HubError, MissingDependencyError

from timesformer_exporter.errors import InvalidOptionError
from timesformer_exporter.folder import REPORT, listed_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LOGIN = "log in with a token that may write (`hf auth login`, or set HF_TOKEN)"


def check_push(repo_id: str, *, private: bool) -> None:
    """Checks before a long export that the Hub is likely to accept its upload.

    Args:
        repo_id: ``owner/name``.
        private: Make the repository private if it is new.

    Raises:
        HubError: The Hub cannot be reached, or does not know the user's token.
        InvalidOptionError: The repository is to be private, but exists and is public.
        MissingDependencyError: huggingface_hub is not installed.
    """
    with _explained(f"nothing was exported: {repo_id} cannot be written on the Hub"):
        from huggingface_hub import HfApi, errors  # noqa: PLC0415 (an optional dependency)

        api = HfApi()
        token = api.whoami().get("auth", {}).get("accessToken", {})
        if token.get("role") == "read":
            raise HubError(
                f"nothing was exported: {repo_id} cannot be written on the Hub, for the token may "
                f"only read; {_LOGIN}"
            )
        try:
            repository = api.model_info(repo_id)
        except errors.RepositoryNotFoundError:
            return
    if private and not repository.private:
        raise InvalidOptionError(
            f"`private` is for a new repository, but {repo_id} exists and is public; make it "
            "private in its settings on the Hub, or leave the option out"
        )


def push(
    folder: Path,
    files: Sequence[str],
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Uploads the files of an export in one commit, so that nobody sees half of it.

    A new repository is created. In an existing one, the commit deletes the files of an earlier
    export that the new export does not have, because they hold other weights. All other files stay.

    Args:
        folder: The exported model.
        files: The paths of its files, relative to the folder.
        repo_id: ``owner/name``.
        private: Make the repository private if it is new.
        revision: The branch that gets the commit; None for ``main``. A new branch is created.

    Returns:
        The URL of the repository, or of its branch.

    Raises:
        HubError: The Hub cannot be reached, refused the upload or broke it off.
        MissingDependencyError: huggingface_hub is not installed.
    """
    failure = (
        f"the export passed its checks and is in {folder}, but was not uploaded to {repo_id} "
        f"(later: hf upload {repo_id} {shlex.quote(str(folder))} .)"
    )
    with _explained(failure), _quiet():
        from huggingface_hub import (  # noqa: PLC0415 (an optional dependency)
            CommitOperationAdd,
            CommitOperationDelete,
            HfApi,
        )

        api = HfApi()
        url = api.create_repo(repo_id, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        outdated = _earlier_files(api, repo_id, revision) - set(files)
        api.create_commit(
            repo_id,
            [
                *(CommitOperationDelete(name) for name in sorted(outdated)),
                *(CommitOperationAdd(name, folder / name) for name in files),
            ],
            commit_message="Upload a TimeSformer exported by timesformer-onnx",
            revision=revision,
        )
    return str(url) if revision is None else f"{url}/tree/{revision}"


def _earlier_files(api: HfApi, repo_id: str, revision: str | None) -> set[str]:
    """The files of the repository that the report of an earlier export lists."""
    present = set(api.list_repo_files(repo_id, revision=revision))
    if REPORT not in present:
        return set()
    report = api.hf_hub_download(repo_id, REPORT, revision=revision)
    return present & listed_files(Path(report))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps huggingface_hub's progress bars and notes on retries off the screen."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from huggingface_hub.utils import logging as hub_logging  # noqa: PLC0415

    shown, verbosity = not are_progress_bars_disabled(), hub_logging.get_verbosity()
    if shown:  # where an environment variable has disabled the bars, these calls would warn
        disable_progress_bars()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if shown:
            enable_progress_bars()


@contextmanager
def _explained(failure: str) -> Iterator[None]:
    """Turns each error of huggingface_hub into one line: ``failure``, the reason, the remedy."""
    try:
        from huggingface_hub import errors  # noqa: PLC0415 (an optional dependency)
    except ImportError as error:
        raise MissingDependencyError(
            '`push_to_hub` needs huggingface_hub; run `pip install "timesformer-onnx[hub]"`'
        ) from error
    try:
        yield
    except HubError:
        raise
    except errors.LocalTokenNotFoundError as error:
        raise HubError(f"{failure}: there is no token; {_LOGIN}") from error
    except errors.OfflineModeIsEnabled as error:
        raise HubError(f"{failure}: HF_HUB_OFFLINE forbids the network; unset it") from error
    except Exception as error:  # a server that is not the Hub makes huggingface_hub raise anything
        raise HubError(f"{failure}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Describes the Hub's answer, or the network's error where there is none, and the remedy."""
    response = getattr(error, "response", None)
    if response is None and error.__cause__ is not None:  # the error of one file among several
        error = error.__cause__
        response = getattr(error, "response", None)
    if response is None:
        first_line = str(error).split("\n", 1)[0]
        return f"{type(error).__name__}: {first_line}; check the network and try again"
    said = getattr(error, "server_message", None)
    answer = f"HTTP {response.status_code}" + (f": {said}" if said else "")
    if response.status_code in {401, 403}:
        return f"the Hub refused it ({answer}); {_LOGIN}"
    return f"the Hub answered {answer}; try again later"
