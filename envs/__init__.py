"""Memory tasks as batches of tensors on any device; importing the package registers them with Gymnasium.

`rmc_envs.make("MiniGrid-MemoryS13-v0", num_envs=4096, device="cuda")` returns tensors;
`gymnasium.make("rmc/MemoryS13-v0")` and `gymnasium.make_vec(...)` return NumPy arrays.

The folder is installed as `rmc_envs`. In a checkout, `import envs` gives the same modules.
"""

if __name__ != "rmc_envs":
    from ._alias import alias_package

    alias_package(__name__, __path__[0])

from rmc_agents.environment import (
    AuxiliaryTargets,
    BatchedEnv,
    EnvConfig,
    EnvironmentFailed,
    GroundTruth,
    ObjectPlaces,
    ObjectsEnv,
    Obs,
    Transition,
)

from .box_world.box_world import BoxWorld
from .building import build, make, make_reference, runs_on_device, spaces_of
from .checks.contract import check
from .checks.report import ContractError
from .color_cubes.color_cubes import ColorCubes
from .defaults import default_options
from .gymnasium.adapter import GymnasiumEnvs
from .memory_maze import MemoryMaze
from .mini_pacman.mini_pacman import MiniPacMan
from .minigrid.baselines import best_possible, random_walk
from .minigrid.memory import MemoryMazes
from .minigrid.missions import read_mission
from .minigrid.tables import MazeSpec
from .popgym.levels import POPGYM_IDS, popgym_id
from .references import References, references
from .registry import MEMORY_MAZES, NATIVE, native, register, resolve
from .sequences.key_value import KeyValue
from .sequences.memory_cards import MemoryCards
from .sequences.memory_chain import MemoryChain
from .sequences.nth_farthest import NthFarthest
from .sequences.recall import Recall
from .suites import OWN_TASK_ONLY, SUITES, Implementation, Suite, choose_implementation, trials
from .t_maze.endless import EndlessTMaze
from .t_maze.passive_active import TMaze

__all__ = [
    "MEMORY_MAZES",
    "NATIVE",
    "OWN_TASK_ONLY",
    "POPGYM_IDS",
    "SUITES",
    "AuxiliaryTargets",
    "BatchedEnv",
    "BoxWorld",
    "ColorCubes",
    "ContractError",
    "EndlessTMaze",
    "EnvConfig",
    "EnvironmentFailed",
    "GroundTruth",
    "GymnasiumEnvs",
    "Implementation",
    "KeyValue",
    "MazeSpec",
    "MemoryCards",
    "MemoryChain",
    "MemoryMaze",
    "MemoryMazes",
    "MiniPacMan",
    "NthFarthest",
    "ObjectPlaces",
    "ObjectsEnv",
    "Obs",
    "Recall",
    "References",
    "Suite",
    "TMaze",
    "Transition",
    "best_possible",
    "build",
    "check",
    "choose_implementation",
    "default_options",
    "make",
    "make_reference",
    "native",
    "popgym_id",
    "random_walk",
    "read_mission",
    "references",
    "register",
    "resolve",
    "runs_on_device",
    "spaces_of",
    "trials",
]
