"""Tasks that show a sequence of inputs and then ask a question about it."""
