"""Supervised sequence tasks: classifier, objective, trainer."""
