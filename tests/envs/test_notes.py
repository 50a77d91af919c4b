"""Notes say at once what an agent does not see, and what makes evaluation differ from training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation, NormalizeObservation, NormalizeReward, TransformReward

import rmc_envs
from rmc_agents import ActorCritic, AnnotatedText, PPOConfig, Trainer
from rmc_envs.gymnasium.notes import picture_notes, text_notes
from tests.support.tiny_task import Tiny

MISSION = "does not see it: it cannot know what it is asked to do"


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("MiniGrid-GoToDoor-5x5-v0", {"actions": 3}),
        ("minigrid:MiniGrid-Fetch-5x5-N2-v0", {}),
        ("BabyAI-GoToLocal-v0", {"view_size": 5}),
    ],
)
def test_mission_that_varies_and_is_dropped_is_said_by_make(
    env_id: str, options: dict[str, Any], vectorization: Any
) -> None:
    with pytest.warns(UserWarning, match=MISSION):
        batch = rmc_envs.make(env_id, 1, vectorization=vectorization, mission="drop", **options)
    (note,) = (note for note in batch.notes if "mission" in note)
    assert note.startswith(f"warning: {env_id}: the mission")
    batch.close()


def test_mission_that_varies_is_said_in_evaluation() -> None:
    batch = rmc_envs.trials("MiniGrid-GoToDoor-5x5-v0", "farama", 1, options={"mission": "drop"})
    assert MISSION in batch.notes[-1]


@pytest.mark.parametrize(
    ("env_id", "vectorization"),
    [
        ("MiniGrid-MemoryS9-v0", "auto"),
        ("MiniGrid-MemoryS9-v0", "sync"),
        ("MiniGrid-MemoryS15-v0", "sync"),
        ("MiniGrid-Empty-5x5-v0", "auto"),
        ("BabyAI-GoToRedBallGrey-v0", "auto"),
        ("BabyAI-GoToLocal-v0", "auto"),
        ("MiniGrid-GoToDoor-5x5-v0", "sync"),
        ("CartPole-v1", "auto"),
        ("rmc/Recall-v0", "auto"),
    ],
)
def test_missions_that_are_constant_or_read_need_no_warning(env_id: str, vectorization: Any) -> None:
    notes = rmc_envs.make(env_id, 1, vectorization=vectorization).notes
    assert [note for note in notes if note.startswith("warning")] == []


def test_dropped_texts_are_named() -> None:
    number, text = spaces.Discrete(2), spaces.Text(9)
    assert text_notes(spaces.Dict({"a": number}), "X") == ()
    assert text_notes(spaces.Dict({"a": number, "b": text}), "X") == (
        "warning: X: the agent does not see the text 'b' of the observation, whose words are not known: an "
        "rmc_agents.AnnotatedText as its space names them (for MiniGrid's mission, rmc_envs.read_mission)",
    )
    assert text_notes(spaces.Dict({"a": number, "b": AnnotatedText(["go"], 2)}), "X") == ()
    nested = spaces.Tuple([number, spaces.Dict({"b": text, "c": text})])
    assert "texts '1.b', '1.c'" in text_notes(nested, "X")[0]


class Drifting(gymnasium.Env):
    """Numbers that need scaling."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.float32(self.np_random.normal(100, 10, 2)), {}

    def step(self, action: Any) -> Any:
        return np.float32(self.np_random.normal(100, 10, 2)), 5.0, False, True, {}


class OwnStatistics(Drifting):
    """Statistics in the environment itself, as in the vector environments of other packages."""

    def __init__(self) -> None:
        self.ret_rms = gymnasium.wrappers.utils.RunningMeanStd(shape=())


