"""Tests of how observations are read: by annotation, shape, dtype and bounds."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rmc_envs
from rmc_agents import ActorCritic, AnnotatedBox, describe
from rmc_agents.agent.encoders import Encoder
from rmc_agents.spaces import Reading, read
from rmc_agents.spaces.annotated import annotate, minigrid_image
from rmc_agents.spaces.reading import scaling, with_readings


def byte(*shape: int, high: int = 255) -> spaces.Box:
    return spaces.Box(0, high, shape, np.uint8)


@pytest.mark.parametrize(
    ("space", "reading"),
    [
        (byte(84, 84, 3), "picture:hwc"),
        (byte(3, 84, 84), "picture:chw"),
        (byte(4, 84, 84), "picture:chw"),
        (byte(84, 84, 4), "picture:hwc"),
        (byte(12, 210, 160), "picture:chw"),
        (byte(210, 160, 12), "picture:hwc"),
        (byte(1, 64, 48), "picture:chw"),
        (byte(64, 48, 1), "picture:hwc"),
        (byte(36, 36), "picture:hw"),
        (byte(4, 84, 84, 3), "picture:nhwc"),
        (byte(4, 84, 84, 1), "picture:nhwc"),
        (byte(4, 3, 84, 84), "picture:nchw"),
        (byte(7, 7, 3), "cells:hwc"),
        (byte(3, 7, 7), "cells:chw"),
        (byte(16, 16, 3), "cells:hwc"),
        (byte(7, 7, 20), "cells:hwc"),
        (byte(20, 7, 7), "cells:chw"),
        (byte(3, 7, 7, 3), "cells:nhwc"),
        (byte(7, 7, 3, high=1), "picture:hwc"),
        (byte(10, 10, high=1), "picture:hw"),
        (byte(128), "numbers"),
        (byte(), "numbers"),
        (spaces.Box(0, 1, (64, 64, 3)), "picture:hwc"),
        (spaces.Box(0, 255, (64, 64)), "picture:hw"),
        (spaces.Box(-np.inf, np.inf, (64, 64, 3)), "raw"),
        (spaces.Box(-np.inf, np.inf, (4,)), "raw"),
        (spaces.Box(-1, 1, (4,)), "numbers"),
        (spaces.Box(-1, 1, (10, 12)), "numbers"),
        (spaces.Box(0, 9, (3,), np.int64), "numbers"),
        (spaces.Discrete(3, start=4), "categories"),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), "categories"),
        (spaces.MultiBinary(3), "bits"),
        (minigrid_image(7), "codes:11,6,4"),
        (AnnotatedBox(byte(7, 7, 3), "picture"), "picture:hwc"),
        (AnnotatedBox(byte(9, 9, 2, high=4), "codes"), "codes:5,5"),
        (AnnotatedBox(byte(128), "log"), "log"),
    ],
    ids=str,
)
def test_reading_follows_annotation_shape_dtype_and_bounds(space: spaces.Space, reading: str) -> None:
    found = read(space)
    assert str(found) == reading
    assert Reading.parse(reading, space) == found


@pytest.mark.parametrize(
    ("read_as", "message"),
    [
        ({"image": "photo"}, "'photo'.*expected one of categories"),
        ({"picture": "codes"}, "names 'picture'; the parts of the observation are 'image', 'n'"),
        ({"image": "codes:1,2"}, "number of values for each of the C channels"),
        ({"image": "codes:a,b,c"}, "such as 11,6,4"),
        ({"image": "picture:hw"}, "one letter for each axis"),
        ({"image": "raw:hwc"}, "takes nothing after the colon"),
        ({"image": "bits"}, "only MultiBinary"),
        ({"n": "picture"}, "only a Box"),
        ({"image": 7}, "expected one of"),
    ],
    ids=str,
)
def test_readings_that_do_not_fit_are_refused(read_as: dict[str, Any], message: str) -> None:
    space = spaces.Dict(image=byte(7, 7, 3), n=spaces.Discrete(2))
    with pytest.raises(ValueError, match=message):
        with_readings(space, read_as)
    with pytest.raises(ValueError, match=message):
        ActorCritic(space, spaces.Discrete(2), read_as=read_as)


def test_a_reading_can_be_chosen() -> None:
    agent = ActorCritic(byte(7, 7, 3), spaces.Discrete(2), read_as={"observation": "codes:11,6,4"})
    assert isinstance(agent.observation_space, AnnotatedBox)
    assert agent.observation_space.read_as == "codes:11,6,4"
    assert ActorCritic.from_json(agent.to_json()).observation_space.read_as == "codes:11,6,4"  # type: ignore[attr-defined]
    assert "codes (11 x 6 x 4 values a cell)" in describe(
        byte(7, 7, 3), read_as={"observation": "codes:11,6,4"}
    )


@pytest.mark.parametrize("layout", ["hwc", "chw"])
@pytest.mark.parametrize("side", [7, 20])
@pytest.mark.parametrize("kind", ["one-hot", "codes", "pixels", "dark pixels"])
def test_small_grids_of_unknown_meaning_are_never_blind(kind: str, side: int, layout: str) -> None:
    """One changed cell changes the features, whether bytes are bits, codes or pixels."""
    torch.manual_seed(0)
    values = {"one-hot": (0, 1), "codes": (0, 10), "pixels": (0, 255), "dark pixels": (40, 60)}[kind]
    grid = torch.randint(*values, (side, side, 3), dtype=torch.uint8)
    other = grid.clone()
    other[side // 2, side // 2] = values[1]
    pair = torch.stack([grid, other])
    pair = pair if layout == "hwc" else pair.movedim(-1, 1)
    features = Encoder(byte(*pair.shape[1:]), 256)(pair).detach()
    changed = float((features[0] - features[1]).norm() / features[0].norm())
    assert 1e-3 < changed < 2


def test_numbers_are_scaled_by_their_bounds() -> None:
    space = spaces.Box(
        np.array([0, -100, -1, -np.inf, 0, -0.07, 5]),
        np.array([100, 100, 1, np.inf, 1e6, 0.07, 5]),
        dtype=np.float64,
    )
    encoder = Encoder(spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32)), 4)
    part = encoder.parts[0]
    out = part(torch.tensor([[100.0, -100.0, 0.5, 3.0, 1e6, 0.07, 5.0]]))
    expected = [1.0, -1.0, 0.5, 3.0, np.log1p(1e6) / 5, 1.0, 5.0]
    np.testing.assert_allclose(out[0].numpy(), expected, rtol=1e-5)
    shift, factor, large = scaling(space)
    assert shift.shape == factor.shape == large.shape == (7,)


def test_minigrids_wrappers_say_how_their_images_are_read() -> None:
    import minigrid.wrappers as w

    def readings(*wrappers: Any) -> dict[str, str]:
        env = gymnasium.make("MiniGrid-MemoryS7-v0")
        for wrap in wrappers:
            env = wrap(env)
        space = annotate(env)
        parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
        return {key: x.read_as for key, x in parts.items() if isinstance(x, AnnotatedBox)}

    def tiny(env: Any) -> Any:
        return w.RGBImgPartialObsWrapper(env, tile_size=1)

    assert readings() == {"image": "codes:11,6,4"}
    assert readings(w.ImgObsWrapper) == {"": "codes:11,6,4"}
    assert readings(w.FullyObsWrapper) == {"image": "codes:11,6,4"}
    assert readings(w.FullyObsWrapper, w.ImgObsWrapper) == {"": "codes:11,6,4"}
    assert readings(w.RGBImgPartialObsWrapper) == {"image": "picture:hwc"}
    assert readings(tiny) == {"image": "picture:hwc"}
    assert readings(tiny, w.ImgObsWrapper) == {"": "picture:hwc"}
    assert readings(w.RGBImgObsWrapper) == {"image": "picture:hwc"}
    assert readings(w.OneHotPartialObsWrapper) == {"image": "raw"}
    assert readings(w.FlatObsWrapper) == {"": "raw"}
    assert annotate(gymnasium.make("CartPole-v1")) == gymnasium.make("CartPole-v1").observation_space


def test_the_environments_word_reaches_the_agent() -> None:
    for vectorization in ("auto", "sync"):
        env = rmc_envs.make("MiniGrid-MemoryS7-v0", 2, vectorization=vectorization)
        assert str(read(env.observation_space["image"])) == "codes:11,6,4"  # type: ignore[index]
        env.close()


def test_annotated_boxes_equal_plain_ones_and_survive_copies() -> None:
    import copy
    import pickle

    space = minigrid_image(5)
    assert space == byte(5, 5, 3)
    assert byte(5, 5, 3) == space
    for again in (copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert again == space
        assert again.read_as == space.read_as


@pytest.mark.parametrize(
    ("space", "read_as"),
    [
        (spaces.Box(0, 1, (7, 7, 3)), "codes:11,6,4"),
        (spaces.Box(0, 1, (7, 7, 3)), "cells"),
        (spaces.Box(-3, 9, (7, 7, 2), np.int64), "cells"),
        (spaces.Box(0, 65535, (9, 9), np.uint16), "cells"),
        (spaces.Box(0, 9, (5, 5), np.int64), "codes:5,5"),
    ],
    ids=str,
)
def test_readings_that_would_be_blind_or_fail_are_refused(space: spaces.Box, read_as: str) -> None:
    with pytest.raises(ValueError, match="cannot be read as"):
        Reading.parse(read_as, space)


@pytest.mark.parametrize(("low", "high"), [(273, 290), (1000, 1001), (-5000, -4990), (1e6, 1e6 + 8)])
def test_numbers_far_from_0_are_shifted(low: float, high: float) -> None:
    shift, factor, _ = scaling(spaces.Box(low, high, (1,), np.float64))
    assert abs((low - shift) * factor) <= 1
    assert abs((high - shift) * factor) <= 1
    assert (high - low) * factor >= 1
