"""The runs of the memory-maze study, and the targets that they are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CORES = {
    "rmc": "",
    "lstm": "hidden_size=82 forget_bias=3",
    "gru": "hidden_size=98 update_bias=3",
    "rnn": "hidden_size=180",
    "feedforward": "hidden_size=308",
    "rmc-coupled": "coupled_gates=True input_bias=0 forget_bias=1 forget_bias_end=5",
    "rmc-lasting": "coupled_gates=True input_bias=0 forget_bias=1 forget_bias_end=5",
    "delta_rmc": "head_size=12 delta_value_size=8",
    "delta_rmc-lasting": "head_size=12 delta_value_size=8",
    "gated_delta": "key_size=32 value_size=29",
    "mingru": "hidden_size=205",
    "lru": "hidden_size=98 state_size=96",
}
"""Options of each core. Agents at view size 7 have the same number of parameters within 1 % (that with
coupled gates 5 % fewer). All gates keep the memory at first, as RMC's do in the presets of these mazes."""
VARIANTS = {"rmc-coupled": "rmc", "rmc-lasting": "rmc", "delta_rmc-lasting": "delta_rmc"}
"""Cores that appear more than once, with other options or another training."""
LASTING = ("--bptt-length", "128", "--target-success-rate", "1")
FLAGS = {
    "rmc-lasting": (*LASTING, "--memory-change-coef", "0.1"),
    "delta_rmc-lasting": LASTING,
}
"""Flags besides those of the options: longer gradients, and no end before all mazes are solved; for RMC,
also a penalty on changes of the memory."""
ONLY_S13 = (*VARIANTS, "delta_rmc", "gated_delta", "mingru", "lru")
"""Cores that are compared in one maze only."""
RMC_OPTIONS = "4 slots of 64, forget_bias=3 input_bias=-2 normalize_output=True (from the preset)"
SUCCESS_TARGETS = {
    ("S7", 7): 0.99,
    ("S9", 7): 0.99,
    ("S11", 7): 0.99,
    ("S13", 7): 0.99,
    ("S13Random", 7): 0.98,
    ("S17Random", 7): 0.98,
    ("S9", 3): 0.97,
    ("S11", 3): 0.97,
    ("S13", 3): 0.97,
}
"""Target for RMC's success rate, the mean over seeds, by maze and view size."""
COMPARED = (("S11", 7), ("S13", 7), ("S9", 3))
"""Mazes in which all cores are compared: no single observation shows both the cue and a choice."""
LONGER_TARGETS = {"S17": 0.95, "S25": 0.90, "S33": 0.80}
"""Target for RMC trained up to S13, in longer mazes that it has never seen."""
LASTING_TARGETS = {"rmc-lasting": {"S33": 0.98, "S65": 0.95}, "delta_rmc-lasting": {"S65": 0.95}}
"""Target for variants that were made for longer mazes."""
LONGER = (*LONGER_TARGETS, "S65")
"""Longer mazes in which agents trained up to S13 are evaluated."""
SEEDS = (11, 12, 13)
"""None of them was used to choose settings."""
EPISODES = 1000
"""Episodes of an evaluation."""
LEARNED = 0.95
"""Success rate in training at which a maze counts as learned."""


@dataclass(frozen=True)
class Job:
    """One run of the study."""

    maze: str
    """Such as S13 or S13Random."""
    view_size: int
    core: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the run folder and of the result."""
        return f"{self.maze.lower()}-view{self.view_size}-{self.core}-s{self.seed}"

    @property
    def env_id(self) -> str:
        """Gymnasium id of the maze."""
        return f"MiniGrid-Memory{self.maze}-v0"

    def flags(self) -> list[str]:
        """Return the flags of train/ppo.py."""
        view = [] if self.view_size == 7 else ["--env-options", f"view_size={self.view_size}"]
        options = ["--core-options", *CORES[self.core].split()] if CORES[self.core] else []
        return [
            "--env",
            self.env_id,
            *view,
            "--core",
            VARIANTS.get(self.core, self.core),
            *options,
            *FLAGS.get(self.core, ()),
            "--seed",
            str(self.seed),
        ]


def make_jobs(mazes: Sequence[str], cores: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """Return the runs to make: RMC in every maze, the other cores in the mazes that compare them.

    All runs of one seed come before those of the next.

    Args:
        mazes: such as S13, or S9v3 for view size 3; all mazes if empty.
        cores: names in `CORES`.
        seeds: of the runs.
    """
    return [
        Job(maze, view, core, seed)
        for seed in seeds
        for maze, view in SUCCESS_TARGETS
        for core in CORES
        if core in cores and (not mazes or f"{maze}v{view}" in mazes or maze in mazes)
        if core == "rmc" or (maze, view) in (COMPARED if core not in ONLY_S13 else [("S13", 7)])
    ]
