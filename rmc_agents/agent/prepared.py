"""Networks of an agent that runs in C, prepared for many minibatches, or many steps, of the same size.

Autograd, the dispatcher of PyTorch and checks of arguments take milliseconds per gradient step. Here the
arguments are checked once, and a step is a few calls of the compiled library.
Axes: T time, B batch, n rows of observations, F features, P logits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.agent.encoders import Encoder
from rmc_agents.agent.heads import CategoricalHead
from rmc_agents.agent.native_heads import native_weights
from rmc_agents.cores.base import IndexedInputs, PreparedSteps, PreparedUnroll, gradient_of
from rmc_agents.cores.kernels import heads_native, table_native
from rmc_agents.cores.kernels.call import in_place
from rmc_agents.cores.kernels.unchanged import has_hooks, replaces
from rmc_agents.tree import Tree


class PreparedNetworks(NamedTuple):
    """Parts of an agent, each of which overwrites the gradients of its weights."""

    encoder: table_native.PreparedFeatures
    """Reads the ids of observations."""
    core: PreparedUnroll
    """Reads the encoder's rows and index, episode starts and states."""
    heads: heads_native.Inputs
    """Arguments of the heads, for outputs of the core [T * B, H]."""
    sizes: list[int]
    """Number of values of each component of an action."""
    gradients: list[Tensor]
    """Of the heads' weights."""


def prepare_networks(
    agent: ActorCritic, ids: Tensor, starts: Tensor, memory: Tree
) -> PreparedNetworks | None:
    """Prepare the networks for sequences; return None where only PyTorch can run or differentiate them.

    Args:
        agent: its parameters have gradients, which stay in place, as do all other arguments.
        ids: [T, B] of observations.
        starts: [T, B] bool.
        memory: state of the core before the first step.
    """
    weights, encoder = _native_weights(agent), agent.encoder
    if weights is None or encoder.terms is None or agent.aux_size or agent.decoder is not None:
        return None
    if replaces(agent, ActorCritic, "evaluate_actions", "run_networks") or not _plain_parameters(agent):
        return None
    features = encoder.terms.prepare(ids, encoder.linear, encoder.parts)
    if features is None:
        return None
    core = agent.core.prepare_unroll(IndexedInputs(features.rows, features.index), memory, starts)
    if core is None:
        return None
    outputs = features.rows.new_empty(ids.numel(), agent.core.output_size)  # for its shape
    rows, index = (features.rows, features.index) if agent.config.skip else (None, None)
    heads, sizes = heads_native.Inputs(outputs, rows, *weights), _action_sizes(agent)
    if not heads_native.usable(heads, sizes, index):
        return None
    return PreparedNetworks(features, core, heads, sizes, [gradient_of(w) for w in weights])


class PreparedActing:
    """The steps of a rollout; `prepare_acting` makes it.

    Args:
        features: [n, F] of the observations.
        inputs: [B, F] those of a step are copied to.
        core: reads `inputs`.
        heads: read the core's outputs and `inputs`.
        noise: [B, P] what draws the actions of a step.
    """

    def __init__(
        self,
        features: Tensor,
        inputs: Tensor,
        core: PreparedSteps,
        heads: heads_native.PreparedActions,
        noise: Tensor,
    ) -> None:
        self.features, self.inputs, self.core, self.heads, self.noise = features, inputs, core, heads, noise

    def act(self, t: int, ids: Tensor, generator: torch.Generator | None) -> None:
        """Write the actions of step t, their log-probabilities and values, and the state after it."""
        torch.index_select(self.features, 0, ids, out=self.inputs)
        outputs = self.core.step(t)
        self.heads.act(t, outputs, self.noise.exponential_(generator=generator))


def prepare_acting(
    agent: ActorCritic,
    features: Tensor,
    states: Tree,
    starts: Tensor,
    results: tuple[Tensor, Tensor, Tensor],
) -> PreparedActing | None:
    """Prepare the steps of a rollout without gradients; return None where only `ActorCritic.act` can act.

    Args:
        agent: its weights stay in place and do not change, and so do all other tensors.
        features: [n, F] of the observations.
        states: [T + 1, B, ...] of the core, before each of T steps and after the last.
        starts: [T, B] bool, true where an episode starts.
        results: actions [T, B, ...], log-probabilities [T, B] and values [T, B], which are written.
    """
    weights = _native_weights(agent)
    if weights is None or replaces(agent, ActorCritic, "act", "run_networks"):
        return None
    if not in_place(results) or results[0].dtype != torch.int64:
        return None
    batch = starts.shape[1]
    inputs = features.new_empty(batch, features.shape[1])
    core = agent.core.prepare_steps(inputs, states, starts)
    if core is None:
        return None
    outputs = inputs.new_empty(batch, agent.core.output_size)  # for its shape
    heads = heads_native.Inputs(outputs, inputs if agent.config.skip else None, *weights)
    sizes = _action_sizes(agent)
    if not heads_native.usable(heads, sizes):
        return None
    noise = inputs.new_empty(batch, sum(sizes))
    return PreparedActing(features, inputs, core, heads_native.PreparedActions(heads, sizes, *results), noise)


def _native_weights(agent: ActorCritic) -> list[Tensor] | None:
    """Return the weights of the heads if C can run them on what encoder and core return, else None."""
    config, policy, encoder = agent.config, agent.policy, agent.encoder
    if type(agent) is not ActorCritic or not agent.runs_as_built:
        return None
    if config.critic_memory != "shared" or config.keeps_action or config.reads_more:
        return None
    if type(encoder) is not Encoder or has_hooks(encoder):
        return None
    weights = native_weights(agent.policy_hidden, policy, agent.value_hidden, agent.value_head)
    return None if weights is None or not in_place(weights) else weights


def _action_sizes(agent: ActorCritic) -> list[int]:
    """Return the number of values of each component of an action."""
    assert isinstance(agent.policy, CategoricalHead)
    return agent.policy.sizes


def _plain_parameters(agent: ActorCritic) -> bool:
    """Return whether gradients of all parameters are wanted and in place, and each is that of one weight.

    Gradients are overwritten, not added up, so no two modules may share a parameter, and no weight may be
    computed from parameters.
    """
    modules = list(agent.modules())
    own = [p for module in modules for p in module._parameters.values() if p is not None]
    return (
        len(own) == len({id(p) for p in own})
        and not any(map(is_parametrized, modules))
        and len(modules) == len(list(agent.named_modules(remove_duplicate=False)))
        and all(map(_is_plain, own))
    )


def _is_plain(parameter: Any) -> bool:
    hooks = parameter._backward_hooks, getattr(parameter, "_post_accumulate_grad_hooks", None)
    gradient = parameter.grad
    return (
        parameter.requires_grad
        and not any(hooks)
        and gradient is not None
        and gradient.is_contiguous()
        and gradient.dtype == torch.float32
    )
