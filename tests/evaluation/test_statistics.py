"""Intervals compared with closed forms and SciPy, aggregates with hand-computed sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rmc_agents.evaluation.statistics import (
    aggregate,
    improvement_interval,
    interquartile_mean,
    iqm_band,
    iqm_interval,
    mean_interval,
    probability_of_improvement,
    wilson,
)

RUNS = st.lists(st.integers(0, 4).map(float), min_size=1, max_size=6)
counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_equals_scipys_interval(count: tuple[int, int]) -> None:
    successes, trials = count
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(counts)
def test_wilson_contains_the_rate_and_stays_within_0_and_1(count: tuple[int, int]) -> None:
    successes, trials = count
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert low < high


def test_wilson_equals_the_closed_form_when_all_succeed() -> None:
    # For n of n the lower end is n / (n + z^2).
    assert wilson(96, 96) == pytest.approx((96 / (96 + 1.959964**2), 1.0), abs=1e-6)


@pytest.mark.parametrize("count", [(0, 0), (-1, 5), (6, 5)])
def test_wilson_rejects_impossible_counts(count: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="trials"):
        wilson(*count)


def test_mean_interval_has_the_theoretical_width() -> None:
    x = np.random.default_rng(1).exponential(size=400)
    interval = mean_interval(x)
    assert interval is not None
    low, high = interval
    theory = 1.96 * x.std() / np.sqrt(x.size)
    assert low < x.mean() < high
    assert (high - low) / 2 == pytest.approx(theory, rel=0.1)
    assert mean_interval(x) == (low, high)


def test_mean_interval_covers_the_true_mean_at_its_confidence() -> None:
    rng = np.random.default_rng(2)
    intervals = [mean_interval(rng.random(60) < 0.7, resamples=200) for _ in range(100)]
    assert np.mean([i is not None and i[0] <= 0.7 <= i[1] for i in intervals]) > 0.87


def test_intervals_are_none_for_a_single_value() -> None:
    assert mean_interval([3.0]) is None
    assert iqm_interval([[1.0, 2.0], [3.0]]) is None
    assert aggregate([[1.0]]).interval is None


def test_interquartile_mean_equals_hand_computation() -> None:
    assert interquartile_mean([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 700.0]]) == 3.5
    assert aggregate([[0.0, 1.0, 2.0, 3.0]]).runs == 4


def test_resampling_is_stratified_by_task() -> None:
    # Runs that agree on each task give an interval of no width, however much the tasks differ.
    assert iqm_interval([[0.0, 0.0], [1.0, 1.0]]) == (0.5, 0.5)
    low, high = iqm_interval([[0.0, 0.2, 0.4, 0.9], [1.0, 0.7, 0.9, 0.2]]) or (0, 0)
    assert low < high


def test_probability_of_improvement_equals_hand_computation() -> None:
    assert probability_of_improvement([[1.0, 3.0]], [[2.0, 2.0]]) == 0.5
    assert probability_of_improvement([[3.0, 3.0], [0.0]], [[2.0], [0.0]]) == 0.75  # a win and a tie
    x, y = [[0.9, 0.8, 0.95]], [[0.5, 0.6, 0.85]]
    u = stats.mannwhitneyu(x[0], y[0]).statistic
    assert probability_of_improvement(x, y) == pytest.approx(u / 9)
    low, high = improvement_interval(x, y) or (0, 0)
    assert 0 <= low <= u / 9 <= high <= 1


@given(st.lists(st.tuples(RUNS, RUNS), min_size=1, max_size=3))
def test_probabilities_of_improvement_sum_to_1(pairs: list[tuple[list[float], list[float]]]) -> None:
    x, y = zip(*pairs, strict=True)
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1)


def test_comparison_rejects_scores_of_different_tasks() -> None:
    with pytest.raises(ValueError, match="1 tasks and Y 2"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="scores of shapes"):
        interquartile_mean([[]])


def test_band_of_three_runs_is_their_mean_and_range() -> None:
    runs = np.array([[0.0, 0.5, 1.0], [0.1, 0.5, 0.0], [0.8, 0.5, 0.2]])
    middle, interval = iqm_band(runs)
    assert interval is not None
    np.testing.assert_allclose(middle, runs.mean(0))
    np.testing.assert_allclose(interval, [runs.min(0), runs.max(0)])


def test_band_of_many_runs_is_as_wide_as_the_interval_at_each_point() -> None:
    runs = np.random.default_rng(3).normal(size=(20, 2)) * [1, 5]
    middle, interval = iqm_band(runs)
    assert interval is not None
    for x in range(2):
        assert middle[x] == interquartile_mean([runs[:, x]])
        expected = iqm_interval([runs[:, x]])
        assert expected is not None
        width = expected[1] - expected[0]
        assert (interval[0][x], interval[1][x]) == pytest.approx(expected, abs=0.1 * width)


def test_band_of_one_run_has_no_interval() -> None:
    middle, interval = iqm_band([[0.25, 0.75]])
    assert middle.tolist() == [0.25, 0.75]
    assert interval is None
    with pytest.raises(ValueError, match=r"expected \[runs, points\]"):
        iqm_band([0.5])
