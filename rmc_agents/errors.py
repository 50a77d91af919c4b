"""Errors that scripts report to the user, and how text from outside is shown in messages."""


def printable(text: str) -> str:
    r"""Return one line of text, with control characters and lone surrogates as escapes such as `\x1b`.

    Written to a terminal, a control character could move the cursor or change colors; a lone surrogate (from
    a file name that is not UTF-8) cannot be written at all.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(text: object, limit: int = 200) -> str:
    """Return text from outside (a name, a path, an error) for a message: `printable`, and shortened.

    Args:
        text: the text, or an object with one.
        limit: characters at most.
    """
    whole = str(text)
    line = printable(whole[: limit + 1])
    return line if max(len(whole), len(line)) <= limit else f"{line[: limit - 4]} ..."


class UsageError(ValueError):
    """The arguments of a call are invalid; the message says how to correct them. Scripts exit with code 2."""

    names_options = False
    """Whether the names in the message are options of a core or an environment, rather than flags."""


class NotAnAgent(UsageError):
    """The run folder holds a network that is not an agent."""


class TrainingError(Exception):
    """Training had to stop (a non-finite loss, a full disk). Checkpoints are intact; scripts exit with 1."""


class Incomplete(Exception):
    """A part of what was asked for could not be done, and the rest was. Scripts exit with 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived; the iteration was finished and saved.

    Args:
        message: what was saved, and where.
        signal: number of the signal. Scripts exit with code 128 + `signal`: 130 or 143.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
