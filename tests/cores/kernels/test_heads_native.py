"""Heads in C: actions, losses and gradients equal those of PyTorch at any size, and are reproducible."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import linear

from rmc_agents.cores.kernels import heads_native
from rmc_agents.cores.kernels.heads_native import FIGURES, Inputs, LossSettings, Recorded
from tests.support.cores import needs_native
from tests.support.rounding import tolerances

pytestmark = [needs_native, pytest.mark.usefixtures("instructions")]

PLAIN = LossSettings(0.8, 1.2, math.inf, 0.5, 0.01, normalize=1.0)


def random_inputs(rows: int, H: int, X: int, K: int, sizes: list[int]) -> Inputs:
    P, hidden = sum(sizes), ((K, H + X), (K,))
    shapes = (rows, H), (rows, X), *hidden, (P, K), (P,), *hidden, (1, K), (1,)
    outputs, features, *weights = (torch.randn(shape).requires_grad_() for shape in shapes)
    return Inputs(outputs, features if X else None, *weights)


def random_records(inputs: Inputs, sizes: list[int]) -> Recorded:
    """Return records of which some ratios and values are clipped, and some are not."""
    rows = len(inputs.outputs)
    actions = torch.stack([torch.randint(size, (rows,)) for size in sizes], dim=1)
    log_probs, _, values = evaluate(inputs, actions, sizes)
    valid = torch.rand(rows) < 0.8
    old_log_probs, old_values = (x.detach() + 0.2 * torch.randn(rows) for x in (log_probs, values))
    return Recorded(actions, old_log_probs, old_values, torch.randn(rows), torch.randn(rows), valid)


def evaluate(inputs: Inputs, actions: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities, entropies and values, computed by PyTorch."""
    x = inputs.outputs if inputs.features is None else torch.cat([inputs.outputs, inputs.features], dim=1)
    logits = linear(torch.tanh(linear(x, *inputs[2:4])), *inputs[4:6])
    values = linear(torch.tanh(linear(x, *inputs[6:8])), *inputs[8:]).squeeze(1)
    policies = [
        torch.distributions.Categorical(logits=each, validate_args=False)
        for each in logits.split(sizes, dim=1)
    ]
    pairs = zip(policies, actions.unbind(1), strict=True)
    log_probs = torch.stack([policy.log_prob(action) for policy, action in pairs]).sum(0)
    return log_probs, torch.stack([policy.entropy() for policy in policies]).sum(0), values


def plain_losses(inputs: Inputs, recorded: Recorded, to: LossSettings, sizes: list[int]) -> Tensor:
    """Return the figures, computed by PyTorch."""
    log_probs, entropy, values = evaluate(inputs, recorded.actions, sizes)
    count = recorded.valid.sum().clamp_min(1) if math.isnan(to.num_valid) else to.num_valid
    weight = recorded.valid / count
    advantages = recorded.advantages
    if to.normalize:
        mean, std = to.mean, to.std
        if math.isnan(to.num_valid):
            mean = (weight * advantages).sum()
            std = (weight * (advantages - mean).square()).sum().sqrt()
        advantages = (advantages - mean) / (std + 1e-8)
    log_ratio = log_probs - recorded.log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(to.clip_low, to.clip_high)
    policy_loss = -(weight * torch.minimum(advantages * ratio, advantages * clipped)).sum()
    if to.clip_value < math.inf:
        values = recorded.values + (values - recorded.values).clamp(-to.clip_value, to.clip_value)
    value_loss = (weight * (values - recorded.returns).square()).sum()
    mean_entropy = (weight * entropy).sum()
    loss = policy_loss + to.value_coef * value_loss - to.entropy_coef * mean_entropy
    approx_kl, clip_fraction = (weight * (ratio - 1 - log_ratio)).sum(), (weight * (clipped != ratio)).sum()
    return torch.stack([policy_loss, value_loss, mean_entropy, approx_kl, clip_fraction, loss])


def results(inputs: Inputs, figures: Tensor, loss: Tensor) -> dict[str, Tensor]:
    """Return figures and gradients by name."""
    leaves = {name: x for name, x in zip(Inputs._fields, inputs, strict=True) if x is not None}
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return dict(zip(FIGURES, figures.detach(), strict=True)) | dict(zip(leaves, gradients, strict=True))


