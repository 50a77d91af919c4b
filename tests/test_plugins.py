"""Plug-ins: user-defined modules, found by name, by entry point, or by what they define."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import rmc_envs
from rmc_agents.cores import GRU
from rmc_agents.errors import UsageError
from rmc_agents.plugins import GROUP, import_module, import_modules, load_installed, registering_modules
from tests.support.trainers import FirstSymbol


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which is not on the path; modules loaded from it are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_module_in_the_current_folder_is_imported_once(folder: Path) -> None:
    (folder / "my_cores.py").write_text("count = []\n")
    module = import_module("my_cores")
    module.count.append(1)
    import_modules(["my_cores", "my_cores"])
    assert import_module("my_cores").count == [1]
    assert sys.path.count(str(folder)) == 1


def test_installed_module_wins_over_one_in_the_current_folder(folder: Path) -> None:
    (folder / "wave.py").write_text("mine = True\n")
    assert not hasattr(import_module("wave"), "mine")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "no_such_module", "No module named 'no_such_module'); it must be installed or lie in HERE"),
        (None, "no_such.module", "No module named 'no_such'); it must be installed or lie in HERE"),
        ("", "mine.part", "(ModuleNotFoundError: No module named 'mine.part'; 'mine' is not a package)"),
        ("", "", "it must be installed or lie in HERE"),
        (
            "import not_installed_library",
            "mine",
            "(ModuleNotFoundError: No module named 'not_installed_library')",
        ),
        ("raise RuntimeError('broken')", "mine", "(RuntimeError: broken)"),
        ("def f(:", "mine", "(SyntaxError: "),
        ("from math import nothing", "mine", "(ImportError: cannot import name 'nothing'"),
    ],
    ids=str,
)
def test_module_that_cannot_be_imported_is_one_message(
    text: str | None, name: str, message: str, folder: Path
) -> None:
    if text is not None:
        (folder / "mine.py").write_text(text)
    with pytest.raises(UsageError) as error:
        import_module(name)
    assert str(error.value).startswith(f"cannot import the module {name!r} (")
    assert message.replace("HERE", str(folder)) in str(error.value)
    assert str(folder) not in sys.path, "the path is left as it was"


def test_installed_plugins_are_loaded_and_broken_ones_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "good_plugin.py").write_text("")
    monkeypatch.syspath_prepend(str(folder))
    points = [
        metadata.EntryPoint("good", "good_plugin", GROUP),
        metadata.EntryPoint("bad", "no_such_plugin", GROUP),
    ]
    asked = []

    def entry_points(group: str) -> list[metadata.EntryPoint]:
        asked.append(group)
        return points

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    (warning,) = load_installed()
    assert "good_plugin" in sys.modules
    assert asked == ["rmc_agents.plugins"]
    assert warning.startswith("warning: plug-in bad (no_such_plugin) cannot be imported: ModuleNotFoundError")


def test_registering_modules_are_those_of_the_users_classes() -> None:
    core, env = GRU(3, hidden_size=2), rmc_envs.make("rmc/Recall-v0", 2)
    assert registering_modules(core, env) == ()

    class Mine(GRU):
        pass

    class Main(GRU):
        __module__ = "__main__"

    mine = Mine(3, hidden_size=2)
    assert registering_modules(mine, env, mine, FirstSymbol()) == (__name__, FirstSymbol.__module__)
    assert registering_modules(Main(3, hidden_size=2)) == ()
