"""One run of an algorithm of Stable-Baselines3 for the studies of control."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

import rmc_envs
from benchmarks.studies.control_runs import Job, Sb3Settings, Study
from rmc_agents.evaluation.statistics import mean_interval

FIRST_SEED = 1_000_000
"""Seed of the evaluation, far from those of training."""
BINS = 100
"""Points of a learning curve, at most."""
ALGORITHMS: dict[str, tuple[Callable[..., PPO | RecurrentPPO], str]] = {
    "PPO": (PPO, "MlpPolicy"),
    "RecurrentPPO": (RecurrentPPO, "MlpLstmPolicy"),
}
"""Algorithms and their policies."""


class EpisodeReturns(BaseCallback):
    """Record of the step at which each episode ended, and of its return without normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.ends.append((self.num_timesteps, float(info["episode"]["r"])))
        return True


def train_and_evaluate(
    study: Study, job: Job, steps: int, episodes: int, quick: bool = False
) -> dict[str, Any]:
    """Train an agent of SB3 for `steps` steps, and return its result on fresh episodes.

    Args:
        study: that of the run.
        job: the run.
        steps: of all environments together.
        episodes: of the evaluation.
        quick: make one rollout of these steps, and one epoch.
    """
    env_id, settings = study.tasks[job.task].env_id, study.settings_of(job)
    env = _make_env(env_id, settings, settings.num_envs, job.seed)
    returns = EpisodeReturns()
    options = _arguments(settings)
    if quick:
        options |= {"n_steps": steps // env.num_envs, "n_epochs": 1, "batch_size": 256}
    algorithm, policy = ALGORITHMS[study.algorithm]
    model = algorithm(policy, env, seed=job.seed, device="cpu", **options)
    started = time.perf_counter()
    model.learn(steps, returns)
    seconds = time.perf_counter() - started
    played = np.asarray(
        evaluate_policy(model, _for_evaluation(env_id, settings, env), episodes, return_episode_rewards=True)[
            0
        ]
    )
    env.close()
    return {
        "command": f"python -m {study.module} --tasks {job.task} --agents {job.agent} --seeds {job.seed}",
        "steps": model.num_timesteps,
        "seconds": round(seconds, 1),
        "mean_return": float(played.mean()),
        "return_ci95": mean_interval(played),
        "episodes": len(played),
        "curve": binned(returns.ends, steps),
    }


def binned(ends: list[tuple[int, float]], steps: int) -> list[list[float]]:
    """Return a learning curve: the mean return of the episodes that ended in each of `BINS` spans."""
    width = max(steps // BINS, 1)
    spans: dict[int, list[float]] = {}
    for step, value in ends:
        spans.setdefault((step - 1) // width, []).append(value)
    points = sorted((width * (span + 1), float(np.mean(values))) for span, values in spans.items())
    return [[step, round(value, 2)] for step, value in points]


def _make_env(env_id: str, settings: Sb3Settings, num_envs: int, seed: int) -> VecEnv:
    env = make_vec_env(rmc_envs.make_reference(env_id), num_envs, seed=seed)
    if not settings.normalize:
        return env
    return VecNormalize(env, gamma=settings.options.get("gamma", 0.99))


def _for_evaluation(env_id: str, settings: Sb3Settings, trained: VecEnv) -> VecEnv:
    """Return one environment with the statistics of training, which stay as they are."""
    env = _make_env(env_id, settings, 1, FIRST_SEED)
    if isinstance(env, VecNormalize) and isinstance(trained, VecNormalize):
        env.obs_rms, env.training, env.norm_reward = trained.obs_rms, False, False
    return env


def _arguments(settings: Sb3Settings) -> dict[str, Any]:
    options = dict(settings.options)
    return options | {name: _falling_from(options[name]) for name in settings.linear}


def _falling_from(start: float) -> Callable[[float], float]:
    return partial(_scaled, start)


def _scaled(start: float, remaining: float) -> float:
    return start * remaining