def in_double_precision(x: tuple) -> list:
    return [
        y.detach().double().requires_grad_(y.requires_grad)
        if torch.is_tensor(y) and y.is_floating_point()
        else y
        for y in x
    ]


def differing(inputs: Inputs, recorded: Recorded, to: LossSettings, sizes: list[int]) -> list[str]:
    """Return the names of figures and gradients whose error exceeds that of rounding."""
    loss, figures = heads_native.ppo_losses(inputs, recorded, to, sizes)
    found = results(inputs, figures, loss)
    exact_inputs = Inputs(*in_double_precision(inputs))
    exact_figures = plain_losses(exact_inputs, Recorded(*in_double_precision(recorded)), to, sizes)
    exact = results(exact_inputs, exact_figures, exact_figures[-1])
    length = inputs.policy_hidden.numel() + len(inputs.outputs)
    return [
        name
        for name, x in exact.items()
        if not (found[name] - x).abs().max() <= tolerances(x.float(), length)["atol"]
    ]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.sampled_from([1, 3, 16, 17, 63, 64, 65, 128, 200, 300]),
    H=st.sampled_from([1, 5, 16, 33]),
    X=st.sampled_from([0, 1, 7, 16]),
    K=st.sampled_from([1, 6, 16, 19]),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    clip_value=st.sampled_from([math.inf, 0.1]),
    normalize=st.sampled_from([0.0, 1.0]),
    shared=st.booleans(),
)
def test_losses_and_gradients_are_correct_at_any_size(
    rows: int, H: int, X: int, K: int, sizes: list[int], clip_value: float, normalize: float, shared: bool
) -> None:
    torch.manual_seed(rows + H)
    inputs = random_inputs(rows, H, X, K, sizes)
    to = LossSettings(0.8, 1.3, clip_value, 0.5, 0.1, normalize)
    if shared:
        to = to._replace(num_valid=2.0 * rows, mean=0.1, std=1.5)
    assert differing(inputs, random_records(inputs, sizes), to, sizes) == []


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    rows=st.sampled_from([1, 17, 64, 300]),
    distinct=st.sampled_from([1, 5, 64, 130]),
    H=st.sampled_from([1, 16, 33]),
    X=st.sampled_from([1, 7, 16, 40]),
    K=st.sampled_from([1, 6, 19]),
)
def test_features_that_are_read_by_id_give_the_same_losses_and_gradients(
    rows: int, distinct: int, H: int, X: int, K: int
) -> None:
    torch.manual_seed(rows + H)
    inputs, sizes = random_inputs(rows, H, X, K, [2, 3]), [2, 3]
    features, ids = torch.randn(distinct, X), torch.randint(distinct, (1, rows), dtype=torch.int32)
    copied = inputs._replace(features=features[ids.flatten()].requires_grad_())
    recorded = random_records(copied, sizes)
    exact = results(copied, *heads_native.ppo_losses(copied, recorded, PLAIN, sizes)[::-1])
    exact["features"] = torch.zeros(distinct, X).index_add(0, ids.flatten(), exact["features"])
    inputs, threads = inputs._replace(features=features.requires_grad_()), torch.get_num_threads()
    found: list[dict[str, Tensor]] = []
    assert heads_native.usable(inputs, sizes, ids)
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            loss, figures = heads_native.ppo_losses(inputs, recorded, PLAIN, sizes, ids)
            found.append(results(inputs, figures, loss))
    finally:
        torch.set_num_threads(threads)
    for name, x in exact.items():
        assert torch.equal(found[0][name], found[1][name])
        length = inputs.policy_hidden.numel() + rows
        assert (found[0][name] - x).abs().max() <= 2 * tolerances(x, length)["atol"], name
    with torch.no_grad():
        without = [heads_native.ppo_losses(inputs, recorded, PLAIN, sizes, ids)[1]]
        without.append(heads_native.ppo_losses(copied, recorded, PLAIN, sizes)[1])
    assert torch.equal(*without)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(("rows", "X", "sizes"), [(1, 0, [3]), (32, 9, [7]), (100, 4, [2, 5, 1])])
