"""Every id of MiniGrid and BabyAI: which missions are read, and that agents observe, learn and predict."""

from __future__ import annotations

import gymnasium
import minigrid  # noqa: F401 - registers its ids
import pytest
import torch

import rmc_envs
from rmc_agents import ActorCritic, AnnotatedText, PPOConfig, Trainer
from rmc_agents.spaces.plain import vocabularies

IDS = sorted(name for name in gymnasium.registry if name.startswith(("MiniGrid-", "BabyAI-")))
INCOMPLETE = [name for name in IDS if name.startswith("MiniGrid-WFC-")]
"""Ids whose pictures of patterns are in no file of MiniGrid 3.2.0, so that their `reset` raises."""
CONSTANT = (
    "MiniGrid-Empty-5x5-v0",
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-MemoryS7-v0",
    "MiniGrid-ObstructedMaze-1Dl-v0",  # a placeholder with one value
    "MiniGrid-Playground-v0",  # no mission
    "BabyAI-GoToRedBallGrey-v0",
    "BabyAI-UnlockLocal-v0",
)
CHANGING = {
    "MiniGrid-GoToDoor-5x5-v0": 5,
    "MiniGrid-Fetch-5x5-N2-v0": 6,
    "MiniGrid-LockedRoom-v0": 17,
    "MiniGrid-PutNear-6x6-N2-v0": 8,
    "BabyAI-GoToObj-v0": 72,
    "BabyAI-GoToRedBall-v0": 72,  # "a red ball" or "the red ball"
    "BabyAI-BossLevel-v0": 72,
}
"""Longest mission by id."""
TRAINED = (
    "MiniGrid-GoToDoor-5x5-v0",
    "MiniGrid-PutNear-6x6-N2-v0",
    "BabyAI-GoToObjS4-v0",
    "BabyAI-SynthS5R2-v0",
)
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*The system font:UserWarning"),
]


@pytest.mark.parametrize("env_id", CONSTANT)
def test_constant_missions_are_left_out(env_id: str) -> None:
    batch = rmc_envs.make(env_id, 2, vectorization="sync")
    assert set(batch.observation_space.spaces) == {"image", "direction"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("env_id", CHANGING)
def test_changing_missions_are_read(env_id: str) -> None:
    batch = rmc_envs.make(env_id, 2)
    assert batch.reset(seed=0)["mission"].shape == (2, CHANGING[env_id])  # type: ignore[call-overload, index]
    assert batch.notes == ()
    batch.close()


@pytest.mark.parametrize("vectorization", ["sync", "async", "trials"])
def test_agents_read_what_the_environment_asks_for(vectorization: str) -> None:
    env_id, seeds = "MiniGrid-GoToDoor-5x5-v0", range(7, 10)
    batch = (
        rmc_envs.trials(env_id, "farama", 3)
        if vectorization == "trials"
        else rmc_envs.make(env_id, 3, vectorization=vectorization)  # type: ignore[arg-type]
    )
    missions = batch.reset(seed=7)["mission"]  # type: ignore[call-overload, index]
    assert batch.own_spaces is not None
    words = vocabularies(batch.own_spaces[0])["mission"]
    single = gymnasium.make(env_id)
    expected = [words.ids(single.reset(seed=seed)[0]["mission"]).tolist() for seed in seeds]
    assert missions.tolist() == expected
    assert len({tuple(mission) for mission in expected}) > 1
    step = batch.step(torch.full((3,), 6))  # the episodes end
    assert step.done.all()
    assert step.final_obs["mission"].tolist() == expected  # type: ignore[call-overload, index]
    if vectorization != "trials":
        assert step.obs["mission"].tolist() != expected  # type: ignore[call-overload, index]
    batch.close()


def test_missions_are_dropped_and_read_on_request() -> None:
    with pytest.warns(UserWarning, match="does not see it"):
        dropped = rmc_envs.make("MiniGrid-GoToDoor-5x5-v0", 1, mission="drop")
    assert "mission" not in dropped.observation_space.spaces  # type: ignore[attr-defined]
    for env_id in ("MiniGrid-Empty-5x5-v0", "BabyAI-GoToRedBallGrey-v0", "MiniGrid-MemoryS7-v0"):
        batch = rmc_envs.make(env_id, 1, mission="read", vectorization="sync")
        assert "mission" in batch.observation_space.spaces  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("MiniGrid-Empty-5x5-v0", {"mission": "say"}, "with mission='say': expected one of auto, read, drop"),
        ("MiniGrid-MemoryS7-v0", {"mission": "read"}, "MiniGrid-MemoryS7-v0 has no option mission"),
        ("CartPole-v1", {"mission": "read"}, "CartPole-v1 has no option mission"),
        ("MiniGrid-Playground-v0", {"mission": "read"}, "without words"),
        ("BabyAI-GoToObj-v0", {"color": "red"}, "cannot be built with color='red'"),
    ],
)
def test_invalid_missions_are_refused(env_id: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rmc_envs.make(env_id, **options)


@pytest.mark.parametrize("more", [{}, {"size": 6}])
@pytest.mark.parametrize("implementation", ["batched", "reference"])
def test_refused_option_is_named_once(implementation: str, more: dict) -> None:
    options = {**more, "mission": "say"}

    def build() -> object:
        if implementation == "reference":
            return rmc_envs.make_reference("MiniGrid-Empty-5x5-v0", **options)()
        return rmc_envs.make("MiniGrid-Empty-5x5-v0", **options)

    with pytest.raises(ValueError, match="cannot be built with mission='say': expected one of") as error:
        build()
    assert str(error.value).count("say") == 1


def test_own_environments_can_let_their_missions_be_read() -> None:
    plain = gymnasium.make("BabyAI-GoToObj-v0")
    env = rmc_envs.read_mission(plain)
    obs, _ = env.reset(seed=0)
    assert isinstance(obs["mission"], str)
    assert isinstance(env.observation_space["mission"], AnnotatedText)  # type: ignore[index]
    with pytest.raises(ValueError, match="no mission"):
        rmc_envs.read_mission(gymnasium.make("CartPole-v1"))


class Wordy(gymnasium.Env):
    """An environment whose texts have words that its space does not name."""

    observation_space = gymnasium.spaces.Dict(order=AnnotatedText(["go"], 2))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[dict, dict]:
        return {"order": "go"}, {}

    def step(self, action: int) -> tuple[dict, float, bool, bool, dict]:
        return {"order": "go" if action == 0 else "halt and go"}, 0.0, False, False, {}


def test_unknown_words_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gymnasium.envs.registration.EnvSpec("test/Wordy-v0", Wordy, disable_env_checker=True)
    monkeypatch.setitem(gymnasium.registry, "test/Wordy-v0", spec)
    batch = rmc_envs.make("test/Wordy-v0", 2)
    batch.reset(seed=0)
    batch.step(torch.tensor([0, 0]))
    assert batch.warnings() == []
    batch.step(torch.tensor([0, 1]))
    assert batch.warnings() == [
        "warning: test/Wordy-v0 returned 'halt and go' as observation order, of which the agent does not "
        "know 'halt', 'and', 'go': it reads 1 words, and at most 2 in a text"
    ]
    batch.step(torch.tensor([1, 1]))
    assert batch.warnings() == []


def test_text_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wordy, "step", lambda self, action: ({"order": 3}, 0.0, False, False, {}))
    spec = gymnasium.envs.registration.EnvSpec("test/Wordy-v0", Wordy, disable_env_checker=True)
    monkeypatch.setitem(gymnasium.registry, "test/Wordy-v0", spec)
    batch = rmc_envs.make("test/Wordy-v0", 2)
    batch.reset(seed=0)
    with pytest.raises(rmc_envs.EnvironmentFailed, match="type int, expected a string"):
        batch.step(torch.tensor([0, 0]))


