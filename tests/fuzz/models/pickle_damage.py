"""Damages pickles with instructions that ``torch.save`` does not write, and their archives."""

from __future__ import annotations

import io
import pickletools
import zipfile

from tests.fuzz.models.hostile import PATHS, TEXTS, pick
from tests.fuzz.mutations import Random, mutate

_SIZES = (0, 1, 255, 65536, 1 << 20, 1 << 28, 1 << 30, (1 << 31) - 1)
_MANY_ZEROS = 1 << 24


def _calls(module: str, name: str, argument: str) -> bytes:
    """The instructions that import ``module.name``, call it and drop the result."""
    return f"c{module}\n{name}\n(S'{argument}'\ntR0".encode()


def _texts() -> list[bytes]:
    encoded = [text.encode("utf-8", "surrogatepass") for text in (*TEXTS, *PATHS)]
    return [b"X" + len(text).to_bytes(4, "little") + text for text in encoded]


# Instructions of pickle to put between any two others. Where one leaves a value on the stack, the
# next instruction of the file often takes that value for its own.
_INSTRUCTIONS: tuple[bytes, ...] = (
    # Programs that run where pickle imports what a file names.
    _calls("os", "system", "touch pickled"),
    _calls("posix", "system", "touch pickled"),
    _calls("builtins", "eval", '__import__("os").system("touch pickled")'),
    _calls("builtins", "open", "secret.bin"),
    _calls("pathlib", "Path.touch", "pickled"),
    _calls("torch", "load", "secret.bin"),
    _calls("torch.hub", "load_state_dict_from_url", "http://127.0.0.1:1/x"),
    _calls("torch._utils", "_rebuild_tensor_v2", "x"),
    _calls("torch._utils", "_import_dotted_name", "antigravity"),
    _calls("torch.serialization", "load", "secret.bin"),
    _calls("numpy", "load", "secret.bin"),
    _calls("collections", "OrderedDict", "x"),
    b"(S'touch pickled'\nios\nsystem\n0",
    b"cos\nsystem\n)\x81}b0",
    b"ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00xNsb0",
    b"\x8c\x02os\x8c\x06system\x930",
    # Values.
    b"N",
    b"\x88",
    b"]",
    b"}",
    b")",
    b"K\x07",
    b"I" + b"9" * 5000 + b"\n",
    b"\x8a\xff" + b"\xff" * 255,
    b"F" + b"1e999\n",
    b"G\x7f\xf8\0\0\0\0\0\0",
    *_texts(),
    # Values that grow: each instruction doubles the value before it.
    b")" + b"2\x86" * 40,
    b"}" + b")" + b"2\x86" * 40 + b"Ns",
    b"(" + b")" + b"2\x86" * 40 + b"\x90",
    b"]" + b"2\x86" * 40,
    b"K\x01\x85" + b"2\x86" * 28 + b"Q",
    b"(" * 100_000 + b"l" * 100_000,
    b")" + b"\x85" * 200_000,
    b"]\x94h\x00a",
    # Lengths and offsets beyond the end.
    *(b"Nr" + size.to_bytes(4, "little") for size in _SIZES),
    *(b"X" + size.to_bytes(4, "little") for size in _SIZES),
    *(b"\x8e" + size.to_bytes(8, "little") for size in (*_SIZES, 1 << 62)),
    *(b"\x8b" + size.to_bytes(4, "little") for size in _SIZES),
    *(b"\x95" + size.to_bytes(8, "little") for size in (*_SIZES, 1 << 62)),
    *(b"\x96" + size.to_bytes(8, "little") for size in _SIZES[:4]),
    # Instructions that only certain stacks allow.
    b"(",
    b"0",
    b"1",
    b"2",
    b"Q",
    b"b",
    b"R",
    b"\x81",
    b"\x92",
    b"o",
    b"t",
    b"s",
    b"u",
    b"a",
    b"e",
    b"\x90",
    b"\x91",
    b"\x97",
    b"\x98",
    b"\x82\x01",
    b"Pp1\n",
    b".",
    b"\x80\x09",
    b"h\xff",
    b"j\xff\xff\xff\x7f",
    b"g99\n",
)


def damage_pickle(data: bytes, random: Random) -> bytes:
    """Damages a pickle; the bytes after its end stay as they are.

    Raises:
        ValueError: It is not a pickle.
    """
    offsets = [int(offset) for _, _, offset in pickletools.genops(data) if offset is not None]
    first = int(random.integers(1, len(offsets)))
    offset = offsets[first]
    end = offsets[first + 1] if first + 1 < len(offsets) else offset + 1
    what = int(random.integers(6))
    if what == 0:
        return data[:offset] + data[end:]
    if what == 1:
        return data[:offset] + bytes(pick(_INSTRUCTIONS, random)) + data[end:]
    if what == 2:
        other = pick(offsets, random)
        return data[:offset] + data[other : other + end - offset] + data[offset:]
    if what == 3:
        return data[: offset + 1] + random.bytes(end - offset - 1) + data[end:]
    return data[:offset] + bytes(pick(_INSTRUCTIONS, random)) + data[offset:]


def damage_stream(data: bytes, random: Random) -> bytes:
    """Damages a file of ``torch.save`` in the older layout: pickles one after the other.

    Raises:
        ValueError: The data are not such a file.
    """
    ends = [0]
    while len(ends) < 6 and data[ends[-1] : ends[-1] + 1] == b"\x80":
        *_, (_, _, offset) = pickletools.genops(data[ends[-1] :])
        ends.append(ends[-1] + int(offset or 0) + 1)
    which = int(random.integers(len(ends) - 1)) if random.random() < 0.5 else min(3, len(ends) - 2)
    start, end = ends[which], ends[which + 1]
    return data[:start] + damage_pickle(data[start:end], random) + data[end:]


def damage_archive(data: bytes, random: Random) -> bytes:
    """Damages a file of ``torch.save`` that is a zip archive: its pickle, or another entry.

    Raises:
        ValueError: The data are not a zip archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    except Exception as error:  # zipfile raises errors of many classes
        raise ValueError("not an archive") from error
    if not entries:
        raise ValueError("nothing in it")
    pickled = next((name for name in entries if name.endswith("data.pkl")), next(iter(entries)))
    compression = zipfile.ZIP_STORED
    what = random.random()
    if what < 0.7:
        entries[pickled] = damage_pickle(entries[pickled], random)
    else:
        compression = _damage_entries(entries, random)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, contents in entries.items():
            archive.writestr(zipfile.ZipInfo(name), contents, compression)  # without a time
    return file.getvalue()


def _damage_entries(entries: dict[str, bytes], random: Random) -> int:
    """Damages the files of an archive; returns the compression to write them with."""
    name = str(pick(list(entries), random))
    what = int(random.integers(7))
    if what == 0:
        del entries[name]
    elif what == 1:
        entries[name] = mutate(entries[name], int(random.integers(1 << 30)))
    elif what == 2:
        entries[name] = bytes(_MANY_ZEROS)
        return zipfile.ZIP_DEFLATED
    elif what == 3:
        return zipfile.ZIP_DEFLATED
    elif what == 4:
        other = str(pick([*PATHS, "x/data.pkl", "archive/constants.pkl", "a/byteorder"], random))
        entries[other.replace("\0", "0") or "x"] = b"x"
    elif what == 5:
        entries[name] = bytes(entries[name][: len(entries[name]) // 2])
    else:
        root = name.split("/", 1)[0]
        entries[f"{root}/byteorder"] = bytes(
            pick((b"big", b"", b"\xff", b"little" * 9999, b"native"), random)
        )
    return zipfile.ZIP_STORED
