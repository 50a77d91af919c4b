"""Style: the same colors and markers in every figure, and files with the same bytes for the same figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from PIL import Image

from rmc_agents.cores import CORES
from rmc_agents.evaluation.curves import Curve
from rmc_agents.plots import learning, style
from rmc_agents.plots.learning import Point
from rmc_agents.plots.style import CORE_COLORS, MUTED, OKABE_ITO, legend_below, single_axes, styles
from tests.support.figures import text_faults

CURVES = {"rmc": [Curve.of([0, 1000, 2000], [0.5, 0.7, 1.0]), Curve.of([0, 1000, 2000], [0.5, 0.5, 0.5])]}


def test_every_core_has_its_own_color_and_marker() -> None:
    looks = styles(CORES)
    assert len({color for color, _ in looks.values()}) == len(looks)
    assert len({marker for _, marker in looks.values()}) == len(looks)
    assert {color for color, _ in looks.values()} <= {*OKABE_ITO, *MUTED}
    assert styles(["mine", "yours"])["mine"] != styles(["mine", "yours"])["yours"]


def test_save_writes_png_and_svg_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    written = [style.save(learning.learning_curves(CURVES), tmp_path / name / "curves") for name in "ab"]
    assert [path.name for path in written[0]] == ["curves.png", "curves.svg"]
    for one, other in zip(*written, strict=True):
        assert one.read_bytes() == other.read_bytes()
    with Image.open(written[0][0]) as picture:
        assert picture.width >= 1000
        colors = {to_hex(np.array(c) / 255).upper() for _, c in picture.convert("RGB").getcolors(1 << 20)}  # type: ignore[union-attr]
    assert CORE_COLORS["rmc"] in colors


def test_save_leaves_no_other_files(tmp_path: Path) -> None:
    written = style.save(learning.learning_curves(CURVES), tmp_path / "curves")
    assert set(tmp_path.iterdir()) == set(written)


def test_dollar_signs_in_titles_and_labels_are_plain_text() -> None:
    """Matplotlib reads `$...$` as mathematics, and fails where it is not."""
    name = r"$\run"
    figure = learning.learning_curves({f"{name}$": CURVES["rmc"]}, f"{name}$")
    assert text_faults(figure) == []
    assert figure.axes[0].get_title(loc="left") == f"{name}$"


LONG_NAMES = {
    "module and id": "my_package.tasks:mine/AVeryLongNameOfAnEnvironmentWithoutAnySpacesInIt-v0",
    "wide letters": "W" * 300,
    "many words": "a b " * 200,
    "markup": "$x$ [/b] <b> \x1b[31m %s {0}\n",
}


@pytest.mark.parametrize("name", LONG_NAMES.values(), ids=LONG_NAMES)
def test_names_of_any_length_stay_inside_the_figure(name: str) -> None:
    curve = Curve.of([1, 2], [0.1, 0.5])
    curves = {f"{core}, trained in {name}": [curve] for core in ("rmc", "gru")}
    points = {core: [[Point(3, 0.5, (0.4, 0.6)), Point(7, 0.6, None)]] for core in curves}
    log = {f"rollout/success_rate/{name}{i}": curve for i in range(3)}
    panels = learning.training_panels(log)
    assert panels is not None
    for figure in (
        learning.learning_curves(curves, name),
        learning.success_by_hallway(points, {3: "S9", 7: "S13"}, title=name, trained_up_to=3),
        panels,
    ):
        assert text_faults(figure) == []


def test_fitted_text_is_cut_after_its_lines() -> None:
    assert style.fitted("a short title", 5, 12) == "a short title"
    assert style.fitted("word " * 100, 2, 12, lines=2).count("\n") == 1
    assert style.fitted("word " * 100, 2, 12).endswith(" ...")
    assert style.fitted("", 2, 12) == ""


@pytest.mark.parametrize("count", [1, 3, 11, 30])
def test_axes_above_a_long_legend_stay_as_high(count: int) -> None:
    figure, axes = single_axes("title")
    for i in range(count):
        axes.plot([0, 1], label=f"core number {i}, with options (3 runs)")
    legend_below(figure, axes, "note")
    FigureCanvasAgg(figure).draw()
    assert axes.get_position().height * figure.get_figheight() > 2.8
