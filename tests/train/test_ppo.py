"""`python train/ppo.py`, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import envs
from rmc_agents.checkpoint import checkpoints
from rmc_agents.cli import flag_value, run_script, whole_number
from rmc_agents.config import parse_options
from rmc_agents.presets import PRESETS, preset_of
from train import ppo as script

ROOT = Path(__file__).parents[2]
TINY = [
    "--num-envs",
    "8",
    "--num-steps",
    "16",
    "--bptt-length",
    "8",
    "--minibatch-size",
    "64",
    "--epochs",
    "1",
]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ppo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The script, in this process (importing torch anew takes seconds) and an empty folder.

    Returns exit code, output and errors.
    """
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train/ppo.py", *words])
        code = 0
        try:
            run_script(script.main, failures=(envs.EnvironmentFailed,))
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capfd.readouterr()

    return run


def test_the_command_itself(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words, code, text in [
        (["--help"], 0, "Steps that gradients flow back through"),
        ([*TINY, "--total-steps", "2.56e2", "--run-dir", "run"], 0, "trained for 256 steps"),
        (["--core", "lstn"], 2, "error: unknown core 'lstn'"),
    ]:
        began = time.monotonic()
        command = [sys.executable, str(ROOT / "train" / "ppo.py"), *words]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == code, result.stderr
        assert text in result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        assert time.monotonic() - began < 30  # 2 to 4 seconds where nothing else runs


def test_train_then_resume(ppo: Command, tmp_path: Path) -> None:
    code, output, _ = ppo(*TINY, "--run-dir", "run", "--env", "MiniGrid-MemoryS7-v0", "--total-steps", "256")
    assert code == 0
    assert "success" in output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["env"]["id"] == "MiniGrid-MemoryS7-v0"
    assert config["ppo"]["total_steps"] == 256
    code, _, errors = ppo("--resume", "run", "--total-steps", "512")
    assert code == 0, errors
    assert checkpoints(tmp_path / "run")[0].name == "step_000000000512.pt"


@pytest.mark.parametrize(
    ("env", "more"),
    [
        ("CartPole-v1", ["--core", "gru"]),
        ("Pendulum-v1", ["--core", "lstm", "--previous-action"]),
        ("MiniGrid-MemoryS7-v0", ["--vectorization", "sync", "--env-options", "view_size=3"]),
        ("MiniGrid-DoorKey-5x5-v0", ["--critic-memory", "separate"]),
        ("rmc/Recall-v0", ["--core-options", "num_slots=2", "gate_style=memory"]),
        ("MiniGrid-MemoryS7-v0,MiniGrid-MemoryS9-v0", ["--previous-reward"]),
    ],
)
def test_any_environment_trains(env: str, more: list[str], ppo: Command) -> None:
    code, output, errors = ppo(*TINY, "--run-dir", "run", "--env", env, "--total-steps", "256", *more)
    assert code == 0, errors
    assert "trained for 256 steps" in output


def test_single_environments_of_a_preset_train_without_its_curriculum(ppo: Command, tmp_path: Path) -> None:
    words = ["--env", "MiniGrid-MemoryS9-v0", "--vectorization", "sync", "--total-steps", "128"]
    code, _, errors = ppo(*TINY, "--run-dir", "run", *words)
    assert code == 2
    assert "add --train-on None --no-curriculum" in errors
    assert not (tmp_path / "run").exists()
    code, _, errors = ppo(*TINY, "--run-dir", "run", *words, "--train-on", "None", "--no-curriculum")
    assert code == 0, errors


def test_a_curriculum_is_trained_on_and_not_judged_by(ppo: Command, tmp_path: Path) -> None:
    mazes = "MiniGrid-MemoryS7-v0,MiniGrid-MemoryS9-v0"
    words = ["--env", "MiniGrid-MemoryS11-v0", "--train-on", mazes, "--total-steps", "256", "--no-curriculum"]
    code, _, errors = ppo(*TINY, "--run-dir", "run", *words)
    assert code == 0, errors
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["env"]["id"] == "MiniGrid-MemoryS11-v0"
    assert config["env"]["train_on"] == mazes
    assert not config["env"]["curriculum"], "S11's preset asks for one, but this run does not"
    assert ppo("--resume", "run", "--total-steps", "384")[0] == 0
    code, _, errors = ppo("--resume", "run", "--total-steps", "512", "--train-on", "MiniGrid-MemoryS7-v0")
    assert code == 2
    assert "--train-on" in errors


@pytest.mark.parametrize("words", [[], ["--core-options", "hidden_size=7"]], ids=str)
def test_another_core_starts_without_the_presets_core_options(
    words: list[str], ppo: Command, tmp_path: Path
) -> None:
    maze = ["--env", "MiniGrid-MemoryS13-v0", "--core", "gru", "--total-steps", "128"]
    code, _, errors = ppo(*TINY, "--run-dir", "run", *maze, *words)
    assert code == 0, errors
    agent = json.loads((tmp_path / "run" / "config.json").read_text())["agent"]
    assert agent["core_options"] == ({"hidden_size": 7} if words else {})
    code, _, errors = ppo(*TINY, "--run-dir", "rmc", *maze[:2], "--core-options", "num_slots=2", *maze[4:])
    assert code == 0, errors
    agent = json.loads((tmp_path / "rmc" / "config.json").read_text())["agent"]
    preset = preset_of(maze[:2]).core_options
    assert preset
    assert agent["core_options"] == {**preset, "num_slots": 2}


def test_a_ladder_is_climbed_from_where_it_was(ppo: Command, tmp_path: Path) -> None:
    mazes = "MiniGrid-MemoryS5-v0,MiniGrid-MemoryS7-v0"
    words = ["--env", "MiniGrid-MemoryS7-v0", "--train-on", mazes, "--curriculum", "--total-steps", "256"]
    code, _, errors = ppo(*TINY, "--run-dir", "run", *words)
    assert code == 0, errors
    assert ppo("--resume", "run", "--total-steps", "384")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "rollout/frontier" in line][-1] == 384
    code, _, errors = ppo("--resume", "run", "--total-steps", "512", "--no-curriculum")
    assert code == 2
    assert "--curriculum" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "MiniGrid-MemoryS8-v0"], "choose 9"),
        (["--env", "MiniGrid-MemoryS15-v0", "--curriculum"], "at least two"),
        (["--env", "CartPole-v1", "--curriculum"], "cannot"),
        (["--env", "Cartpole-v1"], "Did you mean CartPole-v1"),
        (["--core", "lstn"], "Did you mean 'lstm'"),
        (["--core-options", "slots=3"], "no option 'slots'"),
        (["--env-options", "view=3"], "no option view"),
        (["--device", "warp"], "try --device cpu"),
        (["--num-envs", "5"], "minibatch_size must divide"),
        (["--bptt-length", "48"], "bptt_length must divide"),
        (["--learning-rate", "-1"], "learning_rate must be positive"),
        (["--hint-coef", "-1"], "hint_coef must not be negative"),
        (["--hint-coef", "5"], "MiniGrid-MemoryS9-v0 has no hints"),
        (["--resume", "runs/none"], "not a run folder"),
        (["--total-steps", "1.5"], "whole number"),
        (["--no-such-flag"], "no-such-flag"),
    ],
)
def test_a_mistake_is_one_message_and_code_2_and_leaves_nothing(
    words: list[str], message: str, ppo: Command, tmp_path: Path
) -> None:
    code, _, errors = ppo(*words)
    assert code == 2, errors
    assert message in errors
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_stays_the_run_it_was(ppo: Command, tmp_path: Path) -> None:
    ppo(*TINY, "--run-dir", "run", "--env", "rmc/Recall-v0", "--total-steps", "128")
    before = sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    for words, message in [
        (["--resume", "run", "--num-envs", "16"], "--num-envs was 8, asked for 16"),
        (["--resume", "run", "--gamma", "0.5"], "--gamma was 0.99, asked for 0.5"),
        (["--run-dir", "run"], "already holds a run"),
    ]:
        code, _, errors = ppo(*words)
        assert code == 2
        assert message in errors
    assert sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()) == before


