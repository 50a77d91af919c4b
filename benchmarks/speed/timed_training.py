"""Training iterations with a stopwatch: ours, and those of sb3-contrib's RecurrentPPO, at equal sizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from minigrid.wrappers import ImgObsWrapper
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

import rmc_envs
from rmc_agents import ActorCritic, PPOConfig, Trainer
from rmc_agents.environment import ObservationIds
from rmc_agents.training.processes import ALONE, Processes

MAZE = "MiniGrid-MemoryS13-v0"
HIDDEN_SIZE = 128
"""Of the LSTMs."""
RMC_4X64 = {"num_slots": 4, "num_heads": 4, "head_size": 16}
AHEAD, EMPTY, LEFT, FORWARD = (3, 5), 1, 0, 2
"""The cell ahead of the agent in its view, the code of an empty cell, and two actions."""
SHARED_OPTIONS = {"shared_lstm": True, "enable_critic_lstm": False, "net_arch": {"pi": [64], "vf": [64]}}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a measurement."""

    num_envs: int = 32
    num_steps: int = 128
    minibatch_size: int = 512
    epochs: int = 4
    rounds: int = 5
    """Measured iterations of each candidate."""


class Seconds(NamedTuple):
    """Time of one iteration, by part."""

    environment: float
    """Inside the environments' `step`."""
    policy: float
    """The rest of the rollout."""
    update: float
    """From the end of the rollout to the next."""


class Stopwatch:
    """Sum of the time that calls take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function, and add its time."""
        started = time.perf_counter()
        result = function(*args)
        self.seconds += time.perf_counter() - started
        return result

    def read(self) -> float:
        """Return the seconds since the last reading."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class TimedEnv:
    """Our environments with a stopwatch on `step`.

    Args:
        env: the environments.
        walks: replace actions so that the agents walk straight to a choice.
    """

    def __init__(self, env: rmc_envs.BatchedEnv, walks: bool) -> None:
        self.env, self.walks, self.watch = env, walks, Stopwatch()
        self.table: Any = env.observation_table()

    @property
    def observe_ids(self) -> bool:
        return self.env.observe_ids

    @observe_ids.setter
    def observe_ids(self, value: bool) -> None:
        self.env.observe_ids = value

    def reset(self, seed: int | None = None) -> Any:
        self.obs: Any = self.env.reset(seed)
        return self.obs

    def step(self, actions: torch.Tensor) -> rmc_envs.Transition:
        if self.walks:
            obs = self.obs
            image = self.table["image"][obs.ids] if isinstance(obs, ObservationIds) else obs["image"]
            actions = torch.where(image[:, AHEAD[0], AHEAD[1], 0] == EMPTY, FORWARD, LEFT)
        step = self.watch.time(self.env.step, actions)
        self.obs = step.obs
        return step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


class TimedVecEnv(VecEnvWrapper):
    """SB3's environments with a stopwatch on `step`; arguments as in `TimedEnv`."""

    def __init__(self, venv: VecEnv, walks: bool) -> None:
        super().__init__(venv)
        self.walks, self.watch = walks, Stopwatch()

    def reset(self) -> VecEnvObs:
        self.obs: Any = self.venv.reset()
        return self.obs

    def step_async(self, actions: Any) -> None:
        if self.walks:
            actions = np.where(self.obs[:, AHEAD[0], AHEAD[1], 0] == EMPTY, FORWARD, LEFT)
        self.watch.time(self.venv.step_async, actions)

    def step_wait(self) -> VecEnvStepReturn:
        result = self.watch.time(self.venv.step_wait)
        self.obs = result[0]
        return result


class TimedTrainer:
    """Iterations of a trainer of ours.

    Args:
        trainer: in environments of `TimedEnv`.
        watch: the stopwatch of these.
    """

    def __init__(self, trainer: Trainer, watch: Stopwatch) -> None:
        self.trainer, self.watch = trainer, watch
        self.parameters = sum(p.numel() for p in trainer.agent.parameters())

    def iterate(self) -> Seconds:
        """Make one iteration."""
        started = time.perf_counter()
        figures = self.trainer.iterate()
        total = time.perf_counter() - started
        environment, collected = self.watch.read(), figures["time/collect_seconds"]
        return Seconds(environment, collected - environment, total - collected)


class TimedSb3:
    """Iterations of an algorithm of Stable-Baselines3 that collects rollouts.

    Args:
        model: in environments of `TimedVecEnv`.
        watch: the stopwatch of these.
    """

    def __init__(self, model: Any, watch: Stopwatch) -> None:
        self.model, self.watch = model, watch
        self.parameters = sum(p.numel() for p in model.policy.parameters())
        _, self.callback = model._setup_learn(10**9)
        watch.read()

    def iterate(self) -> Seconds:
        """Make one iteration."""
        model = self.model
        started = time.perf_counter()
        model.collect_rollouts(model.env, self.callback, model.rollout_buffer, model.n_steps)
        collected = time.perf_counter()
        environment = self.watch.read()
        model.train()
        return Seconds(environment, collected - started - environment, time.perf_counter() - collected)


class OurTraining(TimedTrainer):
    """Training with our `Trainer`: an iteration is `Trainer.iterate`, as in `python train/ppo.py`.

    Args:
        core: name of the core.
        options: of the core.
        sizes: of the measurement; of several processes, `num_envs` is the share of this one.
        bptt_length: steps of a chunk.
        walks: as in `TimedEnv`.
        processes: those that train together.
    """

    def __init__(
        self,
        core: str,
        options: Mapping[str, Any],
        sizes: Sizes,
        bptt_length: int,
        walks: bool,
        processes: Processes = ALONE,
    ) -> None:
        env: Any = TimedEnv(rmc_envs.make(MAZE, sizes.num_envs), walks)
        torch.manual_seed(0)
        agent = ActorCritic(env.observation_space, env.action_space, core, options)
        config = PPOConfig(
            total_steps=10**9,
            num_steps=sizes.num_steps,
            bptt_length=bptt_length,
            minibatch_size=sizes.minibatch_size,
            epochs=sizes.epochs,
        )
        # Nothing is written before `run` or `save`.
        super().__init__(Trainer(agent, env, config, "unused", processes=processes), env.watch)


class Sb3Training(TimedSb3):
    """Training with RecurrentPPO as its users set it up, at our sizes.

    Args:
        sizes: of the measurement.
        shared: one LSTM for actor and critic and small heads, as in our agents, instead of the defaults.
        walks: as in `TimedEnv`.
    """

    def __init__(self, sizes: Sizes, shared: bool, walks: bool) -> None:
        env = TimedVecEnv(make_vec_env(MAZE, sizes.num_envs, seed=0, wrapper_class=ImgObsWrapper), walks)
        model = RecurrentPPO(
            "MlpLstmPolicy",
            env,
            n_steps=sizes.num_steps,
            batch_size=sizes.minibatch_size,
            n_epochs=sizes.epochs,
            ent_coef=0.01,
            policy_kwargs={"lstm_hidden_size": HIDDEN_SIZE, **(SHARED_OPTIONS if shared else {})},
            seed=0,
            device="cpu",
        )
        super().__init__(model, env.watch)
