"""A trainer refuses a network whose parameters were replaced after it was made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from tests.support.trainers import ppo_trainer, supervised_trainer

TRAINERS: dict[str, Callable[[Path], Any]] = {"ppo": ppo_trainer, "supervised": supervised_trainer}


def network_of(trainer: Any) -> nn.Module:
    return getattr(trainer, "agent", None) or trainer.model


def assign(network: nn.Module) -> None:
    network.load_state_dict({name: x.clone() for name, x in network.state_dict().items()}, assign=True)


def add_layer(network: nn.Module) -> None:
    network.adapter = nn.Linear(2, 2)


def replace_layer(network: Any) -> None:
    old = next(module for module in network.core.modules() if isinstance(module, nn.Linear))
    parent = next(module for module in network.modules() if old in module.children())
    name = next(name for name, child in parent.named_children() if child is old)
    setattr(parent, name, nn.Linear(old.in_features, old.out_features, bias=old.bias is not None))


def replace_parameter(network: Any) -> None:
    layer = next(module for module in network.modules() if isinstance(module, nn.Linear))
    layer.weight = nn.Parameter(layer.weight.detach().clone())


def normalize_weights(network: Any) -> None:
    layer = next(module for module in network.modules() if isinstance(module, nn.Linear))
    parametrizations.weight_norm(layer)


def tie_parameters(network: Any) -> None:
    first, second, *_ = (module for module in network.modules() if isinstance(module, nn.Linear))
    second.weight = first.weight


@pytest.mark.parametrize("make", TRAINERS.values(), ids=list(TRAINERS))
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (assign, r"\w+\.\w+.*, .* and \d+ more replaced or added"),
        (add_layer, "adapter.weight, adapter.bias replaced or added"),
        (replace_layer, "core.* replaced or added"),
        (replace_parameter, "weight replaced or added"),
        (normalize_weights, "original0.* replaced or added"),
        (tie_parameters, "some removed"),
    ],
)
def test_trainer_refuses_replaced_parameters(
    change: Callable[[nn.Module], None], what: str, make: Callable[[Path], Any], tmp_path: Path
) -> None:
    trainer = make(tmp_path)
    trainer.iterate()
    change(network_of(trainer))
    with pytest.raises(ValueError, match=f"other parameters than when its trainer was made: .*{what}"):
        trainer.iterate()


class Doubled(nn.Module):
    """Parametrization that keeps the parameter as it is, under another name."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


@pytest.mark.parametrize("make", TRAINERS.values(), ids=list(TRAINERS))
def test_trainer_accepts_changes_that_keep_the_parameters(
    make: Callable[[Path], Any], tmp_path: Path
) -> None:
    trainer = make(tmp_path)
    network = network_of(trainer)
    trainer.iterate()
    network.load_state_dict(network.state_dict())
    network.zero_grad(set_to_none=True)
    layer = next(module for module in network.modules() if isinstance(module, nn.Linear))
    layer.weight.requires_grad_(False)
    parametrize.register_parametrization(layer, "weight", Doubled())
    trainer.iterate()
