"""Damages the header of a safetensors file."""

from __future__ import annotations

import json

from tests.fuzz.models.hostile import pick
from tests.fuzz.models.json_damage import damage_json
from tests.fuzz.mutations import Random

_LENGTHS = (0, 1, 2, 7, 1 << 20, 100_000_000, 100_000_001, (1 << 31) - 1, 1 << 32, (1 << 64) - 1)
_TYPES = ("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E5M2", "F4", "C64", "", "f32")


def damage_safetensors(data: bytes, random: Random) -> bytes:
    """Damages the header, which is JSON, or its length.

    Raises:
        ValueError: It is not such a file.
    """
    length = int.from_bytes(data[:8], "little")
    header, tensors = data[8 : 8 + length], data[8 + length :]
    what = random.random()
    if what < 0.1:
        other = int(pick(_LENGTHS, random))
        return other.to_bytes(8, "little") + data[8:]
    if what < 0.5:
        header = _with_other_statement(header, random)
    else:
        header = damage_json(header.decode(), random)
    return len(header).to_bytes(8, "little") + header + tensors


def _with_other_statement(header: bytes, random: Random) -> bytes:
    """Changes the type, shape or offsets of one tensor to values that the format allows."""
    values = json.loads(header)
    names = [name for name in values if name != "__metadata__"]
    if not names:
        raise ValueError("no tensors")
    tensor = values[pick(names, random)]
    what = int(random.integers(4))
    if what == 0:
        tensor["dtype"] = pick(_TYPES, random)
    elif what == 1:
        tensor["shape"] = [*tensor["shape"], pick((0, 1, 2, 1 << 40), random)]
    elif what == 2:
        tensor["shape"] = tensor["shape"][::-1]
    else:
        start, end = tensor["data_offsets"]
        change = pick((-4, 4, 1 << 40), random)
        tensor["data_offsets"] = [max(0, start + change), max(0, end + change)]
    return json.dumps(values).encode()
