"""Nth Farthest: "What is the label of the n-th farthest vector from the vector with label m?"

Source: Santoro et al. 2018, appendix A.1 (arXiv 1806.01822).

Axes: T objects, one per step; B batch; D dimensions of a vector; L labels, T by default.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from rmc_agents.environment import AuxiliaryTargets, Transition

from ..numbers import require_whole
from ..seeded import SeededTask


class Questions(NamedTuple):
    """Sequences of objects, each with a question and its answer."""

    inputs: Tensor
    """[T, B, D + 3 L] at each step a vector, its label, n and m, the last three one-hot."""
    answers: Tensor
    """[B] int64 the right label, counted from 0."""
    answers_so_far: Tensor
    """[T, B] int64 the right label among the objects seen up to step t: that of the min(n, t)-th farthest."""
    answerable: Tensor
    """[T, B] bool: the reference has been seen, so that `answers_so_far` is defined."""
    ranks: Tensor
    """[B] int64 n, counted from 0: 0 asks for the farthest object, T - 1 for the reference itself."""


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
    """Draw questions. With the defaults, their distribution is the paper's.

    Vectors are uniform in (-1, 1). Labels are drawn without replacement, independent of the order in time; m
    is one of them. m and n are uniform.

    Three arguments make easier questions in the same format, for a curriculum: n below `max_rank` instead of
    `num_objects`; fewer objects than `num_labels`; vectors that are 0 from dimension `used_dims` on.

    Args:
        batch_size: B.
        num_objects: T, 2 or more.
        num_dims: D, 1 or more.
        max_rank: n is uniform below it; `num_objects` if None.
        num_labels: L; `num_objects` if None.
        used_dims: number of dimensions that are not 0; `num_dims` if None.
        generator: source of randomness; torch's global one if None.
        device: of the tensors.

    Raises:
        ValueError: a number out of range.
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
            f"max_rank={max_rank}, num_labels={num_labels}, used_dims={used_dims}: expected 1 <= max_rank <= "
            f"num_objects={num_objects} <= num_labels and 1 <= used_dims <= num_dims={num_dims}"
        )

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    def below(limit: int) -> Tensor:
        return torch.randint(limit, (batch_size,), generator=generator, device=device)

    vectors = 2 * uniform(batch_size, num_objects, used_dims) - 1
    vectors = pad(vectors, (0, num_dims - used_dims))  # [B, T, D]
    # [B, T] label of the object at each step.
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
    # Objects not yet seen sort last (-1); the reference, at distance 0, is the last of those seen.
    order = torch.where(seen, distances.unsqueeze(1), -1.0).argsort(dim=2, descending=True)  # [B, step, rank]
    rank_so_far = torch.minimum(ranks.unsqueeze(1), steps).unsqueeze(2)  # [B, step, 1]
    objects = order.gather(2, rank_so_far).squeeze(2)  # [B, step]
    answers_so_far = labels.gather(1, objects).T.contiguous()
    answerable = is_reference.cummax(dim=1).values.T.contiguous()
    return Questions(inputs, answers_so_far[-1], answers_so_far, answerable, ranks)


def count_auxiliary_targets(num_dims: int, num_labels: int) -> int:
    """Return the number of auxiliary targets at each step, (2 D + 1) L; see `compute_auxiliary_targets`."""
    return (2 * num_dims + 1) * num_labels


def compute_auxiliary_targets(
    questions: Questions, num_dims: int, used_dims: int | None = None
) -> AuxiliaryTargets:
    """Return what a memory could know about the questions after each step.

    Args:
        questions: with vectors of D = `num_dims` dimensions.
        num_dims: D.
        used_dims: number of dimensions that are not 0; `num_dims` if None.

    Returns:
        [T, B, (2 D + 1) L]: for each label its vector; for each label the difference of its vector from that
        of the reference; for each label the squared distance from the reference. Each is scaled to mean 0 and
        variance 1. The weights are 0 where the object or the reference has not been seen, and in dimensions
        that are not used; the three parts have the same total weight.
    """
    x, D = questions.inputs, num_dims
    T, B = questions.answers_so_far.shape
    used_dims, L = D if used_dims is None else used_dims, (x.shape[2] - D) // 3
    vectors, labels, reference_label = x[..., :D], x[..., D : D + L], x[0, :, D + 2 * L :]
    by_label = torch.einsum("tbl,tbd->bld", labels, vectors)
    differences = by_label - torch.einsum("bl,bld->bd", reference_label, by_label).unsqueeze(1)
    # The squared difference of two numbers uniform in (-1, 1) has mean 2/3 and variance 28/45.
    distances = (differences.square().sum(2) - used_dims * 2 / 3) / (used_dims * 28 / 45) ** 0.5
    values = torch.cat([by_label.flatten(1) * 3**0.5, differences.flatten(1) * 1.5**0.5, distances], dim=1)
    seen = labels.cumsum(0)
    compared = seen * questions.answerable.unsqueeze(2)
    used = (torch.arange(D, device=x.device) < used_dims).float() / used_dims
    wide = [(part.unsqueeze(3) * used).flatten(2) for part in (seen, compared)]
    return AuxiliaryTargets(values.expand(T, B, -1), torch.cat([*wide, compared], dim=2))


