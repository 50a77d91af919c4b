"""Nth Farthest: answers equal a plain sort, questions have the paper's distribution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmc_envs import NthFarthest
from rmc_envs.sequences.nth_farthest import compute_auxiliary_targets, draw_questions


@given(
    num_objects=st.integers(2, 9),
    num_dims=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_answers_equal_a_plain_sort(num_objects: int, num_dims: int, seed: int, data: st.DataObject) -> None:
    max_rank = data.draw(st.integers(1, num_objects))
    num_labels = data.draw(st.integers(num_objects, 10))
    used_dims = data.draw(st.integers(1, num_dims))
    questions = draw_questions(
        5,
        num_objects=num_objects,
        num_dims=num_dims,
        max_rank=max_rank,
        num_labels=num_labels,
        used_dims=used_dims,
        generator=torch.Generator().manual_seed(seed),
    )
    assert questions.inputs.shape == (num_objects, 5, num_dims + 3 * num_labels)
    for row in range(5):
        shown = questions.inputs[:, row].double().numpy()
        vectors = shown[:, :num_dims]
        labels, ranks, references = (part.argmax(1) for part in np.split(shown[:, num_dims:], 3, axis=1))
        assert (shown[:, num_dims:].sum(1) == 3).all()
        assert len(set(labels)) == num_objects
        if num_labels == num_objects:
            assert sorted(labels) == list(range(num_objects))
        assert (vectors[:, used_dims:] == 0).all()
        assert (vectors[:, :used_dims] != 0).all()
        assert len(set(ranks)) == len(set(references)) == 1, "the question is the same at every step"
        n, m = int(ranks[0]), int(references[0])
        assert n == questions.ranks[row] < max_rank
        at = int(np.flatnonzero(labels == m)[0])
        for t in range(num_objects):
            assert questions.answerable[t, row] == (t >= at)
            if t >= at:
                by_distance = sorted(range(t + 1), key=lambda i: -np.linalg.norm(vectors[i] - vectors[at]))
                assert questions.answers_so_far[t, row] == labels[by_distance[min(n, t)]]
        assert questions.answers[row] == questions.answers_so_far[-1, row]


def test_distribution_equals_the_papers() -> None:
    questions = draw_questions(20_000, generator=torch.Generator().manual_seed(0))
    assert questions.inputs.shape == (8, 20_000, 40)
    vectors = questions.inputs[..., :16]
    assert vectors.abs().max() <= 1
    assert abs(vectors.mean()) < 0.005
    assert abs(vectors.var() - 1 / 3) < 0.005
    for part in questions.inputs[0, :, 16:].split(8, dim=-1):
        assert (part.mean(0) - 1 / 8).abs().max() < 0.012  # each label, n and m equally often
    answers = torch.bincount(questions.answers, minlength=8) / 20_000
    assert (answers - 1 / 8).abs().max() < 0.012, "no label is a better guess than another"


def test_easier_questions_use_all_labels_and_fewer_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    questions = draw_questions(20_000, num_objects=3, num_labels=8, used_dims=2, generator=generator)
    assert questions.inputs.shape == (3, 20_000, 40)
    _, labels, ranks, references = questions.inputs.split([16, 8, 8, 8], dim=2)
    for part in (*labels, references[0]):
        assert (part.mean(0) - 1 / 8).abs().max() < 0.012  # each as often as the others
    assert (ranks[0, :, :3].mean(0) - 1 / 3).abs().max() < 0.02
    assert not ranks[0, :, 3:].any()
    assert (labels.sum(0) * references[0]).sum(1).eq(1).all(), "the reference is one of those shown"
    first, at = labels.argmax(2), references[0].argmax(1)
    assert (first == at).float().mean(1).sub(1 / 3).abs().max() < 0.02, "at any time"


def test_shortcut_scores_two_in_eight() -> None:
    """Naming m if n asks for distance 0, and another label if not, scores 25 % without comparing vectors."""
    questions = draw_questions(20_000, generator=torch.Generator().manual_seed(1))
    m = questions.inputs[0, :, -8:].argmax(1)
    guess = torch.where(questions.ranks == 7, m, (m + 1) % 8)
    right = (guess == questions.answers).float().mean()
    assert abs(right - 0.25) < 0.012
    assert (questions.answers == m)[questions.ranks == 7].all()


def test_episode_rewards_the_right_answer() -> None:
    env = NthFarthest(64, num_objects=4, num_dims=3)
    obs = env.reset(seed=5)
    for _ in range(2):
        answers = env._questions.answers
        for t in range(3):
            assert torch.equal(obs, env._questions.inputs[t])
            step = env.step(answers)
            assert not (step.done | step.success).any()
            assert not step.reward.any()
            obs = step.obs
        given = torch.where(torch.arange(64) < 40, answers, (answers + 1) % 4)
        step = env.step(given)
        assert step.terminated.all()
        assert step.reward.tolist() == [1.0] * 40 + [0.0] * 24
        obs = step.obs


@pytest.mark.parametrize(
    "bad", [{"num_labels": 7}, {"used_dims": 17}, {"used_dims": 0}, {"num_objects": 9, "num_labels": 8}]
)
def test_invalid_questions_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(reversed(bad))}={bad[next(reversed(bad))]}"):
        draw_questions(2, **bad)


@pytest.mark.parametrize("bad", [{"num_objects": 1}, {"num_dims": 0}, {"max_rank": 9}, {"num_envs": 0}])
def test_invalid_arguments_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        NthFarthest(**bad)


@pytest.mark.parametrize(("L", "used"), [(4, 3), (6, 3), (6, 2)])
def test_auxiliary_targets_equal_a_plain_loop(L: int, used: int) -> None:
    T, D = 4, 3
    generator = torch.Generator().manual_seed(0)
    questions = draw_questions(
        6, num_objects=T, num_dims=D, num_labels=L, used_dims=used, generator=generator
    )
    values, weights = compute_auxiliary_targets(questions, D, used)
    assert values.shape == weights.shape == (T, 6, (2 * D + 1) * L)
    for row in range(6):
        shown = questions.inputs[:, row]
        vectors, labels = shown[:, :D], shown[:, D : D + L].argmax(1).tolist()
        m = int(shown[0, D + 2 * L :].argmax())
        reference = vectors[labels.index(m)]
        for label in range(L):
            own, difference = slice(label * D, (label + 1) * D), slice((L + label) * D, (L + label + 1) * D)
            distance = 2 * D * L + label
            if label not in labels:
                assert not weights[:, row, own].any()
                assert not weights[:, row, difference].any()
                assert not weights[:, row, distance].any()
                continue
            at = labels.index(label)
            away = vectors[at] - reference
            each = np.array([1 / used] * used + [0.0] * (D - used))
            for t in range(T):
                seen, compared = float(t >= at), float(t >= at and t >= labels.index(m))
                assert weights[t, row, own].tolist() == pytest.approx(seen * each)
                assert weights[t, row, difference].tolist() == pytest.approx(compared * each)
                assert weights[t, row, distance] == compared
                torch.testing.assert_close(values[t, row, own], vectors[at] * 3**0.5)
                torch.testing.assert_close(values[t, row, difference], away * 1.5**0.5)
                expected = (away.square().sum() - used * 2 / 3) / (used * 28 / 45) ** 0.5
                torch.testing.assert_close(values[t, row, distance], expected)


@pytest.mark.parametrize("used", [16, 2])
def test_auxiliary_targets_have_mean_0_and_variance_1(used: int) -> None:
    generator = torch.Generator().manual_seed(0)
    questions = draw_questions(5000, used_dims=used, generator=generator)
    values = compute_auxiliary_targets(questions, 16, used).values[-1]
    others = torch.ones(5000, 8, dtype=torch.bool)
    reference = questions.inputs[0, :, -8:].argmax(1)
    others[torch.arange(5000), reference] = False  # it is at distance 0
    own, difference, distance = values.split([128, 128, 8], dim=1)
    own, difference = (part.unflatten(1, (8, 16))[..., :used] for part in (own, difference))
    for part in (own, difference[others], distance[others]):
        assert abs(part.mean()) < 0.05
        assert abs(part.std() - 1) < 0.05


def test_environment_returns_the_auxiliary_targets_of_its_step() -> None:
    env = NthFarthest(num_envs=5, num_objects=4, num_dims=3)
    env.reset(seed=2)
    assert env.aux_size == 4 * 7
    for _ in range(2):
        expected = compute_auxiliary_targets(env._questions, 3)
        for t in range(4):
            aux_targets = env.auxiliary_targets()
            assert torch.equal(aux_targets.values, expected.values[t])
            assert torch.equal(aux_targets.weights, expected.weights[t])
            saved = env.state_dict()
            env.step(torch.zeros(5, dtype=torch.int64))
    other = NthFarthest(num_envs=5, num_objects=4, num_dims=3)
    other.reset(seed=9)
    other.auxiliary_targets()
    other.load_state_dict(saved)  # in the middle of an episode
    assert torch.equal(other.auxiliary_targets().weights, aux_targets.weights)
    assert torch.equal(other.auxiliary_targets().values, aux_targets.values)
