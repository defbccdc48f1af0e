"""Hostile values for any field of a file."""

from collections.abc import Sequence
from typing import Any

from tests.fuzz.mutations import Random

TEXTS = (
    "",
    " ",
    "x",
    "-1",
    "1" * 30,
    "NaN",
    "a\nb\r\nc",
    "\x1b[2J\x1b[31mred\x07",
    "\u202egnp.exe",
    "\ud800",
    "\udc80\udcff",
    "\0",
    "\ufeff",
    "𐀀 naïve",
    "x" * 5_000,
    "\x1b" * 5_000,
    "%s %n {0} {x!r}",
    "__class__",
)

# Beside the model's folder, and in the worker's working directory ``outside``, lie secret files of
# these names. No file of a model may have such a name.
SECRET_NAMES = ("secret.bin", "model.onnx_data", "model.safetensors", "config.json", "pipe")
PATHS = (
    *SECRET_NAMES,
    *(f"{up}{name}" for up in ("../", "../../", "../../outside/") for name in SECRET_NAMES),
    *(f"../../../outside/{name}" for name in SECRET_NAMES),
    *(f"/proc/self/cwd/{name}" for name in SECRET_NAMES),
    *("..\\secret.bin", "./../../outside/secret.bin", "x/../../../outside/pipe", "~/secret.bin"),
    *("/proc/self/environ", "/dev/zero", "/dev/stdin", "/dev/fd/0", "/etc/passwd"),
    *(".", "..", "/", "//", "../", "a/", "*", "*/_ORT_MEM_ADDR_/*", "con", "c:\\x", "\\\\host\\x"),
    *("file:///etc/passwd", "http://127.0.0.1:1/x", "x\0y", "a" * 300, "a/" * 3000),
)


def pick(choices: Sequence[Any], random: Random) -> Any:
    """Picks one of the choices; NumPy's ``choice`` would convert all of them to an array."""
    return choices[int(random.integers(len(choices)))]
