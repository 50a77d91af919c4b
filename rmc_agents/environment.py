"""The contract between agents and environments: one `step` moves a whole batch, on one device.

An agent is trained in a `BatchedEnv`; every task under `envs/` is one. This file alone says what a task has
to do, and `rmc_envs.check` reports which rules a task breaks. Axes: B environments, K auxiliary targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
from gymnasium import spaces
from torch import Tensor

from rmc_agents.options import Options, require_types


class ObservationIds(NamedTuple):
    """Observations as rows of the environments' `observation_table`."""

    ids: Tensor
    """[...] int64."""


FullObs = Tensor | dict[str, Tensor]
"""A batch of observations: one tensor [B, ...], or one tensor per key of a `Dict` space."""
Obs = FullObs | ObservationIds
"""A batch of observations; ids only from environments with `observe_ids`."""

Vectorization = Literal["auto", "sync", "async"]
MAX_TIMEOUT = 1e6
"""Largest `env_timeout`, in seconds: 11 days."""


@dataclass(frozen=True)
class EnvConfig:
    """Environments: what to train in, and how many at once."""

    env: str = "MiniGrid-MemoryS9-v0"
    """Gymnasium id, or several separated by commas for a batch that mixes them. `MODULE:ID` imports MODULE
    first. MiniGrid's Memory mazes run as tables on the device, at any odd size."""
    train_on: str | None = None
    """Train on these ids instead (separated by commas); the agent is evaluated on --env."""
    curriculum: bool = False
    """Half of the environments play the first unsolved task of --train-on (easiest first); the others share
    the rest. Without it, all tasks have equal shares. Memory mazes only."""
    env_options: Options = field(default_factory=dict)
    """Options of the environment, such as `--env-options view_size=3 actions=7`; added to the preset's."""
    num_envs: int = 32
    """Number of environments in the batch."""
    vectorization: Vectorization = "auto"
    """auto: the batched implementation where the task has one, sync otherwise. sync, async: single Gymnasium
    environments, for any id; async runs each in its own process."""
    env_timeout: float = 300.0
    """With async: seconds after which an environment that does not answer counts as hung."""
    restart_crashed_envs: bool = False
    """With async: restart an environment that hung, raised or died, instead of stopping the run."""

    def __post_init__(self) -> None:
        require_types(self)
        if not 1 <= self.num_envs < 2**31:
            raise ValueError(f"num_envs={self.num_envs}: expected 1 or more, and below 2^31")
        if not 0 < self.env_timeout <= MAX_TIMEOUT:
            raise ValueError(
                f"env_timeout={self.env_timeout:g}: expected more than 0 seconds, and at most {MAX_TIMEOUT:g}"
            )
        if self.restart_crashed_envs and self.vectorization != "async":
            raise ValueError(
                f"restart_crashed_envs=True needs vectorization='async', not {self.vectorization!r}"
            )
        if self.vectorization not in get_args(Vectorization):
            raise ValueError(
                f"vectorization={self.vectorization!r}: expected one of {', '.join(get_args(Vectorization))}"
            )

    @property
    def ids(self) -> str:
        """The ids that the agent is trained on, separated by commas."""
        return self.train_on or self.env


class Transition(NamedTuple):
    """Result of one step of all environments. Autoreset is SAME_STEP."""

    obs: Obs
    """[B, ...] the observation to act on next. Where an episode has just ended, the first observation of the
    next episode."""
    reward: Tensor
    """[B] float32."""
    terminated: Tensor
    """[B] bool: the task ended the episode, so no value follows."""
    truncated: Tensor
    """[B] bool: a time limit cut the episode, so its value continues. Both flags may be true."""
    final_obs: Obs
    """[B, ...] the last observation of the episode that ended; equal to `obs` where none ended."""
    success: Tensor | None = None
    """[B] bool: an episode ended in this step and was solved. None if the task does not report success."""
    valid: Tensor | None = None
    """[B] bool: false marks the filler step of a NEXT_STEP environment, which no loss may see. None means
    that every row is real."""

    @property
    def done(self) -> Tensor:
        """[B] bool: the episode ended, for either reason."""
        return self.terminated | self.truncated


class AuxiliaryTargets(NamedTuple):
    """Numbers that a linear layer on the memory is trained to predict. No policy ever reads them."""

    values: Tensor
    """[..., K] targets, each on the scale of a standard normal number."""
    weights: Tensor
    """[..., K] weights in the loss; 0 if the observations so far do not determine the target."""


