"""Unpacks a package of another Debian release into a folder; installs nothing."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class UnavailableError(Exception):
    """The package is not available; the message says why, in one line."""


def unpack(package: str, release: str, folder: Path) -> Path:
    """Downloads and unpacks a package, from the mirror that this machine's apt uses.

    The package's dependencies are not unpacked.

    Args:
        package: Name of the package.
        release: Code name of the Debian release, such as ``trixie``.
        folder: Receives the files, and what apt downloads to find them. If the files are there
            from an earlier call, nothing is downloaded.

    Returns:
        The folder that has the package's files.

    Raises:
        UnavailableError: This machine does not run Debian, or apt fails.
    """
    root = folder / package
    if root.exists():
        return root
    for needed in ("apt-get", "dpkg-deb"):
        if shutil.which(needed) is None:
            raise UnavailableError(f"{needed} is not installed")
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    sources = folder / "sources.list"
    key = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    sources.write_text(f"deb {key}{_mirror()} {release} main\n")
    apt = [
        "apt-get",
        f"-oDir::Etc::sourcelist={sources.absolute()}",
        "-oDir::Etc::sourceparts=-",
        f"-oDir::State::lists={(folder / 'lists').absolute()}",
        f"-oDir::Cache={(folder / 'cache').absolute()}",
        "-oAPT::Sandbox::User=root",
        "-oDebug::NoLocking=1",
    ]
    _run([*apt, "update", "--error-on=any"], folder)
    _run([*apt, "download", package], folder)
    (file,) = folder.glob(f"{package}_*.deb")
    unfinished = folder / f"{package}.unfinished"
    _run(["dpkg-deb", "-x", file.name, unfinished.name], folder)
    file.unlink()
    return unfinished.rename(root)


def _mirror() -> str:
    """Finds the address from which this machine gets its own Debian release."""
    try:
        system = platform.freedesktop_os_release()
    except OSError as error:
        raise UnavailableError("this machine does not run Debian") from error
    if system["ID"] != "debian":
        raise UnavailableError(f"this machine runs {system['ID']}, not Debian")
    fields = "$(RELEASE) $(REPO_URI)"
    for line in _run(["apt-get", "indextargets", "--format", fields], Path()).splitlines():
        name, _, address = line.partition(" ")
        if name == system.get("VERSION_CODENAME"):
            return address
    raise UnavailableError("this machine's apt names no mirror of its own release")


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
        raise UnavailableError(f"{' '.join([command[0], command[-1]])}: {reason}")
    return done.stdout
