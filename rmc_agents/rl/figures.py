"""Figures of an iteration, under SB3's TensorBoard names, and those that the progress display shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rmc_agents.rl.ppo import Metrics

COLUMNS = {
    "steps": "{:,.0f}",
    "steps/s": "{:,.0f}",
    "success": "{:.3f}",
    "return": "{:.3f}",
    "length": "{:.1f}",
    "entropy": "{:.3f}",
    "kl": "{:.4f}",
    "time left": "{}",
}
"""Columns of the progress display, with their formats."""
METRICS = ("rollout/ep_rew_mean", "rollout/success_rate", "eval/mean_reward", "eval/success_rate")
"""Tags of the figures by which TensorBoard compares hyperparameters."""


def episode_figures(
    sums: Sequence[Sequence[float]], tasks: Sequence[str], reports_success: bool
) -> dict[str, float]:
    """Return the figures of the episodes that ended in a rollout; none if no episode ended.

    Args:
        sums: [4][K] number, returns, lengths and successes of episodes per task, as `episode_stats` gives.
        tasks: [K] names.
        reports_success: whether the environment reports success.
    """
    count, returns, lengths, solved = (sum(numbers) for numbers in sums)
    if not count:
        return {}
    figures = {"rollout/ep_rew_mean": returns / count, "rollout/ep_len_mean": lengths / count}
    if not reports_success:
        return figures
    figures["rollout/success_rate"] = solved / count
    if len(tasks) > 1:
        for name, n, s in zip(tasks, sums[0], sums[3], strict=True):
            if n:
                figures[f"rollout/success_rate/{name}"] = s / n
    return figures


def update_figures(
    means: Mapping[str, float],
    auxiliary: bool = False,
    reconstruction: bool = False,
    memory_change: bool = False,
    divergence: bool = False,
) -> dict[str, float]:
    """Return the figures of an update.

    Args:
        means: `ppo.Metrics` by field, averaged over the update.
        auxiliary: whether there is an auxiliary loss to report.
        reconstruction: whether there is a reconstruction loss to report.
        memory_change: whether the change of the memory is to be reported.
        divergence: whether there is a teacher, from whom the policy's divergence is to be reported.
    """
    assert means.keys() == set(Metrics._fields)
    return {
        "train/loss": means["loss"],
        "train/policy_gradient_loss": means["policy_loss"],
        "train/value_loss": means["value_loss"],
        "train/entropy_loss": -means["entropy"],
        "train/approx_kl": means["approx_kl"],
        "train/clip_fraction": means["clip_fraction"],
        **({"train/aux_loss": means["aux_loss"]} if auxiliary else {}),
        **({"train/reconstruction_loss": means["reconstruction_loss"]} if reconstruction else {}),
        **({"train/memory_change": means["memory_change"]} if memory_change else {}),
        **({"train/teacher_divergence": means["divergence"]} if divergence else {}),
        "train/grad_norm": means["grad_norm"],
    }


def progress_figures(figures: Mapping[str, float]) -> dict[str, float]:
    """Return an iteration's figures by the names of `COLUMNS`."""
    names = {
        "steps": "time/total_timesteps",
        "steps/s": "time/fps",
        "success": "rollout/success_rate",
        "return": "rollout/ep_rew_mean",
        "length": "rollout/ep_len_mean",
        "kl": "train/approx_kl",
    }
    shown = {name: figures[tag] for name, tag in names.items() if tag in figures}
    if "train/entropy_loss" in figures:
        shown["entropy"] = -figures["train/entropy_loss"]
    return shown


def describe_evaluation(steps: int, figures: Mapping[str, float]) -> str:
    """Return the figures of an evaluation after so many steps as a message."""
    success = f"success {figures['eval/success_rate']:.3f}, " if "eval/success_rate" in figures else ""
    return f"evaluation after {steps:,} steps: {success}return {figures['eval/mean_reward']:.3f}"
