"""Properties of cards: suits, ranks and colors."""

from __future__ import annotations

from typing import Literal

SUITS = 4
RANKS = 13

Kind = Literal["colors", "suits", "ranks"]
"""Which property of a card counts."""
NUM_KINDS: dict[Kind, int] = {"colors": 2, "suits": SUITS, "ranks": RANKS}
NAMES: dict[Kind, tuple[str, ...]] = {
    "suits": ("♠", "♥", "♣", "♦"),
    "ranks": ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K"),
    "colors": ("●", "○"),
}
"""Symbols in pictures."""


def symbol(kind: Kind, number: int) -> str:
    """Return the symbol of a suit, rank or color; a question mark for a number that is none."""
    return NAMES[kind][number] if 0 <= number < len(NAMES[kind]) else "?"
