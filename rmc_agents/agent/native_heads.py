"""The heads of an agent in C, where they can be: see `cores.kernels.heads_native`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rmc_agents.agent.heads import ActionHead, CategoricalHead
from rmc_agents.cores.kernels import heads_native
from rmc_agents.cores.kernels.call import eager
from rmc_agents.cores.kernels.unchanged import has_hooks

_HIDDEN = [nn.Linear, nn.Tanh]


def native_weights(
    policy_hidden: nn.Module, policy: ActionHead, value_hidden: nn.Module, value_head: nn.Module
) -> list[Tensor] | None:
    """Return the weights of the heads in the order of `heads_native.Inputs`, or None.

    None where only PyTorch can run the heads: they are not as `ActorCritic` makes them (replaced, with hooks,
    in another precision), not on a CPU, under autocast, or the actions are not discrete.
    """
    weight = policy.linear.weight
    if type(policy) is not CategoricalHead or weight.device.type != "cpu" or not eager(weight.device):
        return None
    hidden = [list(module._modules.values()) for module in (policy_hidden, value_hidden)]
    if [type(module) for module in (*hidden[0], *hidden[1])] != _HIDDEN * 2:
        return None
    linears: list[Any] = [hidden[0][0], policy.linear, hidden[1][0], value_head]
    modules = (*hidden[0], *hidden[1], policy_hidden, value_hidden, policy, policy.linear, value_head)
    if has_hooks(*modules) or any(type(linear) is not nn.Linear for linear in linears):
        return None
    weights = [x for linear in linears for x in (linear.weight, linear.bias)]
    if any(x is None or x.dtype != torch.float32 for x in weights):
        return None
    device = weights[0].device
    return weights if device.type == "cpu" and eager(device) and heads_native.works() else None
