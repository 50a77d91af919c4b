"""Comparison of an exported file with the agent that it was made of.

Axes: B rows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rmc_agents.agent.actor_critic import ActorCritic, AgentState
from rmc_agents.agent.arguments import as_tensors
from rmc_agents.export.formats import Arrays, ExportedFile
from rmc_agents.export.step import ExportedStep
from rmc_agents.spaces.masks import choice_sizes
from rmc_agents.spaces.plain import Path, to_plain
from rmc_agents.spaces.text import AnnotatedText
from rmc_agents.tree import map_tree

TOLERANCE = 1e-4
"""Largest error of a correct file: float32 has seven digits, and layer norms cost some of them."""
USUAL_SIZE = 1000.0
"""Bounds of observations beyond this are not used for random ones."""
EPISODE_LENGTH = 20
"""Mean length of an episode."""


class Mismatch(RuntimeError):
    """A file does not compute what the agent does."""


@dataclass(frozen=True)
class Agreement:
    """The result of a comparison."""

    steps: int
    rows: int
    """B."""
    error: float
    """Largest difference in actions, parameters and values, relative to their size where that is above 1."""
    state_error: float
    """Largest difference in states."""
    episodes: int
    """Number of episode starts."""


def compare(
    file: ExportedFile,
    agent: ActorCritic,
    steps: int = 100,
    rows: int = 8,
    seed: int = 0,
    carry: bool = False,
) -> Agreement:
    """Compare a file with an agent's `predict` on random observations, over whole episodes.

    Args:
        file: the exported file.
        agent: the agent.
        steps: number of steps.
        rows: B.
        seed: of observations, episode starts and sampled actions.
        carry: let the file carry its own state from step to step. Without it each step starts from the
            agent's state, so that rounding errors do not add up, and states are compared, too.

    Raises:
        Mismatch: they differ by more than rounding; the message says in what.
    """
    comparison = _Comparison(file, agent, rows, seed)
    starts = np.ones(rows, dtype=bool)
    episodes = 0
    for _ in range(steps):
        episodes += int(starts.sum())
        restart = comparison.step(starts, carry)
        starts = (comparison.rng.random(rows) < 1 / EPISODE_LENGTH) | restart
    return Agreement(steps, rows, comparison.errors["output"], comparison.errors["state"], episodes)


class _Comparison:
    """A file and an agent that receive the same observations."""

    def __init__(self, file: ExportedFile, agent: ActorCritic, rows: int, seed: int) -> None:
        self.file, self.agent, self.rows = file, agent, rows
        self.twin = ExportedStep(agent, sample=file.about["sample"])
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator(agent.device).manual_seed(seed)
        self.spaces = copy.deepcopy(agent.observations.leaves)
        for i, (_, space) in enumerate(self.spaces):
            space.seed(seed + i)
        self.state = agent.initial_state(rows)
        self.carried = {
            name: x.numpy() for name, x in self.twin.example(rows).items() if name.startswith("state.")
        }
        self.errors = {"output": 0.0, "state": 0.0}

    def step(self, starts: NDArray[np.bool_], carry: bool) -> NDArray[np.bool_]:
        """Compare a step; return the rows [B] whose actions differ by rounding, so that episodes must end."""
        parts = [_samples(space, self.rows, self.rng) for _, space in self.spaces]
        inputs: Arrays = {
            name: to_plain(space, x) if isinstance(space, AnnotatedText) else x
            for (name, _), (_, space), x in zip(self.twin.inputs.items(), self.spaces, parts, strict=False)
        }
        inputs |= self.carried | {"episode_start": starts}
        if "reward" in self.twin.inputs:
            inputs["reward"] = self.rng.standard_normal(self.rows).astype(np.float32)
        if "action_mask" in self.twin.inputs:
            inputs["action_mask"] = _random_masks(self.agent.action_space, self.rows, self.rng)
        obs = _nested(dict(zip([path for path, _ in self.spaces], parts, strict=True)))
        wanted, parameters = self._of_agent(obs, starts, inputs)
        found = self.file.run(inputs)
        for name in wanted:
            if not _is_action(name) and name != "next_state.action":
                self._require_close(name, found[name], wanted[name], exact=not (carry and _is_state(name)))
        differ = self._compare_actions(found, wanted, parameters, inputs.get("noise"))
        source = found if carry else wanted
        self.carried = {name: source[f"next_{name}"] for name in self.carried}
        return differ

    def _of_agent(self, obs: Any, starts: NDArray[np.bool_], inputs: Arrays) -> tuple[Arrays, Tensor]:
        """Return what the agent computes, and the parameters; add the noise of its sample to the inputs."""
        agent, before = self.agent, self.state
        reward = inputs.get("reward")
        if reward is not None:
            before = before._replace(reward=torch.as_tensor(reward, device=agent.device))
        with torch.no_grad():
            parameters, values = self._networks(obs, starts, before)
            masks = inputs.get("action_mask")
            if masks is not None:
                allowed = torch.as_tensor(masks, device=agent.device)
                parameters = agent.policy.restrict(parameters, allowed)
            if "noise" in self.twin.inputs:
                drawn = torch.Generator(agent.device)
                drawn.set_state(self.generator.get_state())  # `predict` draws the same numbers
                inputs["noise"] = agent.policy.draw_noise(parameters, drawn).cpu().numpy()
        action, self.state = agent.predict(
            obs,
            before,
            starts,
            deterministic=not self.twin.sample,
            generator=self.generator,
            reward=reward,
            action_masks=masks,
        )
        wanted = {f"next_state.{name}": x.cpu().numpy() for name, x in self.twin.carried(self.state).items()}
        wanted |= {"parameters": parameters.cpu().numpy(), "value": values.cpu().numpy()}
        for name, slot in self.twin.outputs.items():
            if _is_action(name):
                part = action
                for key in slot.path or ():
                    part = part[key]
                wanted[name] = np.asarray(part)
        return wanted, parameters.cpu()

    def _networks(self, obs: Any, starts: NDArray[np.bool_], state: AgentState) -> tuple[Tensor, Tensor]:
        """Return the parameters [B, P] and values [B] of the agent's own networks."""
        agent = self.agent
        tensors = as_tensors(agent.observations.read(obs)[0], agent.device)
        output = agent.run_networks(
            map_tree(lambda x: x.unsqueeze(0), tensors),
            state.action.unsqueeze(0),
            state.reward.unsqueeze(0),
            torch.as_tensor(starts, device=agent.device).unsqueeze(0),
            state,
        )
        return output.parameters.squeeze(0), output.values.squeeze(0)

    def _require_close(
        self, name: str, found: NDArray[Any], wanted: NDArray[Any], exact: bool = True
    ) -> None:
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise Mismatch(
                f"{name} is {found.dtype} {list(found.shape)}, expected {wanted.dtype} {list(wanted.shape)}"
            )
        error = float(_error(found, wanted).max(initial=0.0))
        kind = "state" if _is_state(name) else "output"
        self.errors[kind] = max(self.errors[kind], error)
        if exact and not error <= TOLERANCE:
            raise Mismatch(f"{name} differs from the agent's by {error:.2g}, expected at most {TOLERANCE:g}")

    def _compare_actions(
        self, found: Arrays, wanted: Arrays, parameters: Tensor, noise: NDArray[Any] | None
    ) -> NDArray[np.bool_]:
        """Compare the actions; return the rows [B] in which a difference by rounding decides about them."""
        drawn = None if noise is None else torch.as_tensor(noise)
        own = self.twin.choose(torch.as_tensor(found["parameters"]), drawn)
        agents = self.twin.choose(parameters, drawn)
        if "next_state.action" in found:
            self._require_close("next_state.action", found["next_state.action"], own.numpy())
        undecided = np.zeros(self.rows, dtype=bool)
        names = [name for name in self.twin.outputs if _is_action(name)]
        parts = zip(names, self.twin.members(own), self.twin.members(agents), strict=True)
        for name, by_own, by_agents in parts:
            self._require_close(name, found[name], by_own.numpy())
            open_rows = _error(by_own.numpy(), by_agents.numpy()) > TOLERANCE
            wrong = (_error(found[name], wanted[name]) > TOLERANCE) & ~open_rows
            if wrong.any():
                row = int(np.argmax(wrong.reshape(self.rows, -1).any(1)))
                raise Mismatch(f"{name} is {found[name][row]}; the agent chose {wanted[name][row]}")
            undecided |= open_rows.reshape(self.rows, -1).any(1)
        return undecided


