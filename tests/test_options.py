"""Options as `KEY=VALUE` words."""

from __future__ import annotations

import pytest

from rmc_agents.options import parse_options


def test_options_recognise_numbers_booleans_and_none() -> None:
    words = ["a=3", "b=0.5", "c=True", "d=unit", "e=None"]
    assert parse_options(words) == {"a": 3, "b": 0.5, "c": True, "d": "unit", "e": None}
    assert parse_options([]) == {}
    assert parse_options(["a=false", "b=TRUE", "c='false'"]) == {"a": False, "b": True, "c": "false"}
    assert parse_options(["path=a=b", "empty="]) == {"path": "a=b", "empty": ""}


@pytest.mark.parametrize("word", ["a", "=3", ""])
def test_option_without_key_or_equals_sign_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="KEY=VALUE"):
        parse_options([word, "b=3"])
