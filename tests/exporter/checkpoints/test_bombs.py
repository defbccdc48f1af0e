"""Small files that state huge sizes: refused in seconds, without memory of these sizes."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import select
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from timesformer_exporter.checkpoints.inert_pickle import MOST_OPCODES
from timesformer_exporter.checkpoints.tensor_check import empty_model

from tests.checkpoint_samples import random_model, tiny_config, to_facebook

MIB = 1 << 20
MEMORY = 512 * MIB  # of address space, beyond what the imports take
LARGE = 600 * MIB
SECONDS = 60  # for one file; each takes a few seconds on an idle machine

# Runs in a process of its own, because code in C obeys neither signals nor exceptions, only a kill.
READ = f"""
import json, resource, sys
from pathlib import Path
from timesformer_exporter.checkpoints import load_checkpoint
from timesformer_exporter.errors import ExportError
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + {MEMORY}, taken + {MEMORY}))
print(json.dumps("ready"), flush=True)
for path in sys.stdin:
    try:
        load_checkpoint(path.strip())
        said = "loaded"
    except ExportError as error:
        said = str(error)
    print(json.dumps(said), flush=True)
"""

# Opcodes of pickles. A tuple that holds the next one twice, 60 levels deep.
NESTED = b"N" + b"2\x86" * 60
PICKLES = {
    "nested key": b"\x80\x02}" + NESTED + b"K\x01s.",
    "nested item of a set": b"\x80\x04\x8f(" + NESTED + b"\x90.",
    "nested item of a frozenset": b"\x80\x04(" + NESTED + b"\x91.",
    "nested pair of a dict": b"\x80\x02ccollections\nOrderedDict\n]("
    + NESTED
    + b"K\x01\x86e\x85R.",
    "nested key of a storage": (
        b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\n" + NESTED + b"X\x03\0\0\0cpuK\x04tQ."
    ),
    "nested kind of storage": b"\x80\x02" + NESTED + b"Q.",
    "nested name of a class": b"\x80\x04" + NESTED + NESTED + b"\x93.",
    "nested label of a configuration": b"\x80\x02}X\x03\0\0\0cfg" + NESTED + b"s.",
    "memo index": b"\x80\x02]r" + struct.pack("<I", 1 << 28) + b".",
    "stated string": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"abc.",
    "stated bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",
    "stated integer": b"\x80\x02\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"\x01.",
    "integers with one hash": (
        b"\x80\x02}("
        + b"".join(pickle.dumps(i * (2**61 - 1), 2)[2:-1] + b"N" for i in range(1, 150_000))
        + b"u."
    ),
    "lists without end": b"\x80\x04" + b"]\x94" * (MOST_OPCODES // 2 + 1) + b".",
}


def as_zip(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)


def as_stream(path: Path, data: bytes) -> None:
    """The layout before zip archives: magic, version and system come before the object."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + data + b"\x80\x02].")


def as_folder(path: Path, state: dict[str, torch.Tensor], **config: object) -> None:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(tiny_config().to_dict() | config))
    torch.save(state, path / "pytorch_model.bin")


