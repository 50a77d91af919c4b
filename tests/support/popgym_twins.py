"""Native tasks beside POPGym's own environments, which get the same decks, boards, starts and noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np
import popgym  # noqa: F401 - registers its environments
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import rmc_envs
from rmc_envs.players import Player, RandomPlayer
from rmc_envs.popgym.base import PopgymTask
from rmc_envs.popgym.cards import kinds_of
from rmc_envs.popgym.kinds import Kind

ROUNDING = 1e-6
"""Tolerance for float32 where sine and cosine of torch and of NumPy differ in the last bit of a float64."""

State = dict[str, Any]
Obs = Tensor | dict[str, Tensor]
Physics = Callable[[State, int], NDArray[np.float64]]
"""Returns the float64 state of environment i, from a saved state."""
MakePlayer = Callable[..., Player]
"""Makes a player for a batch, from `(task, seed)`."""


class Feed:
    """Stands in for a NumPy generator, and returns what it was given."""

    def __init__(self) -> None:
        self.values: list[NDArray[Any]] = []

    def give(self, *values: Any) -> None:
        self.values += [np.asarray(value) for value in values]

    def shuffle(self, cards: NDArray[Any]) -> None:
        cards[:] = self.values.pop(0)

    def choice(self, *args: Any, **options: Any) -> Any:
        return self.values.pop(0)

    uniform = normal = choice

    def random(self, *args: Any, **options: Any) -> Any:
        value = self.values.pop(0)
        return value if value.ndim else value.item()


class Start(Protocol):
    """Starts an episode of POPGym's environment with the content of environment i, and returns its reset."""

    def __call__(self, own: Any, feed: Feed, state: State, i: int) -> Any: ...


def cards_with(kinds: Tensor, kind: Kind) -> NDArray[np.int64]:
    """Return an order of all cards in which they have these kinds."""
    cards = kinds_of(torch.arange(len(kinds)), kind)
    order = torch.empty_like(kinds)
    order[kinds.argsort(stable=True)] = cards.argsort(stable=True)
    return order.numpy()


def start_dealing(kind: Kind) -> Start:
    """Return the start of a task that deals cards. POPGym deals from the end of the deck."""

    def start(own: Any, feed: Feed, state: State, i: int) -> Any:
        feed.give(cards_with(state["dealt"][:, i], kind)[::-1])
        return own.reset()[0]

    return start


def start_moving(physics: Physics) -> Start:
    """Return the start of a task whose content is where its parts are."""

    def start(own: Any, feed: Feed, state: State, i: int) -> Any:
        feed.give(physics(state, i))
        return own.reset()[0]

    return start


class BoldPlayer(RandomPlayer):
    """Draws every action uniformly; torques also beyond their bounds, where both implementations clip."""

    def choose(self, obs: Any, starts: Tensor) -> Tensor:
        actions = super().choose(obs, starts)
        return actions * 1.5 if actions.is_floating_point() else actions


def row(obs: Obs, i: int) -> NDArray[Any]:
    """Return the observation of one environment; the members of a Tuple in a row."""
    if isinstance(obs, dict):
        return np.array([obs[key][i] for key in sorted(obs)])
    return obs[i].numpy()


class Recorder:
    """Records what a function of torch draws, for noise that no saved state holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.drawn: list[Tensor] = []
        original = getattr(torch, name)

        def draw(*args: Any, **options: Any) -> Tensor:
            self.drawn.append(original(*args, **options))
            return self.drawn[-1]

        monkeypatch.setattr(torch, name, draw)

    def take(self) -> list[Tensor]:
        """Return what was drawn since the last call."""
        drawn, self.drawn = self.drawn, []
        return drawn


def no_noise(drawn: list[Tensor], i: int) -> list[Any]:
    """Return the numbers that POPGym's environment i draws in a step: none."""
    return []


def cart(state: State, i: int) -> NDArray[np.float64]:
    """Return the state of cart i."""
    return state["cart"][:, i].numpy()


def pendulum(state: State, i: int) -> NDArray[np.float64]:
    """Return the state of pendulum i."""
    return torch.stack([state["angle"][i], state["speed"][i]]).numpy()


