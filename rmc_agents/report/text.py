"""Text from outside (run names, environment ids, commands), made safe for a terminal and for Markdown."""

from __future__ import annotations

import re

from rmc_agents.errors import printable

_SPECIAL = re.compile(r"[\\`*~$|]|(?<![^\W_])_|_(?![^\W_])|(?<=\])\(")
"""Markup of Markdown; of underscores, those at the edge of a word; of parentheses, those of links."""


def encodable(text: str) -> str:
    """Return a document that UTF-8 can encode: lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def markdown_text(text: str) -> str:
    """Return text that Markdown shows as it is, inside a line: no markup, no HTML, no line break."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(lambda found: "\\" + found[0], text)


def markdown_code(text: str) -> str:
    """Return text as a span of code, with a fence longer than any run of backticks in it."""
    text = printable(text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, pad = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{pad}{text}{pad}{fence}"