def deflated(name: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        config = tiny_config(hidden_size=64)
        torch.save(to_facebook(random_model(config).state_dict()), path)
        with zipfile.ZipFile(path) as archive:
            entries = {entry: archive.read(entry) for entry in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for entry, data in entries.items():
                is_large = entry.endswith(name)
                kind = zipfile.ZIP_DEFLATED if is_large else zipfile.ZIP_STORED
                archive.writestr(entry, bytes(LARGE) if is_large else data, kind, 1)

    return write


def tar_header(path: Path, kind: bytes, size: int, content: bytes = b"") -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, size
    path.write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + content)


def many_entries(path: Path) -> None:
    """A zip archive whose list of entries really has 17 MB."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", *[0] * 9, 5, *[0] * 6) + b"abcde"
    count = 17 * MIB // len(entry) + 1
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count % 65536, count % 65536, *[0] * 3)
    end = end[:12] + struct.pack("<2I", count * len(entry), 4) + end[20:]
    path.write_bytes(b"PK\3\4" + entry * count + end)


def stated_storage(write: Callable[[Path, bytes], None]) -> Callable[[Path], None]:
    """A tensor of a thousand billion numbers, of which the file has none."""
    size = b"\x8a\x06" + (10**12).to_bytes(6, "little")
    storage = (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu" + size + b"tQ"
    )
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + size + b"\x85K\x01\x85\x89}tR"
    )
    return lambda path: write(path, b"\x80\x02}X\x01\0\0\0w" + tensor + b"s.")


def repeated_numbers(path: Path) -> None:
    """Layers that store one number each; strides of 0 expand each to a huge tensor."""
    config = tiny_config(hidden_size=4096, intermediate_size=8192, num_attention_heads=64)
    shapes = {name: tensor.shape for name, tensor in empty_model(config).state_dict().items()}
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    as_folder(path, state, **config.to_dict())
    assert sum(4 * shape.numel() for shape in shapes.values()) > LARGE
    assert (path / "pytorch_model.bin").stat().st_size < MIB


def repeated_modules(path: Path) -> None:
    module = torch.nn.Module()
    module.cls_token = torch.nn.Parameter(torch.zeros(1))
    for _ in range(60):
        parent = torch.nn.Module()
        parent.left = parent.right = module
        module = parent
    torch.save(module, path)


def module_in_itself(path: Path) -> None:
    module = torch.nn.Module()
    module.cls_token = torch.nn.Parameter(torch.zeros(1))
    module._modules["inner"] = module
    torch.save(module, path)


def with_names(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        config = tiny_config(hidden_size=64)
        state = to_facebook(random_model(config).state_dict())
        torch.save(state | dict.fromkeys(names, torch.zeros(1)), path)

    return write


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "deflated data.pkl": (deflated("data.pkl"), "has a compressed data.pkl"),
    "deflated byteorder": (deflated("byteorder"), "has a compressed byteorder"),
    "deflated storage": (deflated("data/0"), "has a compressed data/0"),
    "list of entries": (many_entries, "has a list of entries of 17,"),
    "safetensors header": (
        lambda path: path.write_bytes(struct.pack("<Q", 17 * MIB) + b"{" + b" " * 18 * MIB),
        "has a header of 17,825,792 bytes, and at most 16,777,216 are read",
    ),
    "stated storage in a zip": (stated_storage(as_zip), "broken or cut short"),
    "stated storage in a stream": (stated_storage(as_stream), "broken or cut short"),
    "tar that states 8 GB": (
        lambda path: tar_header(path, tarfile.GNUTYPE_LONGNAME, (8 << 30) - 1),
        "is a tar archive",
    ),
    "tar with a long pax header": (
        lambda path: tar_header(path, tarfile.XHDTYPE, 102_400, b"9" * 102_400),
        "is a tar archive",
    ),
    "zipped tar": (
        lambda path: path.write_bytes(gzip.compress(bytes(LARGE), 1)),
        "is compressed (gzip); unpack it",
    ),
    "a million layers": (
        lambda path: as_folder(
            path, random_model(tiny_config()).state_dict(), num_hidden_layers=1_000_000
        ),
        "num_hidden_layers is 1000000; it must be at most 512",
    ),
    "10,000 layers": (
        with_names(*(f"blocks.{i}.norm1.weight" for i in range(10_000))),
        "num_hidden_layers is 10000; it must be at most 512",
    ),
    "layer in the distance": (
        with_names("blocks.999999999.norm1.weight"),
        "has no tensors of layer 2",
    ),
    "repeated numbers": (repeated_numbers, "more than 32 times as many"),
    "repeated modules": (repeated_modules, "its model has more than 100,000 modules"),
    "module in itself": (module_in_itself, "its model has names of more than 500 characters"),
}


class Reader:
    """A process that reads files within the limits of time and memory."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", READ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[3],
        )
        assert self.line(300) == "ready"

    def line(self, seconds: float) -> str:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            self.process.kill()
        line = self.process.stdout.readline()
        assert line, f"the reader died, or read for {seconds} s"
        return str(json.loads(line))

    def said_of(self, path: Path) -> str:
        assert self.process.stdin is not None
        print(path, file=self.process.stdin)
        return self.line(SECONDS)


@pytest.fixture(scope="module")
def readers() -> Iterator[list[Reader]]:
    """The reader processes; the last one reads the files, and a test starts it where it died."""
    used: list[Reader] = []
    yield used
    for reader in used:
        reader.process.kill()
        reader.process.communicate()


def said_of(path: Path, readers: list[Reader]) -> str:
    if not readers or readers[-1].process.poll() is not None:
        readers.append(Reader())
    message = readers[-1].said_of(path)
    assert path.name in message
    assert "\n" not in message
    assert "frames" not in message  # fewer frames would not help
    return message


@pytest.mark.parametrize("layout", [as_zip, as_stream])
@pytest.mark.parametrize("kind", PICKLES)
def test_pickles_that_announce_much(
    tmp_path: Path, readers: list[Reader], kind: str, layout: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "bomb.pth"
    layout(path, PICKLES[kind])
    said_of(path, readers)


@pytest.mark.parametrize("kind", FILES)
def test_files_that_announce_much(tmp_path: Path, readers: list[Reader], kind: str) -> None:
    write, expected = FILES[kind]
    path = tmp_path / "bomb.pth"
    write(path)
    assert expected in said_of(path, readers)
