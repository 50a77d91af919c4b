"""`envs`, the folder's name in a checkout, and `rmc_envs`, its installed name, are the same modules."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support import fork_server

ROOT = Path(__file__).parents[2]

SAME_MODULES = """
import sys
import envs, rmc_envs
import envs.minigrid.tables, rmc_envs.sequences.recall
import envs.gymnasium.api, rmc_envs.gymnasium.api
from envs import make
from envs.minigrid.tables import MazeSpec
assert envs is rmc_envs and make is rmc_envs.make and MazeSpec is rmc_envs.MazeSpec
assert callable(rmc_envs.check)
assert envs.gymnasium.api is rmc_envs.gymnasium.api
ours = {name for name in sys.modules if name.split(".")[0] in ("envs", "rmc_envs")}
for name in ours:
    module = sys.modules[name]
    other = name.removeprefix("rmc_") if name.startswith("rmc_") else "rmc_" + name
    assert sys.modules[other] is module, name
    original = name if name.startswith("rmc_") else "rmc_" + name
    assert module.__name__ == module.__spec__.name == original
files = [sys.modules[name].__file__ for name in ours]
assert len(set(files)) == len(ours) // 2 > 10
import gymnasium
assert gymnasium.make("rmc/Recall-v0").unwrapped.batch.__class__ is envs.Recall
try:
    import envs.nothing
except ModuleNotFoundError as error:
    assert "envs.nothing" in str(error)
else:
    raise AssertionError
print("same")
"""


def run(code: str, folder: Path, *path: Path) -> str:
    """Run code in another process with warnings as errors; return the last line that it prints."""
    search = os.pathsep.join(map(str, path))
    process = fork_server.start(["-W", "error", "-c", code], folder, PYTHONPATH=search)
    out, errors = process.communicate()
    assert process.wait() == 0, errors
    return out.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "first",
    [
        "import envs",
        "import rmc_envs",
        "from envs import make",
        "import envs.minigrid.tables",
        "import rmc_envs.minigrid.tables",
        "import envs._alias",
        "import rmc_envs; import envs.gymnasium.api",
    ],
)
def test_both_names_give_the_same_modules(first: str) -> None:
    assert run(f"{first}\n{SAME_MODULES}", ROOT) == "same"


def test_a_checkout_uses_its_own_folder_under_both_names(tmp_path: Path) -> None:
    """Even if another version is installed: the code that runs is the code that one edits."""
    shutil.copytree(ROOT / "envs", tmp_path / "envs", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import envs, rmc_envs; assert envs is rmc_envs; print(rmc_envs.__file__)"
    assert run(code, tmp_path) == str(tmp_path / "envs" / "__init__.py")
    assert run("import envs.minigrid.tables as t; print(t.__file__)", tmp_path).startswith(str(tmp_path))


@pytest.mark.parametrize("order", ["import rmc_envs, envs", "import envs, rmc_envs"])
def test_a_users_own_envs_folder_is_left_alone(order: str, tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("OWNER = 'user'")
    (tmp_path / "envs" / "robots.py").write_text("ARMS = 2")
    code = f"{order}; from envs.robots import ARMS; rmc_envs.make('rmc/Recall-v0'); print(envs.OWNER, ARMS)"
    assert run(code, tmp_path) == "user 2"