def train_a_little(env_id: str, folder: object) -> None:
    """Make an id, describe and predict, and take gradient steps from a short rollout."""
    batch = rmc_envs.make(env_id, 2)
    agent = ActorCritic(batch.observation_space, batch.action_space, "gru", {"hidden_size": 8}, features=16)
    config = PPOConfig(total_steps=16, num_steps=8, bptt_length=8, minibatch_size=16, epochs=1)
    trainer = Trainer(agent, batch, config, folder)  # type: ignore[arg-type]
    trainer.iterate()
    assert all(p.isfinite().all() for p in agent.parameters())
    assert batch.warnings() == [], "words that the agent does not know"
    read = "mission" in batch.observation_space.spaces  # type: ignore[attr-defined]
    assert read == ("read as words" in agent.describe())
    single = gymnasium.make(env_id)
    obs, _ = single.reset(seed=3)
    action, state = agent.predict(obs)
    obs, *_ = single.step(action)
    assert single.action_space.contains(agent.predict(obs, state)[0])
    batch.close()


@pytest.mark.parametrize("env_id", TRAINED)
def test_ids_with_missions_train(env_id: str, tmp_path: object) -> None:
    train_a_little(env_id, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [name for name in IDS if name not in INCOMPLETE])
def test_every_id_trains(env_id: str, tmp_path: object) -> None:
    train_a_little(env_id, tmp_path)


@pytest.mark.parametrize("env_id", INCOMPLETE)
def test_incomplete_ids_fail_in_minigrid_itself(env_id: str) -> None:
    """When this fails, MiniGrid holds the pictures, and `INCOMPLETE` can be deleted."""
    with pytest.raises((FileNotFoundError, gymnasium.error.DependencyNotInstalled)):
        gymnasium.make(env_id).reset(seed=0)


@pytest.mark.parametrize("env_id", [env_id for env_id in IDS if env_id.startswith("BabyAI-")][::6])
def test_missions_of_babyai_have_known_words(env_id: str) -> None:
    env = rmc_envs.read_mission(gymnasium.make(env_id))
    words = env.observation_space["mission"]  # type: ignore[index]
    for seed in range(20):
        assert words.unread_in(env.reset(seed=seed)[0]["mission"]) == []
