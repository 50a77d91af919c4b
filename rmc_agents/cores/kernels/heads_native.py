"""Heads of an actor-critic in C: `c/heads_act.c` acts, `c/heads_loss.c` is PPO's loss, an autograd node.

    policy:  logits = W' tanh(W x + b) + b',   value = w' tanh(V x + c) + c',   x = [outputs, features]

The policy is an independent softmax for each component of the action.
Axes: N rows (time and batch), H and X widths of the two parts of the input, K hidden units, P logits of all
components, A components, n features that are read by id.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from rmc_agents.cores.kernels.call import Prepared, addresses, agrees, readable, readable_ids, rows_of, run
from rmc_agents.cores.kernels.workspace import workspace


class Inputs(NamedTuple):
    """Inputs and weights. Matrices are [out, in] as in `nn.Linear`."""

    outputs: Tensor
    """[N, H] of the core."""
    features: Tensor | None
    """[N, X] further inputs of the heads, or None; [n, X] with ids."""
    policy_hidden: Tensor
    policy_hidden_bias: Tensor
    policy: Tensor
    policy_bias: Tensor
    value_hidden: Tensor
    value_hidden_bias: Tensor
    value: Tensor
    value_bias: Tensor


class Recorded(NamedTuple):
    """Recorded transitions, [N] each but for the actions."""

    actions: Tensor
    """[N, A] int64."""
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    valid: Tensor
    """bool."""


class LossSettings(NamedTuple):
    """Coefficients of PPO's loss; see `rl.ppo.ppo_loss`."""

    clip_low: float
    clip_high: float
    """Limits of the probability ratio."""
    clip_value: float
    """Limit of the change of a value; infinite for none."""
    value_coef: float
    entropy_coef: float
    normalize: float
    """1 to normalise the advantages, else 0."""
    num_valid: float = math.nan
    mean: float = math.nan
    std: float = math.nan
    """Number of valid transitions, and mean and standard deviation of their advantages; those of the recorded
    transitions if the number is NaN."""


FIGURES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "loss")
"""Names of the numbers that `ppo_losses` returns."""

_ACT = ("noise", "chosen", "log_probs", "values")
_LOSS = ("actions", "old_log_probs", "old_values", "advantages", "returns", "valid", "figures", "workspace")


