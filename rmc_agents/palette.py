"""Colours that are told apart with any colour vision, and which core has which: the same in every picture.

Source: Okabe and Ito 2008, "Color universal design" (jfly.uni-koeln.de/color).
"""

from __future__ import annotations

from collections.abc import Iterable

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY, BLACK, YELLOW = "#CC79A7", "#56B4E9", "#000000", "#F0E442"
FAINT = "#666666"
"""For what is said in passing."""
OKABE_ITO = (BLUE, ORANGE, GREEN, VERMILLION, PINK, SKY, BLACK, YELLOW)

CORE_COLOURS = {
    "rmc": BLUE,
    "lstm": ORANGE,
    "gru": GREEN,
    "dnc": PINK,
    "rnn": SKY,
    "feedforward": BLACK,
}
MARKERS = "osD^vPX*"
"""Shapes of points, so that colour is never all that tells two lines apart."""


def styles(cores: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each core; cores of the reader's own get what is left, in their order."""
    cores = list(dict.fromkeys(cores))
    left = [colour for colour in (VERMILLION, YELLOW, *OKABE_ITO) if colour not in CORE_COLOURS.values()]
    own = [core for core in cores if core not in CORE_COLOURS]
    colours = CORE_COLOURS | {core: left[i % len(left)] for i, core in enumerate(own)}
    order = [*CORE_COLOURS, *own]
    return {core: (colours[core], MARKERS[order.index(core) % len(MARKERS)]) for core in cores}
