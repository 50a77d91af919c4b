"""Memory tasks as batches of tensors on any device; importing this registers them with Gymnasium too.

`envs.make("MiniGrid-MemoryS13-v0", num_envs=4096, device="cuda")` for tensors,
`gymnasium.make("rmc/MemoryS13-v0")` and `gymnasium.make_vec(...)` for plain NumPy.
"""

from envs.base import BatchedEnv, EnvironmentFailed, Obs, StateNotSaved, Transition
from envs.gymnasium_adapter import GymnasiumEnvs
from envs.minigrid_memory import MemoryMazes
from envs.minigrid_tables import MazeSpec, best_possible, random_walk
from envs.nth_farthest import NthFarthest
from envs.recall import Recall
from envs.registry import MEMORY_MAZES, NATIVE, farama, make, native, register
from envs.trials import SUITES, Implementation, Suite, choose_implementation, trials

__all__ = [
    "MEMORY_MAZES",
    "NATIVE",
    "SUITES",
    "BatchedEnv",
    "EnvironmentFailed",
    "GymnasiumEnvs",
    "Implementation",
    "MazeSpec",
    "MemoryMazes",
    "NthFarthest",
    "Obs",
    "Recall",
    "StateNotSaved",
    "Suite",
    "Transition",
    "best_possible",
    "choose_implementation",
    "farama",
    "make",
    "native",
    "random_walk",
    "register",
    "trials",
]
