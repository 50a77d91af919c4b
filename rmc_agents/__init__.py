"""Relational memory for reinforcement-learning agents.

The public names load on first use: importing the package alone loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmc_agents.agent.acceleration import accelerate
    from rmc_agents.agent.actor_critic import ActionEvaluation, ActorCritic, AgentState
    from rmc_agents.agent.config import AgentConfig
    from rmc_agents.agent.saved import export_agent, load
    from rmc_agents.cores import CORES, RMC, MemoryCore
    from rmc_agents.environment import AuxiliaryTargets, BatchedEnv, EnvConfig, Transition
    from rmc_agents.errors import TrainingError, UsageError
    from rmc_agents.evaluation.episodes import Policy, evaluate
    from rmc_agents.evaluation.periodic import PeriodicEvaluation
    from rmc_agents.export.files import export_file
    from rmc_agents.export.policy import export_policy
    from rmc_agents.export.pretrained import save_pretrained
    from rmc_agents.rl.ppo import PPOConfig
    from rmc_agents.rl.trainer import Trainer
    from rmc_agents.spaces.annotated import AnnotatedBox
    from rmc_agents.spaces.description import describe
    from rmc_agents.spaces.text import AnnotatedText
    from rmc_agents.supervised.classifier import SequenceClassifier, load_classifier
    from rmc_agents.supervised.objective import Examples, SupervisedConfig
    from rmc_agents.supervised.trainer import SupervisedTrainer
    from rmc_agents.training.callbacks import Callback
    from rmc_agents.training.trackers import MLflowTracker, WandbTracker

_HOME = {
    "accelerate": "agent.acceleration",
    "ActionEvaluation": "agent.actor_critic",
    "ActorCritic": "agent.actor_critic",
    "AgentState": "agent.actor_critic",
    "AgentConfig": "agent.config",
    "export_agent": "agent.saved",
    "load": "agent.saved",
    "CORES": "cores",
    "RMC": "cores",
    "MemoryCore": "cores",
    "AuxiliaryTargets": "environment",
    "BatchedEnv": "environment",
    "EnvConfig": "environment",
    "Transition": "environment",
    "TrainingError": "errors",
    "UsageError": "errors",
    "Policy": "evaluation.episodes",
    "evaluate": "evaluation.episodes",
    "PeriodicEvaluation": "evaluation.periodic",
    "export_file": "export.files",
    "export_policy": "export.policy",
    "save_pretrained": "export.pretrained",
    "PPOConfig": "rl.ppo",
    "Trainer": "rl.trainer",
    "AnnotatedBox": "spaces.annotated",
    "AnnotatedText": "spaces.text",
    "describe": "spaces.description",
    "SequenceClassifier": "supervised.classifier",
    "load_classifier": "supervised.classifier",
    "Examples": "supervised.objective",
    "SupervisedConfig": "supervised.objective",
    "SupervisedTrainer": "supervised.trainer",
    "Callback": "training.callbacks",
    "MLflowTracker": "training.trackers",
    "WandbTracker": "training.trackers",
}
"""Each public name, with the module that defines it."""

__all__ = [
    "CORES",
    "RMC",
    "ActionEvaluation",
    "ActorCritic",
    "AgentConfig",
    "AgentState",
    "AnnotatedBox",
    "AnnotatedText",
    "AuxiliaryTargets",
    "BatchedEnv",
    "Callback",
    "EnvConfig",
    "Examples",
    "MLflowTracker",
    "MemoryCore",
    "PPOConfig",
    "PeriodicEvaluation",
    "Policy",
    "SequenceClassifier",
    "SupervisedConfig",
    "SupervisedTrainer",
    "Trainer",
    "TrainingError",
    "Transition",
    "UsageError",
    "WandbTracker",
    "accelerate",
    "describe",
    "evaluate",
    "export_agent",
    "export_file",
    "export_policy",
    "load",
    "load_classifier",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
