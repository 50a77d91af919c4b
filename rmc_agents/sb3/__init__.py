"""Memory cores and batched environments for Stable-Baselines3, whose algorithms run unmodified.

`RecurrentPPO(RMCPolicy, env)` of sb3-contrib trains a relational memory or any other core of
`rmc_agents.cores`. `BatchedVecEnv` makes an SB3 `VecEnv` of a batched environment.

The names load on first use. Importing this package changes nothing in SB3; loading `RMCPolicy` lets
`DummyVecEnv` accept MiniGrid's observations (see `rmc_agents.sb3.text`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmc_agents.sb3.exchange import policy_kwargs_for
    from rmc_agents.sb3.features import EncoderExtractor
    from rmc_agents.sb3.policy import RMCCnnPolicy, RMCMultiInputPolicy, RMCPolicy
    from rmc_agents.sb3.text import with_words, without_text
    from rmc_agents.sb3.vec_env import BatchedVecEnv

_HOME = {
    "BatchedVecEnv": "vec_env",
    "EncoderExtractor": "features",
    "RMCCnnPolicy": "policy",
    "RMCMultiInputPolicy": "policy",
    "RMCPolicy": "policy",
    "policy_kwargs_for": "exchange",
    "with_words": "text",
    "without_text": "text",
}
"""Each public name, with the module that defines it."""

__all__ = [
    "BatchedVecEnv",
    "EncoderExtractor",
    "RMCCnnPolicy",
    "RMCMultiInputPolicy",
    "RMCPolicy",
    "policy_kwargs_for",
    "with_words",
    "without_text",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