class BatchedEnv(ABC):
    """`num_envs` copies of a task that move together, as tensors on `device`.

    A subclass sets the attributes below in its constructor and implements `reset` and `step`. The other
    methods have defaults. `rmc_envs.check(env)` tests the rules stated here, and `rmc_envs.register(id,
    build)` gives the task a name; `build`, usually the class, takes `num_envs` and `device` by name.

    ## Shapes and types
    - Every tensor of `reset` and `step` has the batch axis first and lives on `device`.
    - The observation space is a `Box`, `Discrete`, `MultiDiscrete` or `MultiBinary`, or a `Dict` of them that
      is not nested. The action space is one of those four. Spaces count from 0.
    - An observation [B, ...] has the shape of `observation_space` behind the batch axis, and its values lie
      in the space. A `Dict` space gives a dictionary with exactly its keys. `Box` has the space's dtype,
      `Discrete` and `MultiDiscrete` int64, `MultiBinary` int8.
    - Rewards are float32 and finite; `terminated`, `truncated`, `success` and `valid` are bool; all are [B].
    - Auxiliary targets are [B, K], float32 and finite, and their weights are not negative.
    - Each step returns new tensors: a later step must not change what an earlier one returned. No tensor
      requires grad.
    - `auxiliary_targets`, `teacher_actions` and `action_masks` return the same values until the next step.
    - A teacher's probabilities are [B, P], float32, for P choices of all components of the action: those of
      each component sum to 1, or all of a row are 0 where the teacher has no advice. They are 0 for choices
      that `action_masks` forbids.

    ## Action masks
    - A task whose allowed actions change may return `action_masks`, for `Discrete` and `MultiDiscrete`
      actions. An agent then chooses allowed actions only. `step` accepts all actions nevertheless: without
      waiting for a GPU, it cannot refuse any.
    - Masks are [B, P] bool, true where a choice is allowed, for P choices of all components of the action.
      They belong to the latest observations (where an episode has ended, to the first of the next one), and
      each row allows at least one choice of every component. A task returns masks always or never.

    ## Ids of observations
    - A task with few distinct observations may offer them as an `observation_table`. Training is faster with
      one: an agent encodes each of its rows once, instead of every observation.
    - With `observe_ids`, which users of such a task may set at any time, `reset`, `step`, `assign` and
      `load_state_dict` return `ObservationIds`, [B], instead of observations: the rows of the table that
      equal the observations. Nothing else depends on `observe_ids`, and a state does not hold it.

    ## Episodes
    - `step`, `state_dict` and `assign` raise RuntimeError before the first `reset` (a `state_dict` that
      always returns None need not).
    - `step` raises ValueError for actions of the wrong shape (`require_actions` does it), and never changes
      `actions` in place.
    - Autoreset is SAME_STEP (see `Transition`): the step that ends an episode returns the first observation
      of the next one as `obs`, and the last observation of the one that ended as `final_obs`.
    - `success` may be true only in a step that ends an episode. A task reports success in every step or
      never. (Only the adapter of Gymnasium environments has to see an episode end before it knows which.)

    ## Randomness
    - All randomness comes from generators that the environment owns, never from the global ones of torch,
      NumPy or Python.
    - `reset(seed)` fixes every episode that follows, also those after a later `reset(None)`, for the same
      arguments, `num_envs` and kind of device. `reset(None)` continues with the generators as they are.

    ## Devices
    - Nothing in `step` reads a tensor back to the host (no `.item()`, `.cpu()`, or branch on a tensor), so
      that a GPU never waits. To prove it, a native task also runs on torch's `meta` device, which holds no
      numbers and has no generators.

    ## Saving
    - `state_dict` holds everything that the next step depends on. After `load_state_dict` the environment
      continues bit for bit, also in another instance with the same arguments that was never reset.
    - A state is a dictionary with string keys. It holds dense tensors, Python's numbers, bools and strings,
      None, and lists, tuples and dictionaries of them.
    - A state does not change after it was returned or passed to `load_state_dict`: no later step changes its
      tensors or lists in place.
    - A torch generator's state under the key `"generator"` of the dictionary is converted when a run resumes
      on another kind of device.

    ## Example
    A task in which the agent repeats the digit that it sees:

        class Echo(BatchedEnv):
            def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
                self.num_envs, self.device = num_envs, torch.device(device)
                self.observation_space = self.action_space = spaces.Discrete(10)
                self.tasks = ("mine/Echo-v0",)
                self.task_of = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
                self.generator = None if self.device.type == "meta" else torch.Generator(self.device)
                self.digit: Tensor | None = None  # [B]

            def reset(self, seed: int | None = None) -> Tensor:
                if seed is not None and self.generator is not None:
                    self.generator.manual_seed(seed)
                self.digit = self._draw()
                return self.digit

            def step(self, actions: Tensor) -> Transition:
                if self.digit is None:
                    raise RuntimeError("step before the first reset")
                self.require_actions(actions)
                right, shown = actions == self.digit, self.digit
                self.digit = self._draw()
                never = torch.zeros_like(right)
                return Transition(self.digit, right.float(), ~never, never, shown, right)

            def _draw(self) -> Tensor:
                return torch.randint(10, (self.num_envs,), generator=self.generator, device=self.device)

    `rmc_envs.check(Echo(4))` finds no broken rule. Without the two lines before `require_actions` it reports
    "reset first: `step` before the first reset raised TypeError(...); expected RuntimeError from `step`".
    Echo saves no state (`state_dict` returns None), so a resumed run starts new episodes.

    Attributes:
        observation_space: the space of **one** environment's observation.
        action_space: the space of **one** environment's action.
        num_envs: B.
        device: where all tensors live.
        tasks: names of the tasks in the batch, all different; more than one for a mixture.
        task_of: [B] int64 index into `tasks` for each environment; only `assign` and `load_state_dict` change
            it.
        aux_size: K, the number of auxiliary targets; 0 if the task has none.
        has_teacher: whether `teacher_actions` gives advice.
        config: how `rmc_envs.make` built this batch, so that a run folder can record it; None if it was built
            by hand.
        can_assign: whether `assign` works, which a curriculum needs.
        capturable: whether steps can be recorded in a CUDA graph; see `prepare_steps`.
        generators: what steps draw random numbers from, besides torch's default generator, if they are
            `capturable`.
        observe_ids: whether observations are returned as ids; set by a trainer for its own calls, of tasks
            with an `observation_table`.
        modules: modules that register the task, so that a run folder can name them; set by `rmc_envs.make`.
        own_spaces: the observation and action space of the environments that were converted into this batch,
            for `predict`; None if they are those above.
        notes: messages that the user should read before training or evaluation, such as inputs that the agent
            does not see. Those that begin with "warning: " are about likely mistakes.
        reports_success: whether episodes report success. None if that is not known yet: environments of
            Gymnasium report it when an episode ends.
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    num_envs: int
    device: torch.device
    tasks: tuple[str, ...]
    task_of: Tensor
    aux_size: int = 0
    has_teacher: bool = False
    config: EnvConfig | None = None
    can_assign: bool = False
    capturable: bool = False
    generators: tuple[torch.Generator, ...] = ()
    observe_ids: bool = False
    modules: tuple[str, ...] = ()
    own_spaces: tuple[spaces.Space[Any], spaces.Space[Any]] | None = None
    notes: tuple[str, ...] = ()
    reports_success: bool | None = None

    @abstractmethod
    def reset(self, seed: int | None = None) -> Obs:
        """Start a new episode in every environment.

        Args:
            seed: fixes every episode from here on. Where each environment has its own generator, environment
                i is seeded with `seed + i`. None continues with the generators as they are.

        Returns:
            The first observations, [B, ...].
        """

    @abstractmethod
    def step(self, actions: Tensor) -> Transition:
        """Move every environment by one action.

        Args:
            actions: on `device`; [B] int64 for `Discrete`, [B, ...] int64 for `MultiDiscrete`, float32 for
                `MultiBinary` and `Box`.

        Raises:
            RuntimeError: called before the first `reset`.
            ValueError: actions of the wrong shape.
        """

    def require_actions(self, actions: Tensor) -> None:
        """Raise ValueError unless `actions` has the shape that `step` expects; for use in `step`."""
        expected = (self.num_envs, *(self.action_space.shape or ()))
        if actions.shape != expected:
            raise ValueError(f"{self.tasks[0]}: actions of shape {tuple(actions.shape)}, expected {expected}")

    def auxiliary_targets(self) -> AuxiliaryTargets | None:
        """Return what a memory could know after the latest observations, [B, K]; None if `aux_size` is 0."""
        return None

    def teacher_actions(self) -> Tensor | None:
        """Return the probabilities with which a good player would choose after the latest observations.

        The player is where the agent's own actions have led, and knows what an agent with a perfect memory
        would know. For `Discrete` and `MultiDiscrete` actions.

        Returns:
            [B, P], see above; None if the task has no teacher.
        """
        return None

    def action_masks(self) -> Tensor | None:
        """Return which actions are allowed next, [B, P] bool; None if all of them always are.

        Raises:
            EnvironmentFailed: a Gymnasium environment gave no mask, or one that cannot be read.
        """
        return None

    def observation_table(self) -> FullObs | None:
        """Return all distinct observations, [n, ...], equal in every call; None if there is no table."""
        return None

    def prepare_steps(self, count: int) -> None:
        """Prepare the next `count` steps so that they can be recorded in a CUDA graph, or replayed from one.

        For environments that are `capturable`: these steps keep everything that they read and change in
        tensors of fixed addresses, and on the host they change nothing. Call it before every `count` steps.
        """
        raise NotImplementedError(f"{self.tasks[0]} cannot be recorded in a CUDA graph")

    def recorded_steps(self) -> AbstractContextManager[None]:
        """Return the context in which the prepared steps are taken, and which is recorded with them.

        At its end the state has to be at the addresses from which the steps began.
        """
        return nullcontext()

    def assign(self, task_of: Sequence[int]) -> Obs:
        """Give each environment a task of `tasks`. Environments whose task changes start a new episode in it.

        The others continue where they are.

        Args:
            task_of: an index into `tasks` for each environment.

        Returns:
            The observations of all environments, [B, ...].

        Raises:
            RuntimeError: called before the first `reset`, or the environments cannot change their tasks.
            ValueError: not one known task per environment.
        """
        raise RuntimeError(f"{self.tasks[0]}: these environments cannot change their tasks")

    def warnings(self) -> list[str]:
        """Return messages about events since the last call, such as a restarted process."""
        return []

    def state_dict(self) -> dict[str, Any] | None:
        """Return everything that the next `step` depends on, or None if the state cannot be saved.

        Tensors, numbers, strings, lists and dictionaries only: it is written by `torch.save` and read with
        `weights_only=True`. A run whose environments return None starts new episodes when it is resumed.

        Raises:
            RuntimeError: called before the first `reset`.
        """
        return None

    def load_state_dict(self, state: dict[str, Any]) -> Obs:
        """Continue from `state_dict`, and return the observations that belong to it.

        Raises:
            ValueError: the state belongs to another number of environments, or to another task.
            RuntimeError: the environments cannot restore a state.
        """
        raise RuntimeError(f"{self.tasks[0]}: these environments cannot restore a state")

    def close(self) -> None:  # noqa: B027 - most environments hold nothing
        """Release what the environments hold (processes, windows)."""


@contextmanager
def observing_ids(env: BatchedEnv, ids: bool = True) -> Iterator[None]:
    """Let environments with an `observation_table` return ids of observations within a `with` block."""
    before, env.observe_ids = env.observe_ids, ids
    try:
        yield
    finally:
        env.observe_ids = before


class EnvironmentFailed(RuntimeError):
    """An environment raised, or returned a non-finite value; the message says which one, when and what."""


class GroundTruth(NamedTuple):
    """The state of the world in every environment, seen by the agent or not; for probes of its memory."""

    cue: Tensor
    """[B] int64 what has to be remembered: 0 or 1."""
    cue_in_view: Tensor
    """[B] bool: the agent sees the cue now."""
    x: Tensor
    """[B] int64 the agent's column."""
    state_id: Tensor
    """[B] int64 equal where everything but the cue is equal: the maze with its hallway and choices, the
    agent's cell and direction."""


