"""One step of an agent as a function of tensors: what an exported file computes.

Axes: B batch, P parameters of the action distribution.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rmc_agents.agent.actor_critic import ActorCritic, AgentState
from rmc_agents.errors import UsageError
from rmc_agents.export.conversion import ActionPart, ObservationPart
from rmc_agents.spaces.masks import choice_sizes
from rmc_agents.spaces.plain import Path, key_of, plain_leaf
from rmc_agents.spaces.reading import WHOLE, named_parts
from rmc_agents.spaces.text import AnnotatedText
from rmc_agents.tree import Tree, map_tree


class Slot(NamedTuple):
    """An input or output: a tensor [B, *shape]."""

    dtype: str
    """Name in NumPy."""
    shape: tuple[int, ...] = ()
    """Without the batch axis."""
    path: Path | None = None
    """Keys and indices that lead to this part of an observation or action; None for other tensors."""
    words: tuple[str, ...] | None = None
    """Vocabulary of a text, which is given as ids: 0 padding, 1 any other word, 2 + i word i."""

    def to_json(self) -> dict[str, Any]:
        """Describe the slot without what is None."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class ExportedStep(nn.Module):
    """One step of an agent: a dictionary of tensors [B, ...] -> a dictionary of tensors [B, ...].

    | input | meaning |
    |---|---|
    | `obs`, or `obs.KEY` for each part | the observation, in the environment's own space |
    | `episode_start` | bool: this observation is the first of an episode, so the state does not count |
    | `reward` | the reward that came with the observation; only for agents with `previous_reward` |
    | `action_mask` | bool: the allowed choices; only for agents that were trained with action masks |
    | `noise` | random numbers from the distribution `noise`; only if actions are sampled |
    | `state.NAME` | the output `next_state.NAME` of the previous step; zeros before the first one |

    | output | meaning |
    |---|---|
    | `action`, or `action.KEY` for each part | a member of the environment's own action space |
    | `parameters` | [B, P] logits; for a `Box`, means and logarithms of standard deviations |
    | `value` | the expected return |
    | `next_state.NAME` | the state for the next step |

    Args:
        agent: the agent, which is copied.
        sample: draw actions by means of `noise`, instead of taking the most likely ones.

    Raises:
        UsageError: the agent is not in float32, or two parts of the actions have the same name.
    """

    def __init__(self, agent: ActorCritic, sample: bool = False) -> None:
        super().__init__()
        require_float32(agent)
        self.agent = agent = copy.deepcopy(agent).cpu().eval()
        agent.use_observation_table(None)
        self.sample = sample
        self.inputs: dict[str, Slot] = {}
        self.outputs: dict[str, Slot] = {}
        self.parts = nn.ModuleList()
        plain = named_parts(agent.observation_space)
        for path, space in agent.observations.leaves:
            self.inputs[_name("obs", path)] = _observation_slot(space, path)
            self.parts.append(ObservationPart(space, plain[key_of(path) if path else WHOLE]))
        self.inputs["episode_start"] = Slot("bool")
        if agent.config.previous_reward:
            self.inputs["reward"] = Slot("float32")
        if agent.config.action_masks == "use":
            self.inputs["action_mask"] = Slot("bool", (sum(choice_sizes(agent.action_space) or []),))
        if sample:
            numbers = torch.zeros(1, parameter_size(agent))
            self.inputs["noise"] = Slot("float32", tuple(agent.policy.draw_noise(numbers).shape[1:]))
        self.action_parts = nn.ModuleList()
        for path, space in agent.actions.leaves:
            name = _name("action", path)
            if name in self.outputs:
                raise UsageError(
                    f"two parts of the actions in {agent.actions.space} have the same name, {name}"
                )
            self.outputs[name] = Slot(_dtype(space), space.shape or (), path)
            self.action_parts.append(ActionPart(space))
        self.outputs |= {"parameters": Slot("float32", (parameter_size(agent),)), "value": Slot("float32")}
        for name, x in self.carried(agent.initial_state(1)).items():
            slot = Slot(str(x.dtype).removeprefix("torch."), tuple(x.shape[1:]))
            self.inputs[f"state.{name}"] = self.outputs[f"next_state.{name}"] = slot

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute a step."""
        agent, starts = self.agent, inputs["episode_start"]
        state = self._state(inputs)
        obs = map_tree(lambda x: x.unsqueeze(0), self._observation(inputs))
        output = agent.run_networks(
            obs, state.action.unsqueeze(0), state.reward.unsqueeze(0), starts.unsqueeze(0), state
        )
        parameters = output.parameters.squeeze(0)
        if "action_mask" in inputs:
            parameters = agent.policy.restrict(parameters, inputs["action_mask"])
        chosen = self.choose(parameters, inputs.get("noise"))
        after = self.carried(output.state._replace(action=chosen))
        results = (*self.members(chosen), parameters, output.values.squeeze(0), *after.values())
        return dict(zip(self.outputs, results, strict=True))

    def choose(self, parameters: Tensor, noise: Tensor | None) -> Tensor:
        """Return plain actions: those that the noise determines, or the most likely ones without noise."""
        policy = self.agent.policy
        return policy.mode(parameters) if noise is None else policy.pick(parameters, noise)

    def carried(self, state: AgentState) -> dict[str, Tensor]:
        """Return the tensors of a state that the next step depends on, by name."""
        read = {"reward": False, "action": self.agent.config.keeps_action}
        leaves = {name: x for name, x in _named_leaves(state) if read.get(name, True)}
        return {name: x for name, x in leaves.items() if x.shape[1:].numel()}

    def example(self, batch_size: int) -> dict[str, Tensor]:
        """Return inputs of zeros at the start of an episode, in which every action is allowed."""
        zeros = {
            name: torch.zeros(batch_size, *slot.shape, dtype=getattr(torch, slot.dtype))
            for name, slot in self.inputs.items()
        }
        zeros |= {name: torch.ones_like(x) for name, x in zeros.items() if name == "action_mask"}
        return zeros | {"episode_start": torch.ones(batch_size, dtype=torch.bool)}

    def _observation(self, inputs: dict[str, Tensor]) -> Tree:
        """Return the observation in the agent's plain space."""
        leaves = self.agent.observations.leaves
        values = {
            key_of(path): part(inputs[_name("obs", path)])
            for (path, _), part in zip(leaves, self.parts, strict=True)
        }
        return values if self.agent.observations.structured else values[""]

    def _state(self, inputs: dict[str, Tensor]) -> AgentState:
        """Return the agent's state, with what is not carried as in a fresh one."""
        fresh = self.agent.initial_state(inputs["episode_start"].shape[0])
        names = iter([name for name, _ in _named_leaves(fresh)])

        def given(x: Tensor) -> Tensor:
            return inputs.get(f"state.{next(names)}", x)

        state: AgentState = map_tree(given, fresh)
        return state._replace(reward=inputs.get("reward", state.reward))

    def members(self, chosen: Tensor) -> Iterator[Tensor]:
        """Yield the parts of plain actions [B, ...] as members of their own spaces, clipped."""
        sizes: list[int] = [part.size for part in self.action_parts]  # type: ignore[misc]
        columns = chosen.reshape(-1, sum(sizes)).split(sizes, dim=1)
        for part, numbers in zip(self.action_parts, columns, strict=True):
            yield part(numbers)


