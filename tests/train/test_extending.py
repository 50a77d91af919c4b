"""A user-defined core and task, outside the checkout, used by the scripts without a fork."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmc_agents.runs.folder import checkpoints
from tests.support import commands
from tests.support.commands import Result

MINE = '''
"""A core and a task."""

from typing import NamedTuple

import rmc_envs
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rmc_agents import CORES, BatchedEnv, MemoryCore, Transition


class LeakyState(NamedTuple):
    h: Tensor


class Leaky(MemoryCore):
    def __init__(self, input_size: int, *, hidden_size: int = 8, decay: float = 0.9) -> None:
        super().__init__(input_size)
        self.linear, self.decay = nn.Linear(input_size, hidden_size, bias=False), decay

    @property
    def output_size(self) -> int:
        return self.linear.out_features

    def initial_state(self, batch_size: int) -> LeakyState:
        return LeakyState(self.linear.weight.new_zeros(batch_size, self.output_size))

    def step(self, inputs: Tensor, state: LeakyState) -> tuple[Tensor, LeakyState]:
        h = self.decay * state.h + self.linear(inputs)
        return h, LeakyState(h)


class Echo(BatchedEnv):
    """Repeat the digit that is shown."""

    def __init__(self, num_envs: int = 1, device: str = "cpu", digits: int = 10) -> None:
        self.num_envs, self.device, self.digits = num_envs, torch.device(device), digits
        self.observation_space = self.action_space = spaces.Discrete(digits)
        self.tasks = ("mine/Echo-v0",)
        self.task_of = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.generator = torch.Generator(self.device)
        self.digit = None

    def reset(self, seed: int | None = None) -> Tensor:
        if seed is not None:
            self.generator.manual_seed(seed)
        self.digit = self._draw()
        return self.digit

    def step(self, actions: Tensor) -> Transition:
        if self.digit is None:
            raise RuntimeError("step before the first reset")
        self.require_actions(actions)
        right, shown = actions == self.digit, self.digit
        self.digit = self._draw()
        never = torch.zeros_like(right)
        return Transition(self.digit, right.float(), ~never, never, shown, right)

    def _draw(self) -> Tensor:
        return torch.randint(self.digits, (self.num_envs,), generator=self.generator, device=self.device)


CORES["leaky"] = Leaky
rmc_envs.register("mine/Echo-v0", Echo)
'''
SIZES = [
    *("--num-envs", "4", "--num-steps", "8", "--bptt-length", "4", "--minibatch-size", "16", "--epochs", "1"),
    *("--features", "8", "--hidden-size", "8", "--total-steps", "64"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder outside the checkout, with a module that registers a core and a task."""
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def run_script(name: str, *words: str, folder: Path) -> Result:
    result = commands.run_script(name, *words, cwd=folder)
    assert result.code == 0, result.errors
    assert "Traceback" not in result.errors
    return result


def imports_of(run_dir: Path) -> list[str]:
    return json.loads((run_dir / "config.json").read_text())["imports"]


@pytest.mark.slow
def test_own_core_and_task_train_resume_and_evaluate(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The run folder remembers the module: only the first command names it."""
    (folder / "more.py").write_text("print('more is imported')\n")
    words = ["--import", "mine", "--env", "mine/Echo-v0", "--env-options", "digits=4", "--core", "leaky"]
    result = run_script(
        "ppo", *words, "--core-options", "decay=0.5", *SIZES, "--run-dir", "run", folder=folder
    )
    assert "trained for 64 steps" in result.out
    assert imports_of(folder / "run") == ["mine"]

    result = run_script("ppo", "--resume", "run", "--total-steps", "128", folder=folder)
    assert "resuming from run/checkpoints/step_000000000064.pt" in result.out
    assert checkpoints(folder / "run")[0].name == "step_000000000128.pt"
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["imports"] == ["mine"]
    assert (config["agent"]["core"], config["agent"]["core_options"]) == ("leaky", {"decay": 0.5})
    assert config["environment"]["env_options"] == {"digits": 4}

    quick = ["--episodes", "8", "--no-gif", "--no-report"]
    result = run_script("evaluate", "run", *quick, folder=folder)
    assert "mine/Echo-v0" in result.out
    entry = json.loads((folder / "run" / "evaluation.json").read_text())["mine/Echo-v0"]
    assert entry["episodes"] == 8
    assert f"report: {Path('run') / 'report.html'}" in run_script("report", "run", folder=folder).out

    result = run_script("ppo", "--resume", "run", "--import", "more", "--total-steps", "160", folder=folder)
    assert "more is imported" in result.out
    assert imports_of(folder / "run") == ["mine", "more"], "a module given on resume is added"

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for script, *words in (("ppo", "--resume"), ("evaluate",)):
        result = commands.run_script(script, *words, str(folder / "run"), cwd=elsewhere)
        assert result.code == 2
        assert result.errors.startswith("error: ")
        assert "cannot import the module 'mine'" in result.errors
        assert f"it must be installed or lie in {elsewhere}" in result.errors


def test_task_named_with_its_module_needs_no_import(folder: Path) -> None:
    words = ["--env", "mine:mine/Echo-v0", "--core", "gru", "--core-options", "hidden_size=4"]
    run_script("ppo", *words, *SIZES, "--run-dir", "run", folder=folder)
    run_script("ppo", "--resume", "run", "--total-steps", "128", folder=folder)
    assert checkpoints(folder / "run")[0].name == "step_000000000128.pt"
    assert "mine" in imports_of(folder / "run"), "the module of the task's class is remembered, too"
    run_script("evaluate", "run", "--episodes", "8", "--no-gif", "--no-report", folder=folder)


@pytest.mark.slow
def test_own_core_trains_on_nth_farthest(folder: Path) -> None:
    words = ["--total-samples", "64", "--batch-size", "32", "--test-samples", "50", "--run-dir", "run"]
    run_script("nth_farthest", "--import", "mine", "--core", "leaky", *words, folder=folder)
    assert imports_of(folder / "run") == ["mine"]
    words = ["--resume", "run", "--total-samples", "128", "--test-samples", "50"]
    result = run_script("nth_farthest", *words, folder=folder)
    assert "trained on 128 samples" in result.out
    result = run_script("nth_farthest", "--evaluate", "run", "--test-samples", "50", folder=folder)
    assert "run (leaky, " in result.out


def test_installed_plugin_needs_no_import(folder: Path) -> None:
    """An installed package declares its module as an entry point; a broken plug-in is a warning."""
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rmc_agents.plugins]\ncores = mine\nbroken = no_such_plugin\n")
    words = ["--env", "mine/Echo-v0", "--core", "leaky", *SIZES, "--run-dir", "run"]
    result = commands.run_script("ppo", *words, cwd=folder, PYTHONPATH=str(folder))
    assert result.code == 0, result.errors
    assert "trained for 64 steps" in result.out
    assert "warning: plug-in broken (no_such_plugin) cannot be imported" in result.out
    assert imports_of(folder / "run") == ["mine"], "the run folder does not depend on the entry point"
