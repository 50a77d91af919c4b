"""Gymnasium environments in separate processes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from rmc_agents.environment import EnvironmentFailed

from ..numbers import whole_seed
from .failures import CloseWarning
from .worker import Failure, Worker, interrupts_deferred

MAX_CONSECUTIVE_CRASHES = 10
"""Number of restarts of one environment between two finished episodes; the next crash ends the run."""
CLOSE_SECONDS = 5.0
"""Seconds in which environments have to close; then their processes are killed."""


@final
class Workers(VectorEnv):
    """Gymnasium environments in separate processes, with SAME_STEP autoreset.

    Gymnasium's `AsyncVectorEnv` waits without limit for an environment that hangs, and does not report which
    one died. Here both raise `EnvironmentFailed` with the environment's index. With `restart`, the
    environment gets a new process instead: its episode counts as truncated where it was (reward 0, the last
    observation as `final_obs`), and `warnings` reports it.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self,
        makers: Sequence[Callable[[], gymnasium.Env]],
        name: str,
        timeout: float = 300.0,
        restart: bool = False,
    ) -> None:
        """
        Args:
            makers: a function for each environment that builds it, in its own process.
            name: id of the environments, for messages.
            timeout: seconds after which an environment that has not answered counts as hung.
            restart: restart an environment that crashed or hung, instead of raising.

        Raises:
            EnvironmentFailed: an environment cannot be built.
            ValueError: the environments' spaces differ, or the timeout is not positive.
        """
        if not timeout > 0:
            raise ValueError(f"timeout={timeout}: expected more than 0 seconds")
        self.num_envs, self.name, self.timeout, self.restart = len(makers), name, timeout, restart
        self.restarts = 0
        self.closed = False
        self._makers, self._warnings = list(makers), list[str]()
        self._crashes = [0] * self.num_envs
        self._seed: int | None = None
        self._workers: list[Worker] = []
        try:
            for row in range(self.num_envs):
                with interrupts_deferred():
                    self._workers.append(Worker(self._makers[row], self._label(row)))
            found = self._receive()
            for row, answer in enumerate(found):
                if isinstance(answer, Failure):
                    raise self._failed(row, answer.reason)
                if answer[:2] != found[0][:2]:
                    raise ValueError(f"environment {row} ({name}) has other spaces than environment 0")
        except BaseException:
            self._kill()
            raise
        self.single_observation_space, self.single_action_space, self.statistics = found[0]
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._last: list[Any] = [None] * self.num_envs  # latest observation of each environment

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        seed = whole_seed(seed)
        seeds = [None if seed is None else seed + row for row in range(self.num_envs)]
        self._seed = seed
        answers = self._call([("reset", {"seed": s, "options": options}) for s in seeds])
        infos: dict[str, Any] = {}
        for row, answer in enumerate(answers):
            if isinstance(answer, Failure):
                answer = self._restart(row, answer.reason)
            self._last[row], info = answer
            infos = self._add_info(infos, info, row)
        return self._batch(self._last), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        answers = self._call([("step", action) for action in iterate(self.action_space, actions)])
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        infos: dict[str, Any] = {}
        for row, answer in enumerate(answers):
            if isinstance(answer, Failure):
                final = self._last[row], {}
                self._last[row], info = self._restart(row, answer.reason)
                truncated[row] = True
            else:
                self._last[row], rewards[row], terminated[row], truncated[row], info, final = answer
                if final is not None:
                    self._crashes[row] = 0
            if final is not None:
                infos = self._add_info(infos, {"final_obs": final[0], "final_info": final[1]}, row)
            infos = self._add_info(infos, info, row)
        return self._batch(self._last), rewards, terminated, truncated, infos

    def warnings(self) -> list[str]:
        """Return the restarts since the last call, one message each."""
        messages, self._warnings = self._warnings, []
        return messages

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments, within a few seconds; warn about those that raise or do not answer."""
        try:
            asked = [worker for worker in self._workers if worker.responds]
            for worker in asked:
                worker.send("close")
            deadline = time.monotonic() + CLOSE_SECONDS
            for worker in asked:
                answer = worker.receive_within(max(deadline - time.monotonic(), 0))
                messages = answer if isinstance(answer, list) else []
                if not worker.responds:
                    messages = [
                        f"{worker.label} did not close within {CLOSE_SECONDS:g} seconds and was killed"
                    ]
                for message in messages:
                    warnings.warn(message, CloseWarning, stacklevel=2)
                worker.join(max(deadline - time.monotonic(), 0))
        finally:
            self._kill()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.kill()

    def _batch(self, observations: list[Any]) -> Any:
        space = self.single_observation_space
        return concatenate(space, observations, create_empty_array(space, self.num_envs))

    def _call(self, requests: list[tuple[str, Any]]) -> list[Any]:
        """Send each environment its request; return their answers, a `Failure` where there is none."""
        for worker, (request, data) in zip(self._workers, requests, strict=True):
            worker.send(request, data)
        return self._receive()

    def _receive(self) -> list[Any]:
        """Return the answer of each environment, a `Failure` where there is none."""
        answers: list[Any] = [Failure(f"did not answer within {self.timeout:g} seconds")] * self.num_envs
        pending: dict[Connection, int] = {worker.pipe: row for row, worker in enumerate(self._workers)}
        deadline = time.monotonic() + self.timeout
        while pending:
            ready = wait(list(pending), max(deadline - time.monotonic(), 0))
            if not ready:
                break
            for pipe in ready:
                assert isinstance(pipe, Connection)
                row = pending.pop(pipe)
                answers[row] = self._workers[row].receive()
        for row in pending.values():
            self._workers[row].responds = False
        return answers

    def _restart(self, row: int, reason: str) -> tuple[Any, dict[str, Any]]:
        """Restart environment `row` in a new process; return its first observation and info."""
        if not self.restart:
            raise self._failed(row, reason)
        self._crashes[row] += 1
        if self._crashes[row] > MAX_CONSECUTIVE_CRASHES:
            raise self._failed(
                row, f"crashed {self._crashes[row]} times in a row; the last time, it {reason}"
            )
        self.restarts += 1
        self._warnings.append(
            f"warning: {self._label(row)} {reason}; it was restarted and its episode truncated "
            f"(restart {self.restarts} of this run)"
        )
        self._workers[row].kill()
        with interrupts_deferred():
            self._workers[row] = worker = Worker(self._makers[row], self._label(row))
        words = [self._seed, row, self.restarts]
        seed = None if self._seed is None else int(np.random.SeedSequence(words).generate_state(1)[0])
        first = worker.receive_within(self.timeout)
        if not isinstance(first, Failure):
            worker.send("reset", {"seed": seed, "options": None})
            first = worker.receive_within(self.timeout)
        if isinstance(first, Failure):
            raise self._failed(row, f"was restarted, and then {first.reason}")
        return first

    def _label(self, row: int) -> str:
        return f"environment {row} ({self.name})"

    def _failed(self, row: int, reason: str) -> EnvironmentFailed:
        return EnvironmentFailed(f"{self._label(row)} {reason}")
