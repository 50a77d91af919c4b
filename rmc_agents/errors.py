"""Errors that scripts report to the user."""


class UsageError(ValueError):
    """The arguments of a call are invalid; the message says how to correct them. Scripts exit with code 2."""

    names_options = False
    """Whether the names in the message are options of a core or an environment, rather than flags."""


class NotAnAgent(UsageError):
    """The run folder holds a network that is not an agent."""


class TrainingError(Exception):
    """Training had to stop (a non-finite loss, a full disk). Checkpoints are intact; scripts exit with 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived; the iteration was finished and saved.

    Args:
        message: what was saved, and where.
        signal: number of the signal. Scripts exit with code 128 + `signal`: 130 or 143.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
