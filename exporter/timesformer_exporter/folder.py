"""Writes a folder whole or not at all: first a hidden folder beside it, which is then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import TimesformerError

from timesformer_exporter.errors import InvalidOptionError, OutputExistsError, OutputWriteError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

REPORT = "export_report.json"
REJECTED = ".rejected"  # suffix of a folder that failed the checks, and of its graphs
_GRAPHS = "onnx"
# The files that every export writes beside the graphs, which the report lists.
_WRITTEN = frozenset({"config.json", "preprocessor_config.json", REPORT, "README.md"})
_LONGEST_REPORT = 10_000_000  # bytes

# Parts of the names of the hidden folders beside the output: the first holds the files of an export
# that runs, the second an earlier export that is being replaced.
_UNFINISHED, _REPLACED = "partial", "replaced"

# Seconds to wait for other exports, which only rename meanwhile, and between two attempts.
_MOST_PATIENCE, _PAUSE = 10.0, 0.01


def check_path(output: Path) -> None:
    """Refuses a path where no folder can be written.

    Raises:
        InvalidOptionError: The path cannot be a folder of its own, or the folder that would hold it
            is not there or not writable.
    """
    parent = output.absolute().parent
    if output.name in ("", "..") or os.path.ismount(output):
        raise InvalidOptionError(
            f"`output` {output} cannot be replaced by a new folder; give a folder inside it"
        )
    try:
        str(output.absolute()).encode()
    except UnicodeEncodeError as error:
        raise InvalidOptionError(
            f"`output` {str(output.absolute())!a}: ONNX Runtime opens only paths in UTF-8; give "
            "another name"
        ) from error
    if not parent.is_dir():
        raise InvalidOptionError(f"`output` {output}: there is no folder {parent}; create it first")
    if not os.access(parent, os.W_OK):
        raise InvalidOptionError(f"`output` {output}: the folder {parent} is not writable")


def check_output(output: Path, *, force: bool) -> None:
    """Refuses an output that ``publish`` could not write, before the long work of an export.

    Raises:
        OutputExistsError: The folder exists and ``force`` is not given, or the folder holds
            anything that no earlier export wrote, which ``force`` does not delete.
        InvalidOptionError: As in ``check_path``.
    """
    check_path(output)
    with _turn_to_rename(output):
        _check_existing(output, force=force)


def _check_existing(output: Path, *, force: bool) -> None:
    if not os.path.lexists(output):
        return
    if not force:
        raise OutputExistsError(f"{output} exists; give `force` to replace it, or another `output`")
    problem = _why_not_an_export(output)
    if problem is not None:
        raise OutputExistsError(
            f"{output} exists and is not an earlier export ({problem}); "
            "`force` does not delete it: move it away, or give another `output`"
        )


def clean_up(output: Path) -> bool:
    """Removes the hidden folders that exports to the same output left when they were killed.

    Exports that still run have locked their hidden folders; those stay. An earlier export that a
    killed one had moved out of the way is moved back where ``output`` does not exist.

    Returns:
        True where an earlier export was moved back.
    """
    pattern = re.compile(
        rf"\.{re.escape(output.name)}\.({_UNFINISHED}|{_REPLACED})-[^.]+", re.DOTALL
    )
    moved_back = False
    try:
        beside = list(output.absolute().parent.iterdir())
    except PermissionError:  # the user may write to that folder, but not list it
        return False
    for folder in beside:
        if not pattern.fullmatch(folder.name):
            continue
        with contextlib.suppress(OSError), _lock(folder) as locked:
            if not locked:
                continue
            earlier = folder / output.name
            if earlier.exists() and not os.path.lexists(output):
                earlier.rename(output)
                moved_back = True
            shutil.rmtree(folder, ignore_errors=True)
    return moved_back


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """Makes a hidden folder beside ``output`` to write into, and removes it at the end.

    ``publish``, called in the block, renames the folder to ``output``. Any exception removes the
    folder, KeyboardInterrupt included. If the process is killed, ``clean_up`` of the next export
    removes the folder. Errors name the files by their later paths in ``output``.
    """
    with _hidden_folder(output, _UNFINISHED) as staging:
        try:
            yield staging
        except OutputWriteError as error:
            if not error.path.is_relative_to(staging):
                raise
            final = output / error.path.relative_to(staging)
            raise OutputWriteError(final, error.reason, error.remedy) from error


def publish(staging: Path, output: Path, *, force: bool) -> None:
    """Renames a finished staging folder to ``output``, replacing an earlier export if forced.

    Raises:
        OutputExistsError: ``output`` exists, and may not be replaced.
        OutputWriteError: The folder cannot be renamed.
    """
    check_path(output)
    with _turn_to_rename(output), writing(output), contextlib.ExitStack() as stack:
        _check_existing(output, force=force)
        if not output.exists():
            staging.rename(output)
            return
        earlier = stack.enter_context(_hidden_folder(output, _REPLACED)) / output.name
        try:
            output.rename(earlier)
            staging.rename(output)
        except BaseException:  # an interrupt between the two renames, too
            if earlier.exists() and not output.exists():
                earlier.rename(output)
            raise


@contextmanager
def writing(path: Path, size: int = 0, elsewhere: str = "give an `output`") -> Iterator[None]:
    """Turns a failed write in the block into an error with the file, the reason and the remedy.

    Args:
        path: The file that the block writes.
        size: About how many bytes the block writes, for libraries that raise other errors than
            OSError where the disk is full. After such an error, ``writing`` itself tries to write
            as many bytes beside ``path``, to learn if the disk is the reason.
        elsewhere: The beginning of the remedy, which the words "in another folder" or "on another
            disk" follow.

    Raises:
        OutputWriteError: The block raised an OSError, or the disk has no room for ``size`` bytes.
    """
    try:
        yield
    except TimesformerError:
        raise
    except OSError as error:
        raise _write_error(path, error, elsewhere) from error
    except Exception:
        try:
            _try_to_write(path.with_name(f"{path.name}.room"), size)
        except OSError as error:
            raise _write_error(path, error, elsewhere) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8; lone surrogates, as in names that are not UTF-8, become escapes."""
    with writing(path):
        path.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, values: Any) -> None:
    """Writes readable JSON."""
    write_text(path, to_json(values, indent=2) + "\n")


