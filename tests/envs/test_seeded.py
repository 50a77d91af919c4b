"""New episodes start where one ended, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rmc_envs.seeded import restart, restart_without_waiting


@pytest.mark.parametrize("how", [restart, restart_without_waiting])
@pytest.mark.parametrize("ended", [[], [0], [1, 3], [0, 1, 2, 3]])
def test_rows_are_replaced_where_an_episode_ended(how, ended: list[int]) -> None:
    def draw(count: int) -> tuple[Tensor, ...]:
        return torch.full((count, 3), 7.0), torch.full((count,), 8), torch.full((count,), 9)

    board, time, obs = torch.zeros(4, 3), torch.arange(4), torch.arange(4)
    done = torch.zeros(4, dtype=torch.bool)
    done[ended] = True
    found = how((board, time), obs, done, draw)
    assert obs.tolist() == [0, 1, 2, 3]  # the last observations stay as they are
    assert found.tolist() == [9 if i in ended else i for i in range(4)]
    assert time.tolist() == [8 if i in ended else i for i in range(4)]
    assert board[:, 0].tolist() == [7 if i in ended else 0 for i in range(4)]
