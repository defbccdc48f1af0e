"""Builds both container images over a Debian made from packages, and runs them.

    python -m tests.end_to_end.check_containers MODEL

It needs root rights, buildah and mmdebstrap, Debian's packages and the package index, but neither a
registry of images nor a container runtime: the images run in a chroot of their own namespaces, as
an ordinary user, on a read-only root, without a network. The image for video files names the
packaged sample clips; both images pass the golden check.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from tests.end_to_end.check_wheel import CLASSIFY, ROOT, build, check_labels, environment, run

TOOLS = ("buildah", "mmdebstrap", "strip", "unshare")
SUITE = "trixie"
_BASE = "localhost/debian-from-packages"
_RECIPE = ROOT / "examples" / "containers"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_USER = 10001  # as in the recipe
# Runs a command on a read-only root: sh -c ... sh ROOT MODEL COMMAND...
_ON_A_READ_ONLY_ROOT = f"""
root=$1 model=$2; shift 2
mount --bind "$root" "$root" && mount -o remount,ro,bind "$root" || exit 125
mount --bind /proc "$root/proc" && mount --bind /dev "$root/dev" || exit 125
mount --bind "$model" "$root/mnt" && mount -o remount,ro,bind "$root/mnt" || exit 125
exec env -i PATH=/opt/timesformer/bin:/usr/sbin:/usr/bin \
  chroot --userspec={_USER}:{_USER} "$root" "$@"
"""
_CANNOT_WRITE = """
import os, pathlib, sys, timesformer_runtime
assert os.getuid() != 0
for folder in ("/", sys.prefix, pathlib.Path(timesformer_runtime.__file__).parent):
    try:
        (pathlib.Path(folder) / "new").touch()
    except OSError:
        continue
    raise SystemExit(f"{folder} can be written")
"""


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(model: Path) -> None:
    """Exits with 1 where an image is not built or does not run, with 2 where a tool is missing."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise click.UsageError(f"not installed: {', '.join(missing)}; see their Debian packages")
    if os.getuid() != 0:
        raise click.UsageError("mounting images needs root rights")
    with tempfile.TemporaryDirectory(prefix="check-containers-") as name:
        work = Path(name)
        shutil.copytree(model, work / "model")
        _make_readable(work)
        context = work / "context"
        shutil.copytree(_RECIPE, context)
        _, wheel = build(work / "dist", environment(work / "builder"))
        shutil.copy(wheel, context)
        images = _Images(work)
        images.make_base()
        for purpose in ("video", "frames"):
            root = images.build(context, purpose, wheel.name)
            python = "/opt/timesformer/bin/python"
            _in_image(root, work, [python, "-c", _CANNOT_WRITE])
            _in_image(root, work, ["timesformer", "verify", "/mnt"])
            if purpose == "video":
                check_labels(_in_image(root, work, [python, "-c", CLASSIFY, "/mnt"]))
            megabytes = sum(path.lstat().st_size for path in root.rglob("*")) / 1_000_000
            click.echo(f"image for {purpose}: runs; {megabytes:.0f} MB with Debian {SUITE}")


class _Images:
    """Images in a storage of their own, below a folder."""

    def __init__(self, work: Path) -> None:
        self._work = work
        folders: list[str | Path] = ["--root", work / "storage", "--runroot", work / "storage-run"]
        self._buildah: list[str | Path] = ["buildah", "--storage-driver", "vfs", *folders]

    def make_base(self) -> None:
        """Makes an image with no more than Debian's base system and apt."""
        root = self._work / "debian.tar"
        excluded = (f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale"))
        run(["mmdebstrap", "--quiet", "--variant=minbase", *excluded, SUITE, root], ROOT)
        container = self._run("from", "scratch")
        self._run("add", container, root, "/")
        self._run("commit", container, _BASE)
        root.unlink()

    def build(self, context: Path, purpose: str, wheel: str) -> Path:
        """Builds an image; returns the folder in which its root is mounted."""
        # pip in the build trusts those whom this machine trusts.
        settings = self._work / "pip.conf"
        settings.write_text("[global]\ncert = /etc/certificates.crt\n")
        image = f"timesformer-{purpose}"
        arguments = {"BASE": _BASE, "PURPOSE": purpose, "PACKAGE": f"/build/{wheel}"}
        options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        options += [f"--volume={settings}:/etc/pip.conf:ro"]
        if _CERTIFICATES.exists():
            options += [f"--volume={_CERTIFICATES}:/etc/certificates.crt:ro"]
        options += ["--isolation=chroot", "--network=host", "--layers", f"--tag={image}"]
        log = self._run("build", *options, context)
        sizes = (line for line in log.splitlines() if line.startswith(" ") and " MB " in line)
        click.echo("\n".join(sizes))
        return Path(self._run("mount", self._run("from", image)))

    def _run(self, *arguments: str | Path) -> str:
        return run([*self._buildah, *arguments], self._work).strip()


def _in_image(root: Path, work: Path, command: Sequence[str]) -> str:
    """Runs a command as the recipe's user, on a read-only root, without a network."""
    inside: list[str | Path] = ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c"]
    return run([*inside, _ON_A_READ_ONLY_ROOT, "sh", root, work / "model", *command], work)


def _make_readable(folder: Path) -> None:
    """Lets every user read a folder: temporary folders are private."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    main()
