"""Encoder of texts: the ids of words -> a vector, by embeddings and a small recurrent network.

The order of words matters: with "put the red ball next to the blue box", a sum of embeddings does not say
which of the two is red. The vector also decides how the cells of a grid are read, so that what the text says
of an object is learned for all cells at once.
Axes: N texts, n distinct texts, W words of the longest text, D width of a cell's embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rmc_agents.agent.distinct import find_distinct_rows
from rmc_agents.cores.kernels.call import eager
from rmc_agents.spaces.text import PADDING


class Words(nn.Module):
    """A GRU (Cho et al. 2014) over the embeddings of a text's words; its last state is the text's vector.

    Padding changes nothing. On a CPU, the texts that occur are encoded once each, up to their longest: a
    mission stays the same in an episode, so that a minibatch holds few of them.

    Args:
        num_ids: number of different ids; 0 is padding.
        length: W.
        width: of a word's embedding.
        output_size: of the text's vector.
    """

    def __init__(self, num_ids: int, length: int, width: int = 32, output_size: int = 64) -> None:
        super().__init__()
        self.length, self.output_size = length, output_size
        self.embedding = nn.Embedding(num_ids, width)
        self.cell = nn.GRUCell(width, output_size)
        nn.init.orthogonal_(self.cell.weight_hh)
        nn.init.zeros_(self.cell.bias_ih)
        nn.init.zeros_(self.cell.bias_hh)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors [..., output_size] of texts [..., W]."""
        leading = ids.shape[:-1]
        texts = ids.reshape(-1, self.length)
        if ids.device.type != "cpu" or not eager(ids.device):
            return self._encode(texts).reshape(*leading, self.output_size)
        texts = texts[:, : self._longest(texts)]
        distinct = find_distinct_rows([texts])
        vectors = (
            self._encode(texts)
            if distinct is None
            else self._encode(texts.index_select(0, distinct.rows)).index_select(0, distinct.inverse)
        )
        return vectors.reshape(*leading, self.output_size)

    def _longest(self, texts: Tensor) -> int:
        """Return the number of words of the longest text."""
        used = (texts != PADDING).any(0).nonzero()
        return int(used[-1]) + 1 if len(used) else 0

    def _encode(self, texts: Tensor) -> Tensor:
        """Return the vectors [N, output_size] of texts [N, up to W]."""
        present = (texts != PADDING).unsqueeze(-1)
        words = self.embedding(texts.long())
        vector = words.new_zeros(texts.shape[0], self.output_size)  # `len` would fix the size in an export
        for word, is_word in zip(words.unbind(1), present.unbind(1), strict=True):
            vector = torch.where(is_word, self.cell(word, vector), vector)
        return vector


class ReadByText(nn.Module):
    """Cells of a grid, read as texts say: relu((1 + a) cell + b), where texts determine a and b [D].

    This is FiLM (Perez et al. 2018), as in BabyAI's baseline. From 512 observations a step, whether and where
    the door of the mission is in view (MiniGrid-GoToDoor-5x5-v0) was learned to 99 % in 600 steps with it; at
    that point it was 71 % with text and cells side by side alone.

    Args:
        texts: sizes of the vectors of texts, by their places among the vectors of an observation.
        cells: D of the grids of cells, by their places.
    """

    def __init__(self, texts: Mapping[int, int], cells: Mapping[int, int]) -> None:
        super().__init__()
        self.texts, self.places = list(texts), list(cells)
        self.linears = nn.ModuleList(nn.Linear(sum(texts.values()), 2 * width) for width in cells.values())
        for linear in self.linears:
            assert isinstance(linear, nn.Linear)
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Return the vectors of an observation's parts, with those of grids [..., cells * D] replaced."""
        vectors = list(vectors)
        text = torch.cat([vectors[i] for i in self.texts], dim=-1)
        for place, linear in zip(self.places, self.linears, strict=True):
            scale, shift = linear(text).unsqueeze(-2).chunk(2, dim=-1)  # [..., 1, D]
            cells = vectors[place].unflatten(-1, (-1, scale.shape[-1]))
            vectors[place] = torch.relu(cells * (1 + scale) + shift).flatten(-2)
        return vectors
