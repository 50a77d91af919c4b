"""Tuned settings by environment: the defaults of `python train/ppo.py --env ID`. One place, nothing hidden.

What each reaches, and the command that shows it, stands in benchmarks/results/memory_mazes.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rmc_agents.cli import flag_value
from rmc_agents.config import RunConfig
from rmc_agents.ppo import PPOConfig

VIEW_7 = PPOConfig(
    total_steps=2_500_000,
    # With 3e-4 RMC was still guessing on MemoryS9 after a million steps.
    learning_rate=1e-3,
    # A learning rate that stays: with one that falls to 0, some seeds guessed to the end.
    learning_rate_end=5e-4,
    # Near the end advantages are small, normalising them makes noise large, and one epoch of that at this
    # learning rate can undo what was learned.
    target_kl=0.02,
    entropy_coef=0.02,
    entropy_coef_end=0.014,
    # Learned through 16 steps, what is remembered did not last as well in hallways longer than in training.
    bptt_length=32,
)
# Nothing shows the cue from afar: an agent has to go and look, and with less entropy it stops doing so.
VIEW_3 = replace(VIEW_7, entropy_coef=0.04)
VIEW_3_LONGER = replace(VIEW_3, total_steps=4_000_000)

TO_S13 = "S5 S7 S9 S13Hallway7 S13Hallway8 S13Hallway9"
"""Hallways that end in columns 2, 4, 6, 7, 8 and 9. Up to 6 an agent at view size 7 can look back from the
junction; from 7 on it has to walk back, a step more each time."""


KEEPING = {"forget_bias": 3.0, "input_bias": -2.0, "normalize_output": True}
"""For RMC. At first a slot keeps .95 of itself a step and takes in little, so that a cue lasts for a hallway
before anything is learned (with RMC's default it is .73). Both that and the normalised output are for mazes
longer than those of training, which were mostly lost without."""


def _curriculum(maze: str, train_on: str, view_size: int = 7, ppo: PPOConfig = VIEW_7) -> RunConfig:
    """A maze, learned on the way from the smallest one: see `curriculum`.

    Alone, an agent guesses for long, or for good. In the smallest maze it takes a few steps from the cue to
    the choice, which is soon learned.
    """
    return RunConfig(
        env=_id(maze),
        # The four actions left out do nothing in these mazes but waste exploration.
        env_options={"actions": 3} if view_size == 7 else {"actions": 3, "view_size": view_size},
        train_on=",".join(map(_id, train_on.split())),
        curriculum=True,
        num_envs=64,
        core_options=KEEPING,
        ppo=ppo,
        stop_at_success=0.99,
    )


def _id(maze: str) -> str:
    return f"MiniGrid-Memory{maze}-v0"


_PRESETS = (
    _curriculum("S7", "S5 S7"),
    _curriculum("S9", "S5 S7 S9"),
    _curriculum("S11", "S5 S7 S9 S11Hallway7 S11"),
    _curriculum("S13", f"{TO_S13} S13Random S13"),
    _curriculum("S13Random", f"{TO_S13} S13 S13Random"),
    _curriculum("S17Random", f"{TO_S13} S13 S13Random S17Random"),
    _curriculum("S9", "S5 S7 S9", 3, VIEW_3),
    _curriculum("S11", "S5 S7 S9 S11", 3, VIEW_3_LONGER),
    _curriculum("S13", "S5 S7 S9 S11 S13", 3, VIEW_3_LONGER),
)
PRESETS: dict[tuple[str, int], RunConfig] = {
    (config.env, int(config.env_options.get("view_size") or 7)): config for config in _PRESETS
}
"""By environment id and view size."""


def preset(env_id: str, view_size: int = 7) -> RunConfig:
    """The tuned settings of an environment, or the general ones with its id."""
    return PRESETS.get((env_id, view_size), RunConfig(env=env_id))


def preset_of(args: Sequence[str]) -> RunConfig:
    """The tuned settings for the environment and view size that flags of `train/ppo.py` name.

    Core options are for the preset's core: another one starts without them.
    """
    views = [word.partition("=")[2] for word in args if word.startswith("view_size=")]
    view_size = int(views[-1]) if views and views[-1].isdigit() else 7
    config = preset(flag_value(args, "--env") or RunConfig.env, view_size)
    same_core = (flag_value(args, "--core") or config.core) == config.core
    return config if same_core else replace(config, core_options={})
