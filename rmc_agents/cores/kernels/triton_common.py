"""What the Triton kernels of all cores share outside the kernels: devices, precision, checks.

The kernels multiply on tensor cores: in TF32 if `torch.backends.cuda.matmul` allows it, otherwise in TF32x3,
which adds three TF32 products and is nearly as accurate as float32. Float32 arithmetic outside the tensor
cores needs more registers than there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

DEVICE_TYPES = {"cuda"}
OPTIONS = {"num_warps": 8, "num_stages": 1}
"""Launch options of all kernels."""


def float32_precision() -> str:
    """Return the precision of the kernels' products: "tf32" if PyTorch may use TF32, else "tf32x3"."""
    matmul: Any = torch.backends.cuda.matmul
    setting = getattr(matmul, "fp32_precision", None)  # not before torch 2.9
    allowed = matmul.allow_tf32 if setting is None else setting == "tf32"
    return "tf32" if allowed else "tf32x3"


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def as_read(tensors: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Return the tensors as kernels read them: contiguous, flags as bytes."""
    plain = [None if t is None else t.contiguous() for t in tensors]
    return [t.view(torch.uint8) if t is not None and t.dtype == torch.bool else t for t in plain]


def failure(agree: Callable[[], bool]) -> str | None:
    """Return None if `agree` returns true: kernels compile, run and agree with PyTorch. Else the reason."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return None if agree() else "the results of the Triton kernels differ from PyTorch's"
    except ImportError as error:
        return f"Triton cannot be imported ({error}); the extra `gpu` installs it"
    except Exception as error:  # no compiler, too little shared memory, ...: every part has its own type
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def close(found: Iterable[Tensor], expected: Iterable[Tensor], precision: str) -> bool:
    """Return whether all tensors agree up to the rounding of a precision."""
    tolerance = 0.1 if precision == "tf32" else 0.01
    return all(
        bool((f - e).abs().max() <= tolerance * e.abs().max().clamp(min=0.01))
        for f, e in zip(found, expected, strict=True)
    )