@runtime_checkable
class CuedEnv(Protocol):
    """A batched task with a cue to remember, which reports the ground truth."""

    num_envs: int
    device: torch.device

    def reset(self, seed: int | None = None) -> Obs: ...
    def step(self, actions: Tensor) -> Transition: ...
    def action_masks(self) -> Tensor | None: ...
    def ground_truth(self) -> GroundTruth:
        """Return the state of the world as the latest `reset` or `step` left it."""
        ...


class ObjectPlaces(NamedTuple):
    """Where K objects are, from each agent's point of view; for probes of its memory."""

    offset: Tensor
    """[B, K, 2] int64 cells ahead of the agent and to its right."""
    known: Tensor
    """[B, K] bool: the object has been in view in this episode."""
    in_view: Tensor
    """[B, K] bool: the object is in view now."""


@runtime_checkable
class ObjectsEnv(Protocol):
    """A batched task on a grid with objects whose places an agent may remember."""

    num_envs: int
    device: torch.device
    object_names: tuple[str, ...]

    def reset(self, seed: int | None = None) -> Obs: ...
    def step(self, actions: Tensor) -> Transition: ...
    def action_masks(self) -> Tensor | None: ...
    def object_places(self) -> ObjectPlaces:
        """Return where the objects are, as the latest `reset` or `step` left the world."""
        ...

    def render_places(self, i: int, offset: Any) -> Any:
        """Draw environment i, [height, width, 3] uint8, with the places [K, 2] at which a probe of the memory
        finds the objects; NaN for none."""
        ...


@runtime_checkable
class KnownStarts(Protocol):
    """Environments that identify their start states, so that evaluation plays equal ones once."""

    def start_ids(self) -> Tensor:
        """Return [B] int64 right after a reset.

        Environments with the same id behave the same under the same actions, until their first episode ends.
        """
        ...
