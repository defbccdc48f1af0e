"""Makes the root of an image that runs one Python environment and nothing else.

    python3 minimal_root.py /root-of-image /opt/timesformer

The root has Debian's Python, the environment, and the libraries that their programs and modules
name; no shell and no package manager. The script runs in a Debian container, as root.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_PACKAGES = (f"{_PYTHON}-minimal", f"lib{_PYTHON}-minimal", f"lib{_PYTHON}-stdlib", "netbase")
_LEFT_OUT = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/binfmts/", "/usr/share/lintian/")
# Parts of the standard library that programs for terminals, installers and debuggers use.
_UNUSED = (
    *("_pyrepl/", "curses/", "dbm/", "ensurepip/", "idlelib/", "pydoc_data/", "sqlite3/"),
    *("tkinter/", "turtledemo/", "unittest/", "venv/", "xmlrpc/"),
    *("lib-dynload/_codecs_", "lib-dynload/_test", "lib-dynload/_ctypes_test"),  # CJK texts, tests
    *("lib-dynload/_curses", "lib-dynload/_dbm", "lib-dynload/_sqlite3", "lib-dynload/readline"),
)
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
_USER = 10001
# Writes the bytecode of what a service imports: later the root is read-only.
_IMPORT = "import timesformer_runtime.cli.serve, timesformer_runtime.serve.server"


def copy(path: Path, root: Path) -> None:
    """Copies a file or link to its own place below another root, with what the link leads to."""
    parent = path.parent.resolve()  # /lib is a link to /usr/lib
    target = root / parent.relative_to("/") / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.exists():
        return
    shutil.copy2(path, target, follow_symlinks=False)
    if path.is_symlink():
        copy(parent / path.readlink(), root)


def files_of_python() -> Iterable[Path]:
    """Lists the files of Debian's packages of Python."""
    done = subprocess.run(  # noqa: S603
        ["/usr/bin/dpkg", "--listfiles", *_PACKAGES], check=True, capture_output=True, text=True
    )
    unused = tuple(f"/usr/lib/{_PYTHON}/{name}" for name in _UNUSED)
    for line in done.stdout.splitlines():
        if line.startswith("/") and not line.startswith((*_LEFT_OUT, *unused)):
            path = Path(line)
            if path.is_file() or (path.is_symlink() and not path.is_dir()):
                yield path


def libraries_of(folder: Path) -> set[Path]:
    """Finds the libraries of the system that programs and modules below a folder name."""
    found: set[Path] = set()
    programs = [path for path in folder.rglob("*") if _is_program(path)]
    for program in programs:
        done = subprocess.run(  # noqa: S603
            ["/usr/bin/ldd", str(program)], check=False, capture_output=True, text=True
        )
        found.update(map(Path, _LIBRARY.findall(done.stdout)))
    return {path for path in found if path.is_absolute() and folder not in path.parents}


def _is_program(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def main() -> None:
    """Makes the root."""
    root, environment = map(Path, sys.argv[1:])
    for link in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / link).mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to(f"usr/{link}")
    for path in files_of_python():
        copy(path, root)
    (root / "usr/bin/python3").symlink_to(_PYTHON)
    shutil.copytree(environment, root / environment.relative_to("/"), symlinks=True)
    for folder in (root, environment):
        for library in libraries_of(folder):
            if environment not in library.parents:
                copy(library, root)
    for folder in ("dev", "proc", "sys", "etc", "tmp", "model"):
        (root / folder).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    user = f"timesformer:x:{_USER}:{_USER}::/:/usr/sbin/nologin\n"
    (root / "etc/passwd").write_text(f"root:x:0:0::/:/usr/sbin/nologin\n{user}")
    (root / "etc/group").write_text(f"root:x:0:\ntimesformer:x:{_USER}:\n")
    subprocess.run(  # noqa: S603
        ["/usr/sbin/chroot", str(root), str(environment / "bin/python"), "-c", _IMPORT], check=True
    )
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    size = sum(path.stat().st_size for path in files)
    print(f"{size / 1_000_000:8.1f} MB in {root}")


if __name__ == "__main__":
    main()