@final
class NthFarthest(SeededTask):
    """The agent sees T objects, one per step, and then names the n-th farthest from the one with label m.

    ## Observation
    `Box(-1, 1, (D + 3 T,), float32)`: the object's vector, its label, n and m, the last three one-hot. The
    question (n and m) is shown from the first step on. With the defaults an observation has 40 numbers, as in
    the paper.

    ## Actions
    `Discrete(T)`: a label. The action at the last object is the answer; earlier actions do nothing. A number
    outside the space is a wrong answer.

    ## Reward and end of an episode
    The reward is 1 for the right label, else 0. Every episode is terminated by its answer, after T steps;
    none is truncated. `success` means that the answer was right.

    ## Auxiliary targets
    The vectors seen so far by label, their differences from the reference, and their squared distances from
    it; see `compute_auxiliary_targets`.

    ## Chance
    A random label is right with probability 1/T. Naming m if n asks for the reference itself, and guessing
    among the other labels if not, is right with probability 1/T + (T - 1)/T * 1/(T - 1) = 2/T: 25 % with 8
    objects, without comparing any vectors. Only a higher success rate shows relational reasoning.

    ## Seeding
    One `torch.Generator` on the device. A seed fixes every episode, for a given kind of device and
    `num_envs`.
    """

    reports_success = True

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
            device: any torch device, including `"meta"`.
            num_objects: T, from 2 to 1000.
            num_dims: D, from 1 to 10,000.
            max_rank: n is uniform below it; `num_objects`, the whole task, if None.

        Raises:
            ValueError: a number out of range.
        """
        require_whole("num_objects", num_objects, 2, 1000)
        require_whole("num_dims", num_dims, 1, 10_000)
        max_rank = num_objects if max_rank is None else max_rank
        require_whole("max_rank", max_rank, 1, num_objects)
        observation_space = spaces.Box(-1.0, 1.0, (num_dims + 3 * num_objects,), np.float32)
        super().__init__(
            "rmc/NthFarthest-v0", num_envs, device, observation_space, spaces.Discrete(num_objects)
        )
        self.num_objects, self.num_dims, self.max_rank = num_objects, num_dims, max_rank
        self.aux_size = count_auxiliary_targets(num_dims, num_objects)
        self._set_questions(self._draw())

    def _begin(self) -> Tensor:
        self._set_questions(self._draw())
        return self._questions.inputs[0]

    def _advance(self, actions: Tensor) -> Transition:
        never = self._none()
        shown = self._questions.inputs[self._time]
        self._time += 1
        self._ended = None
        if self._time < self.num_objects:
            obs = self._questions.inputs[self._time]
            return Transition(obs, torch.zeros_like(obs[:, 0]), never, never, obs, never)
        right, ended = actions == self._questions.answers, self._questions
        self._set_questions(self._draw())
        self._ended = ended
        # The last step shows nothing new: the episode's last observation is the last object again.
        return Transition(self._questions.inputs[0], right.float(), ~never, never, shown, right)

    def auxiliary_targets(self) -> AuxiliaryTargets:
        if self._aux_targets is None:
            self._aux_targets = compute_auxiliary_targets(self._questions, self.num_dims)
        return AuxiliaryTargets(*(x[self._time] for x in self._aux_targets))

    def _set_questions(self, questions: Questions, time: int = 0) -> None:
        # All episodes have the same length, so all environments are at the same object.
        self._questions, self._time = questions, time
        self._ended: Questions | None = None  # those of the episodes that ended in the latest step
        self._aux_targets: AuxiliaryTargets | None = None  # [T, B, K]; computed when needed

    def _draw(self) -> Questions:
        return draw_questions(
            self.num_envs,
            num_objects=self.num_objects,
            num_dims=self.num_dims,
            max_rank=self.max_rank,
            generator=self._generator,
            device=self.device,
        )

    def _save(self) -> dict[str, Any]:
        return {"questions": list(self._questions), "time": self._time}

    def _restore(self, state: dict[str, Any]) -> Tensor:
        saved = Questions(*(x.to(self.device) for x in state["questions"]))
        self._require_rows(len(saved.answers))
        self._set_questions(saved, state["time"])
        return self._questions.inputs[self._time]

    def _render(self, i: int, final: bool, tile_size: int) -> NDArray[np.uint8]:
        """Draw the objects, and bars for their distances."""
        from .pictures import draw_distances  # slow to import, and only needed here

        ended = self._ended if final else None
        rows, T, D = (ended or self._questions).inputs[:, i], self.num_objects, self.num_dims
        labels, ranks, references = (rows[:, D + j * T : D + (j + 1) * T].argmax(1) for j in range(3))
        reference = rows[labels == references[0], :D]
        distances = (rows[:, :D] - reference).square().sum(1).sqrt().tolist()
        question = int(ranks[0]), int(references[0])
        return draw_distances(
            labels.tolist(), distances, T - 1 if ended else self._time, *question, tile_size
        )