def to_json(values: Any, indent: int | None = None) -> str:
    r"""JSON that can be encoded as UTF-8: a lone surrogate becomes JSON's own escape ``\udc80``."""
    text = json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()


def listed_files(report: Path) -> frozenset[str]:
    """The files that a report lists; none where the file is not the report of an export."""
    try:
        with report.open("rb") as file:
            return frozenset(json.loads(file.read(_LONGEST_REPORT))["files"])
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return frozenset()


def _why_not_an_export(folder: Path) -> str | None:
    """Returns the reason why a folder is not an earlier export; None for exports, empty folders."""
    if folder.is_symlink():
        return "it is a symbolic link"
    if not folder.is_dir():
        return "it is a file"
    graphs = folder / _GRAPHS
    found = [path for path in folder.iterdir() if path != graphs or not _is_folder(graphs)]
    if _is_folder(graphs):
        found += graphs.iterdir()
    if found and not (folder / REPORT).is_file():
        return f"it has no {REPORT}"
    listed = listed_files(folder / REPORT)
    written = _WRITTEN | listed | {f"{name}{REJECTED}" for name in listed}
    others = sorted(
        path.relative_to(folder).as_posix()
        for path in found
        if _is_folder(path) or path.relative_to(folder).as_posix() not in written
    )
    return f"it holds {others[0]}, which no export has written there" if others else None


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


@contextmanager
def _hidden_folder(output: Path, kind: str) -> Iterator[Path]:
    """Makes a folder beside ``output``, locks it while the block runs, and removes it then."""
    while True:
        with writing(output):
            name = tempfile.mkdtemp(prefix=f".{output.name}.{kind}-", dir=output.absolute().parent)
        folder = Path(name)
        with _lock(folder) as locked:
            # Before the lock, another export's clean_up may have taken the folder for abandoned.
            if locked is False or not folder.exists():
                continue
            try:
                folder.chmod(0o777 & ~_umask())  # mkdtemp makes folders for their owner alone
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


@contextmanager
def _turn_to_rename(output: Path) -> Iterator[None]:
    """Waits until no other export renames folders beside ``output``, and keeps others waiting.

    Between the two renames of a replacement there is no ``output``. Another export that looked then
    would put its own folder there, and the first export would fail.
    """
    end = time.monotonic() + _MOST_PATIENCE
    while True:
        with _lock(output.absolute().parent.resolve()) as locked:
            if locked is not False or time.monotonic() > end:
                yield
                return
        time.sleep(_PAUSE)


@contextmanager
def _lock(folder: Path) -> Iterator[bool | None]:
    """Locks a folder until the end of the block; the system ends the lock of a killed process.

    Yields:
        True where this process has the lock now; False where another process has the lock, or
        removed the folder; None on systems and disks without such locks.
    """
    if fcntl is None:
        yield None
        return
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:  # another process has just removed it
        yield False
        return
    except OSError:
        yield None
        return
    try:
        yield _try_to_lock(file)
    finally:
        os.close(file)


def _try_to_lock(file: int) -> bool | None:
    """Locks an open folder; returns what ``_lock`` yields."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _try_to_write(path: Path, size: int) -> None:
    """Writes ``size`` bytes to a file and removes it again."""
    chunk = bytes(1 << 20)
    try:
        with path.open("wb") as file:
            for start in range(0, size, len(chunk)):
                file.write(chunk[: size - start])
    finally:
        path.unlink(missing_ok=True)


def _write_error(path: Path, error: OSError, elsewhere: str) -> OutputWriteError:
    remedy = f"{elsewhere} in another folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = f"make room on that disk, or {elsewhere} on another disk"
    elif error.errno == errno.EFBIG:
        remedy = "raise the limit on the size of files (ulimit -f)"
    elif error.errno == errno.ENAMETOOLONG:
        remedy = "give a shorter name"
    return OutputWriteError(path, error.strerror or str(error), remedy)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