def test_actions_are_those_of_pytorch(rows: int, X: int, sizes: list[int], deterministic: bool) -> None:
    torch.manual_seed(0)
    inputs = random_inputs(rows, 13, X, 24, sizes)
    noise = None if deterministic else torch.empty(rows, sum(sizes)).exponential_()
    with torch.no_grad():
        chosen, log_probs, values = heads_native.act(inputs, noise, sizes)
        x = inputs.outputs if inputs.features is None else torch.cat([inputs.outputs, inputs.features], dim=1)
        logits = linear(torch.tanh(linear(x, *inputs[2:4])), *inputs[4:6])
        scores = logits if noise is None else logits - noise.log()
        expected = [each.argmax(1) for each in scores.split(sizes, dim=1)]
        assert torch.equal(chosen, torch.stack(expected, dim=1))
        for found, exact in zip((log_probs, values), evaluate(inputs, chosen, sizes)[::2], strict=True):
            torch.testing.assert_close(found, exact, atol=1e-4, rtol=1e-4)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    inputs = random_inputs(700, 70, 40, 64, [5])
    recorded, threads, found = random_records(inputs, [5]), torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            loss, figures = heads_native.ppo_losses(inputs, recorded, PLAIN, [5])
            found.append(results(inputs, figures, loss))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, found[1][name]) for name, x in found[0].items())


def assert_like_pytorch(inputs: Inputs, recorded: Recorded, to: LossSettings, sizes: list[int]) -> None:
    """Assert that figures and gradients are those of PyTorch, or not finite where those are not."""
    loss, figures = heads_native.ppo_losses(inputs, recorded, to, sizes)
    found = results(inputs, figures, loss)
    exact_figures = plain_losses(inputs, recorded, to, sizes)
    for name, x in results(inputs, exact_figures, exact_figures[-1]).items():
        if x.isfinite().all():
            largest = max(1.0, x.abs().max().item())
            torch.testing.assert_close(found[name], x, rtol=0, atol=1e-3 * largest, msg=name)
        else:
            assert not found[name].isfinite().all(), name


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "where", ["log_probs", "values", "advantages", "returns", "outputs", "policy", "value_bias"]
)
def test_numbers_that_are_not_finite_show(where: str, number: float) -> None:
    torch.manual_seed(0)
    inputs = random_inputs(70, 5, 4, 6, [3])
    recorded = random_records(inputs, [3])._replace(valid=torch.ones(70, dtype=torch.bool))
    with torch.no_grad():
        getattr(recorded if where in Recorded._fields else inputs, where).view(-1)[0] = number
    for normalize, clip_value in ((0.0, 0.1), (1.0, math.inf)):
        to = PLAIN._replace(normalize=normalize, clip_value=clip_value)
        assert_like_pytorch(inputs, recorded, to, [3])


@pytest.mark.parametrize("log_prob", [-80.0, -100.0, -1e30, 80.0, 100.0])
@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
def test_extreme_ratios_are_those_of_pytorch(log_prob: float, advantage: float) -> None:
    torch.manual_seed(0)
    inputs = random_inputs(20, 5, 4, 6, [3])
    recorded = random_records(inputs, [3])
    recorded.log_probs[3], recorded.advantages[3], recorded.valid[3] = log_prob, advantage, True
    assert_like_pytorch(inputs, recorded, PLAIN._replace(normalize=0.0), [3])


def test_extreme_logits_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    inputs = random_inputs(40, 5, 4, 6, [4])
    recorded = random_records(inputs, [4])
    with torch.no_grad():
        inputs.policy_bias.add_(torch.tensor([300.0, -300.0, 0.0, 299.0]))
    recorded = random_records(inputs, [4])._replace(actions=recorded.actions % 2 * 3)
    assert_like_pytorch(inputs, recorded, PLAIN, [4])


def test_loss_without_valid_rows_is_zero() -> None:
    inputs = random_inputs(20, 5, 4, 6, [3])
    recorded = random_records(inputs, [3])._replace(valid=torch.zeros(20, dtype=torch.bool))
    loss, figures = heads_native.ppo_losses(inputs, recorded, PLAIN, [3])
    assert not any(x.any() for x in results(inputs, figures, loss).values())


@pytest.mark.parametrize("action", [-1, 3, 2**40])
def test_actions_outside_the_space_raise(action: int) -> None:
    inputs = random_inputs(70, 5, 4, 6, [3])
    recorded = random_records(inputs, [3])
    recorded.actions[66] = action
    with pytest.raises(IndexError, match="outside of 0 to 2"):
        heads_native.ppo_losses(inputs, recorded, PLAIN, [3])


