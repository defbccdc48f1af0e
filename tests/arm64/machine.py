"""An emulated Linux machine with a 64-bit ARM processor, in which programs run as on a real one.

The machine is a folder of Debian's packages for ARM. qemu-user runs each of its programs, also
those that other programs start: a user namespace has its own list of interpreters (binfmt_misc),
so nothing of the host changes, and no root rights are needed.
"""

from __future__ import annotations

import dataclasses
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests import debian_packages

REPOSITORY = Path(__file__).parents[2]
CACHE = REPOSITORY / "build" / "arm64"
PROJECT = "/project"  # the repository, inside the machine, read-only
PYTHON_VERSION = "3.11.2"  # of the machine's Debian
SITE_PACKAGES = Path("usr/local/lib/python3.11/dist-packages")
NO_DOT_PRODUCTS, DOT_PRODUCTS, I8MM = "cortex-a53", "cortex-a76", "neoverse-n2"
CPUS = (NO_DOT_PRODUCTS, "cortex-a72", DOT_PRODUCTS, I8MM)

_SUITE = "bookworm"
_PACKAGES = ["python3", "ca-certificates", "coreutils", "dash", "libgcc-s1", "libstdc++6"]
# qemu-user 7.2 of bookworm crashes where ONNX Runtime is imported on a Cortex-A76.
EMULATOR_SUITE, _EMULATOR = "trixie", "usr/bin/qemu-aarch64"
_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
_MOUNT_INTERPRETERS = "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc"
# The first bytes of programs for 64-bit ARM, and the bits of them that must be equal.
_PROGRAM = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
_ENTER = f"""
set -eu
root=$1 interpreter=$2 project=$3 shared=$4
shift 4
{_MOUNT_INTERPRETERS}
printf %s "$interpreter" > /proc/sys/fs/binfmt_misc/register
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$project" "$root{PROJECT}"
mount -o remount,bind,ro "$root{PROJECT}"
mount --bind "$shared" "$root/shared"
exec chroot "$root" "$@"
"""


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine that was built.

    Attributes:
        root: The folder with the machine's files.
        emulator: The program ``qemu-aarch64``.
        shared: The host's folder that programs in the machine see as ``/shared``.
    """

    root: Path
    emulator: Path
    shared: Path

    def run(
        self,
        cpu: str,
        command: list[str],
        *,
        seconds: float,
        variables: Mapping[str, str] | None = None,
        show: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on the machine, in the folder of the project.

        Args:
            cpu: A processor in qemu's spelling.
            command: The command and its arguments.
            seconds: The time after which all processes of the machine are killed.
            variables: Environment variables, over the machine's own.
            show: True to print what the command prints; else it is in the result.

        Raises:
            subprocess.TimeoutExpired: The command took too long.
        """
        interpreter = f":arm64:M::{_PROGRAM}:{_MASK}:{self.emulator}:OCF"
        folders = [str(self.root), interpreter, str(REPOSITORY), str(self.shared)]
        enter = ["sh", "-c", _ENTER, "enter", *folders]
        environment = {
            "QEMU_CPU": cpu,
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
            "PYTHONPYCACHEPREFIX": "/var/cache/python",
            **(variables or {}),
        }
        assignments = [f"{name}={value}" for name, value in environment.items()]
        inside = ["/usr/bin/env", "--ignore-environment", f"--chdir={PROJECT}", *assignments]
        with subprocess.Popen(
            [*_NAMESPACE, *enter, *inside, *command],
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            text=True,
        ) as process:
            try:
                output, errors = process.communicate(timeout=seconds)
            except BaseException:
                process.kill()  # with it ends the namespace, and all that runs there
                raise
        return subprocess.CompletedProcess(command, process.returncode, output, errors)


def missing() -> str | None:
    """Says why this host cannot emulate a machine, with the remedy; None where it can."""
    if platform.machine().lower() not in ("x86_64", "amd64") or sys.platform != "linux":
        return (
            f"the emulation runs on Linux on x86-64, not on {sys.platform} on {platform.machine()}"
        )
    lacking = [
        name for name in (*debian_packages.COMMANDS, "unshare", "mount") if not shutil.which(name)
    ]
    if lacking:
        return f"{', '.join(lacking)} not found: on Debian, apt install apt dpkg util-linux"
    if debian_packages.mirror() is None:
        return "apt names no source of this Debian release: add its suite to /etc/apt/sources.list"
    probe = subprocess.run(
        [*_NAMESPACE, "sh", "-c", _MOUNT_INTERPRETERS], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        return (
            "a user namespace with binfmt_misc of its own is refused: "
            f"{probe.stderr.strip().rpartition(chr(10))[2]} (emulation needs Linux 6.7 or newer, "
            "the module binfmt_misc, and kernel.unprivileged_userns_clone=1 or root rights)"
        )
    return None


def build(shared: Path) -> Machine:
    """Builds the machine in ``build/arm64``, or takes the one that is there.

    Raises:
        debian_packages.DebianError: A package is not available.
    """
    root = made_once("root-" + _SUITE, _unpack_root)
    emulator = made_once("qemu-" + EMULATOR_SUITE, _unpack_emulator) / _EMULATOR
    return Machine(root, emulator, shared.resolve())


def _unpack_root(folder: Path, apt: Path) -> None:
    debian_packages.unpack(_PACKAGES, folder, apt, suite=_SUITE, architecture="arm64")
    for name in ("dev", "proc", "sys", "tmp", "shared", "var/cache/python", PROJECT[1:]):
        (folder / name).mkdir(parents=True, exist_ok=True)


def _unpack_emulator(folder: Path, apt: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as all_files:
        host = debian_packages.host_architecture()
        debian_packages.unpack(
            ["qemu-user"], Path(all_files), apt, suite=EMULATOR_SUITE, architecture=host
        )
        (folder / _EMULATOR).parent.mkdir(parents=True)
        (Path(all_files) / _EMULATOR).rename(folder / _EMULATOR)


def made_once(name: str, make: Callable[[Path, Path], None]) -> Path:
    """Returns a folder of the cache; makes it under another name first, so it is always whole."""
    folder = CACHE / name
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            new = Path(work) / "new"
            new.mkdir()
            make(new, Path(work) / "apt")
            new.rename(folder)
    return folder
