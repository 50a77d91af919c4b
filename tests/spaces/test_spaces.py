"""Every space of the catalogue through everything that touches a space.

Adapter, agent, training, resume, predict, evaluation and SB3 read it in the same way, or all refuse it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rmc_envs
from rmc_agents import ActorCritic, PPOConfig, Trainer, describe, evaluate, load
from rmc_agents.agent.encoders import Encoder
from rmc_agents.sb3 import BatchedVecEnv, RMCPolicy
from rmc_agents.spaces import Actions, Observations, space_from_json, space_to_json
from rmc_agents.tree import leaves
from tests.support.catalogue import ACTIONS, OBSERVATIONS, REFUSED_ACTIONS, REFUSED_OBSERVATIONS

PAIRS = [(name, "discrete") for name in OBSERVATIONS] + [("vector", name) for name in ACTIONS]
pytestmark = pytest.mark.filterwarnings("ignore:.*does not see the text")
every_observation = pytest.mark.parametrize("space", OBSERVATIONS.values(), ids=OBSERVATIONS)
every_pair = pytest.mark.parametrize(("observation", "action"), PAIRS, ids=["-".join(pair) for pair in PAIRS])


def make(observation: str, action: str, num_envs: int = 2) -> rmc_envs.GymnasiumEnvs:
    return rmc_envs.make("catalogue/Spaced-v0", num_envs, observation=observation, action=action)  # type: ignore[return-value]


def trainer(env: Any, folder: Path) -> Trainer:
    torch.manual_seed(0)
    agent = ActorCritic(
        env.observation_space,
        env.action_space,
        "gru",
        {"hidden_size": 4},
        features=8,
        hidden_size=8,
        previous_action=True,
        previous_reward=True,
    )
    return Trainer(
        agent, env, PPOConfig(total_steps=16, num_steps=4, bptt_length=4, minibatch_size=8, epochs=1), folder
    )


def test_catalogue_is_large() -> None:
    assert len(OBSERVATIONS) >= 60
    assert len(ACTIONS) >= 20


@every_observation
def test_observations_that_differ_have_features_that_differ(space: spaces.Space) -> None:
    """Features are neither 0, nor equal, nor of another order of magnitude than 1."""
    space.seed(1)
    observations = Observations(space)
    rows = [observations.read(space.sample())[0] for _ in range(32)]
    batch: Any = (
        {key: torch.as_tensor(np.concatenate([row[key] for row in rows])) for key in rows[0]}
        if isinstance(rows[0], dict)
        else torch.as_tensor(np.concatenate(rows))
    )
    torch.manual_seed(0)
    features = Encoder(observations.plain, 32)(batch).detach()
    assert features.isfinite().all()
    if len({x.numpy().tobytes() for x in next(iter(leaves(batch)))}) > 1 or isinstance(batch, dict):
        assert 0.02 < float(features.std(dim=0).mean()) < 5
    distinct = {tuple(x.numpy().tobytes() for x in leaves(_row(batch, i))) for i in range(32)}
    assert len({x.numpy().tobytes() for x in features}) == len(distinct)


def _row(batch: Any, i: int) -> Any:
    return {key: x[i] for key, x in batch.items()} if isinstance(batch, dict) else batch[i]


@every_observation
def test_spaces_survive_json(space: spaces.Space) -> None:
    for each in (space, Observations(space).plain):
        again = space_from_json(json.loads(json.dumps(space_to_json(each))))
        assert Observations(again).plain == Observations(each).plain
        assert again == each or "Text" in str(each)
        if isinstance(each, spaces.Dict):
            assert isinstance(again, spaces.Dict)
            assert list(again.spaces) == list(each.spaces), "encoders depend on the order"


@every_pair
def test_descriptions_name_every_part(observation: str, action: str) -> None:
    text = describe(OBSERVATIONS[observation], ACTIONS[action])
    own = Observations(OBSERVATIONS[observation])
    assert len(text.splitlines()) == len(own.leaves) + len(own.texts) + 1
    assert all("read as" in line or "text, not read" in line for line in text.splitlines()[:-1])


@every_pair
def test_predict_sees_and_does_what_training_does(observation: str, action: str) -> None:
    """The members that one environment hands out become the rows of the batch, and back."""
    batch = make(observation, action)
    agent = ActorCritic(batch.observation_space, batch.action_space, "gru", {"hidden_size": 4}, features=8)
    agent.use_spaces(*batch.own_spaces)
    single = gymnasium.make("catalogue/Spaced-v0", observation=observation, action=action)
    tensors = batch.reset(seed=5)
    starts = torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        acted = agent.act(tensors, starts, agent.initial_state(2), deterministic=True)[0]
    for i in range(2):
        obs, _ = single.reset(seed=5 + i)
        arrays, alone = agent.observations.read(obs)
        assert alone
        for x, y in zip(leaves(_tensors(arrays)), leaves(tensors), strict=True):
            assert torch.equal(x[0], y[i])
        member, state = agent.predict(obs)
        assert single.action_space.contains(member)
        expected = agent.actions.member(agent.actions.batch(acted.numpy()), i)
        _assert_equal_members(member, expected)
        for _ in range(2):
            obs, reward, *_ = single.step(member)
            member, state = agent.predict(obs, state, reward=reward)
    batch.close()


def _tensors(arrays: Any) -> Any:
    return (
        {k: torch.as_tensor(v) for k, v in arrays.items()}
        if isinstance(arrays, dict)
        else torch.as_tensor(arrays)
    )


def _assert_equal_members(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = tuple(one.values()), tuple(other.values())
    if isinstance(one, tuple):
        for x, y in zip(one, other, strict=True):
            _assert_equal_members(x, y)
    else:
        np.testing.assert_allclose(one, other, rtol=1e-5)


@every_pair
def test_every_pair_trains_resumes_loads_and_is_evaluated(
    observation: str, action: str, tmp_path: Path
) -> None:
    first = trainer(make(observation, action), tmp_path)
    first.iterate()
    first.save()
    again = trainer(make(observation, action), tmp_path)
    again.restore()
    assert again.steps == 8
    again.run()
    agent = load(tmp_path)
    assert agent.to_json() == again.agent.to_json()
    assert agent.observations.space == first.env.own_spaces[0] or "Text" in str(first.env.own_spaces[0])  # type: ignore[index]
    assert evaluate(agent, make(observation, action), 3).mean_length == 3
    env = gymnasium.make("catalogue/Spaced-v0", observation=observation, action=action)
    obs, _ = env.reset(seed=0)
    chosen, state = agent.predict(obs, episode_start=True)
    obs, reward, *_ = env.step(chosen)
    assert env.action_space.contains(agent.predict(obs, state, reward=reward)[0])


@every_pair
def test_every_pair_trains_in_sb3(observation: str, action: str) -> None:
    from sb3_contrib import RecurrentPPO

    kwargs = {"core": "gru", "hidden_size": 4, "features_extractor_kwargs": {"features_dim": 8}}
    if action == "box unbounded":
        with pytest.raises(AssertionError, match="finite lower and upper bound"):
            RecurrentPPO(RMCPolicy, BatchedVecEnv(make(observation, action)), policy_kwargs=kwargs)
        return
    model = RecurrentPPO(
        RMCPolicy,
        BatchedVecEnv(make(observation, action), seed=0),
        n_steps=4,
        batch_size=8,
        n_epochs=1,
        device="cpu",
        policy_kwargs=kwargs,
    ).learn(8)
    assert all(p.isfinite().all() for p in model.policy.parameters())
    assert model.env is not None
    chosen, _ = model.predict(model.env.reset())
    model.env.step(chosen)


@pytest.mark.parametrize("name", REFUSED_OBSERVATIONS)
def test_observations_that_cannot_be_read_are_refused(name: str) -> None:
    space = REFUSED_OBSERVATIONS[name]
    for build in (
        lambda: trainer(make(name, "discrete"), Path("never")),
        lambda: ActorCritic(space, spaces.Discrete(2)),
        lambda: describe(space),
    ):
        with pytest.raises(ValueError, match=r"wrap|Box|name|no number") as caught:
            build()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", REFUSED_ACTIONS)
def test_actions_that_cannot_be_chosen_are_refused(name: str) -> None:
    space = REFUSED_ACTIONS[name]
    for build in (lambda: make("vector", name), lambda: ActorCritic(OBSERVATIONS["vector"], space)):
        with pytest.raises(ValueError, match="wrap"):
            build()


def test_a_guess_is_shown_and_certain_readings_are_only_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer(make("grid of bytes", "box far away"), tmp_path / "a").run()
    shown = " ".join(capsys.readouterr().out.split())
    assert "small grid of unknown meaning" in shown
    assert "RescaleAction" in shown
    plain = trainer(make("vector", "discrete"), tmp_path / "b")
    plain.run()
    log = [json.loads(line).get("note") for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert log[:2] == plain.agent.describe().splitlines()
    assert "read as" not in capsys.readouterr().out


def test_batches_of_members_are_read_as_batches() -> None:
    for space in OBSERVATIONS.values():
        observations = Observations(space)
        if any(math.prod(part.shape or ()) > 1000 for _, part in observations.leaves):
            continue
        vector = gymnasium.vector.utils.batch_space(space, 3)
        vector.seed(0)
        arrays, single = observations.read(vector.sample())
        assert not single
        assert all(len(x) == 3 for x in leaves(_tensors(arrays)))


def test_actions_come_back_in_their_own_types() -> None:
    for space in ACTIONS.values():
        actions = Actions(space)
        actions.plain.seed(0)
        batch = actions.batch(np.stack([actions.plain.sample() for _ in range(4)]))
        assert gymnasium.vector.utils.batch_space(space, 4).contains(batch) or "float64" in str(space)
        assert all(space.contains(actions.member(batch, i)) for i in range(4))
