"""Random generators: continued bit for bit on a device of the same kind, reseeded on another."""

from __future__ import annotations

import torch

from rmc_agents.training.rng import OTHER_DEVICE, convert_state, resume_generator


def test_generator_continues_from_its_state() -> None:
    first, second = torch.Generator().manual_seed(3), torch.Generator()
    torch.rand(5, generator=first)
    assert resume_generator(second, first.get_state()) == []
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=second))


def test_state_of_another_device_serves_as_a_seed() -> None:
    states = [torch.arange(16, dtype=torch.uint8), torch.arange(1, 17, dtype=torch.uint8)]
    draws = []
    for state in (*states, states[0]):
        generator = torch.Generator()
        assert resume_generator(generator, state) == [OTHER_DEVICE]
        draws.append(torch.rand(5, generator=generator))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_state_of_the_same_kind_of_device_is_unchanged() -> None:
    state = torch.Generator().manual_seed(8).get_state()
    assert torch.equal(convert_state(state, torch.device("cpu")), state)
