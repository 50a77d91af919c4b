"""Atari games with their usual preprocessing: `preprocessing="atari"` among the options of an environment.

Both forms give the same pictures: a single environment made of Gymnasium's wrappers, and the batch that
ale_py itself computes in C++, with a thread for each core.
"""

from __future__ import annotations

import copy
import importlib.util
import os
from dataclasses import dataclass, fields
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, TransformReward

from rmc_agents.errors import UsageError

FRAMES_PER_ACTION = 4
MAX_WAITS = 30
"""Largest number of waits at the start of an episode."""
_OF_BATCHES = ("game", "repeat_action_probability", "full_action_space", "max_num_frames_per_episode")
"""Options of a game that ale_py's batches take, too."""


@dataclass(frozen=True)
class Preprocessing:
    """Usual preprocessing of Atari games (Mnih et al. 2015), with its options.

    An action is repeated for four frames, and the maximum of the last two is shown in gray, 84x84 pixels.
    An episode starts with up to 30 random waits.
    """

    frame_stack: int = 4
    """Number of the latest pictures that an observation holds, [frame_stack, 84, 84]."""
    clip_rewards: bool = False
    """Whether rewards are replaced by their signs. Returns are then no scores: PPO's `normalize_rewards` does
    the same for learning, and leaves them."""
    terminal_on_life_loss: bool = False
    """Whether an episode ends with each life."""

    def __post_init__(self) -> None:
        if type(self.frame_stack) is not int or not 1 <= self.frame_stack <= 64:
            raise UsageError(f"frame_stack={self.frame_stack!r}: expected 1 to 64")


OPTIONS = ("preprocessing", *(each.name for each in fields(Preprocessing)))
"""Options that `preprocessed` takes from those of an environment."""


def preprocessed(spec: EnvSpec, options: dict[str, Any]) -> gymnasium.Env:
    """Build an environment, with Atari's usual preprocessing if its options ask for that.

    Args:
        spec: the environment.
        options: its options, and `preprocessing`, which is "atari" or None; with "atari" those of
            `Preprocessing`, too.

    Raises:
        ValueError: another `preprocessing`, the environment is not a game of ale_py, or OpenCV is missing.
    """
    own, wanted = _split(spec, options)
    if wanted is None:
        return gymnasium.make(spec, **own)
    # Gray, because the wrapper reads the screen itself and drops the observation.
    env = gymnasium.make(spec, **{"frameskip": 1, "obs_type": "grayscale", **own})
    env = AtariPreprocessing(
        env, MAX_WAITS, FRAMES_PER_ACTION, terminal_on_life_loss=wanted.terminal_on_life_loss
    )
    if wanted.clip_rewards:
        env = TransformReward(env, _sign)
    return FrameStackObservation(env, wanted.frame_stack, padding_type="zero")  # as ale_py's batches


def preprocessed_batch(spec: EnvSpec, num_envs: int, options: dict[str, Any]) -> VectorEnv | None:
    """Build a batch of preprocessed games that ale_py computes by itself, with a thread for each core.

    Args:
        spec: the environment.
        num_envs: B.
        options: as of `preprocessed`.

    Returns:
        The batch; None if the options ask for no preprocessing, or for what such a batch does not have.
    """
    own, wanted = _split(spec, options)
    if wanted is None or spec.vector_entry_point is None or not set(own) <= set(_OF_BATCHES):
        return None
    game = {key: value for key, value in {**spec.kwargs, **own}.items() if key in _OF_BATCHES}
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        num_envs=num_envs,
        num_threads=min(num_envs, len(os.sched_getaffinity(0))),
        autoreset_mode=AutoresetMode.SAME_STEP,
        stack_num=wanted.frame_stack,
        frameskip=FRAMES_PER_ACTION,
        noop_max=MAX_WAITS,
        use_fire_reset=False,
        episodic_life=wanted.terminal_on_life_loss,
        reward_clipping=wanted.clip_rewards,
        **game,
    )


def _split(spec: EnvSpec, options: dict[str, Any]) -> tuple[dict[str, Any], Preprocessing | None]:
    """Return the options of the environment itself, and the preprocessing that they ask for."""
    options = copy.deepcopy(options)  # the environment may keep and change a list
    kind = options.pop("preprocessing", None)
    if kind is None:
        return options, None
    if kind != "atari":
        raise ValueError(f"preprocessing={kind!r}: expected 'atari'")
    if "ale_py" not in str(spec.entry_point):
        raise ValueError("preprocessing='atari' is for the games of the package ale_py")
    if importlib.util.find_spec("cv2") is None:
        raise UsageError("preprocessing='atari' needs OpenCV: pip install 'rmc-agents[atari]'")
    wanted = {each.name: options.pop(each.name) for each in fields(Preprocessing) if each.name in options}
    return options, Preprocessing(**wanted)


def _sign(reward: Any) -> float:
    return float(np.sign(reward))
