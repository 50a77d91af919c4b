"""Checks that agent, environments and settings of a training run fit, and how environments are described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rmc_agents.agent.actor_critic import ActorCritic
from rmc_agents.environment import BatchedEnv, EnvConfig
from rmc_agents.rl.curriculum import Curriculum
from rmc_agents.rl.ppo import PPOConfig


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
