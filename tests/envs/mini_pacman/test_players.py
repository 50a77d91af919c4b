"""Players of Mini PacMan: memory and foresight raise the score."""

import pytest

from rmc_envs.mini_pacman.mini_pacman import MiniPacMan
from rmc_envs.mini_pacman.players import MiniPacManMemoryless, MiniPacManReference, MiniPacManShortSighted
from rmc_envs.players import Player, RandomPlayer, play


def score(player: type[Player], view_size: int | None, max_steps: int) -> float:
    task = MiniPacMan(16, view_size=view_size, max_steps=max_steps)
    return float(play(task, player(task), 16, seed=3).mean())


def test_memory_of_the_food_clears_the_maze_sooner() -> None:
    random, memoryless, reference = (
        score(player, 5, 250) for player in (RandomPlayer, MiniPacManMemoryless, MiniPacManReference)
    )
    assert random < 30
    assert 80 < memoryless < reference - 20
    assert reference > 140  # the second level


@pytest.mark.slow
def test_foresight_in_full_view_survives_for_longer() -> None:
    assert score(MiniPacManReference, None, 700) > score(MiniPacManShortSighted, None, 700) + 50
