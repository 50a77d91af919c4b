"""PPO's loss in C: heads, loss and their gradients as one autograd node; see `cores.kernels.heads_native`."""

from __future__ import annotations

from torch import Tensor

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.cores.kernels import heads_native
from rmc_agents.cores.kernels.unchanged import replaces
from rmc_agents.rl.rollout import Chunks
from rmc_agents.rl.terms import LossTerms


def native_losses(
    agent: ActorCritic, batch: Chunks, settings: heads_native.LossSettings
) -> tuple[Tensor, list[Tensor], LossTerms] | None:
    """Return what `losses` in `rl.ppo` returns, or None where PyTorch has to compute it.

    Args:
        agent: the agent.
        batch: a minibatch.
        settings: coefficients of the loss.
    """
    if batch.action_masks is not None or replaces(agent, ActorCritic, "evaluate_actions"):
        return None
    columns = batch.log_probs, batch.values, batch.advantages, batch.returns, batch.valid
    actions = batch.actions.reshape(batch.starts.numel(), -1)
    recorded = heads_native.Recorded(actions, *(x.flatten() for x in columns))
    if not heads_native.usable_records(recorded):
        return None
    read = agent.read_for_native_heads(batch.obs, batch.actions, batch.rewards, batch.starts, batch.state)
    if read is None or len(read[0].sizes) != actions.shape[1]:
        return None
    (inputs, sizes, ids), predictions = read
    loss, figures = heads_native.ppo_losses(inputs, recorded, settings, sizes, ids)
    return loss, list(figures.unbind(0)), LossTerms(predictions)
