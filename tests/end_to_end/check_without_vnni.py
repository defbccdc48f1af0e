"""Shows that int8 models are right on x86 without VNNI.

``python -m tests.end_to_end.check_without_vnni`` runs the same files on this processor and on a
Haswell that qemu-user emulates, there with the runtime's remedy and with the remedy switched off.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import timesformer_runtime
from onnx import TensorProto, helper, numpy_helper
from timesformer_exporter import ExportOptions, export
from timesformer_exporter.options import Int8Target

REPOSITORY = Path(__file__).parents[2]
QEMU = "qemu-x86_64"
# The minus signs remove features that qemu-user does not emulate; it would warn of them.
HASWELL = "Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm"
# A share of the range of the logits. Float operators round differently on another processor, so a
# value that is then rounded to 8 bits may become the next number.
TOLERANCE = 0.003

_VIDEO = Path(timesformer_runtime.__file__).parent / "sample_clips" / "dissolve.mp4"
_MODEL = REPOSITORY / "models" / "shot-transitions-divided"
_SWITCHED_OFF = {"session.x64quantprecision": "0"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One file on the emulated processor.

    Attributes:
        file: A description of the file.
        remedy: True where the runtime chose between 8-bit and 16-bit products; False for 8-bit.
        error: Largest difference from the right result, as a share of the result's range.
        wanted: True where the result should be right.
    """

    file: str
    remedy: bool
    error: float
    wanted: bool

    @property
    def as_wanted(self) -> bool:
        """True where the result is right, or wrong where the known overflow is expected."""
        return (self.error <= TOLERANCE) == self.wanted


def missing() -> str | None:
    """Why the check cannot run here, with the remedy; None where it can."""
    if platform.machine().lower() not in ("x86_64", "amd64") or sys.platform != "linux":
        return f"it runs on Linux on x86-64, not on {sys.platform} on {platform.machine()}"
    if shutil.which(QEMU) is None:
        return f"{QEMU} is not installed; on Debian: apt install qemu-user"
    return None


def check(folder: Path) -> list[Row]:
    """Makes the files in a folder and runs them here and on the emulated processor."""
    models = [_export(folder, target) for target in ("vnni", "avx2")]
    products, exact = _write_products(folder / "products.onnx")

    def run(prefix: list[str], entries: dict[str, str]) -> Any:
        arguments = {
            "video": str(_VIDEO),
            "products": str(products),
            "models": [str(model) for model in models],
            "entries": entries,
        }
        command = [*prefix, sys.executable, "-m", "tests.end_to_end.int8_answers"]
        done = subprocess.run(
            [*command, json.dumps(arguments)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=900,
            check=True,
        )
        return json.loads(done.stdout)

    here = run([], {})
    emulated = [QEMU, "-cpu", HASWELL]
    rows = []
    for remedy, found in ((True, run(emulated, {})), (False, run(emulated, _SWITCHED_OFF))):
        assert found["saturates"], "the emulated processor's products should overflow"
        assert found["wide_products"] == [remedy, False]
        vnni, avx2 = (
            _error(logits, right)
            for logits, right in zip(found["logits"], here["logits"], strict=True)
        )
        rows += [
            Row("products of 255 and 127", remedy, _error(found["products"], exact), remedy),
            Row("divided model, int8", remedy, vnni, remedy),
            Row("divided model, int8 --int8-target avx2", remedy, avx2, wanted=True),
        ]
    assert _error(here["products"], exact) == 0
    return rows


def _error(found: Any, right: Any) -> float:
    return float(np.abs(np.subtract(found, right)).max() / np.ptp(right))


def _export(folder: Path, target: Int8Target) -> Path:
    options = ExportOptions(
        str(_MODEL), output=folder / target, dtypes=("int8",), int8_target=target
    )
    return export(options).folder / "onnx" / "model_int8.onnx"


def _write_products(path: Path) -> tuple[Path, npt.NDArray[np.int64]]:
    """A graph whose sums of two products do not fit into 16 bits, and its right result."""
    signs = np.where(np.arange(32) % 2 == 0, 1, -1)
    weights = np.tile(127 * signs, (64, 1)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "weights"], ["y"])],
        "products",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [2, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [2, 32])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path
    )
    return path, np.tile(64 * 255 * 127 * signs, (2, 1))


def main() -> None:
    """Prints a table; exit code 1 where something is not as wanted, 2 where it cannot run."""
    problem = missing()
    if problem is not None:
        print(f"check_without_vnni: {problem}", file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory() as folder:
        rows = check(Path(folder))
    print(f"{'on an emulated Haswell':40}  products   error/range  wanted")
    for row in rows:
        chosen = "as chosen" if row.remedy else "8-bit"
        verdict = ("right" if row.wanted else "wrong") + ("" if row.as_wanted else "  NOT SO")
        print(f"{row.file:40}  {chosen:9}  {row.error:11.6f}  {verdict}")
    if not all(row.as_wanted for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