def test_an_environment_that_raises_is_named(
    ppo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_env.py").write_text(
        "import gymnasium as gym, numpy as np\n"
        "class Broken(gym.Env):\n"
        "    observation_space = gym.spaces.Box(-1, 1, (2,))\n"
        "    action_space = gym.spaces.Discrete(2)\n"
        "    steps = 0\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        return np.zeros(2, np.float32), {}\n"
        "    def step(self, action):\n"
        "        self.steps += 1\n"
        "        if self.steps > 40:\n"
        "            raise RuntimeError('the robot fell over')\n"
        "        return np.zeros(2, np.float32), 0.0, False, False, {}\n"
        "gym.register('Broken-v0', Broken)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["--env", "broken_env:Broken-v0", "--run-dir", "run", "--checkpoint-seconds", "0"]
    code, _, errors = ppo(*TINY, *words)
    assert code == 1
    assert "the robot fell over" in errors
    assert "environment 0" in errors
    assert len(checkpoints(tmp_path / "run")) == 2, "what was saved before is still there"


def test_presets_are_whole_minibatches_and_named_by_their_environment() -> None:
    for (env_id, view_size), config in PRESETS.items():
        assert config.env == env_id
        config.ppo.check_num_envs(config.num_envs)
        mazes = envs.make(config.train_on or env_id, config.num_envs, **config.env_options)
        assert env_id in mazes.tasks
        assert mazes.observation_space["image"].shape == (view_size, view_size, 3)
        assert preset_of(["--env", env_id, "--env-options", f"view_size={view_size}"]) == config
    assert preset_of(["--env=MiniGrid-MemoryS13-v0"]).env_options == {"actions": 3}
    assert preset_of(["--env", "CartPole-v1"]).env == "CartPole-v1"


def test_whole_numbers() -> None:
    assert [whole_number(text) for text in ("12", "5e6", "5_000")] == [12, 5_000_000, 5_000]
    with pytest.raises(ValueError, match="whole number"):
        whole_number("2.5")


def test_flag_value() -> None:
    assert flag_value(["--env", "a", "--core=b"], "--core") == "b"
    assert flag_value(["--env", "a"], "--env") == "a"
    assert flag_value(["--env"], "--env") is None


def test_options() -> None:
    words = ["a=3", "b=0.5", "c=True", "d=unit", "e=None"]
    assert parse_options(words) == {"a": 3, "b": 0.5, "c": True, "d": "unit", "e": None}
    with pytest.raises(ValueError, match="KEY=VALUE"):
        parse_options(["a", "3"])
