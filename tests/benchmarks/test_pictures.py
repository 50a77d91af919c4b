"""Pictures and scores of the map of abilities belong to the tasks as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

import rmc_envs
from benchmarks import pictures
from rmc_envs.gymnasium.api import Drawable
from tests.support.documents import DOCS

PAGE = (DOCS / "guide" / "abilities.md").read_text(encoding="utf-8")
STORED = sorted((DOCS / "pictures").glob("*.png"))


def test_every_picture_on_the_page_is_drawn_and_small() -> None:
    shown = set(re.findall(r"\.\./pictures/([\w-]+\.png)", PAGE))
    assert shown == {path.name for path in STORED}
    assert shown <= {pictures.file_name(scene.env_id) for scene in pictures.SCENES}
    assert sum(path.stat().st_size for path in STORED) < 400_000


def test_every_family_of_native_tasks_is_on_the_page() -> None:
    families = {
        re.sub(r"^Memory(S\d+(Random)?)?$", "MemoryS9", env_id.removeprefix("rmc/").removesuffix("-v0"))
        for env_id in rmc_envs.NATIVE
        if env_id.startswith("rmc/")  # not those that other tests register
    }
    families = {re.sub(r"^MemoryMaze-.*", "MemoryMaze-9x9", name) for name in families}
    families = {name for name in families if f"{name}Viewport" not in families}
    scenes = {scene.env_id.removeprefix("rmc/").removesuffix("-v0") for scene in pictures.SCENES}
    assert scenes == families


def test_scores_on_the_page_are_the_stored_ones() -> None:
    rows = re.findall(r"^\| !\[([\w-]+)\].*\| (\S+) \| (\S+) \| (\S+) \|$", PAGE, re.MULTILINE)
    compared = 0
    for name, *scores in rows:
        stored = rmc_envs.references(f"rmc/{name}-v0") or rmc_envs.references(f"rmc/{name}Easy-v0")
        if stored is not None:
            for shown, score in zip(scores, stored, strict=True):
                digits = len(shown.partition(".")[2])
                assert float(shown) == pytest.approx(score, abs=0.6 / 10**digits), name
            compared += 1
    assert compared >= 20


def test_scene_is_drawn_again(tmp_path: Path) -> None:
    scene = next(scene for scene in pictures.SCENES if scene.env_id == "rmc/ColorCubes-v0")
    assert isinstance(rmc_envs.make(scene.env_id, 1), Drawable)
    picture = pictures.draw(scene)
    assert picture is not None
    path = tmp_path / pictures.file_name(scene.env_id)
    pictures.save(picture, path)
    with Image.open(path) as drawn, Image.open(DOCS / "pictures" / path.name) as stored:
        assert drawn.size == stored.size
