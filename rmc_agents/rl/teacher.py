"""Learning from a task's teacher: the agent acts, and the teacher says what it would have done.

That is DAgger (Ross et al. 2011) in the states of the agent's own policy, beside PPO's loss as in
kickstarting (Schmitt et al. 2018). Axes: P choices of all components of an action.
"""

from __future__ import annotations

import torch
from torch import Tensor


def divergence(advice: Tensor, parameters: Tensor, sizes: list[int]) -> Tensor:
    """Return the KL divergence of the policy from the teacher, KL(teacher, policy) [...], in nats.

    It is 0 where the teacher gives no advice.

    Args:
        advice: [..., P] the teacher's probabilities of the choices; all 0 for none.
        parameters: [..., P] the policy's logits.
        sizes: number of choices of each component.
    """
    log_probs = torch.cat([x.log_softmax(-1) for x in parameters.split(sizes, dim=-1)], dim=-1)
    # 0 times the logarithm of what the policy may not choose is 0, too.
    return (torch.xlogy(advice, advice) - advice * log_probs).sum(-1)
