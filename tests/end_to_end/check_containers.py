"""Builds the container images over a Debian made from packages, and runs them.

    python -m tests.end_to_end.check_containers MODEL [--only serve]

It needs root rights, buildah and mmdebstrap, Debian's packages and the package index, but neither a
registry of images nor a container runtime: the images run in a chroot of their own namespaces, as
an ordinary user, on a read-only root, without a network. The image for video files names the
packaged sample clips; it and the image for frames pass the golden check. The image of the service
answers requests and passes its own health check.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from tests.end_to_end.check_wheel import CLASSIFY, ROOT, build, check_labels, environment, run

TOOLS = ("buildah", "mmdebstrap", "strip", "unshare", "ip")
SUITE = "trixie"
_BASE = "localhost/debian-from-packages"
_RECIPE = ROOT / "examples" / "containers"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_USER = 10001  # as in the recipe
_SERVICE_LIMIT = 250  # MB, without the model
# Runs a command on a read-only root: sh -c ... sh ROOT MODEL COMMAND...
_ON_A_READ_ONLY_ROOT = f"""
root=$1 model=$2; shift 2
mount --bind "$root" "$root" && mount -o remount,ro,bind "$root" || exit 125
mount --bind /proc "$root/proc" && mount --bind /dev "$root/dev" || exit 125
mount -t tmpfs none "$root/tmp" && ip link set lo up || exit 125
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
# Runs in the image of the service: starts the service as the image does, asks it, and ends it.
_ASK = """
import json, pathlib, subprocess, sys, time, urllib.request as r
import timesformer_runtime
entry, health = map(json.loads, sys.argv[1:])
service = subprocess.Popen(entry)
for _ in range(600):
    if subprocess.run(health, stderr=subprocess.DEVNULL).returncode == 0:
        break
    time.sleep(0.1)
clips = pathlib.Path(timesformer_runtime.__file__).parent / "sample_clips"
labels = {}
for clip in sorted(clips.glob("*.mp4")):
    url = "http://127.0.0.1:8000/v1/classify?top_k=1&pictures=true"
    answer = json.load(r.urlopen(r.Request(url, clip.read_bytes()), timeout=60))
    assert len(answer["pictures"]) > 1
    labels[clip.stem] = answer["predictions"][0]["label"]
service.terminate()
assert service.wait(60) == 0
print(json.dumps(labels))
"""


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", type=click.Choice(["video", "frames", "serve"]), help="One of the images.")
def main(model: Path, only: str | None) -> None:
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
        if only in {None, "serve"}:
            _check_service(images, context, wheel.name, work)
        for purpose in ("video", "frames"):
            if only not in {None, purpose}:
                continue
            root = images.build(context, purpose, wheel.name)
            python = "/opt/timesformer/bin/python"
            _in_image(root, work, [python, "-c", _CANNOT_WRITE])
            _in_image(root, work, ["timesformer", "verify", "/mnt"])
            if purpose == "video":
                check_labels(_in_image(root, work, [python, "-c", CLASSIFY, "/mnt"]))
            megabytes = sum(path.lstat().st_size for path in root.rglob("*")) / 1_000_000
            click.echo(f"image for {purpose}: runs; {megabytes:.0f} MB with Debian {SUITE}")


def _check_service(images: _Images, context: Path, wheel: str, work: Path) -> None:
    """Builds and runs the image of the service."""
    shutil.copytree(work / "model", context / "my-model")
    root = images.build(context, "serve", wheel, "Containerfile.serve", MODEL="my-model")
    (root / "mnt").mkdir()  # where models of the other images are
    python = "/opt/timesformer/bin/python"
    _in_image(root, work, [python, "-c", _CANNOT_WRITE])
    recipe = (_RECIPE / "Containerfile.serve").read_text(encoding="utf-8")
    entry, health = (
        re.findall(rf"^{name}.*?(\[.*\])$", recipe, re.MULTILINE)[-1]
        for name in ("ENTRYPOINT", "HEALTHCHECK")
    )
    check_labels(_in_image(root, work, [python, "-c", _ASK, entry, health]))
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    model = root / "model"
    megabytes = sum(f.stat().st_size for f in files if model not in f.parents) / 1_000_000
    click.echo(f"image for serve: runs; {megabytes:.0f} MB without the model")
    if megabytes > _SERVICE_LIMIT:
        raise click.ClickException(f"it has more than {_SERVICE_LIMIT} MB")


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

    def build(
        self,
        context: Path,
        purpose: str,
        wheel: str,
        recipe: str = "Containerfile",
        **others: str,
    ) -> Path:
        """Builds an image; returns the folder in which its root is mounted."""
        # pip in the build trusts those whom this machine trusts.
        settings = self._work / "pip.conf"
        settings.write_text("[global]\ncert = /etc/certificates.crt\n")
        image = f"timesformer-{purpose}"
        arguments = {"BASE": _BASE, "PURPOSE": purpose, "PACKAGE": f"/build/{wheel}", **others}
        if purpose == "serve":  # its recipe has no other purpose
            del arguments["PURPOSE"]
        options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        options += [f"--volume={settings}:/etc/pip.conf:ro"]
        if _CERTIFICATES.exists():
            options += [f"--volume={_CERTIFICATES}:/etc/certificates.crt:ro"]
        options += ["--isolation=chroot", "--network=host", "--layers", f"--tag={image}"]
        options += ["--format=docker", f"--file={context / recipe}"]
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
