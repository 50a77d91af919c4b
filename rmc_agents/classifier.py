"""A network that reads a sequence and names a class: scaled inputs -> memory core -> MLP -> logits.

Axes: T time, B batch, D input size, H output of the core, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rmc_agents.checkpoint import (
    half_precision,
    load_agent,
    read_config,
    read_newest,
    save_checkpoint,
    write_json,
)
from rmc_agents.cores import make_core
from rmc_agents.cores.base import require_positive
from rmc_agents.errors import UsageError


class Reading(NamedTuple):
    """What a classifier made of a batch of sequences."""

    outputs: Tensor
    """[T, B, H] the core's, after each step."""
    logits: Tensor
    """[S, B, C] at the steps that were asked for."""


class SequenceClassifier(nn.Module):
    """A memory core, and on its output the paper's read-out (Santoro et al. 2018, A.1: four layers of 256).

    Args:
        input_size: D.
        num_classes: C.
        core: a key of `CORES`.
        core_options: what the core's constructor takes.
        scaled_inputs: how many of the first inputs are multiplied by `input_scale`.
        input_scale: their gain.
        hidden_size: width of the read-out's layers.
        hidden_layers: how many there are before the logits, each followed by a ReLU.
        hint_size: width of a linear layer on the core's output for a further loss while training; 0 for none.

    Raises:
        ValueError: sizes that are none, or a core or option that there is not.
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
        hint_size: int = 0,
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
            "hint_size": hint_size,
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
        self.hint = nn.Linear(self.core.output_size, hint_size) if hint_size else None

    @property
    def core_name(self) -> str:
        return str(self._config["core"])

    @property
    def device(self) -> torch.device:
        return self.input_gain.device

    def config(self) -> dict[str, Any]:
        """Everything needed to build this network again, as JSON: the constructor's arguments."""
        return dict(self._config)

    def forward(self, inputs: Tensor, steps: Tensor | None = None) -> Reading:
        """Read sequences [T, B, D] from a fresh memory; logits at `steps` [S], all of them if None."""
        T, B, _ = inputs.shape
        starts = torch.zeros(T, B, dtype=torch.bool, device=inputs.device)
        outputs, _ = self.core.unroll(inputs * self.input_gain, self.core.initial_state(B), starts)
        x = outputs if steps is None else outputs[steps]
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return Reading(outputs, self.logits(x))

    def matrices(self) -> list[nn.Parameter]:
        """The matrices of the inner layers, which Muon is made for: all but the last layers'."""
        last = {id(self.logits.weight)} | ({id(self.hint.weight)} if self.hint is not None else set())
        return [p for p in self.parameters() if p.ndim == 2 and id(p) not in last]


def load_classifier(
    run_dir: Path, device: torch.device | str = "cpu"
) -> tuple[SequenceClassifier, Path, dict[str, Any]]:
    """A trained classifier, in evaluation mode, with the checkpoint that it came from and what that holds.

    Raises:
        UsageError: no run, no readable checkpoint, or one that does not fit the run's config.json.
    """
    path, payload, _ = read_newest(run_dir, device)
    described = read_config(run_dir)["agent"]
    if "observation_space" in described:
        raise UsageError(f"{run_dir} holds an agent, not a classifier: python train/evaluate.py {run_dir}")
    try:
        model = SequenceClassifier(**described).to(device)
    except Exception as error:  # whatever a constructor raises for options of a wrong type
        raise UsageError(f"{run_dir}/config.json does not describe a classifier: {error}") from error
    load_agent(model, payload, path)
    return model.eval(), path, payload


def export_classifier(run_dir: Path, folder: Path) -> Path:
    """Write a run's network alone, without its hints and in half precision, as a run folder to load from.

    Raises:
        UsageError: there is no run, or something in the way.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists: choose another folder, or remove it")
    model, path, payload = load_classifier(run_dir)
    kept_weights = {n: w for n, w in model.state_dict().items() if not n.startswith("hint.")}
    weights = half_precision(kept_weights, path)
    write_json(folder / "config.json", {**read_config(run_dir), "agent": {**model.config(), "hint_size": 0}})
    kept = {name: payload[name] for name in ("counters", "seconds", "cpu_seconds") if name in payload}
    return save_checkpoint(folder, int(path.stem.removeprefix("step_")), {"agent": weights, **kept})
