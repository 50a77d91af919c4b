"""Memory tasks as batches of tensors on any device; importing this registers them with Gymnasium too.

`envs.make("MiniGrid-MemoryS13-v0", num_envs=4096, device="cuda")` for tensors,
`gymnasium.make("rmc/MemoryS13-v0")` and `gymnasium.make_vec(...)` for plain NumPy.
"""

from envs.base import BatchedEnv, EnvironmentFailed, Obs, StateNotSaved, Transition
from envs.gymnasium_adapter import GymnasiumEnvs
from envs.minigrid_memory import MemoryMazes
from envs.minigrid_tables import MazeSpec, best_possible
from envs.nth_farthest import NthFarthest
from envs.recall import Recall
from envs.registry import MEMORY_MAZES, NATIVE, farama, make, native, register

__all__ = [
    "MEMORY_MAZES",
    "NATIVE",
    "BatchedEnv",
    "EnvironmentFailed",
    "GymnasiumEnvs",
    "MazeSpec",
    "MemoryMazes",
    "NthFarthest",
    "Obs",
    "Recall",
    "StateNotSaved",
    "Transition",
    "best_possible",
    "farama",
    "make",
    "native",
    "register",
]