WRAPPED = {
    "NormalizeObservation": lambda: NormalizeObservation(Drifting()),
    "NormalizeReward": lambda: TransformReward(NormalizeReward(Drifting()), lambda x: x),
    "OwnStatistics": OwnStatistics,
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("vectorization", ["sync", "async", "vector", "trials"])
def test_running_statistics_are_said(name: str, vectorization: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gymnasium.envs.registration.EnvSpec("test/Wrapped-v0", WRAPPED[name])
    monkeypatch.setitem(gymnasium.registry, "test/Wrapped-v0", spec)
    if vectorization == "vector":
        vector = SyncVectorEnv([WRAPPED[name]] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
        batch: rmc_envs.BatchedEnv = rmc_envs.GymnasiumEnvs(vector, name="test/Wrapped-v0")
    elif vectorization == "trials":
        batch = rmc_envs.trials("test/Wrapped-v0", "gymnasium", 2)
    else:
        with pytest.warns(UserWarning, match=f"contains {name}, with running statistics"):
            batch = rmc_envs.make("test/Wrapped-v0", 2, vectorization=vectorization)
    (note,) = (note for note in batch.notes if "statistics" in note)
    assert note.startswith(f"warning: test/Wrapped-v0 contains {name}, ")
    batch.close()


def test_running_statistics_of_vector_wrappers_are_said() -> None:
    vector = SyncVectorEnv([Drifting] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    wrapped = gymnasium.wrappers.vector.NormalizeReward(
        gymnasium.wrappers.vector.NormalizeObservation(vector)
    )
    notes = rmc_envs.GymnasiumEnvs(wrapped, name="X").notes
    assert any("contains NormalizeReward and NormalizeObservation, with running" in note for note in notes)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((210, 160, 3), "160x210"),
        ((3, 128, 128), "128x128"),
        ((4, 100, 120), "100x120"),
        ((2, 480, 640, 3), "480x640"),
        ((96, 96, 3), None),
        ((84, 84), None),
        ((4, 84, 84, 3), None),
        ((20_000,), None),
        ((5000, 8), None),
        ((3, 20_000), None),
    ],
)
def test_large_pictures_are_said(shape: tuple[int, ...], size: str | None) -> None:
    notes = picture_notes(spaces.Dict({"eye": spaces.Box(0, 255, shape, np.uint8)}), "X")
    assert [f"pictures of {size} pixels" in note for note in notes] == ([] if size is None else [True])
    assert all("ResizeObservation" in note and "preprocessing=atari" in note for note in notes)


def test_small_pictures_of_stacked_frames_need_no_note() -> None:
    class Small(Drifting):
        observation_space = spaces.Box(0, 255, (84, 84), np.uint8)

    assert picture_notes(FrameStackObservation(Small(), 4).observation_space, "X") == ()


def train(env: rmc_envs.BatchedEnv, folder: Path, **options: Any) -> list[str]:
    """Train for three iterations; return the messages in the log, but those about the spaces."""
    agent = ActorCritic(env.observation_space, env.action_space, core="feedforward")
    config = PPOConfig(total_steps=3 * 8 * env.num_envs, num_steps=8, bptt_length=8, minibatch_size=16)
    Trainer(agent, env, config, folder, **options).run()
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    notes = [line["note"] for line in lines if "note" in line]
    return [note for note in notes if " read as " not in note and not note.startswith("action")]


def test_training_shows_and_logs_the_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = Tiny(2)
    env.notes = ("something [to] know", "warning: and more")
    assert train(env, tmp_path / "run") == ["something [to] know", "warning: and more"]
    shown = capsys.readouterr().out
    assert shown.count("something [to] know") == shown.count("warning: and more") == 1


@pytest.mark.parametrize("reports", [None, False])
def test_target_without_reports_of_success_is_said_once(
    reports: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reports is None:  # known after the first episode
        spec = gymnasium.envs.registration.EnvSpec("test/Drifting-v0", Drifting)
        monkeypatch.setitem(gymnasium.registry, "test/Drifting-v0", spec)
        env = rmc_envs.make("test/Drifting-v0", 2)
    else:
        env = Tiny(2)
        env.reports_success = False
    messages = train(env, tmp_path / "run", target_success_rate=0.9)
    assert [message for message in messages if "success" in message] == [
        f"warning: {', '.join(env.tasks)} does not report success, so that the target success rate of 0.9 is "
        "never reached: training uses the whole budget"
    ]


def test_target_with_reports_of_success_is_no_warning(tmp_path: Path) -> None:
    env = rmc_envs.make("rmc/Recall-v0", 2, delay=0)
    assert train(env, tmp_path / "run", target_success_rate=1.0) == []
