"""Distributions over allowed actions: sb3-contrib's are the oracle; gradients stay finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import make_masked_proba_distribution
from torch import Tensor

from rmc_agents.agent.heads import ActionHead, CategoricalHead, make_action_head

SPACES = [spaces.Discrete(5), spaces.MultiDiscrete([2, 4, 3])]


def example(space: spaces.Discrete | spaces.MultiDiscrete) -> tuple[CategoricalHead, Tensor, Tensor]:
    """Return a head, parameters [64, P] and masks [64, P]; the last row allows one choice only."""
    torch.manual_seed(0)
    head = make_action_head(8, space)
    assert isinstance(head, CategoricalHead)
    parameters = 3 * torch.randn(64, sum(head.sizes))
    masks = torch.rand(64, sum(head.sizes)) < 0.5
    masks[-1] = False
    starts = np.cumsum([0, *head.sizes[:-1]])
    masks[:, starts] = True
    return head, parameters, masks


@pytest.mark.parametrize("space", SPACES)
def test_masked_distribution_equals_sb3_contribs(space: spaces.Discrete | spaces.MultiDiscrete) -> None:
    head, parameters, masks = example(space)
    oracle = make_masked_proba_distribution(space)
    oracle.proba_distribution(parameters)
    oracle.apply_masking(masks.numpy())
    own = head.restrict(parameters, masks)
    actions = head.sample(own, torch.Generator().manual_seed(0))
    torch.testing.assert_close(head.log_prob(own, actions), oracle.log_prob(actions))
    torch.testing.assert_close(head.entropy(own), oracle.entropy())
    assert torch.equal(head.mode(own).view(64, -1), oracle.mode().view(64, -1))


@pytest.mark.parametrize("space", SPACES)
def test_forbidden_actions_have_no_probability(space: spaces.Discrete | spaces.MultiDiscrete) -> None:
    head, parameters, masks = example(space)
    own = head.restrict(parameters, masks)
    for logits, allowed in zip(own.split(head.sizes, -1), masks.split(head.sizes, -1), strict=True):
        assert (logits.softmax(-1)[~allowed] == 0).all()
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        chosen = head.encode(head.sample(own, generator)).bool()
        assert not (chosen & ~masks).any()
    assert head.entropy(own)[-1] == 0


def test_noise_of_zero_chooses_no_forbidden_action() -> None:
    head = make_action_head(8, spaces.Discrete(3))
    own = head.restrict(torch.zeros(1, 3), torch.tensor([[False, True, False]]))
    assert head.pick(own, torch.tensor([[0.0, 30.0, 0.0]])).tolist() == [1]


@pytest.mark.parametrize("space", SPACES)
def test_log_probabilities_and_gradients_are_finite(space: spaces.Discrete | spaces.MultiDiscrete) -> None:
    head, parameters, masks = example(space)
    parameters.requires_grad_()
    own = head.restrict(parameters, masks)
    forbidden = torch.stack([~m[:, -1] for m in masks.split(head.sizes, -1)]).any()
    assert forbidden
    last = torch.tensor([size - 1 for size in head.sizes]).expand(64, -1).reshape(64, *head.action_shape)
    log_probs = head.log_prob(own, last)  # of forbidden actions, too
    assert log_probs.isfinite().all()
    (log_probs.sum() + head.entropy(own).sum()).backward()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()
    assert (parameters.grad[~masks] == 0).all()
    assert (parameters.grad[masks] != 0).any()


BITS = spaces.MultiBinary(3)


def bits() -> tuple[ActionHead, Tensor, Tensor]:
    """Return a head, parameters [64, 3] and masks [64, 6]; each bit is free, 0 or 1 somewhere."""
    torch.manual_seed(0)
    forms = torch.tensor([[True, True], [True, False], [False, True]])
    masks = forms[torch.randint(3, (64, 3))].flatten(1)
    return make_action_head(8, BITS), 3 * torch.randn(64, 3), masks


def test_masked_bits_equal_those_of_sb3_contrib() -> None:
    """Whose distribution has a softmax over the two values of each bit."""
    head, parameters, masks = bits()
    oracle = make_masked_proba_distribution(BITS)
    oracle.proba_distribution(torch.stack([torch.zeros_like(parameters), parameters], -1).flatten(1))
    oracle.apply_masking(masks.numpy())
    own = head.restrict(parameters, masks)
    actions = head.sample(own, torch.Generator().manual_seed(0))
    torch.testing.assert_close(head.log_prob(own, actions), oracle.log_prob(actions))
    torch.testing.assert_close(head.entropy(own), oracle.entropy())
    assert torch.equal(head.mode(own), oracle.mode().float())


def test_forbidden_bits_have_no_probability_and_finite_gradients() -> None:
    head, parameters, masks = bits()
    parameters.requires_grad_()
    own = head.restrict(parameters, masks)
    zero, one = masks.unflatten(1, (3, 2)).unbind(2)
    noises = [torch.rand(64, 3), torch.zeros(64, 3), torch.full((64, 3), 1 - 2**-24)]
    for chosen in [head.mode(own), *(head.pick(own, noise) for noise in noises)]:
        assert (torch.where(chosen == 1, one, zero)).all()
    log_probs = head.log_prob(own, 1 - head.mode(own))  # of forbidden bits, too
    assert log_probs.isfinite().all()
    (log_probs.sum() + head.entropy(own).sum()).backward()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()
    assert torch.equal(parameters.grad != 0, zero & one)


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (3,))])
def test_other_heads_refuse_masks(space: spaces.Space) -> None:
    head = make_action_head(8, space)
    message = r"^action masks are for Discrete, MultiDiscrete and MultiBinary actions: build"
    with pytest.raises(ValueError, match=message):
        head.restrict(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
