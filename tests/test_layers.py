"""Layers: a folder imports lower ones only, no modules import each other, and a light import stays light."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.imports import Import, cycles, imports, modules, opened_files, part_of, upward

ROOT = Path(__file__).parents[1]
FILES = modules({"rmc_agents": ROOT / "rmc_agents", "rmc_envs": ROOT / "envs"})

LAYERS = {
    f"rmc_agents.{part}": layer
    for layer, parts in {
        0: "spaces",
        1: "environment cores runs",
        2: "agent training",
        3: "evaluation",
        4: "rl sb3",
        5: "supervised interpret cli export",
        6: "plots tuning",
        7: "report",
    }.items()
    for part in parts.split()
}
"""Layers of docs/design.md. A folder imports folders of lower numbers, and itself."""
BOTTOM = ("tree", "errors", "options", "plugins")
"""Layer 0: single modules, one part together."""
ABOVE = ("rmc_envs", "envs", "train", "benchmarks", "tests", "rmc_agents.scripts")
"""Packages that rmc_agents never imports."""
CONTRACT = {f"rmc_agents.{name}" for name in ("environment", "tree", "errors", "options", "plugins")}
CONTRACT |= {f"rmc_agents.spaces.{name}" for name in ("annotated", "masks", "plain", "reading", "text")}
"""The modules of rmc_agents that environments may import."""

PURE = (
    "rmc_agents.cores",
    "rmc_agents.agent",
    "rmc_agents.environment",
    "rmc_agents.rl.ppo",
    "rmc_agents.rl.rollout",
    "rmc_agents.rl.curriculum",
)
"""Mathematics: no files, loggers or processes."""
NOT_PURE = ("rmc_agents.agent.saved", "rmc_agents.cores.kernels.build", "rmc_agents.cores.kernels.cache")
"""Exceptions: saved agents are files, and the kernels have to be compiled and kept somewhere."""
IMPURE = (
    *("os", "io", "pathlib", "shutil", "tempfile", "subprocess", "logging", "torch.distributed"),
    *("stable_baselines3", "sb3_contrib", "matplotlib", "imageio", "tensorboard", "minigrid", "rich"),
    *("rmc_agents.runs", "rmc_agents.training.loop", "rmc_agents.training.run_log"),
)


@cache
def every_import() -> list[Import]:
    """Return every import of the packages."""
    return imports(FILES)


def starts_with(module: str, names: tuple[str, ...]) -> bool:
    """Return whether a module is one of `names`, or lies in one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def test_every_module_has_a_layer() -> None:
    placed = {*LAYERS, *(f"rmc_agents.{name}" for name in BOTTOM)}
    assert [
        m for m in FILES if m.startswith("rmc_agents.") and not part_of(m, dict.fromkeys(placed, 0))
    ] == []
    assert [name for name in placed if name not in FILES] == []


def test_folders_import_lower_layers_only() -> None:
    assert upward(every_import(), LAYERS) == []
    bottom = tuple(f"rmc_agents.{name}" for name in BOTTOM)
    found = [
        each for each in every_import() if each.module in bottom and each.target.startswith("rmc_agents")
    ]
    assert [str(each) for each in found if each.target not in bottom] == []
    # The package itself names everything, so nothing inside may import it.
    assert [str(each) for each in every_import() if each.target == "rmc_agents"] == []


def test_no_modules_import_each_other() -> None:
    assert cycles(every_import()) == []


def test_agents_never_import_environments_or_scripts() -> None:
    agents = [each for each in every_import() if each.module.startswith("rmc_agents")]
    assert len(agents) > 100
    assert [str(each) for each in agents if starts_with(each.target, ABOVE)] == []


def test_environments_import_the_contract_only() -> None:
    environments = [each for each in every_import() if each.module.startswith("rmc_envs")]
    targets = {each.target for each in environments}
    assert "rmc_agents.environment" in targets
    assert {name for name in targets if name.startswith("rmc_agents")} <= CONTRACT
    assert [str(e) for e in environments if starts_with(e.target, ("train", "benchmarks", "tests"))] == []