def test_gradients_are_scaled_and_accumulated() -> None:
    torch.manual_seed(0)
    inputs = random_inputs(20, 5, 4, 6, [3])
    recorded = random_records(inputs, [3])
    for factor in (1, 3):
        (factor * heads_native.ppo_losses(inputs, recorded, PLAIN, [3])[0]).backward()
    loss, figures = heads_native.ppo_losses(inputs, recorded, PLAIN, [3])
    once = results(inputs, figures, loss)
    for name, x in inputs._asdict().items():
        torch.testing.assert_close(x.grad, 4 * once[name])


def test_weights_without_gradients_receive_none() -> None:
    inputs = random_inputs(20, 5, 4, 6, [3])
    inputs.outputs.requires_grad_(False)
    inputs.value.requires_grad_(False)
    heads_native.ppo_losses(inputs, random_records(inputs, [3]), PLAIN, [3])[0].backward()
    assert [name for name, x in inputs._asdict().items() if x.grad is None] == ["outputs", "value"]
    with torch.no_grad():
        assert not heads_native.ppo_losses(inputs, random_records(inputs, [3]), PLAIN, [3])[0].requires_grad


def test_weights_changed_in_place_before_the_backward_pass_raise() -> None:
    inputs = random_inputs(20, 5, 4, 6, [3])
    loss, _ = heads_native.ppo_losses(inputs, random_records(inputs, [3]), PLAIN, [3])
    with torch.no_grad():
        inputs.policy.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_other_arguments_are_left_to_pytorch() -> None:
    inputs = random_inputs(20, 5, 4, 6, [3])
    assert heads_native.usable(inputs, [3])
    assert inputs.features is not None
    for wrong in (
        inputs._replace(outputs=inputs.outputs.double()),
        inputs._replace(outputs=inputs.outputs[:, :4]),
        inputs._replace(outputs=inputs.outputs[:0], features=inputs.features[:0]),
        inputs._replace(features=inputs.features[:19]),
        inputs._replace(features=None),
        inputs._replace(value=inputs.value.to("meta")),
        inputs._replace(policy_hidden=inputs.policy_hidden.to_sparse()),
    ):
        assert not heads_native.usable(wrong, [3])
    assert not heads_native.usable(inputs, [2])
    for ids in (torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.zeros(2, 1, dtype=torch.int32)):
        assert not heads_native.usable(inputs, [3], ids)
    assert not heads_native.usable(inputs, [3], torch.zeros(1, len(inputs.outputs), dtype=torch.int64))
    recorded = random_records(inputs, [3])
    assert heads_native.usable_records(recorded)
    for wrong in (
        recorded._replace(actions=recorded.actions.int()),
        recorded._replace(returns=recorded.returns.double()),
        recorded._replace(returns=recorded.returns[:3]),
        recorded._replace(valid=recorded.valid.float()),
        recorded._replace(advantages=recorded.advantages.requires_grad_()),
    ):
        assert not heads_native.usable_records(wrong)


def test_defaults_of_torch_have_no_effect() -> None:
    torch.manual_seed(0)
    inputs = random_inputs(20, 5, 4, 6, [3])
    recorded, found = random_records(inputs, [3]), []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            with torch.no_grad():
                chosen = heads_native.act(inputs, None, [3])
                found.append([*chosen, *heads_native.ppo_losses(inputs, recorded, PLAIN, [3])])
        finally:
            torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(*found, strict=True))


def test_strided_arguments_are_supported() -> None:
    torch.manual_seed(0)
    inputs, sizes = random_inputs(20, 5, 4, 6, [3]), [3]
    assert inputs.features is not None
    wide = torch.randn(20, 10)
    strided = inputs._replace(outputs=wide[:, ::2], policy_hidden=inputs.policy_hidden.t().contiguous().t())
    recorded = random_records(strided, sizes)
    plain = strided._replace(outputs=wide[:, ::2].contiguous())
    with torch.no_grad():
        found, expected = (heads_native.ppo_losses(x, recorded, PLAIN, sizes)[1] for x in (strided, plain))
    assert torch.equal(found, expected)