class _Call(ctypes.Structure):
    """`struct call` of heads.h: sizes, addresses, settings."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("N", "H", "X", "K", "P", "A", "n", "threads")),
        *((name, ctypes.c_void_p) for name in ("sizes", "ids", *Inputs._fields, *_ACT, *_LOSS)),
        *((f"d_{name}", ctypes.c_void_p) for name in Inputs._fields),
        *((name, ctypes.c_double) for name in LossSettings._fields),
    )


def usable(inputs: Inputs, sizes: Sequence[int], ids: Tensor | None = None) -> bool:
    """Return whether the library can compute the heads.

    It reads raw memory, so types and shapes must match.

    Args:
        inputs: inputs and weights.
        sizes: [A] number of logits of each component of the action.
        ids: [T, B] int32, where N = T * B, the row of the features that each row reads; None for its own.
    """
    outputs, features = inputs[:2]
    if not readable(inputs, ()) or not readable_ids(ids) or outputs.ndim != 2:
        return False
    (N, H), K, P = outputs.shape, len(inputs.policy_hidden), sum(sizes)
    X = 0 if features is None else features.shape[-1]
    hidden, bias = (K, H + X), (K,)
    expected = [hidden, bias, (P, K), (P,), hidden, bias, (1, K), (1,)]
    return (
        [w.shape for w in inputs[2:]] == expected
        and (ids is None or (features is not None and ids.numel() == N))
        and (features is None or (features.shape == (N if ids is None else len(features), X) and X > 0))
        and min(N, H, K, *sizes, 1 if features is None else len(features)) > 0
        and works()
    )


def usable_records(recorded: Recorded) -> bool:
    """Return whether the library can read recorded transitions."""
    actions, *floats, valid = recorded
    rows = len(actions)
    return (
        readable(floats, (valid,))
        and (type(actions), actions.dtype, actions.device.type) == (Tensor, torch.int64, "cpu")
        and all(x.shape == (rows,) and not x.requires_grad for x in (*floats, valid))
    )


@functools.cache
def works() -> bool:
    """Return whether there is a library, and its results match those of PyTorch."""
    return agrees(_matches_pytorch)


def _matches_pytorch() -> bool:
    """Compare actions, losses and gradients of a few rows with those of PyTorch."""
    (N, H, X, K), sizes, made = (5, 3, 4, 6), [2, 3], []
    P = sum(sizes)

    def make(*shape: int) -> Tensor:
        values = torch.arange(math.prod(shape), dtype=torch.float32, device="cpu")
        made.append((values * 1.7 + len(made)).sin().view(shape))  # leaves random generators alone
        return made[-1].requires_grad_()

    outputs, features, hidden = make(N, H), make(N, X), ((K, H + X), (K,))
    shapes = *hidden, (P, K), (P,), *hidden, (1, K), (1,)
    inputs = Inputs(outputs, features, *[make(*shape) for shape in shapes])
    leaves = list(made)
    old_log_probs, old_values, advantages, returns = (make(N).detach() for _ in range(4))
    actions = torch.arange(N, device="cpu").unsqueeze(1) % torch.tensor(sizes, device="cpu")
    recorded = Recorded(actions, old_log_probs - 2, old_values, advantages, returns, returns < 0.9)
    settings = LossSettings(0.8, 1.2, 0.5, 0.5, 0.1, normalize=0.0)

    x = torch.cat([outputs, features], dim=1)
    logits = linear(torch.tanh(linear(x, *inputs[2:4])), *inputs[4:6])
    values = linear(torch.tanh(linear(x, *inputs[6:8])), *inputs[8:]).squeeze(1)
    log_ps = [torch.log_softmax(each, 1) for each in logits.split(sizes, 1)]
    chosen = [log_p.gather(1, a) for log_p, a in zip(log_ps, actions.split(1, 1), strict=True)]
    ratio = (torch.cat(chosen, dim=1).sum(1) - recorded.log_probs).exp()
    entropy = -torch.cat([log_p.exp() * log_p for log_p in log_ps], dim=1).sum(1)
    change = (values - old_values).clamp(-settings.clip_value, settings.clip_value)
    gains = torch.minimum(advantages * ratio, advantages * ratio.clamp(0.8, 1.2))
    terms = -gains + 0.5 * (old_values + change - returns).square() - 0.1 * entropy
    expected = terms[recorded.valid].mean()
    loss, _ = ppo_losses(inputs, recorded, settings, sizes)
    pairs = [(loss, expected)]
    pairs += zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True)

    with torch.no_grad():
        best, likely, found = act(inputs, None, sizes)
    highest = [log_p.max(1) for log_p in log_ps]
    pairs += [(found, values), (likely, torch.stack([each.values for each in highest]).sum(0))]
    return torch.equal(best, torch.stack([each.indices for each in highest], dim=1)) and all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in pairs
    )


def act(inputs: Inputs, noise: Tensor | None, sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return actions [N, A] int64, their log-probabilities [N] and values [N]; without gradients.

    Args:
        inputs: inputs and weights.
        noise: [N, P] exponentially distributed numbers that draw the actions; None for the most likely ones.
        sizes: [A] number of logits of each component of the action.
    """
    rows = len(inputs.outputs)
    chosen = inputs.outputs.new_empty(rows, len(sizes), dtype=torch.int64)
    log_probs, values = inputs.outputs.new_empty(rows), inputs.outputs.new_empty(rows)
    call, alive = _common_fields(inputs, sizes)
    call += addresses((noise, chosen, log_probs, values), alive)
    run("heads_act", _Call(*call))
    return chosen, log_probs, values


class PreparedActions:
    """Actions of the steps of a rollout, one by one and without gradients.

    Args:
        inputs: inputs and weights. A call passes its own outputs, of the same shape, and noise as in `act`.
        sizes: [A] number of logits of each component of the action.
        actions, log_probs, values: [T, N, A] int64, [T, N] and [T, N], which are written.

    All tensors are contiguous, and stay in place.
    """

    def __init__(
        self,
        inputs: Inputs,
        sizes: Sequence[int],
        actions: Tensor,
        log_probs: Tensor,
        values: Tensor,
    ) -> None:
        call, alive = _common_fields(inputs, sizes)
        self._call = _Call(*call)
        self._act = Prepared("heads_act", self._call, alive)
        results = actions, log_probs, values
        self._rows = list(zip(*(rows_of(result, alive) for result in results), strict=True))

    def act(self, t: int, outputs: Tensor, noise: Tensor) -> None:
        """Write the actions of step t for contiguous outputs of the core [N, H] and noise."""
        call = self._call
        call.outputs, call.noise = outputs.data_ptr(), noise.data_ptr()
        call.chosen, call.log_probs, call.values = self._rows[t]
        self._act()