def test_mathematics_touches_no_files_loggers_or_processes() -> None:
    pure = {name for name in FILES if starts_with(name, PURE) and not starts_with(name, NOT_PURE)}
    assert len(pure) > 15
    found = [each for each in every_import() if each.module in pure]
    assert [str(each) for each in found if starts_with(each.target, IMPURE)] == []
    assert {name: lines for name in pure if (lines := opened_files(FILES[name]))} == {}


def test_no_test_imports_a_test() -> None:
    found = imports(modules({"tests": ROOT / "tests"}))
    assert len(found) > 100
    assert [str(each) for each in found if ".test_" in each.target] == []


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads, in a Python of its own."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_by("import rmc_agents")
    assert {name for name in loaded if name.startswith("rmc_agents")} == {"rmc_agents"}
    heavy = ("torch", "numpy", "gymnasium", "stable_baselines3", "sb3_contrib", "matplotlib", "tensorboard")
    assert not [name for name in loaded if starts_with(name, (*heavy, "minigrid", "rmc_envs", "envs"))]


@pytest.mark.parametrize("statement", ["import rmc_agents.cores", "from rmc_agents import CORES, RMC"])
def test_importing_cores_loads_cores_alone(statement: str) -> None:
    loaded = loaded_by(statement)
    own = ("rmc_agents.cores", *(f"rmc_agents.{name}" for name in BOTTOM))
    assert "rmc_agents.cores.rmc" in loaded
    assert [m for m in loaded if m.startswith("rmc_agents.") and not starts_with(m, own)] == []


@pytest.mark.parametrize("statement", ["from rmc_agents import load, Trainer, evaluate, SupervisedTrainer"])
def test_public_names_load_no_optional_package(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "rmc_agents.rl.trainer" in loaded
    optional = (
        "stable_baselines3",
        "sb3_contrib",
        "matplotlib",
        "imageio",
        "minigrid",
        "rmc_envs",
        "tensorboard",
    )
    assert not [name for name in loaded if starts_with(name, optional)]


def test_public_names_are_all_found() -> None:
    import rmc_agents

    assert set(rmc_agents._HOME) == set(rmc_agents.__all__)
    for name in rmc_agents.__all__:
        assert getattr(rmc_agents, name) is not None
    assert set(rmc_agents.__all__) <= set(dir(rmc_agents))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        rmc_agents.nothing  # noqa: B018


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_checker_finds_upward_imports_and_cycles(tmp_path: Path) -> None:
    """On a small tree: imports in functions and TYPE_CHECKING blocks, relative and dynamic ones."""
    write(
        tmp_path,
        {
            "low/__init__.py": "",
            "low/good.py": "import os\nfrom . import other",
            "low/other.py": "",
            "low/hidden.py": "def f():\n    from ..high.top import thing",
            "low/typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house import high",
            "low/dynamic.py": "import importlib\nimportlib.import_module('house.high.top')",
            "high/__init__.py": "from .top import thing",
            "high/top.py": "from house.low import good\nfrom house.low.good import os\nthing = 1",
            "twin/__init__.py": "from house.high import top",
            "one.py": "def f():\n    import house.two",
            "two.py": "from .three import x",
            "three.py": "from . import one",
            "self.py": "import house.self",
        },
    )
    found = imports(modules({"house": tmp_path}))
    assert upward(found, {"house.low": 0, "house.high": 1, "house.twin": 1}) == [
        "house.low.dynamic:2 imports house.high.top (layer 0 imports layer 1)",
        "house.low.hidden:2 imports house.high.top (layer 0 imports layer 1)",
        "house.low.typed:3 imports house.high (layer 0 imports layer 1)",
        "house.twin:1 imports house.high.top (layer 1 imports layer 1)",
    ]
    assert cycles(found) == [["house.one", "house.three", "house.two"], ["house.self"]]


def test_checker_finds_opened_files(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("x = self.open('a')\nwith open('b') as file:\n    pass\n")
    assert opened_files(path) == [2]
