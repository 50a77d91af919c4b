"""Text from outside is shown as it is: no control characters, no Markdown, no HTML."""

from __future__ import annotations

import pytest

from rmc_agents.errors import printable, shown
from rmc_agents.report.text import encodable, markdown_code, markdown_text


def test_control_characters_and_surrogates_become_escapes() -> None:
    assert printable("a\x1b[31m\nb\udc80\u202e") == r"a\x1b[31m\nb\udc80\u202e"
    assert printable("Größe R² [0.1] 記憶") == "Größe R² [0.1] 記憶"


def test_text_in_messages_is_one_short_line() -> None:
    assert shown("a name") == "a name"
    assert shown(ValueError("wrong\n[/x]\x1b[2J")) == r"wrong\n[/x]\x1b[2J"
    for text in ("x" * 10_000_000, "\n" * 10_000_000, "x" * 201, "\x00" * 199):
        assert len(shown(text)) <= 200
        assert shown(text).endswith(" ...")
    assert len(shown("x" * 100, limit=50)) == 50


def test_every_document_can_be_encoded() -> None:
    assert encodable("a\udc80b\n").encode() == b"a\\udc80b\n"
    assert encodable("記憶\n") == "記憶\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("maze <b>", "maze &lt;b&gt;"),
        ("a & b &lt;", "a &amp; b &amp;lt;"),
        ("*bold* _it_ ~~no~~ `x` $y$", r"\*bold\* \_it\_ \~\~no\~\~ \`x\` \$y\$"),
        ("snake_case 0.9 [0.8, 1.0]", "snake_case 0.9 [0.8, 1.0]"),
        ("![x](y) [x](y)", r"![x]\(y) [x]\(y)"),
        ("a|b", r"a\|b"),
        ("a\nb\\", r"a\\nb\\"),
    ],
)
def test_markdown_markup_is_escaped(text: str, expected: str) -> None:
    assert markdown_text(text) == expected


def test_code_spans_outlast_the_backticks_in_them() -> None:
    assert markdown_code("python x.py") == "`python x.py`"
    assert markdown_code("`a` ``b``\n") == r"``` `a` ``b``\n ```"
