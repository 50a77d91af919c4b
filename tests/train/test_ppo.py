"""`python train/ppo.py`, as a user types it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import rmc_envs
from rmc_agents.cli.config import RunConfig, Selection
from rmc_agents.cli.flags import parse
from rmc_agents.cli.presets import find_preset
from rmc_agents.runs.folder import checkpoints
from tests.support.commands import Command, in_process, run_script
from tests.support.trainers import QUICK, ppo_trainer
from train import ppo as script

TINY = [
    *("--num-envs", "8", "--num-steps", "16", "--bptt-length", "8", "--minibatch-size", "64"),
    *("--epochs", "1"),
]


@pytest.fixture
def ppo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The script, in this process and an empty folder."""
    monkeypatch.chdir(tmp_path)
    return in_process("ppo", monkeypatch, capfd)


def test_command_trains_prints_help_and_reports_mistakes(tmp_path: Path) -> None:
    for words, code, text in [
        (["--help"], 0, "Steps that gradients flow back through"),
        ([*TINY, "--total-steps", "2.56e2", "--run-dir", "run"], 0, "trained for 256 steps"),
        (["--core", "lstn"], 2, "error: unknown core 'lstn'"),
    ]:
        began = time.monotonic()
        result = run_script("ppo", *words, cwd=tmp_path)
        assert result.code == code, result.errors
        assert text in result.out + result.errors
        assert "Traceback" not in result.errors
        assert time.monotonic() - began < 30  # 2 to 4 seconds on an idle machine


def test_trained_run_resumes(ppo: Command, tmp_path: Path) -> None:
    code, output, _ = ppo(*TINY, "--run-dir", "run", "--env", "MiniGrid-MemoryS7-v0", "--total-steps", "256")
    assert code == 0
    assert "success" in output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["environment"]["env"] == "MiniGrid-MemoryS7-v0"
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


def test_single_environments_train_without_the_curriculum_of_a_preset(ppo: Command, tmp_path: Path) -> None:
    words = ["--env", "MiniGrid-MemoryS9-v0", "--vectorization", "sync", "--total-steps", "128"]
    code, _, errors = ppo(*TINY, "--run-dir", "run", *words)
    assert code == 2
    assert "add --no-preset, or --train-on None --no-curriculum" in errors
    assert not (tmp_path / "run").exists()
    code, _, errors = ppo(*TINY, "--run-dir", "run", *words, "--train-on", "None", "--no-curriculum")
    assert code == 0, errors
    code, _, errors = ppo(*TINY, "--run-dir", "plain", *words, "--no-preset")
    assert code == 0, errors


def test_agent_is_trained_on_other_tasks_than_it_is_evaluated_on(ppo: Command, tmp_path: Path) -> None:
    mazes = "MiniGrid-MemoryS7-v0,MiniGrid-MemoryS9-v0"
    words = ["--env", "MiniGrid-MemoryS11-v0", "--train-on", mazes, "--total-steps", "256", "--no-curriculum"]
    code, _, errors = ppo(*TINY, "--run-dir", "run", *words)
    assert code == 0, errors
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["environment"]["env"] == "MiniGrid-MemoryS11-v0"
    assert config["environment"]["train_on"] == mazes
    assert not config["environment"]["curriculum"], "S11's preset asks for one, but this run does not"
    assert ppo("--resume", "run", "--total-steps", "384")[0] == 0
    code, _, errors = ppo("--resume", "run", "--total-steps", "512", "--train-on", "MiniGrid-MemoryS7-v0")
    assert code == 2
    assert "--train-on" in errors


