"""Checks that agent, environments and settings of a training run fit, and how environments are described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.agent.heads import CategoricalHead
from rmc_agents.environment import BatchedEnv, EnvConfig
from rmc_agents.rl.curriculum import Curriculum
from rmc_agents.rl.ppo import PPOConfig
from rmc_agents.spaces.masks import choice_sizes


def require_fit(agent: ActorCritic, env: BatchedEnv, config: PPOConfig, eval_tasks: Sequence[str]) -> None:
    """Raise ValueError unless an agent can be trained in the environments, and these play `eval_tasks`."""
    unknown = set(eval_tasks) - set(env.tasks)
    if unknown:
        raise ValueError(f"eval_tasks names {', '.join(unknown)}; the tasks are {', '.join(env.tasks)}")
    for name in ("observation_space", "action_space"):
        if getattr(agent, name) != getattr(env, name):
            raise ValueError(
                f"{name} of agent and environments differ: {getattr(agent, name)}, {getattr(env, name)}"
            )
    if config.aux_coef and not agent.aux_size == env.aux_size > 0:
        raise ValueError(
            f"aux_coef={config.aux_coef} needs auxiliary targets: the agent was built for "
            f"aux_size={agent.aux_size}, and {', '.join(env.tasks)} has {env.aux_size}"
        )
    if config.teacher_coef and not env.has_teacher:
        raise ValueError(
            f"teacher_coef={config.teacher_coef:g} needs a task with a teacher, which "
            f"{', '.join(env.tasks)} is not"
        )
    if config.teacher_coef and not isinstance(agent.policy, CategoricalHead):
        raise ValueError(
            f"teacher_coef={config.teacher_coef:g} is for Discrete and MultiDiscrete actions, not "
            f"{agent.action_space}"
        )
    if agent.config.reconstruct and not config.reconstruction_coef:
        raise ValueError(
            "reconstruct=True needs a weight of the reconstruction loss, such as reconstruction_coef=0.1"
        )
    if config.reconstruction_coef and not agent.config.reconstruct:
        raise ValueError(
            f"reconstruction_coef={config.reconstruction_coef:g} needs an agent with reconstruct=True"
        )


def require_advice(env: BatchedEnv, config: PPOConfig) -> None:
    """Raise ValueError unless the teacher of environments that were reset gives advice of the right form."""
    if not config.teacher_coef:
        return
    advice, shape = env.teacher_actions(), (env.num_envs, sum(choice_sizes(env.action_space) or ()))
    if advice is None or advice.shape != shape or advice.dtype != torch.float32:
        found = "None" if advice is None else f"{str(advice.dtype)[6:]} {list(advice.shape)}"
        raise ValueError(
            f"`teacher_actions` of {', '.join(env.tasks)} is {found}; expected float32 {list(shape)}, the "
            "probabilities of all choices"
        )


def use_masks(agent: ActorCritic, env: BatchedEnv) -> None:
    """Let an agent use the action masks of the environments, which were reset, unless it ignores them.

    Raises:
        ValueError: the agent needs masks and the environments give none, or they cannot restrict its actions.
    """
    wanted = agent.config.action_masks
    if wanted == "ignore":
        return
    if env.action_masks() is not None:
        agent.use_action_masks()
    elif wanted == "use":
        raise ValueError(
            f"action_masks='use': {', '.join(env.tasks)} gives no action masks, neither in infos nor by a "
            "method; build the agent with action_masks='auto', which needs none"
        )


def make_curriculum(env: BatchedEnv) -> Curriculum:
    """Return a curriculum over the tasks of the environments.

    Raises:
        ValueError: they cannot change their tasks.
    """
    if not env.can_assign:
        raise ValueError(f"a curriculum needs environments that can change tasks; {env.tasks[0]} cannot")
    return Curriculum(len(env.tasks))


def environment_config(
    env: BatchedEnv, counted: Sequence[bool], curriculum: bool, processes: int
) -> EnvConfig | None:
    """Return how the environments of all processes were made; None if they were built by hand.

    Args:
        env: the environments of one process.
        counted: for each task, whether the agent is evaluated on it.
        curriculum: whether a curriculum assigns the tasks.
        processes: number of processes.
    """
    config = env.config
    if config is None:
        return None
    names = [task for task, counts in zip(env.tasks, counted, strict=True) if counts]
    if config.train_on is None and len(names) < len(env.tasks):
        config = replace(config, env=",".join(names), train_on=config.env)
    return replace(config, num_envs=config.num_envs * processes, curriculum=curriculum)


class SuccessMonitor:
    """Monitor that warns once if a target success rate waits for a success that nobody reports.

    Args:
        tasks: names of the tasks.
        target: the target success rate, None for no target.
    """

    def __init__(self, tasks: Sequence[str], target: float | None) -> None:
        self.tasks, self.target = tasks, target

    def warnings(self, reports: bool | None) -> list[str]:
        """Return a warning if the environments do not report success; None if that is not known yet."""
        if self.target is None or reports is not False:
            return []
        target, self.target = self.target, None
        return [
            f"warning: {', '.join(self.tasks)} does not report success, so that the target success rate "
            f"of {target:g} is never reached: training uses the whole budget"
        ]
