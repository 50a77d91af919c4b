"""Mistakes that a user can mend: shown as one message, without a traceback."""


class UsageError(Exception):
    """A command or call cannot be carried out as given; the message says what to do. Exit code 2."""


class NotAnAgent(UsageError):
    """The run holds another network than an agent."""


class TrainingError(Exception):
    """Training had to stop (a number is not finite, say); what was saved is intact. Exit code 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: the iteration was finished and saved. Exit code 128 + `signal`: 130 or 143."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
