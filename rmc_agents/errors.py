"""Mistakes that a user can mend: shown as one message, without a traceback."""


class UsageError(Exception):
    """A command or call cannot be carried out as given; the message says what to do. Exit code 2."""


class TrainingError(Exception):
    """Training had to stop (a number is not finite, say); what was saved is intact. Exit code 1."""
