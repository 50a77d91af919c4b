"""Check that a trainer's optimizers still hold the parameters of its network."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from rmc_agents.runs.weights import shorten


def require_same_parameters(network: nn.Module, trained: Iterable[Tensor]) -> None:
    """Raise ValueError if parameters of a network were replaced since its trainer was made.

    It compares objects, not numbers: an optimizer would go on changing the old ones, which nobody reads.

    Args:
        network: whose parameters are trained.
        trained: the parameters that the optimizers hold.
    """
    known = {id(p) for p in trained}
    own = {id(p) for module in network.modules() for p in module._parameters.values() if p is not None}
    if own == known:  # some 20 microseconds, because `named_parameters` is not needed
        return
    new = [name for name, p in network.named_parameters() if id(p) not in known]
    what = f"{shorten(new)} replaced or added" if new else "some removed"
    raise ValueError(
        f"the network has other parameters than when its trainer was made: {what}. They would not be "
        "trained: replace layers before you make the trainer, and call load_state_dict without assign=True"
    )
