"""Style: the same colours and markers in every figure, and files with the same bytes for the same figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from rmc_agents.evaluation.curves import Curve
from rmc_agents.plots import learning, style
from rmc_agents.plots.style import CORE_COLOURS, OKABE_ITO, styles
from tests.support.figures import text_faults

CURVES = {"rmc": [Curve.of([0, 1000, 2000], [0.5, 0.7, 1.0]), Curve.of([0, 1000, 2000], [0.5, 0.5, 0.5])]}


def test_every_core_has_its_own_colour_and_marker() -> None:
    looks = styles([*CORE_COLOURS, "mine"])
    assert len({colour for colour, _ in looks.values()}) == len(looks)
    assert len({marker for _, marker in looks.values()}) == len(looks)
    assert {colour for colour, _ in looks.values()} <= set(OKABE_ITO)
    assert styles(["mine", "yours"])["mine"] != styles(["mine", "yours"])["yours"]


def test_save_writes_png_and_svg_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    written = [style.save(learning.learning_curves(CURVES), tmp_path / name / "curves") for name in "ab"]
    assert [path.name for path in written[0]] == ["curves.png", "curves.svg"]
    for one, other in zip(*written, strict=True):
        assert one.read_bytes() == other.read_bytes()
    with Image.open(written[0][0]) as picture:
        assert picture.width >= 1000
        colours = {to_hex(np.array(c) / 255).upper() for _, c in picture.convert("RGB").getcolors(1 << 20)}  # type: ignore[union-attr]
    assert CORE_COLOURS["rmc"] in colours


def test_save_leaves_no_other_files(tmp_path: Path) -> None:
    written = style.save(learning.learning_curves(CURVES), tmp_path / "curves")
    assert set(tmp_path.iterdir()) == set(written)


def test_dollar_signs_in_titles_and_labels_are_plain_text() -> None:
    """Matplotlib reads `$...$` as mathematics, and fails where it is not."""
    name = r"$\run"
    figure = learning.learning_curves({f"{name}$": CURVES["rmc"]}, f"{name}$")
    assert text_faults(figure) == []
    assert figure.axes[0].get_title(loc="left") == f"{name}$"
