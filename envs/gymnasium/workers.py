"""Gymnasium environments in separate processes."""

from __future__ import annotations

import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper, batch_space, concatenate, create_empty_array, iterate

from rmc_agents.environment import EnvironmentFailed

MAX_CONSECUTIVE_CRASHES = 10
"""Number of restarts of one environment between two finished episodes; the next crash ends the run."""


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
        self._workers = [_Worker(maker) for maker in makers]
        try:
            found = self._call([("spaces", None)] * self.num_envs)
            for row, answer in enumerate(found):
                if isinstance(answer, _Failure):
                    raise self._failed(row, answer.reason)
                if answer != found[0]:
                    raise ValueError(f"environment {row} ({name}) has other spaces than environment 0")
        except BaseException:
            self.close_extras()
            raise
        self.single_observation_space, self.single_action_space = found[0]
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._last: list[Any] = [None] * self.num_envs  # latest observation of each environment

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        seeds = [None if seed is None else seed + row for row in range(self.num_envs)]
        self._seed = seed
        answers = self._call([("reset", {"seed": s, "options": options}) for s in seeds])
        infos: dict[str, Any] = {}
        for row, answer in enumerate(answers):
            if isinstance(answer, _Failure):
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
            if isinstance(answer, _Failure):
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
        for worker in self._workers:
            worker.stop()

    def _batch(self, observations: list[Any]) -> Any:
        space = self.single_observation_space
        return concatenate(space, observations, create_empty_array(space, self.num_envs))

    def _call(self, requests: list[tuple[str, Any]]) -> list[Any]:
        """Send each environment its request; return their answers, a `_Failure` where there is none."""
        answers: list[Any] = [_Failure("")] * self.num_envs
        pending: dict[Connection, int] = {}
        for row, (worker, request) in enumerate(zip(self._workers, requests, strict=True)):
            try:
                worker.pipe.send(request)
                pending[worker.pipe] = row
            except OSError:  # it died between two steps
                answers[row] = _Failure(worker.exit_message())
        deadline = time.monotonic() + self.timeout
        while pending:
            ready = wait(list(pending), max(deadline - time.monotonic(), 0))
            if not ready:
                break
            for pipe in ready:
                assert isinstance(pipe, Connection)
                row = pending.pop(pipe)
                try:
                    succeeded, answer = pipe.recv()
                    answers[row] = answer if succeeded else _Failure(answer)
                except (EOFError, OSError):
                    answers[row] = _Failure(self._workers[row].exit_message())
        for row in pending.values():
            answers[row] = _Failure(f"did not answer within {self.timeout:g} seconds")
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
            f"warning: environment {row} ({self.name}) {reason}; it was restarted and its episode truncated "
            f"(restart {self.restarts} of this run)"
        )
        self._workers[row].stop(kill=True)
        self._workers[row] = worker = _Worker(self._makers[row])
        words = [self._seed, row, self.restarts]
        seed = None if self._seed is None else int(np.random.SeedSequence(words).generate_state(1)[0])
        worker.pipe.send(("reset", {"seed": seed, "options": None}))
        answer: list[Any] = [False, f"did not answer within {self.timeout:g} seconds"]
        try:
            if worker.pipe.poll(self.timeout):
                answer = list(worker.pipe.recv())
        except (EOFError, OSError):
            answer = [False, worker.exit_message()]
        succeeded, first = answer
        if not succeeded:
            raise self._failed(row, f"was restarted, and then {first}")
        return first

    def _failed(self, row: int, reason: str) -> EnvironmentFailed:
        return EnvironmentFailed(f"environment {row} ({self.name}) {reason}")


class _Failure:
    """An environment's failure, in the place of its answer."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Worker:
    """A process with one environment, and the pipe to it."""

    def __init__(self, maker: Callable[[], gymnasium.Env]) -> None:
        context = multiprocessing.get_context()
        self.pipe, child_pipe = context.Pipe()
        with warnings.catch_warnings():
            # Python warns against forking a process with threads; the child does not use them.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process = context.Process(  # pyright: ignore[reportAttributeAccessIssue]
                target=_run_worker, args=(CloudpickleWrapper(maker), child_pipe, self.pipe), daemon=True
            )
            self.process.start()
        child_pipe.close()

    def exit_message(self) -> str:
        """Describe how the process died."""
        self.process.join(5)
        code = self.process.exitcode
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return f"is gone: its process died ({name})"

    def stop(self, kill: bool = False) -> None:
        """End the process: ask it to close, and kill it if it does not or if `kill`."""
        try:
            if not kill:
                self.pipe.send(("close", None))
                self.process.join(1)
        except OSError:
            pass
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()


def _run_worker(maker: Callable[[], gymnasium.Env], pipe: Connection, parent_pipe: Connection) -> None:
    """Build an environment and answer requests until "close" arrives; runs in the process of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent_pipe.close()
    env = None
    try:
        env = maker()
        while True:
            request, data = pipe.recv()
            if request == "close":
                break
            pipe.send((True, _answer(env, request, data)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    except Exception as error:
        # The messages of `CheckedEnv` begin with "environment 3 (name) ", which the parent adds.
        is_checked = isinstance(error, EnvironmentFailed)
        reason = str(error).partition(") ")[2] if is_checked else f"raised {error!r}"
        pipe.send((False, reason))
    finally:
        if env is not None:
            env.close()


def _answer(env: gymnasium.Env, request: str, data: Any) -> Any:
    if request == "spaces":
        return env.observation_space, env.action_space
    if request == "reset":
        return env.reset(**data)
    obs, reward, terminated, truncated, info = env.step(data)
    final = None
    if terminated or truncated:
        final = obs, info
        obs, info = env.reset()
    return obs, reward, terminated, truncated, info, final
