"""examples/run_onnx.py: an exported agent in its environment, in a process without torch and this package."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import gymnasium
import pytest
from gymnasium import spaces

import rmc_agents
import rmc_envs
from rmc_agents import evaluate, export_file
from rmc_agents.spaces.annotated import minigrid_image
from rmc_agents.spaces.text import AnnotatedText
from tests.support.commands import run_python
from tests.support.exports import agent_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MAZE = "MiniGrid-MemoryS11-v0"
TAXI = "Taxi-v4" if "Taxi-v4" in gymnasium.registry else "Taxi-v3"
WITHOUT = """
import runpy
import sys

for name in ("torch", "rmc_agents", "rmc_envs", "onnx", "onnxscript"):
    sys.modules[name] = None  # importing it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def returns(path: Path, env_id: str, episodes: int) -> list[float]:
    """Return the returns that the example prints."""
    example = str(ROOT / "examples" / "run_onnx.py")
    result = run_python("-c", WITHOUT, example, str(path), env_id, str(episodes), cwd=path.parent)
    assert result.code == 0, result.errors
    return [float(x) for x in re.findall(r"episode \d+: return (\S+)", result.out)]


def test_example_solves_the_maze_without_torch_and_this_package(tmp_path: Path) -> None:
    agent = rmc_agents.load(ROOT / "trained" / "memory-s11")
    export = export_file(agent, tmp_path / "agent.onnx")
    found = returns(export.path, MAZE, 5)
    env = rmc_envs.trials(MAZE, "farama", 5, agent.device, {"actions": 3})
    assert sum(found) / 5 == pytest.approx(evaluate(agent, env, 5, seed=0).mean_return, abs=1e-3)
    assert min(found) > 0.9


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file of an agent for CartPole, one that is no model, and an empty one."""
    folder = tmp_path_factory.mktemp("files")
    box = rmc_envs.make("CartPole-v1", 1).observation_space
    export_file(agent_for(box, spaces.Discrete(2)), folder / "agent.onnx")
    (folder / "junk.onnx").write_text("no model")
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Run an exported agent"),
        (["agent.onnx"], "Run an exported agent"),
        (["agent.onnx", "CartPole-v1", "x"], "Run an exported agent"),
        (["agent.onnx", "CartPole-v1", "0"], "Run an exported agent"),
        (["agent.onnx", "CartPole-v1", "1", "2"], "Run an exported agent"),
        (["none.onnx", "CartPole-v1"], "none.onnx cannot be run in CartPole-v1: "),
        (["junk.onnx", "CartPole-v1"], "junk.onnx cannot be run in CartPole-v1: "),
        (["agent.onnx", "Nope-v0"], "agent.onnx cannot be run in Nope-v0: "),
        (["agent.onnx", "Pendulum-v1"], "agent.onnx reads other observations than Pendulum-v1 gives: "),
        (["agent.onnx", MAZE], f"agent.onnx reads other observations than {MAZE} gives: "),
    ],
    ids=" ".join,
)
def test_example_refuses_wrong_arguments_in_one_line(
    words: list[str],
    message: str,
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In this process, since importing takes a second."""
    monkeypatch.chdir(exported)
    monkeypatch.setattr(sys, "argv", ["run_onnx.py", *words])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "examples" / "run_onnx.py"), run_name="__main__")
    text = str(left.value.code)
    assert text.startswith(message)
    assert len(text.splitlines()) == 1


def test_example_reads_missions_and_draws_actions(tmp_path: Path) -> None:
    space = spaces.Dict(image=minigrid_image(7), mission=AnnotatedText(["go", "to", "the", "door"], 7))
    export = export_file(agent_for(space, spaces.Discrete(7)), tmp_path / "agent.onnx", sample=True)
    assert len(returns(export.path, "MiniGrid-GoToDoor-5x5-v0", 1)) == 1


def test_example_gives_rewards_to_agents_that_read_them(tmp_path: Path) -> None:
    agent = agent_for(
        rmc_envs.make("Pendulum-v1", 1).observation_space,
        spaces.Box(-2, 2, (1,)),
        previous_action=True,
        previous_reward=True,
    )
    export = export_file(agent, tmp_path / "agent.onnx")
    assert len(returns(export.path, "Pendulum-v1", 1)) == 1


def test_example_gives_masks_to_agents_that_were_trained_with_them(tmp_path: Path) -> None:
    env = rmc_envs.make(TAXI, 1)
    agent = agent_for(env.observation_space, env.action_space)
    agent.use_action_masks()
    export = export_file(agent, tmp_path / "agent.onnx")
    # 200 moves without a wall in the way, and without an illegal pick-up or drop-off, which costs 10.
    assert min(returns(export.path, TAXI, 2)) >= -200
