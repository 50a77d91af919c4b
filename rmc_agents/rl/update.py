"""Gradient steps of PPO on the minibatches of a rollout.

Axes: L steps of a chunk, C chunks of a rollout, c chunks of a minibatch, M minibatches of an epoch. Nothing
here reads a tensor back to the host unless it is on a CPU, so that a GPU never waits, and a step can be
captured in a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.agent.capturable import why_not_captured
from rmc_agents.rl.optimizer import FlatAdam
from rmc_agents.rl.ppo import Metrics, Normalization, PPOConfig, normalizations, ppo_loss
from rmc_agents.rl.prepared_step import PreparedStep, prepare_step
from rmc_agents.rl.rollout import Chunks
from rmc_agents.training.graphs import Graph
from rmc_agents.training.processes import ALONE, Processes


class Updater:
    """Gradient steps over rollouts.

    Args:
        agent: changed in place, through `optimizer`.
        optimizer: of all parameters of the agent.
        config: `minibatch_size` counts the transitions of all processes.
        processes: sum their gradients, so that they take equal steps.
        graphs: capture a step in a CUDA graph; without effect on a CPU.

    Raises:
        ValueError: minibatches cannot be divided among the processes.
    """

    def __init__(
        self,
        agent: ActorCritic,
        optimizer: FlatAdam,
        config: PPOConfig,
        processes: Processes = ALONE,
        graphs: bool = False,
    ) -> None:
        self.agent, self.optimizer, self.processes = agent, optimizer, processes
        self.config = config.share_of(processes.size)
        self.learning_rate = torch.zeros((), device=agent.device)
        self.entropy_coef = torch.zeros((), device=agent.device)
        # 1 once the KL divergence is too large: later steps of the rollout change nothing.
        self.stopped = torch.zeros((), device=agent.device)
        self.prepared: PreparedStep | None = None
        self.take_step = Graph(
            self._take_step,
            agent.device,
            graphs and processes.size == 1,
            refused=why_not_captured(agent),
        )

    def update(
        self,
        chunks: Chunks,
        learning_rate: float,
        entropy_coef: float,
        generator: torch.Generator | None,
    ) -> Metrics:
        """Make the epochs over a rollout; return the metrics, averaged over the minibatches that counted."""
        self.learning_rate.fill_(learning_rate)
        self.entropy_coef.fill_(entropy_coef)
        self.stopped.zero_()
        rates = self.learning_rate, self.entropy_coef, self.stopped
        self.prepared = prepare_step(self.agent, self.optimizer, chunks, self.config, rates, self.processes)
        try:
            return self._epochs(chunks, generator)
        finally:
            self.prepared = None  # it refers to this rollout, and holds memory that the next one can use

    def _epochs(self, chunks: Chunks, generator: torch.Generator | None) -> Metrics:
        limit = self.config.target_kl
        metrics, weights = [], []
        for _ in range(self.config.epochs):
            weights.append(1 - self.stopped)
            metrics.append(self.epoch(chunks, generator))
            if limit is None:
                continue
            self.stopped.copy_(torch.maximum(self.stopped, (metrics[-1].approx_kl > 1.5 * limit).float()))
            if self.stopped.device.type == "cpu" and self.stopped.item():
                break
        weight = torch.stack(weights).unsqueeze(1)
        rows = torch.stack([torch.stack(each) for each in metrics])
        return Metrics(*((rows * weight).sum(0) / weight.sum()).unbind(0))

    def epoch(self, chunks: Chunks, generator: torch.Generator | None) -> Metrics:
        """Make one pass over all chunks, in minibatches drawn without replacement.

        A minibatch whose gradient is not finite leaves the parameters unchanged, and shows in the metrics.

        Returns:
            the metrics, averaged over minibatches and processes.
        """
        order = torch.randperm(chunks.starts.shape[1], generator=generator, device=chunks.starts.device)
        order = order.view(-1, self.config.minibatch_size // self.config.bptt_length)  # [M, c]
        shared = self.processes.size > 1
        whole = normalizations(chunks, order, self.processes) if shared else [None] * len(order)
        rows = []
        for index, normalization in zip(order.unbind(0), whole, strict=True):
            row = None if self.prepared is None else self.prepared(index, normalization)
            rows.append(self.take_step(chunks, index, normalization).clone() if row is None else row)
        mean = torch.stack(rows).mean(0)
        return Metrics(*(self.processes.sum(mean) if shared else mean).unbind(0))

    def _take_step(self, chunks: Chunks, index: Tensor, normalization: Normalization | None) -> Tensor:
        """Take a step on the chunks at `index` [c]; return the `Metrics` as one tensor."""
        optimizer = self.optimizer
        optimizer.zero_grad()
        batch = chunks.select(index)
        loss, metrics = ppo_loss(self.agent, batch, self.config, self.entropy_coef, normalization)
        loss.backward()
        self.processes.sum(optimizer.gradient)
        norm = optimizer.step(self.learning_rate, self.stopped)
        return torch.stack(metrics._replace(grad_norm=norm / self.processes.size))
