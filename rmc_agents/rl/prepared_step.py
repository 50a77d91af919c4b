"""Gradient steps of PPO as a few calls of the compiled library, prepared once for a rollout.

The results are those of `rl.ppo.ppo_loss` and autograd, bit for bit: the library computes both.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.agent.prepared import PreparedNetworks, prepare_networks
from rmc_agents.cores.kernels import heads_native
from rmc_agents.cores.kernels.call import eager
from rmc_agents.environment import ObservationIds
from rmc_agents.rl.optimizer import FlatAdam, PreparedAdam
from rmc_agents.rl.ppo import Metrics, Normalization, PPOConfig, loss_settings
from rmc_agents.rl.rollout import Chunks
from rmc_agents.training.processes import Processes
from rmc_agents.tree import leaves


class PreparedStep:
    """A gradient step on the chunks of a minibatch; `prepare_step` makes it.

    Args:
        selection: copies a minibatch to where networks and loss read it.
        networks: encoder, core and heads.
        loss: of the heads' outputs.
        adam: a step along the gradient.
        optimizer: holds the gradient.
        processes: sum their gradients.
    """

    def __init__(
        self,
        selection: Selection,
        networks: PreparedNetworks,
        loss: heads_native.PreparedLoss,
        adam: PreparedAdam,
        optimizer: FlatAdam,
        processes: Processes,
    ) -> None:
        self.selection, self.networks, self.loss, self.adam = selection, networks, loss, adam
        self.gradient, self.processes = optimizer.gradient, processes
        self.most_distinct = selection.num_transitions // 2

    @torch.no_grad()
    def __call__(self, index: Tensor, normalization: Normalization | None) -> Tensor | None:
        """Take a step on the chunks at `index` [c]; return the `Metrics` as one tensor.

        None, and no step, if more than half of the observations are distinct: for these the networks have a
        faster way, which autograd differentiates.
        """
        self.selection.copy(index)
        encoder, core, loss = self.networks.encoder, self.networks.core, self.loss
        num_distinct = encoder.forward()
        if num_distinct > self.most_distinct:
            return None
        if normalization is not None:
            loss.normalize_with(*torch.stack(normalization[:3]).tolist())
        figures = loss(core.forward(num_distinct), num_distinct)
        d_features = core.backward(loss.d_outputs)
        if loss.d_features is not None:
            d_features[:num_distinct].add_(loss.d_features[:num_distinct])
        encoder.backward(d_features)
        self.processes.sum(self.gradient)
        norm = self.adam.step() / self.processes.size
        metrics = figures.new_zeros(len(Metrics._fields))
        metrics[:5].copy_(figures[:5])
        metrics[_NORM].copy_(norm)
        metrics[_LOSS].copy_(figures[5])
        return metrics


_NORM, _LOSS = Metrics._fields.index("grad_norm"), Metrics._fields.index("loss")


class Selection:
    """The minibatches of a rollout, each of which is copied to the same tensors.

    Args:
        chunks: the rollout.
        size: c, the number of chunks of a minibatch.
    """

    def __init__(self, chunks: Chunks, size: int) -> None:
        first = torch.arange(size, device=chunks.starts.device)
        # Only acting reads the action and reward of the state, and rewards are contained in the returns.
        needed = chunks._replace(state=chunks.state._replace(action=None, reward=None), rewards=None)
        self.batch = needed.select(first)
        self.num_transitions = self.batch.starts.numel()
        self._copies = [
            partial(torch.index_select, x, 0 if name == "state" else 1, out=to)
            for name in Chunks._fields
            for x, to in zip(leaves(getattr(needed, name)), leaves(getattr(self.batch, name)), strict=True)
        ]

    def copy(self, index: Tensor) -> None:
        """Replace `batch` by the chunks at `index` [c]."""
        for copy in self._copies:
            copy(index=index)


def prepare_step(
    agent: ActorCritic,
    optimizer: FlatAdam,
    chunks: Chunks,
    config: PPOConfig,
    rates: tuple[Tensor, Tensor, Tensor],
    processes: Processes,
) -> PreparedStep | None:
    """Prepare steps on the minibatches of a rollout; return None where only PyTorch can take them.

    Args:
        agent: nothing but these steps changes it while they are taken.
        optimizer: of the agent.
        chunks: the rollout.
        config: PPO's settings, for the minibatches of this process.
        rates: learning rate, weight of the entropy bonus, and 1 to take no step; the second is read now.
        processes: those that train together.
    """
    device = chunks.starts.device
    if device.type != "cpu" or not eager(device) or not isinstance(chunks.obs, ObservationIds):
        return None
    if chunks.aux_targets is not None or chunks.state.critic_memory is not None:
        return None
    if chunks.action_masks is not None or config.in_pytorch_only:
        return None
    learning_rate, entropy_coef, stopped = rates
    selection = Selection(chunks, config.minibatch_size // config.bptt_length)
    batch = selection.batch
    recorded = heads_native.Recorded(
        batch.actions.view(batch.starts.numel(), -1),
        *(x.view(-1) for x in (batch.log_probs, batch.values, batch.advantages, batch.returns, batch.valid)),
    )
    networks = prepare_networks(agent, batch.obs.ids, batch.starts, batch.state.memory)
    adam = optimizer.prepare(learning_rate, stopped)
    if networks is None or adam is None or not heads_native.usable_records(recorded):
        return None
    if len(networks.sizes) != recorded.actions.shape[1]:
        return None
    optimizer.zero_grad()  # no step touches the gradient between the parameters
    ids = networks.encoder.index if networks.heads.features is not None else None
    settings = loss_settings(config, entropy_coef, None)
    loss = heads_native.PreparedLoss(
        networks.heads, recorded, settings, networks.sizes, ids, networks.gradients
    )
    return PreparedStep(selection, networks, loss, adam, optimizer, processes)
