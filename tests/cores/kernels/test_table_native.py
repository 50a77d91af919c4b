"""Features of the rows of a table in C: equal to PyTorch's, for every size, with the same gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rmc_agents.agent.encoders import Encoder
from rmc_agents.agent.observation_table import ObservationTable
from rmc_agents.cores.kernels import table_native
from rmc_agents.environment import ObservationIds
from rmc_agents.spaces.annotated import minigrid_image
from rmc_agents.tree import Tree, map_tree
from tests.support.cores import needs_native
from tests.support.spaces import MAZE_SPACE

pytestmark = needs_native

SPACES: dict[str, spaces.Space] = {
    "grid": minigrid_image(3),
    "grid and direction": MAZE_SPACE,
    "two grids": spaces.Dict(near=minigrid_image(3), far=minigrid_image(5), direction=spaces.Discrete(4)),
    "integer": spaces.Discrete(9),
    "integers": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "integer from -1": spaces.Discrete(4, start=-1),
}


def table_of(space: spaces.Space, rows: int) -> Tree:
    """Return random observations, [rows, ...]."""
    if isinstance(space, spaces.Dict):
        return {key: table_of(part, rows) for key, part in space.spaces.items()}
    space.seed(0)
    samples = torch.as_tensor(np.stack([space.sample() for _ in range(rows)]))
    return samples % 4 if samples.dtype is torch.uint8 else samples


def encoder_of(space: spaces.Space, features: int, table: Tree) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(space, features)
    torch.nn.init.normal_(encoder.linear.bias)
    encoder.use_table(ObservationTable(space, table))
    return encoder


@pytest.mark.parametrize("features", [16, 64, 80])
@pytest.mark.parametrize("name", SPACES)
def test_features_and_gradients_equal_those_of_pytorch(name: str, features: int) -> None:
    space = SPACES[name]
    table = table_of(space, 50)
    encoder = encoder_of(space, features, table)
    assert encoder.terms is not None
    ids = torch.randint(40, (6, 7))
    upstream = torch.randn(6, 7, features)
    results = []
    for obs in (ObservationIds(ids), map_tree(lambda part: part[ids], table)):
        encoder.zero_grad()
        found = encoder(obs)
        found.backward(upstream)
        results.append([found, *(p.grad for p in encoder.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(encoder(ObservationIds(ids)), results[0][0])
        assert torch.equal(encoder.encode_table()[ids], results[0][0])


def test_c_computes_ids_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(MAZE_SPACE, 16, table_of(MAZE_SPACE, 9))
    calls: list[str] = []
    run = table_native.run
    monkeypatch.setattr(table_native, "run", lambda name, call: calls.append(name) or run(name, call))
    monkeypatch.setattr(encoder, "_encode", lambda values: pytest.fail("PyTorch encodes"))
    encoder(ObservationIds(torch.arange(9))).sum().backward()
    assert calls == ["table_forward", "table_backward"]


def test_pytorch_encodes_what_c_cannot() -> None:
    table = table_of(MAZE_SPACE, 9)
    ids = ObservationIds(torch.arange(9))
    encoder = encoder_of(MAZE_SPACE, 16, table)
    expected = encoder(ids)
    torch._dynamo.reset()
    compiled = torch.compile(lambda ids: encoder(ObservationIds(ids)), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids.ids), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(ids).dtype is torch.bfloat16
    torch.testing.assert_close(encoder.double()(ids), expected.double(), rtol=1e-5, atol=1e-5)
    assert encoder_of(spaces.Box(-1, 1, (3,)), 16, torch.randn(4, 3)).terms is None


def test_strided_ids_and_gradients_are_supported() -> None:
    encoder = encoder_of(MAZE_SPACE, 16, table_of(MAZE_SPACE, 9))
    ids = torch.randint(9, (8, 6)).t()[::2]
    expected = encoder(ObservationIds(ids.contiguous()))
    found = encoder(ObservationIds(ids))
    assert torch.equal(found, expected)
    gradients = [
        torch.autograd.grad(x, encoder.parameters(), torch.ones(1, 1, 16).expand_as(x))
        for x in (found, expected)
    ]
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("wrong", [-1, 9, 2**40])
def test_unknown_id_raises(wrong: int) -> None:
    encoder = encoder_of(MAZE_SPACE, 16, table_of(MAZE_SPACE, 9))
    with pytest.raises(IndexError, match="an id lies outside of 0 to 8"):
        encoder(ObservationIds(torch.tensor([0, wrong])))


def test_changed_weights_change_features_and_second_backward_pass_raises() -> None:
    encoder = encoder_of(MAZE_SPACE, 16, table_of(MAZE_SPACE, 9))
    ids = ObservationIds(torch.arange(9))
    before = encoder(ids)
    for p in encoder.parameters():
        with torch.no_grad():
            changed = encoder(ids)
            p += 0.1
            assert not torch.equal(encoder(ids), changed)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        before.sum().backward()
    after = encoder(ids)
    after.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        after.sum().backward()
