"""Relational memory for reinforcement-learning agents."""

from rmc_agents.actor_critic import ActorCritic, AgentState
from rmc_agents.checkpoint import load
from rmc_agents.classifier import SequenceClassifier, load_classifier
from rmc_agents.cores import CORES, RMC, MemoryCore
from rmc_agents.errors import TrainingError, UsageError
from rmc_agents.examples import Examples, SupervisedConfig
from rmc_agents.ppo import PPOConfig
from rmc_agents.supervised import SupervisedTrainer
from rmc_agents.trainer import Trainer

__all__ = [
    "CORES",
    "RMC",
    "ActorCritic",
    "AgentState",
    "Examples",
    "MemoryCore",
    "PPOConfig",
    "SequenceClassifier",
    "SupervisedConfig",
    "SupervisedTrainer",
    "Trainer",
    "TrainingError",
    "UsageError",
    "load",
    "load_classifier",
]
