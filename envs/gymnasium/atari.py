"""Atari games with their usual preprocessing: `preprocessing="atari"` among the options of an environment."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

FRAMES = 4
"""Number of frames that an observation holds, and number of frames for which an action is repeated."""


def preprocessed(spec: EnvSpec, options: dict[str, Any]) -> gymnasium.Env:
    """Build an environment, with Atari's usual preprocessing if its options ask for that.

    An observation is then the latest four grey pictures of 84x84 pixels, [4, 84, 84]. An action is repeated
    for four frames, the maximum of the last two is shown, and an episode starts with up to 30 random waits
    (Mnih et al. 2015). Rewards are not clipped. It needs the package opencv-python.

    Args:
        spec: the environment.
        options: its options, and `preprocessing`, which is "atari" or None.

    Raises:
        ValueError: another `preprocessing`, or the environment is not a game of ale_py.
    """
    options = copy.deepcopy(options)  # the environment may keep and change a list
    kind = options.pop("preprocessing", None)
    if kind is None:
        return gymnasium.make(spec, **options)
    if kind != "atari":
        raise ValueError(f"preprocessing={kind!r}: expected 'atari'")
    if "ale_py" not in str(spec.entry_point):
        raise ValueError("preprocessing='atari' is for the games of the package ale_py")
    env = gymnasium.make(spec, **{"frameskip": 1, **options})
    return FrameStackObservation(AtariPreprocessing(env, frame_skip=FRAMES), FRAMES)
