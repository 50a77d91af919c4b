"""The two kinds of exported files: ONNX, and a program of `torch.export`.

Axes: B batch, which both leave open.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rmc_agents.errors import UsageError
from rmc_agents.export.step import ExportedStep
from rmc_agents.runs.files import read_regular

Format = Literal["onnx", "torch"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
ABOUT = "rmc_agents"
"""Key of the metadata under which a file holds its description, as JSON."""
_ABOUT_FILE = f"{ABOUT}.json"
_NEEDED = ("onnx", "onnxscript", "onnxruntime")

Arrays = dict[str, NDArray[Any]]
"""Inputs or outputs by name, [B, ...] each."""


def format_of(path: Path) -> Format:
    """Return the kind of file that a path names by its ending.

    Raises:
        UsageError: another ending.
    """
    for kind, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return kind
    raise UsageError(f"{path} names no kind of exported file: expected one of {', '.join(SUFFIXES.values())}")


def require_installed(kind: Format) -> None:
    """Raise UsageError unless the packages that write and read a kind of file are installed."""
    if kind == "onnx" and not all(importlib.util.find_spec(name) for name in _NEEDED):
        raise UsageError(f"ONNX needs {', '.join(_NEEDED)}: pip install 'rmc-agents[export]'")


def to_bytes(step: ExportedStep, kind: Format, about: Mapping[str, Any]) -> bytes:
    """Return the contents of a file that computes `step`, described by `about`."""
    text = json.dumps(about, default=str)
    with torch.no_grad(), _quiet():
        batch = torch.export.Dim("batch", max=2**31 - 1)
        shapes = {name: {0: batch} for name in step.inputs}
        example = step.example(_unusual_size(step))
        program = torch.export.export(step, (example,), dynamic_shapes=(shapes,), strict=False)
        if kind == "onnx":
            return _to_onnx(program, step, text)
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={_ABOUT_FILE: text})
        return file.getvalue()


def _unusual_size(step: ExportedStep) -> int:
    """Return a batch size that no tensor has as another axis, so that torch cannot confuse the two."""
    sizes = {n for x in step.state_dict().values() for n in x.shape}
    sizes |= {n for slot in (*step.inputs.values(), *step.outputs.values()) for n in slot.shape}
    return next(n for n in range(3, len(sizes) + 4) if n not in sizes)


class ExportedFile(ABC):
    """An exported agent that was read from a file."""

    about: dict[str, Any]
    """Description: spaces, inputs, outputs, environment, figures."""

    @abstractmethod
    def run(self, inputs: Arrays) -> Arrays:
        """Compute a step."""


def open_exported(source: Path | str | bytes) -> ExportedFile:
    """Open an exported file.

    Open a program of `torch.export` (.pt2) only if you trust it: torch does not promise that reading one
    runs no code.

    Args:
        source: path of the file, or its contents.

    Raises:
        UsageError: it cannot be read, or is no exported agent.
    """
    name = "the file" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else read_regular(Path(source))
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror or error}") from error
    kind: Format = "torch" if data[:2] == b"PK" else "onnx"
    require_installed(kind)
    try:
        return _Program(data) if kind == "torch" else _Onnx(data)
    except Exception as error:  # torch and onnxruntime raise a dozen types for a damaged file
        raise UsageError(f"{name} is damaged, or no exported agent ({type(error).__name__})") from error


class _Onnx(ExportedFile):
    def __init__(self, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised, too
        self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map[ABOUT])

    def run(self, inputs: Arrays) -> Arrays:
        names = [output.name for output in self.session.get_outputs()]
        outputs: list[Any] = list(self.session.run(names, inputs))
        return dict(zip(names, outputs, strict=True))


class _Program(ExportedFile):
    def __init__(self, data: bytes) -> None:
        files = {_ABOUT_FILE: ""}
        with _quiet():
            self.module = torch.export.load(io.BytesIO(data), extra_files=files).module()
        self.about = json.loads(files[_ABOUT_FILE])

    def run(self, inputs: Arrays) -> Arrays:
        inputs = {
            name: inputs[name] for name in self.about.get("inputs", inputs)
        }  # older torch wants the order
        with torch.no_grad():
            outputs = self.module(
                {name: torch.as_tensor(np.ascontiguousarray(x)) for name, x in inputs.items()}
            )
        return {name: x.numpy() for name, x in outputs.items()}


def _to_onnx(program: Any, step: ExportedStep, about: str) -> bytes:
    from onnx import helper

    converted = torch.onnx.export(
        program,
        input_names=list(step.inputs),
        output_names=list(step.outputs),
        dynamo=True,
        external_data=False,
        verbose=False,
        custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
    )
    assert converted is not None
    model = converted.model_proto
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")  # paths and lines of this machine's source code
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    graph.name = "step"
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    helper.set_model_props(model, {ABOUT: about})
    return model.SerializeToString()


def _stable_sort(x: Any, *, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """Sort in ONNX, where equal numbers keep their order; torch's converter has no such operation."""
    from onnxscript import opset18

    op: Any = opset18
    count = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
    return op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch says about itself while it exports: deprecations, and packages that it lacks."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
