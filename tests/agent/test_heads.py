"""Tests of action heads against torch.distributions, which are slower and do not compile."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import distributions as D

from rmc_agents.agent.heads import ActionHead, make_action_head

SPACES = {
    "discrete": spaces.Discrete(5),
    "multidiscrete": spaces.MultiDiscrete([3, 2, 4]),
    "multibinary": spaces.MultiBinary(3),
    "box": spaces.Box(-1, 1, (2,)),
    "box matrix": spaces.Box(-1, 1, (2, 3)),
}


def reference(name: str, head: ActionHead, parameters: torch.Tensor) -> list[D.Distribution]:
    """Return torch's distributions for the same parameters, one for each component of the action."""
    if name == "discrete":
        return [D.Categorical(logits=parameters)]
    if name == "multidiscrete":
        return [D.Categorical(logits=part) for part in parameters.split([3, 2, 4], dim=-1)]
    if name == "multibinary":
        return [D.Independent(D.Bernoulli(logits=parameters), 1)]
    mean, log_std = parameters.chunk(2, dim=-1)
    return [D.Independent(D.Normal(mean, log_std.exp()), 1)]


@pytest.mark.parametrize("name", SPACES)
def test_log_prob_and_entropy_equal_torch_distributions(name: str) -> None:
    head = make_action_head(6, SPACES[name])
    torch.nn.init.normal_(head.linear.weight)
    parameters = head(torch.randn(4, 3, 6))
    actions = head.sample(parameters)
    assert actions.shape == (4, 3, *head.action_shape)
    assert actions.dtype == head.action_dtype
    parts = reference(name, head, parameters)
    numbers = list(actions.unbind(-1)) if len(parts) > 1 else [actions.reshape(4, 3, -1).squeeze(-1)]
    if name == "discrete":
        numbers = [actions]
    expected = sum(d.log_prob(a) for d, a in zip(parts, numbers, strict=True))
    torch.testing.assert_close(head.log_prob(parameters, actions), expected)
    torch.testing.assert_close(head.entropy(parameters), sum(d.entropy() for d in parts))


@pytest.mark.parametrize("name", SPACES)
def test_samples_follow_the_distribution_and_the_generator(name: str) -> None:
    head = make_action_head(6, SPACES[name])
    torch.nn.init.normal_(head.linear.weight, std=0.5)
    parameters = head(torch.randn(6)).detach().expand(20_000, -1)
    draws = [head.sample(parameters, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    # The mean of -log p over samples is the entropy.
    surprise = -head.log_prob(parameters, draws[0])
    error = surprise.std() / 20_000**0.5
    assert (surprise.mean() - head.entropy(parameters)[0]).abs() < 4 * error
    assert (head.log_prob(parameters, head.mode(parameters)) >= -surprise.min() - 1e-4).all()


@pytest.mark.parametrize("name", SPACES)
def test_encoding_distinguishes_actions(name: str) -> None:
    head = make_action_head(6, SPACES[name])
    actions = head.sample(head(torch.randn(50, 6)))
    codes = head.encode(actions)
    assert codes.shape == (50, head.encoding_size)
    for i in range(50):
        same = (actions == actions[i]).reshape(50, -1).all(1)
        assert torch.equal((codes == codes[i]).all(1), same)


UNEVEN = spaces.Box(
    np.array([-2, 0, 100, -np.inf, -3e38], np.float32), np.array([2, 1, 300, np.inf, 5], np.float32)
)


def test_scaled_actions_cover_the_box_whatever_its_range() -> None:
    head = make_action_head(6, UNEVEN, scale=True)
    parameters = head(torch.zeros(20_000, 6)).detach()
    assert head.mode(parameters)[0].tolist() == [0.0, 0.5, 200.0, 0.0, 0.0]
    actions = head.sample(parameters, torch.Generator().manual_seed(0))
    expected = torch.tensor([2.0, 0.5, 100.0, 1.0, 1.0])  # half the range; 1 without bounds
    torch.testing.assert_close(actions.std(0), expected, rtol=0.05, atol=0)
    torch.testing.assert_close(head.encode(actions).std(0), torch.ones(5), rtol=0.05, atol=0)
    assert not [name for name in head.state_dict() if name not in make_action_head(6, UNEVEN).state_dict()]


def test_log_prob_of_scaled_actions_is_that_of_the_drawn_normal() -> None:
    head = make_action_head(6, UNEVEN, scale=True)
    torch.nn.init.normal_(head.linear.weight)
    parameters = head(torch.randn(100, 6)).detach()
    mean, log_std = parameters.chunk(2, dim=-1)
    actions = head.sample(parameters, torch.Generator().manual_seed(0))
    noise = torch.empty_like(mean).normal_(generator=torch.Generator().manual_seed(0))
    normal = D.Independent(D.Normal(mean, log_std.exp()), 1)
    expected = normal.log_prob(mean + log_std.exp() * noise)
    torch.testing.assert_close(head.log_prob(parameters, actions), expected, rtol=1e-4, atol=1e-4)


def test_scale_changes_nothing_for_a_box_from_minus_1_to_1() -> None:
    box = spaces.Box(-1, 1, (2,))
    plain, scaled = make_action_head(6, box), make_action_head(6, box, scale=True)
    scaled.load_state_dict(plain.state_dict())
    parameters = plain(torch.randn(4, 6))
    draws = [head.sample(parameters, torch.Generator().manual_seed(0)) for head in (plain, scaled)]
    assert torch.equal(*draws)
    assert torch.equal(plain.log_prob(parameters, draws[0]), scaled.log_prob(parameters, draws[0]))


def test_initial_standard_deviation_is_on_the_scale_of_the_actions() -> None:
    head = make_action_head(6, UNEVEN, scale=True, log_std=-2.0)
    torch.nn.init.zeros_(head.linear.weight)
    actions = head.sample(head(torch.zeros(20_000, 6)), torch.Generator().manual_seed(0))
    expected = math.exp(-2) * torch.tensor([2.0, 0.5, 100.0, 1.0, 1.0])
    torch.testing.assert_close(actions.std(0), expected, rtol=0.05, atol=0)
    assert dict(head.named_parameters())["log_std"].requires_grad


def test_make_action_head_rejects_unsupported_spaces() -> None:
    with pytest.raises(ValueError, match="no action head"):
        make_action_head(4, spaces.Text(3))
    with pytest.raises(ValueError, match="count from 0"):
        make_action_head(4, spaces.Discrete(3, start=1))
