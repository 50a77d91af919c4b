"""Texts as ids of words, and the words of MiniGrid's and BabyAI's missions."""

from __future__ import annotations

import ast
import inspect
import json
import pickle
import textwrap
from collections.abc import Callable

import gymnasium
import minigrid  # noqa: F401 - registers its ids
import numpy as np
import pytest
from gymnasium import spaces

from rmc_agents import ActorCritic, AnnotatedText, describe
from rmc_agents.spaces import Observations, mission_text, space_from_json, space_to_json
from rmc_agents.spaces.annotated import AnnotatedBox
from rmc_agents.spaces.text import BABYAI_LENGTH, BABYAI_WORDS, PADDING, UNKNOWN, words_of

TEXT = AnnotatedText(["go", "to", "the", "red", "door"], 4)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("go to the red", [2, 3, 4, 5]),
        ("Go, door!", [2, 6, 0, 0]),
        ("go blue", [2, UNKNOWN, 0, 0]),
        ("", [0, 0, 0, 0]),
        ("go to the red door", [2, 3, 4, 5]),
    ],
)
def test_words_become_ids(text: str, ids: list[int]) -> None:
    assert TEXT.contains(text)
    assert TEXT.ids(text).tolist() == ids
    assert TEXT.ids(text).dtype == np.uint8


def test_ids_of_batches_have_the_shape_of_the_batch() -> None:
    assert TEXT.ids(["go", "to"]).tolist() == [[2, 0, 0, 0], [3, 0, 0, 0]]
    assert TEXT.ids(np.array([["go"], ["to"]])).shape == (2, 1, 4)


def test_ids_are_new_arrays() -> None:
    TEXT.ids("go")[:] = 7
    TEXT.ids(["go"])[:] = 7
    assert TEXT.ids("go").tolist() == [2, 0, 0, 0]


def test_large_vocabularies_have_wide_ids() -> None:
    text = AnnotatedText([f"w{i}" for i in range(400)], 2)
    assert text.ids("w399 w0").tolist() == [401, 2]
    assert Observations(text).plain == spaces.Box(0, 401, (2,), np.int64)


def test_unread_words_are_named() -> None:
    assert TEXT.unread_in("go to the red door now") == ["door", "now"]
    assert TEXT.unread_in("go to") == []


@pytest.mark.parametrize("value", [3, [1, 2], None, np.zeros(2)])
def test_values_that_are_no_texts_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected text"):
        TEXT.ids(value)


