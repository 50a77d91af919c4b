"""The wheel: built, installed into a clean environment outside the checkout, and used there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TINY = [
    *(
        "--env",
        "rmc/Recall-v0",
        "--core",
        "rmc",
        "--core-options",
        "num_slots=2",
        "num_heads=1",
        "head_size=4",
    ),
    *("--features", "8", "--hidden-size", "8", "--num-envs", "4", "--num-steps", "16", "--bptt-length", "16"),
    *("--minibatch-size", "64", "--device", "cpu"),
]

Run = Callable[..., str]

FORKS = """
import json, os, runpy, sys
import gymnasium, matplotlib.figure, torch, tyro
for words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    if not os.fork():  # a process of its own, in which torch is imported already
        sys.argv = [os.path.join(os.path.dirname(sys.executable), words[0]), *words[1:]]
        runpy.run_path(sys.argv[0], run_name="__main__")
    if os.wait()[1]:
        sys.exit(f"{words} failed")
"""
"""Runs installed commands one after the other."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout, built from a copy: a build leaves folders behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for folder in ("rmc_agents", "envs", "train"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(out), str(source)], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A function that runs a command in a clean environment, in a folder with its own `envs` and `train`."""
    home = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    # The dependencies of this environment without its editable install: path files in added folders are
    # not read.
    libraries = next((home / "lib").iterdir()) / "site-packages"
    (libraries / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    work = tmp_path_factory.mktemp("work")
    for name in ("envs", "train"):
        (work / name).mkdir()
        (work / name / "__init__.py").write_text("raise RuntimeError('a folder of the user was imported')\n")

    def run(*words: str) -> str:
        program = python if words[0] == "python" else home / "bin" / words[0]
        clean = {key: x for key, x in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [str(program), *words[1:]], cwd=work, env=clean, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_wheel_installs_only_names_of_our_own(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"rmc_agents", "rmc_envs"}


def test_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    folders = {"rmc_agents": "rmc_agents", "envs": "rmc_envs", "train": "rmc_agents/scripts"}
    for folder, installed in folders.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".c", ".h", ".html", ".typed") or path.name == "py.typed":
                assert f"{installed}/{path.relative_to(ROOT / folder).as_posix()}" in held


def test_installed_package_is_not_the_checkout(run: Run) -> None:
    where = run("python", "-c", "import rmc_agents, rmc_envs; print(rmc_agents.__file__, rmc_envs.__file__)")
    assert str(ROOT) not in where


def test_installed_commands_train_resume_evaluate_and_report(run: Run) -> None:
    commands = [
        ["rmc-train", *TINY, "--total-steps", "128", "--run-dir", "tiny"],
        ["rmc-train", "--resume", "tiny", "--total-steps", "256"],
        ["rmc-evaluate", "tiny", "--episodes", "8", "--no-gif"],
    ]
    output = run("python", "-c", FORKS, json.dumps(commands))
    _, trained, resumed, evaluated = re.split(r"^\$ .*\n", output, flags=re.MULTILINE)
    assert "evaluate it: rmc-evaluate tiny" in trained
    assert "resuming from" in resumed
    assert "figures: " in evaluated
    assert "report: " in run("rmc-report", "tiny")


def test_every_installed_command_explains_itself(run: Run) -> None:
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    output = run("python", "-c", FORKS, json.dumps([[command, "--help"] for command in installed]))
    for command in ("train", "evaluate", "export", "probe", "report", "play", "tune", "nth-farthest"):
        assert f"usage: rmc-{command}" in output
