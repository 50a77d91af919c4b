"""Native tasks on MiniGrid's grids, for manual play. Import it only to play: it imports pygame."""

from __future__ import annotations

from typing import Any, Protocol, final, runtime_checkable

import gymnasium
import numpy as np
import pygame
from gymnasium import spaces
from numpy.typing import NDArray

from rmc_agents.environment import BatchedEnv
from rmc_agents.spaces.annotated import MINIGRID_CODES, AnnotatedBox, codes_reading

from .gymnasium.api import SingleEnv

WINDOW = 640
"""Width of the window, in pixels, as MiniGrid's."""


@runtime_checkable
class GridTask(Protocol):
    """A native task that a person can play: its observation has MiniGrid's symbolic "image", its actions are
    turn left, turn right and forward."""

    def render(self, i: int = 0, final: bool = False, tile_size: int = 32) -> NDArray[np.uint8]:
        """Draw environment i, [height, width, 3]."""
        ...

    def render_view(self, i: int = 0, tile_size: int = 32) -> NDArray[np.uint8]:
        """Draw what the agent of environment i sees, [height, width, 3]."""
        ...

    def mission(self, i: int = 0) -> str:
        """Return what the agent of environment i is asked to do, in words."""
        ...


def is_grid(batch: BatchedEnv) -> bool:
    """Return whether a person can play a native task."""
    space = batch.observation_space
    image = space.spaces.get("image") if isinstance(space, spaces.Dict) else None
    codes = isinstance(image, AnnotatedBox) and image.read_as == codes_reading(MINIGRID_CODES)
    return codes and isinstance(batch, GridTask) and batch.action_space == spaces.Discrete(3)


@final
class NativeGrid(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A native task with the attributes of MiniGrid's environments that manual play uses."""

    def __init__(self, env: SingleEnv, agent_pov: bool = True) -> None:
        """
        Args:
            env: of a task for which `is_grid` is true.
            agent_pov: the window shows what the agent sees, instead of the whole maze.
        """
        super().__init__(env)
        self.agent_pov, self.step_count, self.total = agent_pov, 0, 0.0
        assert isinstance(env.batch, GridTask)
        self.task: GridTask = env.batch
        self._window: pygame.Surface | None = None

    @property
    def unwrapped(self) -> Any:
        """This environment, whose attributes are those of MiniGrid's."""
        return self

    @property
    def mission(self) -> str:
        """What the agent is asked to do now."""
        return self.task.mission()

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.step_count, self.total = 0, 0.0
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(np.int64(action))
        self.step_count += 1
        self.total += float(reward)
        return obs, float(reward), terminated, truncated, info

    def outcome(self) -> str:
        """Return one line on how an episode ended."""
        return f"episode over after {self.step_count} steps: return {self.total:g}"

    def render(self) -> None:
        """Show the agent's view or the whole maze in a window."""
        picture = self.task.render_view(tile_size=64) if self.agent_pov else self.task.render()
        height, width = picture.shape[:2]
        size = WINDOW, height * WINDOW // width
        if self._window is None or self._window.get_size() != size:
            self._window = pygame.display.set_mode(size)
        surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        self._window.blit(pygame.transform.smoothscale(surface, size), (0, 0))
        pygame.display.set_caption(self.mission)
        pygame.display.flip()

    def close(self) -> None:
        if self._window is not None:
            pygame.display.quit()
            self._window = None
        self.env.close()