@pytest.mark.parametrize(
    ("words", "length", "message"),
    [
        (["Go"], 2, "'Go' is no single word in small letters"),
        (["go to"], 2, "'go to' is no single word"),
        (["go", "go"], 2, "occurs twice"),
        ([], 2, "words of a text: 0; expected 1 to"),
        (["go"], 0, "length of a text: 0; expected 1 to"),
        (["go"], "2", "length of a text: '2'"),
    ],
)
def test_invalid_vocabularies_are_refused(words: list[str], length: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnnotatedText(words, length)


def test_spaces_of_other_words_are_not_equal() -> None:
    assert AnnotatedText(TEXT.words, 4) == TEXT
    assert AnnotatedText(TEXT.words, 5) != TEXT
    assert AnnotatedText(TEXT.words[::-1], 4) != TEXT
    assert spaces.Text(4) != TEXT


def test_vocabulary_survives_json_and_pickle() -> None:
    space = spaces.Dict(mission=TEXT, at=spaces.Discrete(2))
    TEXT.ids("go")
    assert space_from_json(json.loads(json.dumps(space_to_json(space)))) == space
    assert pickle.loads(pickle.dumps(space)) == space


def test_description_says_how_a_text_is_read() -> None:
    assert describe(spaces.Dict(mission=TEXT, name=spaces.Text(3))) == (
        "mission: AnnotatedText(5 words, at most 4 in a text), read as words in their order (5 known, all "
        "others as one unknown word)\nname: text, not read"
    )


def test_predict_reads_texts() -> None:
    space = spaces.Dict(mission=TEXT, at=spaces.Discrete(2))
    agent = ActorCritic(space, spaces.Discrete(3), "gru", {"hidden_size": 4})
    agent = ActorCritic.from_json(json.loads(json.dumps(agent.to_json())))
    assert agent.predict({"mission": "go to", "at": 1})[0] in range(3)
    batch = {"mission": ("go", "the door"), "at": np.array([0, 1])}
    assert agent.predict(batch)[0].shape == (2,)
    with pytest.raises(ValueError, match=r"mission has type int64, expected text"):
        agent.predict({"mission": 3, "at": 1})


def test_token_ids_of_a_box_are_read_as_words() -> None:
    tokens = spaces.Box(0, 49, (6,), np.int64)
    agent = ActorCritic(tokens, spaces.Discrete(2), "gru", read_as={"observation": "words"})
    assert "read as words in their order (48 known" in agent.describe()
    for wrong in (
        spaces.Box(-1, 49, (6,), np.int64),
        spaces.Box(0, 9, (2, 3), np.int64),
        spaces.Box(0, 1, (6,)),
    ):
        with pytest.raises(ValueError, match="cannot be read as words"):
            ActorCritic(wrong, spaces.Discrete(2), read_as={"observation": "words"})


def test_placeholders_give_the_words_of_missions() -> None:
    space = gymnasium.make("MiniGrid-GoToDoor-5x5-v0").observation_space["mission"]  # type: ignore[index]
    text = mission_text(space)
    assert text == AnnotatedText(
        ["blue", "door", "go", "green", "grey", "purple", "red", "the", "to", "yellow"], 5
    )
    assert mission_text(spaces.Text(5)) is None


def test_words_of_many_placeholders_are_found_without_all_missions() -> None:
    from minigrid.core.mission import MissionSpace

    values = [f"a{i}" for i in range(30)]
    space = MissionSpace(lambda x, y, z: f"put {x} near {y} by {z}", [values, [*values, "big b"], values])
    text = mission_text(space)
    assert text is not None
    assert set(text.words) == {"put", "near", "by", "big", "b", *values}
    assert text.length == 7


def test_babyai_words_are_those_of_its_grammar() -> None:
    from minigrid.core.constants import COLOR_NAMES
    from minigrid.envs.babyai.core import verifier

    assert {*COLOR_NAMES, *verifier.OBJ_TYPES, "object"} <= set(BABYAI_WORDS)
    classes = [cls for cls in vars(verifier).values() if isinstance(cls, type) and "surface" in vars(cls)]
    literals = [text for cls in classes for text in literals_of(cls.surface)]  # type: ignore[attr-defined]
    assert len(literals) > 12
    assert {word for text in literals for word in words_of(text)} <= set(BABYAI_WORDS)


def literals_of(function: Callable) -> list[str]:
    """Return the strings in a function, without those of its docstring and of assertions."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(definition, ast.FunctionDef)
    body = [each for each in definition.body if not isinstance(each, ast.Assert | ast.Expr)]
    nodes = [node for each in body for node in ast.walk(each) if isinstance(node, ast.Constant)]
    return [node.value for node in nodes if isinstance(node.value, str)]


def test_longest_sentence_of_babyai_fits() -> None:
    thing = "the red ball in front of you"
    put = f"put {thing} next to {thing}"
    longest = f"{put} and {put} after you {put} and {put}"
    assert len(words_of(longest)) == BABYAI_LENGTH
    text = AnnotatedText(BABYAI_WORDS, BABYAI_LENGTH)
    assert text.unread_in(longest) == []
    assert text.ids(longest)[-1] != PADDING


def test_space_of_words_is_shown_as_text() -> None:
    plain = Observations(spaces.Dict(mission=AnnotatedText(["go", "to", "door"], 7))).plain
    assert str(plain) == "Dict('mission': Text of at most 7 words, from a vocabulary of 3)"
    assert repr(AnnotatedBox(spaces.Box(0, 9, (2,), np.uint8), "raw")) == "Box(0, 9, (2,), uint8)"
