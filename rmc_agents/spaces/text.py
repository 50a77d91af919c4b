"""Texts as words: a space of texts that carries its vocabulary, and MiniGrid's missions as such spaces.

An agent reads a text as the ids of its words: 0 is padding, 1 an unknown word, and 2 + i the word i of the
vocabulary. Axes: W words of the longest text.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

PADDING, UNKNOWN = 0, 1
"""Ids behind the end of a text, and of words that are not in the vocabulary."""
SPECIAL = 2
"""Number of ids that are no words of the vocabulary."""
MAX_WORDS = 2**16
"""Largest vocabulary."""
MAX_LENGTH = 1024
"""Largest number of words of a text."""
REMEMBERED = 2**14
"""Number of texts whose ids are remembered."""
_WORD = re.compile(r"\w+")


class AnnotatedText(spaces.Text):
    """A space of texts that an agent reads word by word.

    Case and punctuation do not matter: "Open the door, then go!" has five words. Every string is a member;
    words that are not in the vocabulary are read as one unknown word, and words behind the longest length are
    not read.

    Args:
        words: the vocabulary, at least one word. Its order is part of the agent: do not change it between
            training and use.
        length: W, the number of words of the longest text.

    Raises:
        ValueError: a word that is none or occurs twice, or a size out of range.
    """

    def __init__(self, words: Sequence[str], length: int) -> None:
        words = tuple(words)
        wrong = [word for word in words if words_of(word) != [word]]
        if wrong or len(set(words)) < len(words):
            what = f"{wrong[0]!r} is no single word in small letters" if wrong else "a word occurs twice"
            raise ValueError(f"the vocabulary of a text: {what}")
        for name, size, most in (("words", len(words), MAX_WORDS), ("length", length, MAX_LENGTH)):
            if not isinstance(size, int) or not 1 <= size <= most:
                raise ValueError(f"{name} of a text: {size!r}; expected 1 to {most:,}")
        super().__init__(MAX_LENGTH, min_length=0)
        self.words, self.length = words, length
        self._ids = {word: SPECIAL + i for i, word in enumerate(words)}
        self._known: dict[str, NDArray[Any]] = {}

    @property
    def num_ids(self) -> int:
        """Number of different ids."""
        return SPECIAL + len(self.words)

    @property
    def id_type(self) -> np.dtype:
        """Type of the ids."""
        return np.dtype(np.uint8 if self.num_ids <= 256 else np.int64)

    def ids(self, texts: Any) -> NDArray[Any]:
        """Return the ids [..., W] of the words of one text, or of an array or sequence of texts.

        Raises:
            ValueError: they are not texts.
        """
        array = np.asarray(texts)
        if array.dtype.kind != "U":
            raise ValueError(f"has type {array.dtype}, expected text")
        rows = [self._row(text) for text in array.ravel().tolist()]
        return np.array(rows, dtype=self.id_type).reshape(*array.shape, self.length)

    def unread_in(self, text: str) -> list[str]:
        """Return the words of a text that are not read as what they are: unknown, or behind the end."""
        words = words_of(text)
        return [word for i, word in enumerate(words) if i >= self.length or word not in self._ids]

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Return a random sequence of words."""
        count = int(self.np_random.integers(1, self.length + 1))
        return " ".join(self.words[i] for i in self.np_random.integers(len(self.words), size=count))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AnnotatedText):
            return False
        return (self.words, self.length) == (other.words, other.length)

    def __repr__(self) -> str:
        return f"AnnotatedText({len(self.words)} words, at most {self.length} in a text)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}

    def _row(self, text: str) -> NDArray[Any]:
        row = self._known.get(text)
        if row is None:
            ids = [self._ids.get(word, UNKNOWN) for word in words_of(text)[: self.length]]
            row = np.array(ids + [PADDING] * (self.length - len(ids)), dtype=self.id_type)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[text] = row
        return row


def words_of(text: str) -> list[str]:
    """Return the words of a text in small letters, without punctuation."""
    return _WORD.findall(text.lower())


def ids_of_texts(space: spaces.Space[Any], obs: Any) -> Any:
    """Return an observation of a `Dict`, or a batch, with ids in the place of texts with known words."""
    texts = getattr(space, "texts", {})
    return {key: texts[key].ids(x) if key in texts and _is_text(x) else x for key, x in obs.items()}


def _is_text(values: Any) -> bool:
    return np.asarray(values).dtype.kind == "U"


BABYAI_WORDS = (
    *("go", "to", "open", "pick", "up", "put", "next", "the", "a"),
    *("red", "green", "blue", "purple", "yellow", "grey"),
    *("object", "box", "ball", "key", "door"),
    *("in", "front", "of", "you", "behind", "on", "your", "left", "right"),
    *("and", "then", "after"),
)
"""The words of BabyAI's language (Chevalier-Boisvert et al. 2019, table 1), as MiniGrid writes it."""
BABYAI_LENGTH = 72
"""Words of its longest sentences, "put A next to B and put C next to D after you put E ..." with descriptions
of seven words, such as "the red ball in front of you"."""
MAX_MISSIONS = 4096
"""Number of missions up to which all of a `MissionSpace` are made, to collect their words."""


def mission_text(space: spaces.Space[Any]) -> AnnotatedText | None:
    """Return MiniGrid's space of missions as texts that are read word by word; None for any other space.

    A `MissionSpace` lists what can stand in its placeholders. BabyAI's does not, so that its texts have all
    words of BabyAI's language. The classes are recognised by name, and MiniGrid is not imported.
    """
    names = {cls.__name__ for cls in type(space).__mro__ if cls.__module__.startswith("minigrid.")}
    if "BabyAIMissionSpace" in names:
        return AnnotatedText(BABYAI_WORDS, BABYAI_LENGTH)
    if "MissionSpace" not in names:
        return None
    missions = [words_of(mission) for mission in _missions(space)]
    vocabulary = sorted({word for words in missions for word in words})
    return AnnotatedText(vocabulary, max(map(len, missions))) if vocabulary else None


def _missions(space: Any) -> list[str]:
    """Return all missions of a `MissionSpace` or, of very many, one for each value of each placeholder."""
    values: list[list[str]] = space.ordered_placeholders or []
    if math.prod(map(len, values)) <= MAX_MISSIONS:
        chosen = list(itertools.product(*values))
    else:
        longest = [max(each, key=lambda value: len(words_of(value))) for each in values]
        chosen = [(*longest[:i], value, *longest[i + 1 :]) for i, each in enumerate(values) for value in each]
    return [str(space.mission_func(*each)) for each in chosen]
