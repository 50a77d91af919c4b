"""Nth Farthest: "what is the label of the n-th farthest vector from the vector with label m?"

Source: Santoro et al. 2018, appendix A.1 (arXiv 1806.01822).

Axes: T objects, one a step; B batch; D dimensions of a vector; L labels, T unless there are to be more.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import pad

from envs.base import BatchedEnv, Hints, Transition


class Questions(NamedTuple):
    """Sequences of objects with a question each, and their answers."""

    inputs: Tensor
    """[T, B, D + 3 L] at every step a vector, its label, n and m; all but the vector one-hot."""
    answers: Tensor
    """[B] int64 the right label, from 0."""
    answers_so_far: Tensor
    """[T, B] int64 the right label among the objects seen so far: the min(n, t)-th farthest at step t."""
    answerable: Tensor
    """[T, B] bool: the reference has been seen, so that there is an answer so far."""
    ranks: Tensor
    """[B] int64 n, from 0: 0 asks for the farthest, T - 1 for the reference itself."""


def draw_questions(
    batch_size: int,
    *,
    num_objects: int = 8,
    num_dims: int = 16,
    max_rank: int | None = None,
    num_labels: int | None = None,
    used_dims: int | None = None,
    generator: torch.Generator | None = None,
    device: str | torch.device = "cpu",
) -> Questions:
    """Draw fresh questions. With the defaults their distribution is the paper's.

    Vectors are uniform in (-1, 1); labels are drawn without replacement and say nothing of the order in time;
    m is one of them; m and n are uniform.

    Three arguments make easier questions in the same format, for training: n below `max_rank` instead of
    `num_objects`; fewer objects than `num_labels`; vectors that are 0 from dimension `used_dims` on.

    Raises:
        ValueError: numbers that do not fit.
    """
    max_rank = num_objects if max_rank is None else max_rank
    num_labels = num_objects if num_labels is None else num_labels
    used_dims = num_dims if used_dims is None else used_dims
    if batch_size < 1 or num_objects < 2 or num_dims < 1:
        raise ValueError(
            f"batch_size={batch_size}, num_objects={num_objects}, num_dims={num_dims}: expected at least 1, "
            "2 and 1"
        )
    if not 1 <= max_rank <= num_objects <= num_labels or not 1 <= used_dims <= num_dims:
        raise ValueError(
            f"max_rank={max_rank}, num_labels={num_labels}, used_dims={used_dims}: expected a max_rank of 1 "
            f"to num_objects={num_objects}, no fewer labels than objects, 1 to num_dims={num_dims} dimensions"
        )

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    def below(limit: int) -> Tensor:
        return torch.randint(limit, (batch_size,), generator=generator, device=device)

    vectors = 2 * uniform(batch_size, num_objects, used_dims) - 1
    vectors = pad(vectors, (0, num_dims - used_dims))  # [B, T, D]
    # [B, T] label of the object shown at each step.
    labels = uniform(batch_size, num_labels).argsort(dim=1)[:, :num_objects]
    ranks, reference = below(max_rank), below(num_objects)
    reference_label = labels.sort(dim=1).values.gather(1, reference.unsqueeze(1)).squeeze(1)
    is_reference = labels == reference_label.unsqueeze(1)  # [B, T]

    one_hot = torch.eye(num_labels, device=device)
    asked = torch.cat([one_hot[ranks], one_hot[reference_label]], dim=1)  # [B, 2L]
    asked = asked.unsqueeze(1).expand(-1, num_objects, -1)
    inputs = torch.cat([vectors, one_hot[labels], asked], dim=2).transpose(0, 1).contiguous()

    reference_vector = (vectors * is_reference.unsqueeze(2)).sum(1, keepdim=True)  # [B, 1, D]
    distances = (vectors - reference_vector).square().sum(2)  # [B, T]
    steps = torch.arange(num_objects, device=device)
    seen = steps.unsqueeze(1) >= steps  # [step, object]
    # Objects not yet seen come last; the reference itself, at distance 0, last of those seen.
    order = torch.where(seen, distances.unsqueeze(1), -1.0).argsort(dim=2, descending=True)  # [B, step, rank]
    rank_so_far = torch.minimum(ranks.unsqueeze(1), steps).unsqueeze(2)  # [B, step, 1]
    objects = order.gather(2, rank_so_far).squeeze(2)  # [B, step]
    answers_so_far = labels.gather(1, objects).T.contiguous()
    answerable = is_reference.cummax(dim=1).values.T.contiguous()
    return Questions(inputs, answers_so_far[-1], answers_so_far, answerable, ranks)


def count_hints(num_dims: int, num_labels: int) -> int:
    """How many numbers `draw_hints` has for each step: (2 D + 1) L."""
    return (2 * num_dims + 1) * num_labels


def draw_hints(questions: Questions, num_dims: int, used_dims: int | None = None) -> Hints:
    """What a reader of `questions` of D = `num_dims` dimensions could know after each step, to train it.

    Returns:
        [T, B, (2 D + 1) L] for each label its vector, then for each its vector less that of the reference,
        then for each the square of its distance from the reference. The weights are 0 where an object or the
        reference has not been seen, and for dimensions that are not used; the three parts weigh alike.
    """
    x, D = questions.inputs, num_dims
    T, B = questions.answers_so_far.shape
    used_dims, L = D if used_dims is None else used_dims, (x.shape[2] - D) // 3
    vectors, labels, reference_label = x[..., :D], x[..., D : D + L], x[0, :, D + 2 * L :]
    by_label = torch.einsum("tbl,tbd->bld", labels, vectors)
    away = by_label - torch.einsum("bl,bld->bd", reference_label, by_label).unsqueeze(1)
    # Per dimension the square of a difference of two uniform numbers in (-1, 1) has mean 2/3, variance 28/45.
    distances = (away.square().sum(2) - used_dims * 2 / 3) / (used_dims * 28 / 45) ** 0.5
    values = torch.cat([by_label.flatten(1) * 3**0.5, away.flatten(1) * 1.5**0.5, distances], dim=1)
    seen = labels.cumsum(0)
    compared = seen * questions.answerable.unsqueeze(2)
    used = (torch.arange(D, device=x.device) < used_dims).float() / used_dims
    wide = [(part.unsqueeze(3) * used).flatten(2) for part in (seen, compared)]
    return Hints(values.expand(T, B, -1), torch.cat([*wide, compared], dim=2))


@final
class NthFarthest(BatchedEnv):
    """See the objects, one a step; after the last, name the n-th farthest from the one labelled m.

    ## Observation
    `Box(-1, 1, (D + 3 T,), float32)`: the object's vector, its label, n and m, the last three one-hot. The
    question is there from the first step on. With the defaults 40 numbers, as in the paper.

    ## Actions
    `Discrete(T)`: a label. The action at the last object is the answer; the others do nothing. Any other
    number is a wrong answer.

    ## Reward and ends
    1 for the right label, else 0. Every episode is terminated by its answer, after T steps. `success` is a
    right answer.

    ## Hints
    The vectors seen so far by label, their differences from the reference and their distances: `draw_hints`.

    ## Chance
    A guess is right in 1/T. Naming m where n asks for the reference itself, and guessing among the others
    elsewhere, is right in 1/T + (T - 1)/T * 1/(T - 1) = 2/T: with 8 objects 25 %, without any relation
    between vectors. Only what is above that shows reasoning.

    ## Seeding
    A `torch.Generator` on the device: a seed fixes every episode on a kind of device for a given `num_envs`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        num_objects: int = 8,
        num_dims: int = 16,
        max_rank: int | None = None,
    ) -> None:
        """
        Args:
            num_envs: B.
            device: any torch device, `"meta"` included.
            num_objects: T, 2 or more.
            num_dims: D.
            max_rank: n is uniform below it; `num_objects`, the whole task, if None.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}: expected 1 or more")
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.num_objects, self.num_dims, self.max_rank = num_objects, num_dims, max_rank
        self.observation_space = spaces.Box(-1.0, 1.0, (num_dims + 3 * num_objects,), np.float32)
        self.action_space = spaces.Discrete(num_objects)
        self.hint_size = count_hints(num_dims, num_objects)
        self.tasks = ("rmc/NthFarthest-v0",)
        self.task_of = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._generator = None
        if self.device.type != "meta":  # which has no generators
            self._generator = torch.Generator(self.device)
            self._generator.seed()
        self._ask(self._draw())
        self._begun = False

    def reset(self, seed: int | None = None) -> Tensor:
        if seed is not None and self._generator is not None:
            self._generator.manual_seed(seed)
        self._ask(self._draw())
        self._begun = True
        return self._questions.inputs[0]

    def step(self, actions: Tensor) -> Transition:
        if not self._begun:
            raise RuntimeError("step before the first reset: call reset(seed) first")
        if actions.shape != self.task_of.shape:
            raise ValueError(
                f"actions of shape {tuple(actions.shape)}: expected ({self.num_envs},), one for each"
            )
        never = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        shown = self._questions.inputs[self._time]
        self._time += 1
        if self._time < self.num_objects:
            obs = self._questions.inputs[self._time]
            return Transition(obs, torch.zeros_like(obs[:, 0]), never, never, obs, never)
        right = actions == self._questions.answers
        self._ask(self._draw())
        # Nothing new is shown after the last object: the episode's last observation is that object again.
        return Transition(self._questions.inputs[0], right.float(), ~never, never, shown, right)

    def hints(self) -> Hints:
        if self._hints is None:
            self._hints = draw_hints(self._questions, self.num_dims)
        return Hints(*(x[self._time] for x in self._hints))

    def _ask(self, questions: Questions, time: int = 0) -> None:
        # All episodes are equally long, so all environments are at the same object.
        self._questions, self._time = questions, time
        # Of these questions, once somebody wants them.
        self._hints: Hints | None = None

    def _draw(self) -> Questions:
        return draw_questions(
            self.num_envs,
            num_objects=self.num_objects,
            num_dims=self.num_dims,
            max_rank=self.max_rank,
            generator=self._generator,
            device=self.device,
        )

    def state_dict(self) -> dict[str, Any]:
        if not self._begun:
            raise RuntimeError("state_dict before the first reset: there is no episode to save yet")
        generator = None if self._generator is None else self._generator.get_state()
        return {"questions": list(self._questions), "time": self._time, "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        saved = Questions(*(x.to(self.device) for x in state["questions"]))
        if len(saved.answers) != self.num_envs:
            raise ValueError(f"a state of {len(saved.answers)} environments: expected {self.num_envs}")
        if saved.inputs.shape != self._questions.inputs.shape:
            shapes = tuple(saved.inputs.shape), tuple(self._questions.inputs.shape)
            raise ValueError(f"a state of objects and numbers {shapes[0]}: expected {shapes[1]}")
        self._ask(saved, state["time"])
        self._begun = True
        if self._generator is not None:
            self._generator.set_state(state["generator"].cpu())
        return self._questions.inputs[self._time]
