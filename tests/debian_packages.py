"""Unpacks Debian packages of any suite and processor into a folder, without installing them.

apt resolves and downloads the packages with lists of its own, so that the system's apt and dpkg
see nothing of it. That needs neither root rights nor a tool that Debian does not always have.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

COMMANDS = ("apt-get", "dpkg", "dpkg-deb")


class DebianError(RuntimeError):
    """A package is not available; the message says which command failed, and its last line."""


def mirror() -> str | None:
    """The address that this system takes Debian's packages from; None on another system."""
    index = "$(RELEASE) $(COMPONENT) $(REPO_URI)"
    lines = _run(["apt-get", "indextargets", "--format", index, "Created-By: Packages"])
    codename = _os_release().get("VERSION_CODENAME")
    for line in lines.splitlines():
        suite, component, address = line.split(maxsplit=2)
        if suite in {codename, "stable"} and component == "main":
            return address
    return None


def unpack(
    packages: list[str],
    into: Path,
    apt: Path,
    *,
    suite: str,
    architecture: str,
    dependencies: bool = True,
) -> None:
    """Downloads packages, and unpacks them.

    Args:
        packages: Names of packages.
        into: The folder to unpack into.
        apt: A folder for apt's lists and downloads.
        suite: The Debian release, such as ``bookworm``.
        architecture: The processor in Debian's spelling, such as ``arm64``.
        dependencies: True to unpack also all packages that these depend on.

    Raises:
        DebianError: A package is not available.
    """
    lacking = [name for name in COMMANDS if not shutil.which(name)]
    if lacking:
        raise DebianError(f"{', '.join(lacking)} not found; this needs Debian")
    options = _apt_options(apt, suite, architecture)
    archives = apt / "cache" / "archives"
    install = ["--yes", "--download-only", "install"] if dependencies else ["download"]
    _run(["apt-get", *options, "update"])
    _run(["apt-get", *options, *install, *packages], folder=archives)
    into.mkdir(parents=True, exist_ok=True)
    for package in sorted(archives.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(into)])


def unpack_source(package: str, into: Path, apt: Path, *, suite: str) -> None:
    """Downloads the source of a package, and unpacks it as its authors wrote it.

    Args:
        package: The name of a source package.
        into: The folder whose contents become the source.
        apt: A folder for apt's lists.
        suite: The Debian release.

    Raises:
        DebianError: The package is not available.
    """
    options = _apt_options(apt, suite, host_architecture())
    _run(["apt-get", *options, "update"])
    _run(["apt-get", *options, "--download-only", "source", package], folder=apt)
    (archive,) = apt.glob(f"{package}_*.orig.tar.*")
    into.mkdir(exist_ok=True)
    _run(["tar", "-xf", str(archive), "--strip-components=1", "-C", str(into)])


def host_architecture() -> str:
    """This system's processor in Debian's spelling."""
    return _run(["dpkg", "--print-architecture"]).strip()


def _apt_options(apt: Path, suite: str, architecture: str) -> list[str]:
    """Makes apt's folder; returns options with which apt reads and writes nothing else.

    Raises:
        DebianError: This system's apt does not take packages from Debian.
    """
    address = mirror()
    if address is None:
        raise DebianError("this system's apt takes no packages from Debian")
    apt = apt.absolute()  # apt may run in another folder
    (apt / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (apt / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()  # no package is installed
    (apt / "sources.list").write_text(
        "".join(f"{kind} {address} {suite} main\n" for kind in ("deb", "deb-src"))
    )
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "0",
        "APT::Sandbox::User": "root",  # the user _apt may not read this folder
        "Debug::NoLocking": "1",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": apt,
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        # With these, a container's settings would delete each download at once.
        "Binary::apt-get::APT::Keep-Downloaded-Packages": "1",
    }
    return [f"--option={name}={value}" for name, value in settings.items()]


def _os_release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name: value.strip('"') for name, _, value in pairs}


def _run(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise DebianError(f"{' '.join(command[:1] + command[-2:])}: {last}")
    return done.stdout
