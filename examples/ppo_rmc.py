"""Recurrent PPO with a Relational Memory Core, in one file: `python examples/ppo_rmc.py`.

Read it from top to bottom. It trains on Recall (see a symbol, wait eight steps, name it), where no agent
without memory is right more than one time in four, and takes about a minute on one CPU core. It uses two
things of this project: the memory core and the batched environment. The package's own trainer adds
checkpoints, logs, curricula and other spaces: see `rmc_agents/rl/`.

Axes: T steps of a rollout, B environments, L steps of a chunk, C chunks.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import rmc_envs
from rmc_agents.cores import RMC
from rmc_agents.cores.rmc import RMCState

# --- Settings ---------------------------------------------------------------------------------------------

NUM_ENVS, NUM_STEPS, CHUNK_LENGTH = 32, 80, 20  # B, T, L
EPOCHS, CHUNKS_PER_MINIBATCH = 4, 32
LEARNING_RATE, GAMMA, GAE_LAMBDA, CLIP_RANGE = 1e-3, 0.99, 0.95, 0.2
ENTROPY_COEF, VALUE_COEF, MAX_GRAD_NORM = 0.01, 0.5, 0.5


# --- The agent: encoder -> memory -> policy and value -----------------------------------------------------


class Agent(nn.Module):
    """An actor-critic whose memory is an RMC."""

    def __init__(self, num_inputs: int, num_actions: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(num_inputs, 64), nn.ReLU())
        self.memory = RMC(64, num_slots=4, num_heads=4, head_size=8)
        self.policy = nn.Linear(self.memory.output_size + 64, num_actions)
        self.value = nn.Linear(self.memory.output_size + 64, 1)

    def forward(self, obs: Tensor, state: RMCState, starts: Tensor) -> tuple[Categorical, Tensor, RMCState]:
        """Read observations [T, B, D]; where `starts` [T, B] is true the memory is reset first.

        Returns:
            the policy [T, B], values [T, B], and the state after the last step.
        """
        x = self.encoder(obs)
        remembered, state = self.memory.unroll(x, state, starts)
        features = torch.cat([remembered, x], dim=-1)  # the heads see the present besides the memory
        return Categorical(logits=self.policy(features)), self.value(features).squeeze(-1), state


# --- Collecting a rollout ---------------------------------------------------------------------------------


class Rollout(NamedTuple):
    """T steps of B environments; every tensor is [T, B, ...]."""

    obs: Tensor
    starts: Tensor  # an episode starts with this observation
    memory: Tensor  # the memory before it reads the observation
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    rewards: Tensor
    dones: Tensor
    success: Tensor


@torch.no_grad()
def collect(
    agent: Agent, env: rmc_envs.BatchedEnv, obs: Tensor, starts: Tensor, state: RMCState
) -> tuple[Rollout, Tensor, Tensor, RMCState]:
    """Act for T steps; return the rollout, and where it stopped."""
    steps = []
    for _ in range(NUM_STEPS):
        policy, value, next_state = agent(obs[None], state, starts[None])
        action = policy.sample()[0]
        step = env.step(action)
        assert isinstance(step.obs, Tensor)
        assert step.success is not None
        numbers = policy.log_prob(action[None])[0], value[0], step.reward, step.done, step.success
        steps.append((obs, starts, state.memory, action, *numbers))
        obs, starts, state = step.obs, step.done, next_state
    return Rollout(*map(torch.stack, zip(*steps, strict=True))), obs, starts, state


def advantages(rollout: Rollout, last_value: Tensor) -> Tensor:
    """Generalised advantage estimation: A_t = delta_t + gamma lambda (1 - done_t) A_{t+1}."""
    following, advantage, found = last_value, torch.zeros(NUM_ENVS), []
    for t in reversed(range(NUM_STEPS)):
        keep = (~rollout.dones[t]).float()  # Recall terminates, so no value is bootstrapped
        delta = rollout.rewards[t] + GAMMA * keep * following - rollout.values[t]
        advantage = delta + GAMMA * GAE_LAMBDA * keep * advantage
        following = rollout.values[t]
        found.append(advantage)
    return torch.stack(found[::-1])


# --- Learning from it -------------------------------------------------------------------------------------


def split(x: Tensor) -> Tensor:
    """[T, B, ...] -> [L, C, ...]: chunks of L steps, C = T / L * B of them."""
    return x.unflatten(0, (-1, CHUNK_LENGTH)).transpose(0, 1).flatten(1, 2)


def learn(agent: Agent, optimizer: torch.optim.Optimizer, rollout: Rollout, advantage: Tensor) -> None:
    """PPO's clipped update, on minibatches of whole chunks.

    Each chunk starts with the memory that was stored when it was collected, and gradients flow back through
    its L steps: truncated backpropagation through time, without padding or masks.
    """
    chunks = Rollout(*map(split, rollout))
    advantage, returns = split(advantage), split(advantage + rollout.values)
    first_memory = chunks.memory[0]  # [C, slots, slot size]
    for _ in range(EPOCHS):
        for index in torch.randperm(len(first_memory)).split(CHUNKS_PER_MINIBATCH):
            obs, starts, _, actions, old_log_probs, *_ = (x[:, index] for x in chunks)
            policy, values, _ = agent(obs, RMCState(first_memory[index]), starts)
            a = advantage[:, index]
            a = (a - a.mean()) / (a.std() + 1e-8)
            ratio = (policy.log_prob(actions) - old_log_probs).exp()
            clipped = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
            policy_loss = -torch.minimum(ratio * a, clipped * a).mean()
            value_loss = (values - returns[:, index]).square().mean()
            loss = policy_loss + VALUE_COEF * value_loss - ENTROPY_COEF * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), MAX_GRAD_NORM)
            optimizer.step()


# --- The loop ---------------------------------------------------------------------------------------------


def main(total_steps: int = 400_000, seed: int = 0) -> float:
    """Train; return the share of right answers in the last rollout."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # the fastest at these sizes
    env = rmc_envs.make("rmc/Recall-v0", NUM_ENVS)
    agent = Agent(num_inputs=5, num_actions=4)
    optimizer = torch.optim.Adam(agent.parameters(), lr=LEARNING_RATE)
    obs, starts = env.reset(seed), torch.ones(NUM_ENVS, dtype=torch.bool)
    assert isinstance(obs, Tensor)
    state, right = agent.memory.initial_state(NUM_ENVS), 0.0
    for steps in range(0, total_steps, NUM_STEPS * NUM_ENVS):
        rollout, obs, starts, state = collect(agent, env, obs, starts, state)
        right = (rollout.success.sum() / rollout.dones.sum()).item()
        print(f"{steps + NUM_STEPS * NUM_ENVS:8,} steps  right answers {right:.2f}", flush=True)
        if right > 0.99:
            break
        with torch.no_grad():
            last_value = agent(obs[None], state, starts[None])[1][0]
        learn(agent, optimizer, rollout, advantages(rollout, last_value))
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--total-steps", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
