"""The house rule: imports run one way, and a light import stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lower may not import higher; what is not named may import anything.
LAYERS = [
    {
        "cores",
        "tree",
        "errors",
        "versions",
        "statistics",
        "safe_file",
        "signals",
        "distinct",
        "curriculum",
        "generators",
        "hints",
    },
    {"encoders", "heads", "spaces_json"},
    {"actor_critic"},
    {"rollout", "episodes"},
    {"ppo"},
    {"checkpoint", "progress", "health", "runlog", "execution"},
    {"snapshot", "classifier"},
    {"trainer", "examples"},
    {"supervised"},
]
PURE = ["cores", "curriculum.py", "ppo.py", "rollout.py", "actor_critic.py", "encoders.py", "heads.py"]
IMPURE = {
    "stable_baselines3",
    "sb3_contrib",
    "matplotlib",
    "imageio",
    "tensorboard",
    "minigrid",
    "envs",
    "os",
    "logging",
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer_of(part: str) -> int | None:
    return next((i for i, layer in enumerate(LAYERS) if part in layer), None)


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("path", files("rmc_agents"), ids=lambda p: str(p.relative_to(ROOT)))
def test_agents_never_import_environments_nor_a_higher_layer(path: Path) -> None:
    part = path.relative_to(ROOT / "rmc_agents").parts[0].removesuffix(".py")
    own = layer_of(part)
    for name in imports(path):
        assert name.split(".")[0] not in ("envs", "train"), f"{path} imports {name}"
        if own is not None and name.startswith("rmc_agents."):
            other = layer_of(name.split(".")[1])
            assert other is not None, f"{path} imports {name}, which is above the layers"
            assert other <= own, f"{path} imports {name}, which is higher"


@pytest.mark.parametrize("path", files("envs"), ids=lambda p: str(p.relative_to(ROOT)))
def test_environments_never_import_agents(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] in ("rmc_agents", "train")]


@pytest.mark.parametrize("part", PURE)
def test_mathematics_touches_no_files_loggers_nor_other_libraries(part: str) -> None:
    """But for one file: the native kernels have to be compiled, and kept somewhere."""
    for path in files(f"rmc_agents/{part}") if not part.endswith(".py") else [ROOT / "rmc_agents" / part]:
        if path == ROOT / "rmc_agents" / "cores" / "native" / "build.py":
            continue
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & IMPURE, path
        assert "torch.distributed" not in imports(path)


def test_importing_the_package_is_light() -> None:
    heavy = ["stable_baselines3", "sb3_contrib", "matplotlib", "imageio", "tensorboard", "minigrid", "envs"]
    code = f"import sys, rmc_agents; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
