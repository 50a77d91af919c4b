"""Saved states of native tasks: the options that they belong to, and the pictures after they are loaded."""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

import rmc_envs
from rmc_envs.box_world.box_world import BoxWorld
from rmc_envs.popgym.base import PopgymTask
from rmc_envs.popgym.battleship import Battleship
from rmc_envs.registry import native
from rmc_envs.sequences.key_value import KeyValue
from rmc_envs.sequences.recall import Recall
from tests.support.native_tasks import EVERY_TASK
from tests.support.short_episodes import short_episodes

POPGYM = ("rmc/RepeatPrevious-v0", "rmc/MultiarmedBandit-v0", "rmc/Concentration-v0")


def hints_of(env_id: str) -> dict[str, Any]:
    """Return the annotations of a native task's arguments."""
    builder = native(env_id)
    assert builder is not None
    function = getattr(builder, "func", builder)
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    return {name: hints[name] for name in inspect.signature(builder).parameters}


def other_values(value: Any, annotation: Any) -> Iterator[Any]:
    """Return values of an option besides the one that it has."""
    if get_args(annotation) and isinstance(get_args(annotation)[0], str | int):  # a Literal
        yield from (choice for choice in get_args(annotation) if choice != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, list | tuple):
        yield value[:-1]
    elif value is None:
        yield from (3, 5, 7)
    else:
        step = 0.1 if isinstance(value, float) else 1
        yield from (value + step, value - step, value + 2 * step, value - 2 * step)


def variants(env_id: str) -> Iterator[tuple[str, rmc_envs.BatchedEnv]]:
    """Return a task for each option, in which it has another value."""
    plain = rmc_envs.make(env_id)
    plain.reset(seed=0)
    saved = (plain.state_dict() or {})["options"]
    builder = native(env_id)
    assert builder is not None
    for name, parameter in inspect.signature(builder).parameters.items():
        if name in ("num_envs", "device"):
            continue
        value = saved.get(name, parameter.default)
        for other in other_values(value, hints_of(env_id)[name]):
            try:
                yield name, rmc_envs.make(env_id, **{name: other})
            except ValueError:
                continue
            break
        else:
            pytest.fail(f"no other value of {name}")


@pytest.mark.parametrize("env_id", EVERY_TASK)
def test_state_of_other_options_is_refused_with_their_names(env_id: str) -> None:
    task = rmc_envs.make(env_id)
    task.reset(seed=0)
    state = task.state_dict()
    assert state is not None
    for name, other in variants(env_id):
        # A maze is named by its id.
        shown = (
            "mazes" if name in ("size", "random_length", "hallway") and "mazes" in state["options"] else name
        )
        with pytest.raises(
            ValueError, match=rf"a state of a task with .*\b{shown}=.*: expected .*\b{shown}="
        ):
            other.load_state_dict(state)


def test_options_that_differ_are_named_with_their_values() -> None:
    task = BoxWorld(2)
    task.reset(seed=0)
    other = BoxWorld(2, max_solution=3, max_steps=60)
    expected = "a state of a task with max_solution=5, max_steps=120: expected max_solution=3, max_steps=60"
    with pytest.raises(ValueError, match=f"^{expected}$"):
        other.load_state_dict(task.state_dict())


def test_default_that_stands_for_a_number_equals_it() -> None:
    task = BoxWorld(2)
    obs = task.reset(seed=0)
    restored = BoxWorld(2, max_steps=120).load_state_dict(task.state_dict())
    assert isinstance(obs, dict)
    assert torch.equal(obs["image"], restored["image"])


def test_options_are_saved_as_plain_values() -> None:
    task = Battleship(board_size=np.int64(8), ship_sizes=(2, 3))  # pyright: ignore[reportArgumentType]
    task.reset(seed=0)
    buffer = io.BytesIO()
    torch.save(task.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert state["options"] == {"task": "Battleship", "board_size": 8, "ship_sizes": [2, 3]}
    task.load_state_dict(state)


class Slower(Recall):
    """A user's subclass, whose own arguments need not be attributes."""

    def __init__(
        self, *args: Any, speed: int = 1, notify: Any = None, unused: int = 0, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.speed, self.notify = speed, notify


def test_options_of_a_subclass_are_added_to_those_of_its_base() -> None:
    task = Slower(2, delay=3, notify=print)
    task.reset(seed=0)
    state = task.state_dict()
    assert state["options"] == {"task": "Slower", "num_symbols": 4, "delay": 3, "speed": 1}
    Slower(2, delay=3, unused=5).load_state_dict(state)
    with pytest.raises(ValueError, match=r"with delay=3, speed=1: expected delay=8, speed=2$"):
        Slower(2, speed=2).load_state_dict(state)


def test_state_of_another_task_is_refused() -> None:
    task = Recall(2)
    task.reset(seed=0)
    with pytest.raises(ValueError, match=r"^a state of Recall: expected KeyValue$"):
        KeyValue(2).load_state_dict(task.state_dict())


@pytest.mark.parametrize("env_id", EVERY_TASK)
def test_state_of_an_older_version_without_options_is_loaded(env_id: str) -> None:
    task = rmc_envs.make(env_id, 3)
    obs = task.reset(seed=0)
    state = task.state_dict()
    assert state is not None
    older = {name: part for name, part in state.items() if name not in ("options", "pictures")}
    restored = rmc_envs.make(env_id, 3).load_state_dict(older)
    for name in obs if isinstance(obs, dict) else [None]:
        one, other = (x[name] if isinstance(x, dict) else x for x in (obs, restored))
        assert torch.equal(one, other)


@pytest.mark.parametrize("env_id", EVERY_TASK)
def test_picture_after_loading_equals_the_picture_before(env_id: str) -> None:
    """POPGym's tasks draw the steps recorded since the first picture, so here it is the first of both."""
    task, other = (rmc_envs.make(env_id, 2, **short_episodes(env_id)) for _ in range(2))
    task.reset(seed=0)
    task.action_space.seed(0)
    popgym = isinstance(task, PopgymTask)
    for t in range(12):
        state = task.state_dict()
        assert state is not None
        other.load_state_dict(state)
        if not popgym or t == 11:
            for i in range(2):
                assert np.array_equal(task.render(i, tile_size=16), other.render(i, tile_size=16)), t
        task.step(torch.from_numpy(np.stack([task.action_space.sample() for _ in range(2)])))


def test_picture_of_the_latest_action_survives_loading_after_an_end() -> None:
    task, other = (rmc_envs.make("rmc/MemoryCards-v0", 8, num_pairs=2, max_steps=3) for _ in range(2))
    task.reset(seed=0)
    for _ in range(10):
        step = task.step(torch.randint(4, (8,)))
        other.load_state_dict(task.state_dict() or {})
        for i in range(8):
            assert np.array_equal(task.render(i, tile_size=16), other.render(i, tile_size=16)), step.done


@pytest.mark.parametrize("env_id", POPGYM)
def test_loading_forgets_the_recorded_steps(env_id: str) -> None:
    task, fresh = rmc_envs.make(env_id, 1), rmc_envs.make(env_id, 1)
    task.reset(seed=0)
    state = task.state_dict()
    assert state is not None
    task.render()
    task.step(torch.tensor([1]))
    task.load_state_dict(state)
    fresh.load_state_dict(state)
    assert np.array_equal(task.render(), fresh.render())
