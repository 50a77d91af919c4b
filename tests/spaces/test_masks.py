"""Action masks: the forms in which environments give them, and actions that they allow."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rmc_agents.spaces.masks import MASKS_ARE_FOR, ActionMasks, allowed_actions, mask_of, random_allowed

THREE = spaces.Discrete(3, start=5)
PAIR = spaces.MultiDiscrete([2, 3])
GRID = spaces.MultiDiscrete([[2, 3], [2, 2]])
BITS, BITS_OF_TWO = spaces.MultiBinary(3), spaces.MultiBinary(2)
NESTED = spaces.Dict(b=THREE, a=spaces.Tuple((PAIR, spaces.MultiBinary(2))))


@pytest.mark.parametrize(
    ("space", "mask", "expected"),
    [
        (THREE, np.array([1, 0, 1], np.int8), "101"),
        (THREE, [True, False, True], "101"),
        (THREE, torch.tensor([True, False, True]), "101"),
        (THREE, np.array([0.0, 0.0, 1.0]), "001"),
        (PAIR, np.array([1, 0, 0, 1, 1], bool), "10011"),
        (PAIR, (np.array([1, 0]), np.array([0, 1, 1])), "10011"),
        (PAIR, [[1, 0], [0, 1, 1]], "10011"),
        (spaces.MultiDiscrete([2, 2]), [[1, 0], [0, 1]], "1001"),
        (GRID, (([1, 0], [0, 1, 1]), ([1, 1], [0, 1])), "100111101"),
        (BITS, [1, 0, 1, 1, 0, 1], "101101"),
        (BITS, ([1, 0], [1, 1], [0, 1]), "101101"),
        (spaces.MultiBinary([2, 1]), np.array([0, 1, 1, 1]), "0111"),
        (NESTED, {"a": (([1, 0], [0, 1, 1]), [1, 1, 0, 1]), "b": [0, 0, 1]}, "001100111101"),
        (NESTED, {"a": ([1, 0, 0, 1, 1], [[1, 1], [0, 1]]), "b": [0, 0, 1]}, "001100111101"),
        (NESTED, np.array([0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1]), "001100111101"),
    ],
)
def test_masks_of_every_form_become_one_array(space: spaces.Space[Any], mask: Any, expected: str) -> None:
    found = ActionMasks(space).read(mask)
    assert found.dtype == bool
    assert "".join(map(str, found.astype(int))) == expected


@pytest.mark.parametrize(
    ("space", "mask", "message"),
    [
        (THREE, [1, 0], "an action mask of shape (2,), expected one of shape (3,)"),
        (THREE, None, "an action mask of type NoneType, expected one of shape (3,)"),
        (THREE, "yes", "an action mask of type str, expected one of shape (3,)"),
        (THREE, [1, 2, 0], "an action mask with other values than True, False, 1 and 0"),
        (THREE, [1, np.nan, 0], "an action mask with other values than True, False, 1 and 0"),
        (THREE, [0, 0, 0], "an action mask without an allowed choice"),
        (
            PAIR,
            ([1, 0, 1], [1, 0]),
            "an action mask of type tuple, expected one of shape (5,), or a tuple of arrays of 2, 3 values",
        ),
        (PAIR, [1, 1, 0, 0, 0], "an action mask without an allowed choice for component 1 of the action"),
        (
            BITS,
            [1, 0, 1],
            "an action mask of shape (3,), expected one of shape (6,), or a tuple of arrays of 2, 2, 2 "
            "values",
        ),
        (BITS, [1, 1, 0, 0, 1, 1], "an action mask without an allowed choice for component 1 of the action"),
        (
            spaces.Box(-1, 1, (2,)),
            [1, 1],
            f"{MASKS_ARE_FOR}, not Box(-1.0, 1.0, (2,), float32)",
        ),
    ],
)
def test_wrong_mask_is_refused(space: spaces.Space[Any], mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ActionMasks(space).read(mask)


def test_batch_of_masks_is_read() -> None:
    masks = ActionMasks(PAIR)
    rows = np.array([[1, 0, 0, 1, 1], [1, 1, 1, 0, 0]])
    for given in (rows, rows.tolist(), (rows[:, :2], rows[:, 2:]), list(rows)):
        np.testing.assert_array_equal(masks.read(given, 2), rows == 1)
    with pytest.raises(ValueError, match=r"shape \(2, 5\), expected one of shape \(3, 5\)"):
        masks.read(rows, 3)
    with pytest.raises(ValueError, match="for component 0 of the action in row 1"):
        masks.read([[1, 0, 0, 1, 1], [0, 0, 1, 0, 0]], 2)


def test_forbidden_choices_are_replaced() -> None:
    masks = torch.tensor([[False, True, False, True, True], [True, True, True, False, False]])
    actions = torch.tensor([[0, 2], [1, 1]])
    assert allowed_actions(actions, masks, PAIR).tolist() == [[1, 2], [1, 0]]
    single = allowed_actions(torch.tensor([0, 1]), masks[:, :3], spaces.Discrete(3))
    assert single.tolist() == [1, 1]
    bits = allowed_actions(
        torch.tensor([[0.0, 1.0]]), torch.tensor([[False, True, True, False]]), BITS_OF_TWO
    )
    assert bits.dtype == torch.float32
    assert bits.tolist() == [[1, 0]]


@pytest.mark.parametrize("space", [spaces.Discrete(5), PAIR, GRID, BITS])
def test_random_actions_are_uniform_over_allowed_ones(space: spaces.Space[Any]) -> None:
    sizes = ActionMasks(space).sizes
    mask = torch.cat([torch.arange(size) != 1 for size in sizes])
    masks = mask.expand(3000, -1)
    drawn = random_allowed(masks, space, torch.Generator().manual_seed(0))
    assert drawn.shape == (3000, *(space.shape or ()))
    for size, numbers in zip(sizes, drawn.view(3000, -1).unbind(1), strict=True):
        counts = torch.bincount(numbers.long(), minlength=size)
        assert counts[1] == 0
        others = counts[torch.arange(size) != 1]
        assert (others - 3000 / (size - 1)).abs().max() < 150


def test_method_of_an_environment_is_asked_before_its_info() -> None:
    class Env:
        def has_wrapper_attr(self, name: str) -> bool:
            return name == "action_masks"

        def get_wrapper_attr(self, name: str) -> Any:
            return lambda: [1, 0]

    assert mask_of(Env(), {"action_mask": [0, 1]}) == [1, 0]