def compare(
    env_id: str,
    start: Start,
    make_player: MakePlayer,
    episodes: int,
    num_envs: int = 4,
    noise: Callable[[list[Tensor], int], list[Any]] = no_noise,
    recorder: Recorder | None = None,
    physics: Physics | None = None,
) -> list[float]:
    """Play the same episodes with both, and assert that all results are equal.

    Args:
        env_id: POPGym's id.
        start: puts the content of the native episode into POPGym's environment.
        make_player: of the actions.
        episodes: number of episodes to play, at least.
        num_envs: B.
        noise: what POPGym's environment i draws in a step, from what the native one has just drawn.
        recorder: of the native draws; the last one of a step or reset is given to `start`, as state["drawn"].
        physics: the float64 state of environment i, which POPGym's gets after every step, so that differences
            of rounding do not grow from step to step; numbers may differ by `ROUNDING`.

    Returns:
        the returns of the episodes.
    """
    task = rmc_envs.make(env_id, num_envs)
    assert isinstance(task, PopgymTask)
    player, tolerance = make_player(task, 1), 0.0 if physics is None else ROUNDING
    feeds = [Feed() for _ in range(num_envs)]
    owns = [gymnasium.make(env_id, disable_env_checker=True).unwrapped for _ in feeds]

    def begin(rows: list[int]) -> None:
        state = task.state_dict() | {"drawn": drawn, "rows": rows}
        for i in rows:
            owns[i].np_random = feeds[i]  # type: ignore[assignment]
            assert_equal(start(owns[i], feeds[i], state, i), row(obs, i), tolerance)

    obs: Any = task.reset(3)
    drawn = [] if recorder is None else recorder.take()
    begin(list(range(num_envs)))
    starts, returns, finished = torch.ones(num_envs, dtype=torch.bool), np.zeros(num_envs), []
    while len(finished) < episodes:
        action = player.act(obs, starts)
        if recorder is not None:
            recorder.take()
        step = task.step(action)
        drawn = [] if recorder is None else recorder.take()
        for i, own in enumerate(owns):
            feeds[i].give(*noise(drawn, i))
            seen, reward, terminated, truncated, _ = own.step(
                action[i].numpy() if action.ndim > 1 else int(action[i])
            )
            assert_equal(seen, row(step.final_obs, i), tolerance)  # type: ignore[arg-type]
            assert_equal(np.float32(reward), step.reward[i].numpy(), tolerance)
            assert (bool(step.terminated[i]), bool(step.truncated[i])) == (terminated, truncated)
            returns[i] += reward
        obs, starts = step.obs, step.done
        if physics is not None:
            state = task.state_dict()
            for i in (~starts).nonzero().flatten().tolist():
                np.testing.assert_allclose(physics(state, i), owns[i].state, rtol=1e-9, atol=1e-12)
                owns[i].state = physics(state, i)
        if rows := starts.nonzero().flatten().tolist():
            finished += returns[rows].tolist()
            returns[rows] = 0
            begin(rows)
    assert not any(feed.values for feed in feeds)
    return finished


def assert_equal(own: Any, ours: NDArray[Any], tolerance: float) -> None:
    if tolerance:
        np.testing.assert_allclose(ours, np.asarray(own), rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(ours, np.asarray(own))


def compare_noisy(
    env_id: str,
    sigma: float,
    physics: Physics,
    make_player: MakePlayer,
    monkeypatch: pytest.MonkeyPatch,
    episodes: int,
    num_envs: int,
) -> None:
    """Compare a task that adds normal noise of this standard deviation to what is seen, as `compare` does."""
    recorder = Recorder(monkeypatch, "randn")

    def start(own: Any, feed: Feed, state: State, i: int) -> Any:
        feed.give(physics(state, i), state["drawn"][-1][state["rows"].index(i)] * sigma)
        return own.reset()[0]

    def noise(drawn: list[Tensor], i: int) -> list[Any]:
        return [drawn[0][i] * sigma]

    compare(env_id, start, make_player, episodes, num_envs, noise=noise, recorder=recorder, physics=physics)
