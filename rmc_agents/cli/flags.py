"""Flags: dataclasses read from the command line, old names of flags, and messages that name flags."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro
from tyro import _strings as tyro_strings

from rmc_agents.errors import UsageError, shown
from rmc_agents.options import Options, parse_options

Config = TypeVar("Config")

OLD_FLAGS = {
    "--hint-coef": "--aux-coef",
    "--hint-weight": "--aux-coef",
    "--hints": "--aux-targets",
    "--no-hints": "--no-aux-targets",
    "--aids-share": "--aux-until",
    "--stop-at-success": "--target-success-rate",
    "--stop-at-accuracy": "--target-accuracy",
}
"""Flags of the previous release, accepted for one more release."""
MAX_LINES, MAX_WIDTH = 30, 300
"""Largest message of tyro."""


def parse(
    config: type[Config],
    default: Config | None,
    args: Sequence[str],
    prog: str,
    description: str | None = None,
) -> Config:
    """Parse flags into a dataclass; nested dataclasses become groups of flags without a prefix.

    Exits with code 2 and the usage on a flag that tyro cannot read.

    Args:
        config: the dataclass.
        default: the values of flags that are not given; the dataclass's own defaults if None.
        args: the command line.
        prog: name of the command, for the usage.
        description: shown by --help; the dataclass's docstring if None.

    Raises:
        UsageError: a dataclass refuses its values.
    """
    for word in args:
        old = word.partition("=")[0]
        if old.startswith("--") and (new := current_flag(old)) != old:
            print(f"note: {old} is now {new}; the old name works for one more release", file=sys.stderr)
    options: dict[str, Any] = {} if default is None else {"default": default}
    return _read(config, _renamed(args), prog=prog, description=description, **options)


def parse_some(config: type[Config], args: Sequence[str]) -> Config:
    """Parse the flags of a dataclass, and ignore all others; `parse` checks them later."""
    words = _renamed([word for word in args if word not in ("-h", "--help")])
    known, _ = _read(config, words, return_unknown_args=True, add_help=False)
    return known


def _read(config: type, words: Sequence[str], **options: Any) -> Any:
    """Call tyro; text from the command line in its messages is made printable and shortened.

    Raises:
        UsageError: a dataclass refuses its values.
        SystemExit: tyro cannot read a flag, or has printed the help.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), _paragraphs():
            return tyro.cli(
                config, args=words, registry=_registry(), config=(tyro.conf.OmitArgPrefixes,), **options
            )
    except SystemExit:
        reason = _refusal(printed.getvalue())
        if reason is not None:
            raise UsageError(reason) from None
        lines = printed.getvalue().splitlines()
        for line in lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 4], "...", *lines[-3:]]:
            print(shown(line, MAX_WIDTH), file=sys.stderr)
        raise


@contextlib.contextmanager
def _paragraphs() -> Iterator[None]:
    """Let tyro fill the lines of the help: it keeps the breaks of a field's docstring, which is indented."""
    join = getattr(tyro_strings, "remove_single_line_breaks", None)
    if join is None:  # not part of tyro's interface
        yield
        return
    tyro_strings.remove_single_line_breaks = lambda text: " ".join(text.split())
    try:
        yield
    finally:
        tyro_strings.remove_single_line_breaks = join


def _refusal(box: str) -> str | None:
    """Return the message of a nested dataclass's ValueError from the box in which tyro prints it."""
    # Its lines are framed by │ and ─, or by spaces and - where the output has only ASCII.
    text = " ".join(line.strip("│| ") for line in box.splitlines())
    found = re.search(r"Error parsing \w+: (.*?) [─-]{5,}", text)
    return found[1] if found else None


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Return tyro's rules for whole numbers (5e6, 5_000_000) and for options (KEY=VALUE)."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def _(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
        if info.type is not int:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda words: whole_number(words[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    @registry.primitive_rule
    def _(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[Options] | None:
        if info.type != Options:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="KEY=VALUE",
            instance_from_str=parse_options,
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda value: [f"{key}={option}" for key, option in value.items()],
        )

    return registry


def _renamed(args: Sequence[str]) -> list[str]:
    """Replace flags of the previous release by their new names."""
    words = []
    for word in args:
        flag, equals, value = word.partition("=")
        words.append(current_flag(flag) + equals + value if flag.startswith("--") else word)
    return words


def current_flag(flag: str) -> str:
    """Return the present name of a flag, which may be one of the previous release."""
    return OLD_FLAGS.get(flag.replace("_", "-"), flag)


def require(name: str, value: object, fits: bool, expected: str) -> None:
    """Raise UsageError unless the value of a flag fits."""
    if not fits:
        raise UsageError(f"--{name} {shown(value, 40)}: expected {expected}")


def require_seed(seed: int, episodes: int = 1) -> None:
    """Raise UsageError unless so many episodes can be seeded with `seed` and the numbers after it."""
    require("seed", seed, 0 <= seed <= 2**63 - episodes, "0 to 2^63 - 1, for every episode")


def whole_number(text: str) -> int:
    """Read 5000000, 5_000_000 or 5e6 as an int.

    Raises:
        ValueError: not a whole number.
    """
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        if (number := float(text)).is_integer():
            return int(number)
    raise ValueError(f"expected a whole number, got {shown(text, 40)}")


def in_flags(message: str, config: type | None) -> str:
    """Return a message of the library, which names Python arguments, with flags instead.

    `num_envs=0` becomes `--num-envs 0`, `learning_rate` becomes `--learning-rate`, and `preset=False` becomes
    `--no-preset`. A plain word, such as `gamma`, is a name if it stands at the beginning, before `must be`.
    """
    names = field_names(config) if config is not None else set()
    switch = r"(?<![\w/.-])(\w+)=(True|False)\b"
    switched = {"True": "--", "False": "--no-"}
    message = re.sub(
        switch, lambda m: switched[m[2]] + m[1].replace("_", "-") if m[1] in names else m[0], message
    )
    given = r"(?<![\w/.-])(\w+)=(?=[^\s=])"
    message = re.sub(given, lambda m: f"{_flag(m[1])} " if m[1] in names else m[0], message)
    message = re.sub(r"^\w+(?= must be\b)", lambda m: _flag(m[0]) if m[0] in names else m[0], message)
    word = r"(?<![\w/.-])([a-z]+(?:_[a-z]+)+)(?![\w/(\[]|\.\w)"
    return re.sub(word, lambda m: _flag(m[1]) if m[1] in names else m[0], message)


def field_names(config: type) -> set[str]:
    """Return the names of a dataclass's fields, those of nested dataclasses included."""
    names: set[str] = set()
    for each in dataclasses.fields(config):
        nested = each.default_factory if dataclasses.is_dataclass(each.default_factory) else None
        names |= field_names(nested) if isinstance(nested, type) else {each.name}
    return names


def _flag(name: str) -> str:
    return "--import" if name == "imports" else f"--{name.replace('_', '-')}"