@pytest.mark.parametrize("words", [[], ["--core-options", "hidden_size=7"]], ids=str)
def test_other_core_starts_without_the_core_options_of_the_preset(
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
    preset = find_preset("MiniGrid-MemoryS13-v0")
    assert preset is not None
    assert preset.agent.core_options
    assert agent["core_options"] == {**preset.agent.core_options, "num_slots": 2}


def test_env_options_are_added_to_those_of_the_preset(ppo: Command, tmp_path: Path) -> None:
    words = ["--env", "MiniGrid-MemoryS7-v0", "--env-options", "seeding=farama", "--total-steps", "128"]
    code, _, errors = ppo(*TINY, "--run-dir", "run", *words)
    assert code == 0, errors
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["environment"]["env_options"] == {"actions": 3, "seeding": "farama"}


def test_curriculum_continues_on_resume(ppo: Command, tmp_path: Path) -> None:
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
        (["--env", "no_such_module:Task-v0"], "no_such_module"),
        (["--import", "no_such_module"], "cannot import the module 'no_such_module'"),
        (["--core", "lstn"], "Did you mean 'lstm'"),
        (["--core-options", "slots=3"], "no option 'slots'"),
        (["--env-options", "view=3"], "no option view"),
        (["--device", "warp"], "try --device cpu"),
        (["--num-envs", "5"], "--minibatch-size must divide --num-envs * --num-steps"),
        (["--num-envs", "0"], "--num-envs 0: expected 1 or more"),
        (["--bptt-length", "48"], "--bptt-length must divide"),
        (["--learning-rate", "-1"], "--learning-rate must be positive"),
        (["--aux-coef", "-1"], "--aux-coef must be 0 or more"),
        (["--aux-coef", "5"], "MiniGrid-MemoryS9-v0 has no auxiliary targets"),
        (["--target-success-rate", "2"], "--target-success-rate must be above 0 and at most 1"),
        (["--restart-crashed-envs"], "--vectorization"),
        (["--gamma", "nan"], "error: --gamma must be between 0 and 1"),
        (["--clock", "-1"], "error: --clock must be from 0 to 1024"),
        (["--memory-change-coef", "nan"], "--memory-change-coef must be 0 or more, got nan"),
        (["--features", "0"], "error: --features must be a whole number of at least 1"),
        (["--resume", "runs/none"], "not a run folder"),
        (["--resume", ""], "--resume needs the run folder to resume"),
        (["--auto-resume"], "give --run-dir too"),
        (["--total-steps", "1.5"], "whole number"),
        (["--no-such-flag"], "no-such-flag"),
    ],
)
def test_mistake_is_one_message_with_code_2_and_leaves_nothing(
    words: list[str], message: str, ppo: Command, tmp_path: Path
) -> None:
    code, _, errors = ppo(*words)
    assert code == 2, errors
    assert message in errors
    assert not list(tmp_path.iterdir())