def _is_action(name: str) -> bool:
    return name.partition(".")[0] == "action"


def _is_state(name: str) -> bool:
    return name.startswith("next_state.")


def _error(found: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
    """Return how much numbers differ, relative to their size where that is above 1."""
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    return np.where(a == b, 0.0, np.abs(a - b) / np.maximum(1.0, np.abs(b)))


def _samples(space: spaces.Space[Any], rows: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return members [B, ...] of a space; floats without bounds are of the order of 1."""
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind == "f":
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        low_end = np.where(np.abs(low) <= USUAL_SIZE, low, -3.0)
        high_end = np.where(np.abs(high) <= USUAL_SIZE, high, 3.0)
        numbers = rng.uniform(0, 1, (rows, *space.shape)) * (high_end - low_end) + low_end
        return np.clip(numbers, low, high).astype(space.dtype)
    samples = [space.sample() for _ in range(rows)]
    return np.array(samples) if isinstance(space, AnnotatedText) else np.asarray(samples, dtype=space.dtype)


def _random_masks(space: spaces.Space[Any], rows: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return masks [B, P] that allow at least one choice of each component."""
    parts = []
    for size in choice_sizes(space) or ():
        part = rng.random((rows, size)) < 0.5
        part[np.arange(rows), rng.integers(size, size=rows)] = True
        parts.append(part)
    return np.concatenate(parts, axis=1)


def _nested(parts: dict[Path, Any]) -> Any:
    """Return parts of an observation as one, with dictionaries in place of tuples."""
    if () in parts:
        return parts[()]
    tree: dict[str | int, Any] = {}
    for path, value in parts.items():
        branch = tree
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[path[-1]] = value
    return tree