def ppo_losses(
    inputs: Inputs,
    recorded: Recorded,
    settings: LossSettings,
    sizes: Sequence[int],
    ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return PPO's loss, and the numbers named by `FIGURES`, [6] and detached.

    Args:
        inputs: inputs and weights, which receive the gradients of the loss.
        recorded: what the loss is computed from.
        settings: its coefficients.
        sizes: [A] number of logits of each component of the action.
        ids: as in `usable`; all must lie in 0 to n - 1.

    Raises:
        IndexError: an action lies outside its component.
    """
    if torch.is_grad_enabled():
        return _Loss.apply(recorded, settings, sizes, ids, *inputs)
    figures, _ = _losses(inputs, recorded, settings, sizes, ids, None)
    return figures[-1], figures


class PreparedLoss:
    """PPO's loss and its gradients for minibatches of the same size, without autograd.

    Args:
        inputs: inputs and weights. A call passes its own outputs, of the same shape; of the features, it may
            read fewer rows, the first ones.
        recorded: what the loss is computed from.
        settings: its coefficients.
        sizes: [A] number of logits of each component of the action.
        ids: as in `usable`.
        gradients: of the weights, which a call overwrites.

    All tensors are contiguous, and stay in place.
    """

    def __init__(
        self,
        inputs: Inputs,
        recorded: Recorded,
        settings: LossSettings,
        sizes: Sequence[int],
        ids: Tensor | None,
        gradients: Sequence[Tensor],
    ) -> None:
        outputs, features = inputs[:2]
        self.largest_action = max(sizes) - 1
        self.figures = outputs.new_empty(len(FIGURES))
        self.d_outputs = torch.empty_like(outputs)
        self.d_features = None if features is None else torch.empty_like(features)
        call, alive = _common_fields(inputs, sizes, ids)
        call += [None] * len(_ACT) + addresses((*recorded, self.figures), alive)
        space = workspace(run("heads_workspace", _Call(*call)))
        call += addresses((space, self.d_outputs, self.d_features, *gradients), alive)
        self._call = _Call(*call, *settings)
        self._compute = Prepared("heads_loss", self._call, alive)

    def __call__(self, outputs: Tensor, num_features: int) -> Tensor:
        """Compute the gradients; return the numbers named by `FIGURES`, [6], valid until the next call.

        Args:
            outputs: contiguous.
            num_features: number of rows of the features.

        Raises:
            IndexError: an action lies outside its component.
        """
        self._call.outputs = outputs.data_ptr()
        self._call.n = num_features if self.d_features is not None else 0
        if self._compute():
            raise IndexError(f"an action lies outside of 0 to {self.largest_action}")
        return self.figures

    def normalize_with(self, num_valid: float, mean: float, std: float) -> None:
        """Set the statistics that `LossSettings` names."""
        self._call.num_valid, self._call.mean, self._call.std = num_valid, mean, std


class _Loss(torch.autograd.Function):
    """Computes the gradients together with the loss; the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        recorded: Recorded,
        settings: LossSettings,
        sizes: Sequence[int],
        ids: Tensor | None,
        *tensors: Any,
    ) -> tuple[Tensor, Tensor]:
        inputs, needed = Inputs(*tensors), ctx.needs_input_grad[4:]
        figures, gradients = _losses(inputs, recorded, settings, sizes, ids, needed if any(needed) else None)
        ctx.gradients = gradients
        ctx.save_for_backward(*tensors)  # so that changes in place raise, as they do elsewhere
        ctx.mark_non_differentiable(figures)
        return figures[-1].clone(), figures

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, d_loss: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        ctx.saved_tensors  # noqa: B018  # raises after changes in place, and in a second backward pass
        gradients = ctx.gradients
        if d_loss.item() != 1:
            gradients = [None if gradient is None else gradient * d_loss for gradient in gradients]
        return None, None, None, None, *gradients


def _losses(
    inputs: Inputs,
    recorded: Recorded,
    settings: LossSettings,
    sizes: Sequence[int],
    ids: Tensor | None,
    needed: Sequence[bool] | None,
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the figures and, unless `needed` is None, the gradients of all inputs; those of the first two if
    needed."""
    figures = inputs.outputs.new_empty(len(FIGURES))
    gradients: list[Tensor | None] = [None] * len(inputs)
    if needed is None and ids is not None and inputs.features is not None:
        inputs, ids = inputs._replace(features=inputs.features[ids.flatten()]), None
    call, alive = _common_fields(inputs, sizes, ids)
    call += [None] * len(_ACT) + addresses((*recorded, figures), alive)
    space = None
    if needed is not None:
        space = workspace(run("heads_workspace", _Call(*call)))
        wanted = [None if x is None or (i < 2 and not needed[i]) else x for i, x in enumerate(inputs)]
        lengths = [0 if x is None else x.numel() for x in wanted]
        parts = zip(wanted, workspace(sum(lengths)).split(lengths), strict=True)
        gradients = [None if x is None else part.view(x.shape) for x, part in parts]
    call += addresses((space, *gradients), alive)
    if run("heads_loss", _Call(*call, *settings)):
        raise IndexError(f"an action lies outside of 0 to {max(sizes) - 1}")
    return figures, gradients


def _common_fields(
    inputs: Inputs, sizes: Sequence[int], ids: Tensor | None = None
) -> tuple[list[Any], list[Any]]:
    """Return the first fields of `_Call`, and the objects that must outlive the call."""
    (N, H), (K, width) = inputs.outputs.shape, inputs.policy_hidden.shape
    array = (ctypes.c_long * len(sizes))(*sizes)
    alive: list[Any] = [array]
    rows = 0 if inputs.features is None else len(inputs.features)
    call: list[Any] = [N, H, width - H, K, sum(sizes), len(sizes), rows, torch.get_num_threads()]
    call.append(ctypes.addressof(array))
    return call + addresses((ids, *inputs), alive), alive