def test_bug_keeps_its_traceback(ppo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only parsing and checking turn a ValueError into a message."""

    def fail(trainer: object) -> None:
        raise ValueError("a bug of ours")

    monkeypatch.setattr(script.Trainer, "run", fail)
    with pytest.raises(ValueError, match="a bug of ours"):
        ppo(*TINY, "--env", "rmc/Recall-v0", "--run-dir", "run")


def test_resumed_run_refuses_other_settings(ppo: Command, tmp_path: Path) -> None:
    ppo(*TINY, "--run-dir", "run", "--env", "rmc/Recall-v0", "--total-steps", "128")
    before = sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    for words, message in [
        (["--resume", "run", "--num-envs", "16"], "--num-envs was 8, now 16"),
        (["--resume", "run", "--gamma", "0.5"], "--gamma was 0.99, now 0.5"),
        (["--resume", "run", "--run-dir", "other"], "continues in that folder, not in --run-dir other"),
        (["--run-dir", "run"], "already holds a run: resume it, or choose another --run-dir"),
    ]:
        code, _, errors = ppo(*words)
        assert code == 2
        assert message in errors
    assert sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()) == before


def test_auto_resume_starts_and_then_resumes_with_one_command(ppo: Command, tmp_path: Path) -> None:
    command = [*TINY, "--env", "rmc/Recall-v0", "--total-steps", "128", "--run-dir", "job", "--auto-resume"]
    code, out, errors = ppo(*command)
    assert code == 0, errors
    assert "resuming from" not in out
    code, out, errors = ppo(*command, "--total-steps", "256")
    assert code == 0, errors
    assert "resuming from job/checkpoints/step_000000000128.pt" in out
    assert checkpoints(tmp_path / "job")[0].name == "step_000000000256.pt"


def test_preset_is_announced_and_no_preset_leaves_it_out(ppo: Command, tmp_path: Path) -> None:
    line = "MemoryS9: preset with a curriculum of MemoryS5, MemoryS7; --no-preset for none"
    maze = ["--env", "MiniGrid-MemoryS9-v0", "--total-steps", "128"]
    code, out, errors = ppo(*TINY, *maze, "--run-dir", "tuned")
    assert code == 0, errors
    assert out.startswith(f"{line}\n")
    code, out, errors = ppo(*TINY, *maze, "--run-dir", "plain", "--no-preset")
    assert code == 0, errors
    assert "preset" not in out
    tuned, plain = (json.loads((tmp_path / x / "config.json").read_text()) for x in ("tuned", "plain"))
    assert (tuned["environment"]["curriculum"], plain["environment"]["curriculum"]) == (True, False)
    assert (tuned["ppo"]["learning_rate"], plain["ppo"]["learning_rate"]) == (1e-3, 3e-4)
    assert (tuned["agent"]["core_options"] != {}, plain["agent"]["core_options"]) == (True, {})
    code, out, errors = ppo("--resume", "plain", "--total-steps", "256")
    assert code == 0, errors
    assert "preset" not in out


def test_help_groups_flags_and_shows_the_preset(ppo: Command) -> None:
    code, out, _ = ppo("--help")
    assert code == 0
    assert "Train an agent with a memory." in out
    assert "Defaults: MemoryS9: preset with a curriculum of MemoryS5, MemoryS7; --no-preset for none" in out
    groups = ("environment options", "agent options", "ppo options", "run options")
    places = [out.index(f"─ {group} ─") for group in groups]
    assert places == sorted(places)
    flags = ("--env STR", "--core STR", "--total-steps INT", "--seed INT")
    assert all(place < out.index(flag) for place, flag in zip(places, flags, strict=True))
    _, out, _ = ppo("--help", "--env", "FrozenLake-v1")
    assert "Defaults: general settings (no preset)" in out
    assert "(default: FrozenLake-v1)" in " ".join(out.replace("│", " ").split())
    _, out, _ = ppo("--help", "--env", "CartPole-v1")
    assert "Defaults: CartPole-v1: preset; --no-preset for none" in " ".join(out.split())
    assert "(default: CartPole-v1)" in " ".join(out.replace("│", " ").split())
    _, out, _ = ppo("--help", "--env", "rmc/MaskedCartPole-v0", "--no-preset")
    assert "Defaults: general settings (no preset)" in out
    _, out, _ = ppo("--help", "--no-preset")
    assert "Defaults: general settings (no preset)" in out


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("--hint-coef", "--aux-coef", "0.5"), ("--stop-at-success", "--target-success-rate", "0.25")],
)
def test_old_flags_are_hidden_aliases(old: str, new: str, value: str, ppo: Command, tmp_path: Path) -> None:
    words = [*TINY, "--env", "rmc/NthFarthest-v0", "--total-steps", "128"]
    configs = []
    for run, flag in (("a", [old, value]), ("b", [f"{old}={value}"]), ("c", [new, value])):
        code, _, errors = ppo(*words, "--run-dir", run, *flag)
        assert code == 0, errors
        configs.append(json.loads((tmp_path / run / "config.json").read_text()))
    assert configs[0] == configs[1] == configs[2]
    found = configs[0]["ppo"]["aux_coef"], configs[0]["target_success_rate"]
    assert float(value) in found
    _, out, _ = ppo("--help")
    assert new in out
    assert old not in out


def test_why_it_ended_names_target_budget_and_interruption(ppo: Command, tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path, target_success_rate=0.1)
    trainer.steps = 256
    assert script.why_it_ended(trainer) == "stopped at 50 % of the budget"
    trainer.recent.add(1000, 500, 500)
    assert script.why_it_ended(trainer) == "target success rate of 0.1 reached at 50 % of the budget"
    trainer = ppo_trainer(tmp_path)
    trainer.steps = QUICK.total_steps + 1
    assert script.why_it_ended(trainer) == "budget used up"
    words = ["--env", "rmc/Recall-v0", "--total-steps", "128", "--run-dir", "run"]
    _, out, _ = ppo(*TINY, *words)
    assert "trained for 128 steps in " in out
    assert "s: budget used up\nevaluate it: python train/evaluate.py run\n" in out
    words = ["--env", "rmc/Recall-v0", "--total-steps", "1e6", "--run-dir", "easy", "--env-options"]
    _, out, _ = ppo(*TINY, *words, "num_symbols=2", "delay=1", "--target-success-rate", "0.2")
    assert ": target success rate of 0.2 reached at " in out


def test_run_made_in_python_resumes_from_the_command_line(ppo: Command, tmp_path: Path) -> None:
    env = rmc_envs.make("rmc/Recall-v0", 8, num_symbols=3, delay=2)
    ppo_trainer(tmp_path / "run", env=env).run()
    code, out, errors = ppo("--resume", "run", "--total-steps", "768")
    assert code == 0, errors
    assert "resuming from run/checkpoints/step_000000000512.pt" in out
    assert checkpoints(tmp_path / "run")[0].name == "step_000000000768.pt"


@pytest.mark.parametrize("evaluated", [1, 2])
def test_curriculum_made_in_python_resumes_from_the_command_line(
    evaluated: int, ppo: Command, tmp_path: Path
) -> None:
    mazes = ["MiniGrid-MemoryS5-v0", "MiniGrid-MemoryS7-v0"]
    env = rmc_envs.make(",".join(mazes), 8, actions=3)
    ppo_trainer(tmp_path / "run", env=env, eval_tasks=mazes[-evaluated:], curriculum=True).run()
    code, out, errors = ppo("--resume", "run", "--total-steps", "768")
    assert code == 0, errors
    assert "resuming from run/checkpoints/step_000000000512.pt" in out
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "rollout/frontier" in line][-1] == 768
    config = json.loads((tmp_path / "run" / "config.json").read_text())["environment"]
    assert config["env"] == ",".join(mazes[-evaluated:])
    assert config["train_on"] == (",".join(mazes) if evaluated == 1 else None)
    assert config["curriculum"]


def test_run_made_with_a_hand_built_environment_says_how_to_resume_it(ppo: Command, tmp_path: Path) -> None:
    ppo_trainer(tmp_path / "run", env=rmc_envs.Recall(8)).run()
    code, _, errors = ppo("--resume", "run")
    assert code == 2
    assert "run/config.json does not say how its environments were made" in errors
    assert "resume it from Python, with Trainer.restore()" in errors


def test_environment_that_raises_is_named(
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
    assert len(checkpoints(tmp_path / "run")) == 2, "the checkpoints saved before are still there"


def test_run_name_has_characters_of_every_file_system() -> None:
    for env, name in [
        ("MiniGrid-MemoryS9-v0", "memorys9-gru-s3"),
        ("mine.tasks:Echo-v0", "mine.tasks-echo-gru-s3"),
        ("rmc/Recall-v0,rmc/Memory-v0", "rmc-recall+rmc-memory-gru-s3"),
        ("popgym:popgym-RepeatPreviousEasy-v0", "popgym-popgym-repeatpreviouseasy-gru-s3"),
    ]:
        config = parse(RunConfig, None, ["--env", env, "--core", "gru", "--seed", "3"], "test")
        assert script.run_name(config) == name


def test_selection_has_the_defaults_of_the_run_config() -> None:
    plain = RunConfig()
    assert Selection().env == plain.environment.env
    assert Selection().preset == plain.run.preset
