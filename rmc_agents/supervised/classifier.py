"""Sequence classifier: scaled inputs -> memory core -> MLP -> logits.

Axes: T time, B batch, D input size, H output of the core, C classes, K auxiliary targets.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rmc_agents.cores import make_core
from rmc_agents.cores.base import require_positive
from rmc_agents.errors import UsageError
from rmc_agents.runs.checkpoint import read_newest, save_checkpoint
from rmc_agents.runs.files import write_json
from rmc_agents.runs.folder import read_config
from rmc_agents.runs.weights import half_precision, load_weights


class ClassifierOutput(NamedTuple):
    """Output of a classifier for a batch of sequences."""

    outputs: Tensor
    """[T, B, H] outputs of the core after each step."""
    logits: Tensor
    """[S, B, C] logits at the requested steps."""


class SequenceClassifier(nn.Module):
    """A memory core with the paper's read-out on its output (Santoro et al. 2018, A.1: four layers of 256).

    Args:
        input_size: D.
        num_classes: C.
        core: a name in `CORES`.
        core_options: keyword arguments of the core.
        scaled_inputs: number of leading inputs that are multiplied by `input_scale`.
        input_scale: their gain.
        hidden_size: width of the read-out's layers.
        hidden_layers: number of layers before the logits, each followed by a ReLU.
        aux_size: K, the number of auxiliary targets that a linear layer on the core's output predicts in
            training; 0 for no such layer.

    Raises:
        ValueError: a size that is not positive, or an unknown core or option.
    """

    input_gain: Tensor

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        core: str = "rmc",
        core_options: Mapping[str, Any] | None = None,
        *,
        scaled_inputs: int = 0,
        input_scale: float = 1.0,
        hidden_size: int = 256,
        hidden_layers: int = 4,
        aux_size: int = 0,
    ) -> None:
        super().__init__()
        require_positive(
            input_size=input_size,
            num_classes=num_classes,
            hidden_size=hidden_size,
            hidden_layers=hidden_layers,
        )
        if not 0 <= scaled_inputs <= input_size or not 0 < input_scale < float("inf"):
            raise ValueError(
                f"scaled_inputs={scaled_inputs}, input_scale={input_scale}: expected 0 to {input_size} "
                "inputs and a scale above 0"
            )
        self._config = {
            "input_size": input_size,
            "num_classes": num_classes,
            "core": core,
            "core_options": dict(core_options or {}),
            "scaled_inputs": scaled_inputs,
            "input_scale": input_scale,
            "hidden_size": hidden_size,
            "hidden_layers": hidden_layers,
            "aux_size": aux_size,
        }
        gain = torch.ones(input_size)
        gain[:scaled_inputs] = input_scale
        self.register_buffer("input_gain", gain, persistent=False)
        self.core = make_core(core, input_size, core_options)
        widths = [self.core.output_size, *[hidden_size] * hidden_layers]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        for layer in self.hidden:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.logits = nn.Linear(hidden_size, num_classes)
        self.aux_head = nn.Linear(self.core.output_size, aux_size) if aux_size else None

    @property
    def core_name(self) -> str:
        return str(self._config["core"])

    @property
    def device(self) -> torch.device:
        return self.input_gain.device

    def to_json(self) -> dict[str, Any]:
        """Describe this network for config.json: the constructor's arguments."""
        return dict(self._config)

    def forward(self, inputs: Tensor, steps: Tensor | None = None) -> ClassifierOutput:
        """Read sequences [T, B, D] with a fresh memory; return logits at `steps` [S], or at all steps."""
        T, B, _ = inputs.shape
        starts = torch.zeros(T, B, dtype=torch.bool, device=inputs.device)
        outputs, _ = self.core.unroll(inputs * self.input_gain, self.core.initial_state(B), starts)
        x = outputs if steps is None else outputs[steps]
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return ClassifierOutput(outputs, self.logits(x))

    def matrices(self) -> list[nn.Parameter]:
        """Return the matrices of the inner layers, which Muon optimises: all but the output layers'."""
        last = {id(self.logits.weight)} | ({id(self.aux_head.weight)} if self.aux_head is not None else set())
        return [p for p in self.parameters() if p.ndim == 2 and id(p) not in last]


def load_classifier(
    run_dir: Path | str, device: torch.device | str = "cpu"
) -> tuple[SequenceClassifier, Path, dict[str, Any]]:
    """Load a trained classifier, in evaluation mode.

    Returns:
        the classifier, its checkpoint's path, and the checkpoint's contents.

    Raises:
        UsageError: no run, no readable checkpoint, or one that does not fit the run's config.json.
    """
    run_dir = Path(run_dir)
    path, payload, _ = read_newest(run_dir, device)
    config = read_config(run_dir)
    if "classifier" not in config:
        raise UsageError(f"{run_dir} holds an agent, not a classifier: load it with rmc_agents.load")
    try:
        model = SequenceClassifier(**config["classifier"]).to(device)
    except Exception as error:  # whatever a constructor raises for options of a wrong type
        raise UsageError(f"{run_dir}/config.json does not describe a classifier: {error}") from error
    load_weights(model, payload, path)
    return model.eval(), path, payload


def export_classifier(run_dir: Path, folder: Path) -> Path:
    """Write a run's network as a small run folder, in half precision and without its auxiliary head.

    Returns:
        the checkpoint in `folder`.

    Raises:
        UsageError: there is no run, or `folder` exists.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists: choose another folder, or remove it")
    model, path, payload = load_classifier(run_dir)
    kept_weights = {n: w for n, w in model.state_dict().items() if not n.startswith("aux_head.")}
    weights = half_precision(kept_weights, path)
    config = {**read_config(run_dir), "classifier": {**model.to_json(), "aux_size": 0}}
    write_json(folder / "config.json", config)
    kept = {name: payload[name] for name in ("counters", "seconds", "cpu_seconds") if name in payload}
    return save_checkpoint(folder, int(path.stem.removeprefix("step_")), {"agent": weights, **kept})
