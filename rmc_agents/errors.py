"""Errors with a meaning for the user: which are mistakes to mend, and which end a run."""


class UsageError(ValueError):
    """A call cannot be carried out as given; the message says what to do. Scripts exit with code 2."""


class NotAnAgent(UsageError):
    """The run folder holds another kind of network than an agent."""


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
