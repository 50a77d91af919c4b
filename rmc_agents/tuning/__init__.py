"""Sweeps over hyperparameters: search spaces by core, the score of a trial, and studies of Optuna."""