def require_float32(agent: ActorCritic) -> None:
    """Raise UsageError if an agent was converted to another precision."""
    others = {str(p.dtype).removeprefix("torch.") for p in agent.parameters()} - {"float32"}
    if others:
        raise UsageError(
            f"the agent is in {', '.join(sorted(others))}, expected float32: convert it with agent.float()"
        )


def parameter_size(agent: ActorCritic) -> int:
    """Return P, the number of parameters of an agent's action distribution."""
    with torch.no_grad():
        hidden = torch.zeros(1, agent.config.hidden_size, device=agent.device)
        return agent.policy(hidden).shape[-1]


def _name(kind: str, path: Path) -> str:
    return f"{kind}.{key_of(path)}" if path else kind


def _observation_slot(space: spaces.Space[Any], path: Path) -> Slot:
    if not isinstance(space, AnnotatedText):
        return Slot(_dtype(space), space.shape or (), path)
    ids = plain_leaf(space)
    return Slot(_dtype(ids), ids.shape or (), path, tuple(space.words))


def _dtype(space: spaces.Space[Any]) -> str:
    return np.dtype(space.dtype).name  # type: ignore[arg-type]


def _named_leaves(tree: Tree, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a tree in the order of `leaves`, with names such as "critic_memory.h"."""
    if isinstance(tree, Tensor):
        yield name, tree
    elif tree is not None:
        if isinstance(tree, dict):
            branches = tree.items()
        else:
            branches = zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True)
        for key, branch in branches:
            yield from _named_leaves(branch, f"{name}.{key}" if name else str(key))
