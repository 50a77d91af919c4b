"""CUDA graphs: a function whose kernels are recorded once and then launched together.

At the sizes of reinforcement learning a GPU waits for the host, which launches thousands of small kernels one
by one. A graph launches them all in one call.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from rmc_agents.errors import shown
from rmc_agents.tree import Tree, map_tree

WARM_UP_CALLS = 3
"""Calls before the function is captured: libraries choose their algorithms in them."""


class Graph:
    """A function that a CUDA graph replays from its fourth call on; elsewhere, the function itself.

    The function may not wait for the device. What it does on the host happens only while it is captured, so
    it has to leave its results in tensors: those that it returns, and those that it changes in place.

    Args:
        function: takes and returns trees of tensors, of the same shapes in every call.
        device: where it computes.
        enabled: false to call the function always.
        generators: what it draws random numbers from, besides torch's default generator.
        refused: why the function must not be recorded; None if it may be.
    """

    def __init__(
        self,
        function: Callable[..., Tree],
        device: torch.device,
        enabled: bool = True,
        generators: Sequence[torch.Generator] = (),
        refused: str | None = None,
    ) -> None:
        self.function, self.generators = function, generators
        wanted = enabled and device.type == "cuda"
        self.enabled = wanted and refused is None
        self.paused = False
        """True to call the function for now."""
        self.failure = refused if wanted else None
        """Why the function is not recorded and is called instead."""
        self._told = False
        self._calls = 0
        self._given: tuple[Tree, ...] = ()
        self._inputs: tuple[Tree, ...] = ()
        self._outputs: Tree = None
        self._graph: Any = None

    def __call__(self, *args: Tree) -> Tree:
        """Call the function, or replay it.

        Args:
            args: copied to where the graph reads them, unless they are the objects of the previous call.
                (Those that it returned are always copied.)

        Returns:
            what the function returns. The next replay overwrites it.
        """
        if not self.enabled or self.paused:
            return self.function(*args)
        if not self._inputs:
            self._inputs = tuple(map_tree(torch.clone, tree) for tree in args)
        for new, before, fixed in zip(args, self._given or (None,) * len(args), self._inputs, strict=True):
            if new is not before or new is self._outputs:
                map_tree(lambda to, x: to.copy_(x), fixed, new)
        self._given = args
        if self._calls < WARM_UP_CALLS:
            self._calls += 1
            return self._warm_up()
        if self._graph is None:
            self._capture()
        if self._graph is None:
            return self.function(*args)
        self._graph.replay()
        return self._outputs

    def failure_note(self) -> list[str]:
        """Return, once, a note that says why the function is not recorded."""
        if self.failure is None or self._told:
            return []
        self._told = True
        name = getattr(self.function, "__name__", "a function").strip("_")
        return [f"{name} is not recorded in a CUDA graph, and is slower: {self.failure}"]

    def _warm_up(self) -> Tree:
        """Call the function on a stream of its own, as a capture requires."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self.function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    def _capture(self) -> None:
        """Record the function; where that is not possible, note the reason and call it from now on."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        try:
            with garbage_collected_before(), torch.cuda.graph(graph):
                self._outputs = self.function(*self._inputs)
        except RuntimeError as error:
            # The end of the capture fails, too, and says less.
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            self.failure = shown(str(cause).split("\n")[0], 200)
            self.enabled = False
            self._release_generators()
            return
        self._graph = graph

    def _release_generators(self) -> None:
        """Let generators draw again, which after a failed capture still wait for its end."""
        for generator in (torch.cuda.default_generators[torch.cuda.current_device()], *self.generators):
            generator.graphsafe_set_state(generator.clone_state())


@contextlib.contextmanager
def garbage_collected_before() -> Iterator[None]:
    """Collect garbage first and none in the block: to destroy an older graph breaks a capture.

    PyTorch 2.9 and later collect no garbage before a capture (pytorch/pytorch#161037).
    """
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
