"""Options of an agent: one dataclass for the flags, the constructor and config.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from rmc_agents.agent.clock import MAX_PERIOD
from rmc_agents.options import Options, require_sizes, require_types

CriticMemory = Literal["shared", "separate", "none"]
MaskUse = Literal["auto", "use", "ignore"]


@dataclass(frozen=True)
class AgentConfig:
    """Agent: memory core, and the networks around it."""

    core: str = "rmc"
    """Memory core: rmc, lstm, gru, rnn, dnc, gated_delta, mingru, lru, shm, gtrxl, delta_rmc, entity_delta,
    feedforward (no memory: the control), or one that an --import registered."""
    core_options: Options = field(default_factory=dict)
    """Options of the core, such as `--core-options num_slots=8 head_size=32`; added to the preset's."""
    features: int = 128
    """Width of the encoder's output."""
    hidden_size: int = 64
    """Width of the hidden layer of the policy head and of the value head."""
    critic_memory: CriticMemory = "shared"
    """shared: the critic reads the actor's memory; separate: it has a memory core of its own; none: it sees
    the current observation only."""
    previous_action: bool = False
    """Feed the previous action to the core."""
    previous_reward: bool = False
    """Feed the previous reward to the core."""
    start_flag: bool = False
    """Feed a flag to the core that is 1 at the first step of an episode, and else 0."""
    clock: int = 0
    """P: feed the number of the step in its episode to the core, as P waves of a clock that turns once in P
    steps; 0 feeds none. With it, a delta memory (gated_delta, delta_rmc) finds what it saw by when it was."""
    skip: bool = True
    """Let the heads read the core's current input besides its output, so that reactions need not pass through
    the memory. RMC learns memory tasks several times faster with it."""
    cell_size: int | None = None
    """Width of the embedding of each cell of a grid of codes that is fed to the core as an entity, besides
    the features; 0 feeds none. None: 24 for cores that read entities (entity_delta), where the observation
    has such a grid, otherwise 0."""
    cell_names: int = 0
    """Let each cell that is fed to the core carry a name of so many numbers besides its embedding: a fixed
    vector, nearly orthogonal to the names of all other combinations of codes, by which the core stores what
    it sees. 64 are enough for some dozens of things; 0 for no names."""
    cell_neighbours: bool = False
    """Let each cell that is fed to the core carry the sum of its neighbours' embeddings and names besides its
    own, with a learned weight for each of the eight directions: for things that are told by what lies beside
    them."""
    read_as: Options = field(default_factory=dict)
    """How parts of the observation are read, where the decision by their space is wrong, such as
    `--read-as image=codes` (an observation without parts is named `observation`). One of categories, codes,
    picture, cells, numbers, raw, log; details after a colon: codes:11,6,4 or picture:chw."""
    normalize_observations: bool = False
    """Normalise observations that are read as numbers (not pictures or categories) by their running mean and
    standard deviation, which are saved with the weights and change in training only."""
    scale_actions: bool = False
    """With Box actions: the policy's -1 and 1 are the bounds of the box, where these are finite."""
    log_std_init: float = 0.0
    """With Box actions: natural logarithm of the policy's standard deviation at the start, which is learned
    from there: 0 for 1, -2 for 0.14."""
    action_persistence: float = 0.0
    """Correlation of successive actions under the untrained policy, from 0 to below 1. With 0.9, exploration
    keeps a direction for about ten steps, where independent actions cancel out: for tasks in which a goal
    has to be found first. Part of the policy, which learns to act against it."""

    reconstruct: bool = False
    """Let a decoder predict the current observation from the memory's output, as an auxiliary loss of weight
    --reconstruction-coef. It makes the memory hold what it reads; acting is not affected."""

    action_masks: MaskUse = "auto"
    """auto: choose only allowed actions, where the environment gives action masks; use: the same, and refuse
    to train without masks (recorded by runs that had some); ignore: choose any action."""

    def __post_init__(self) -> None:
        if self.action_masks not in get_args(MaskUse):
            raise ValueError(f"action_masks must be one of {get_args(MaskUse)}, got {self.action_masks!r}")
        if self.critic_memory not in get_args(CriticMemory):
            raise ValueError(
                f"critic_memory must be one of {get_args(CriticMemory)}, got {self.critic_memory!r}"
            )
        for name in ("features", "hidden_size"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {size!r}")
        require_types(self)
        size = self.cell_size
        if size is not None and (type(size) is not int or size < 0):
            raise ValueError(f"cell_size must be a whole number of at least 0, or None, got {size!r}")
        if not 0 <= self.cell_names <= 2**20:
            raise ValueError(f"cell_names must be from 0 to {2**20}, got {self.cell_names}")
        if not 0 <= self.clock <= MAX_PERIOD:
            raise ValueError(f"clock must be from 0 to {MAX_PERIOD}, got {self.clock}")
        if not -10 <= self.log_std_init <= 5:
            raise ValueError(f"log_std_init must be from -10 to 5, got {self.log_std_init}")
        if not 0 <= self.action_persistence < 1:
            raise ValueError(
                f"action_persistence must be at least 0 and below 1, got {self.action_persistence}"
            )
        require_sizes({"agent": vars(self)}, "this agent")

    @property
    def keeps_action(self) -> bool:
        """Whether the agent reads its previous action."""
        return self.previous_action or self.action_persistence > 0

    @property
    def reads_more(self) -> bool:
        """Whether the core's inputs hold more than the observation."""
        return self.previous_action or self.previous_reward or self.start_flag or self.clock > 0
