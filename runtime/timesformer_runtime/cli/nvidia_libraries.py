"""Looks for the libraries of NVIDIA that ONNX Runtime's CUDA provider needs, by name."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

# Versions of libraries whose number is not CUDA's own, by CUDA's number.
_OTHER_NUMBERS = {"12": {"cufft": "11", "curand": "10"}, "13": {"cufft": "12", "curand": "10"}}
_TOOLKIT = ("cudart", "cublas", "cublasLt", "cufft", "curand", "nvrtc")
_CUDNN = "9"


def nvidia_libraries(
    onnxruntime: Any, load: Callable[[str], Any] = ctypes.CDLL
) -> dict[str, bool] | None:
    """Tries to load the driver, the CUDA toolkit's libraries and cuDNN.

    Call this after a session was started on CUDA: ONNX Runtime then has loaded those that pip
    installed.

    Args:
        onnxruntime: The module, which tells for which CUDA it was built.
        load: Loads a library by its name.

    Returns:
        For each library whether it was found. For an ONNX Runtime without CUDA only the driver;
        None on a system other than Linux.
    """
    if sys.platform != "linux":
        return None
    names = ["libcuda.so.1"]
    cuda = str(getattr(onnxruntime, "cuda_version", "") or "").partition(".")[0]
    if cuda:
        numbers = _OTHER_NUMBERS.get(cuda, {})
        names += [f"lib{name}.so.{numbers.get(name, cuda)}" for name in _TOOLKIT]
        names.append(f"libcudnn.so.{_CUDNN}")
    return {name: _loads(name, load) for name in names}


def _loads(name: str, load: Callable[[str], Any]) -> bool:
    try:
        load(name)
    except OSError:
        return False
    return True
