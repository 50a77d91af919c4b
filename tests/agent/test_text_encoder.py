"""The encoder of texts: padding, order, and equal results with and without the search for equal texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rmc_agents import ActorCritic, AnnotatedText
from rmc_agents.agent.encoders import Encoder
from rmc_agents.agent.text_encoder import ReadByText, Words
from rmc_agents.spaces import Observations
from rmc_agents.spaces.annotated import minigrid_image

TEXT = AnnotatedText(["put", "the", "red", "ball", "next", "to", "blue", "box"], 12)


@pytest.fixture
def words() -> Words:
    torch.manual_seed(0)
    return Words(TEXT.num_ids, TEXT.length)


def ids(*texts: str) -> torch.Tensor:
    return torch.from_numpy(TEXT.ids(texts))


def test_padding_changes_nothing(words: Words) -> None:
    short = AnnotatedText(TEXT.words, 3)
    same = Words(short.num_ids, short.length)
    same.load_state_dict(words.state_dict())
    text = "put red ball"
    torch.testing.assert_close(words(ids(text)), same(torch.from_numpy(short.ids([text]))))
    torch.testing.assert_close(
        words(ids(text, "put the red ball next to the blue box"))[:1], words(ids(text))
    )


def test_empty_texts_are_zeros(words: Words) -> None:
    assert not words(ids("", "")).any()
    assert words(ids("")[:0]).shape == (0, words.output_size)


def test_order_of_words_matters(words: Words) -> None:
    one, other = words(ids("put the red ball next to the blue box", "put the blue ball next to the red box"))
    assert not torch.allclose(one, other, atol=1e-3)


def test_state_of_the_gru_equals_numpy(words: Words) -> None:
    with torch.no_grad():
        for name in ("bias_ih", "bias_hh"):
            getattr(words.cell, name).uniform_(-1, 1)
    p = {name: x.detach().numpy().astype(np.float64) for name, x in words.named_parameters()}
    h = np.zeros(words.output_size)
    for word in TEXT.ids("put the red box")[:4]:
        x = p["embedding.weight"][word]
        xr, xz, xn = np.split(p["cell.weight_ih"] @ x + p["cell.bias_ih"], 3)
        hr, hz, hn = np.split(p["cell.weight_hh"] @ h + p["cell.bias_hh"], 3)
        r, z = 1 / (1 + np.exp(-xr - hr)), 1 / (1 + np.exp(-xz - hz))
        h = (1 - z) * np.tanh(xn + r * hn) + z * h
    np.testing.assert_allclose(words(ids("put the red box"))[0].detach(), h, atol=1e-5)


def test_equal_texts_are_encoded_once_with_the_same_result(
    words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ids("put the ball", "next to the red box", "", "blue")[torch.arange(512) % 4].reshape(8, 64, 12)
    direct = words._encode(texts.reshape(-1, 12)).reshape(8, 64, -1)
    rows: list[torch.Size] = []
    encode = words._encode
    monkeypatch.setattr(words, "_encode", lambda x: rows.append(x.shape) or encode(x))
    found = words(texts)
    assert rows == [(4, 5)], "four texts, of at most five words"
    torch.testing.assert_close(found, direct)
    gradients = [torch.autograd.grad(x.square().mean(), words.embedding.weight)[0] for x in (direct, found)]
    torch.testing.assert_close(*gradients)


def test_networks_with_texts_run_on_meta_and_compile() -> None:
    space = Observations(spaces.Dict(image=minigrid_image(5), mission=TEXT)).plain
    obs = {"image": torch.zeros(6, 5, 5, 3, dtype=torch.uint8), "mission": ids(*["put the red box"] * 6)}
    encoder = Encoder(space, 16)
    expected = encoder(obs)
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(obs), expected)
    with torch.device("meta"):
        assert Encoder(space, 16)({key: x.to("meta") for key, x in obs.items()}).shape == (6, 16)


def test_text_decides_how_cells_are_read() -> None:
    torch.manual_seed(0)
    layer = ReadByText({2: 3}, {0: 4})
    cells, other, text = torch.randn(5, 6 * 4), torch.randn(5, 2), torch.randn(5, 3)
    found = layer([cells, other, text])
    torch.testing.assert_close(found[0], cells.relu())
    assert (found[1] is other, found[2] is text) == (True, True)
    with torch.no_grad():
        layer.linears[0].weight.normal_()  # type: ignore[operator, union-attr]
    a, b = layer.linears[0](text).chunk(2, dim=-1)
    expected = ((1 + a)[:, None] * cells.view(5, 6, 4) + b[:, None]).relu().view(5, 24)
    torch.testing.assert_close(layer([cells, other, text])[0], expected)


def test_observations_without_texts_have_no_further_weights() -> None:
    space = spaces.Dict(image=minigrid_image(5), direction=spaces.Discrete(4))
    names = {name.split(".")[0] for name, _ in Encoder(space, 16).named_parameters()}
    assert names == {"parts", "linear"}


def test_agent_acts_as_it_evaluates() -> None:
    torch.manual_seed(0)
    space = spaces.Dict(image=minigrid_image(5), mission=TEXT)
    agent = ActorCritic(space, spaces.Discrete(3), "gru", {"hidden_size": 8}, features=16)
    obs = {"image": torch.randint(4, (4, 40, 5, 5, 3), dtype=torch.uint8)}
    texts = ids("put the red ball", "to the box", "the blue ball next to the red box")
    obs["mission"] = texts[torch.arange(40) % 3].expand(4, 40, 12)
    state, starts = agent.initial_state(40), torch.zeros(4, 40, dtype=torch.bool)
    first, actions, log_probs = state, [], []
    with torch.no_grad():
        for t in range(4):
            step = {key: x[t] for key, x in obs.items()}
            action, log_prob, _, state = agent.act(step, starts[t], state)
            actions.append(action)
            log_probs.append(log_prob)
        evaluated = agent.evaluate_actions(obs, torch.stack(actions), torch.zeros(4, 40), starts, first)
    torch.testing.assert_close(evaluated.log_probs, torch.stack(log_probs), rtol=1e-5, atol=1e-5)
