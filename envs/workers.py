"""One process an environment, for those that are slow, hang, or take their process down with them."""

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

from envs.base import EnvironmentFailed

MOST_CRASHES = 10
"""In a row, of one environment that is started again, without finishing an episode between them."""


@final
class Workers(VectorEnv):
    """Gymnasium environments in processes of their own; autoreset is SAME_STEP.

    Gymnasium's `AsyncVectorEnv` waits for ever for an environment that hangs, and does not say which one
    died. Here either raises `EnvironmentFailed` with its index; or, with `restart`, its process is started
    again: its episode counts as truncated where it stood (reward 0, the last observation as `final_obs`), and
    `news` tells.
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
            makers: what builds each environment, in its own process.
            name: for messages.
            timeout: seconds after which an environment that has not answered counts as hung.
            restart: start an environment again that crashed or hung, instead of raising.

        Raises:
            EnvironmentFailed: one cannot be built.
            ValueError: their spaces differ, or a timeout that is not positive.
        """
        if not timeout > 0:
            raise ValueError(f"timeout={timeout}: expected more than 0 seconds")
        self.num_envs, self.name, self.timeout, self.restart = len(makers), name, timeout, restart
        self.restarts = 0
        self.closed = False
        self._makers, self._news = list(makers), list[str]()
        self._crashes = [0] * self.num_envs
        self._seed: int | None = None
        self._workers = [_Worker(maker) for maker in makers]
        try:
            found = self._answers([("spaces", None)] * self.num_envs)
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
        self._last: list[Any] = [None] * self.num_envs  # each one's latest observation

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        seeds = [None if seed is None else seed + row for row in range(self.num_envs)]
        self._seed = seed
        answers = self._answers([("reset", {"seed": s, "options": options}) for s in seeds])
        infos: dict[str, Any] = {}
        for row, answer in enumerate(answers):
            if isinstance(answer, _Failure):
                answer = self._start_again(row, answer.reason)
            self._last[row], info = answer
            infos = self._add_info(infos, info, row)
        return self._batch(self._last), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        answers = self._answers([("step", action) for action in iterate(self.action_space, actions)])
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        infos: dict[str, Any] = {}
        for row, answer in enumerate(answers):
            if isinstance(answer, _Failure):
                final = self._last[row], {}
                self._last[row], info = self._start_again(row, answer.reason)
                truncated[row] = True
            else:
                self._last[row], rewards[row], terminated[row], truncated[row], info, final = answer
                if final is not None:
                    self._crashes[row] = 0
            if final is not None:
                infos = self._add_info(infos, {"final_obs": final[0], "final_info": final[1]}, row)
            infos = self._add_info(infos, info, row)
        return self._batch(self._last), rewards, terminated, truncated, infos

    def news(self) -> list[str]:
        """What happened since it was last asked."""
        told, self._news = self._news, []
        return told

    def close_extras(self, **kwargs: Any) -> None:
        for worker in self._workers:
            worker.stop()

    def _batch(self, observations: list[Any]) -> Any:
        space = self.single_observation_space
        return concatenate(space, observations, create_empty_array(space, self.num_envs))

    def _answers(self, orders: list[tuple[str, Any]]) -> list[Any]:
        """What each environment answers to its order, or a `_Failure`."""
        answers: list[Any] = [_Failure("")] * self.num_envs
        pending: dict[Connection, int] = {}
        for row, (worker, order) in enumerate(zip(self._workers, orders, strict=True)):
            try:
                worker.pipe.send(order)
                pending[worker.pipe] = row
            except OSError:  # it died between two steps
                answers[row] = _Failure(worker.epitaph())
        deadline = time.monotonic() + self.timeout
        while pending:
            ready = wait(list(pending), max(deadline - time.monotonic(), 0))
            if not ready:
                break
            for pipe in ready:
                assert isinstance(pipe, Connection)
                row = pending.pop(pipe)
                try:
                    good, answer = pipe.recv()
                    answers[row] = answer if good else _Failure(answer)
                except (EOFError, OSError):
                    answers[row] = _Failure(self._workers[row].epitaph())
        for row in pending.values():
            answers[row] = _Failure(f"did not answer within {self.timeout:g} seconds")
        return answers

    def _start_again(self, row: int, reason: str) -> tuple[Any, dict[str, Any]]:
        """The first observation, and info, of environment `row` in a new process."""
        if not self.restart:
            raise self._failed(row, reason)
        self._crashes[row] += 1
        if self._crashes[row] > MOST_CRASHES:
            raise self._failed(
                row, f"crashed {self._crashes[row]} times in a row; the last time, it {reason}"
            )
        self.restarts += 1
        self._news.append(
            f"warning: environment {row} ({self.name}) {reason}; started again, its episode cut off "
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
            answer = [False, worker.epitaph()]
        good, first = answer
        if not good:
            raise self._failed(row, f"was started again, and then {first}")
        return first

    def _failed(self, row: int, reason: str) -> EnvironmentFailed:
        return EnvironmentFailed(f"environment {row} ({self.name}) {reason}")


class _Failure:
    """In the place of an answer."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Worker:
    """A process with one environment, and the pipe to it."""

    def __init__(self, maker: Callable[[], gymnasium.Env]) -> None:
        context = multiprocessing.get_context()
        self.pipe, theirs = context.Pipe()
        with (
            warnings.catch_warnings()
        ):  # Python warns of a fork beside threads; the child runs none of theirs
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process = context.Process(  # pyright: ignore[reportAttributeAccessIssue]
                target=_work, args=(CloudpickleWrapper(maker), theirs, self.pipe), daemon=True
            )
            self.process.start()
        theirs.close()

    def epitaph(self) -> str:
        """How the process died."""
        self.process.join(5)
        code = self.process.exitcode
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return f"is gone: its process died ({name})"

    def stop(self, kill: bool = False) -> None:
        """End the process: by word, if it listens, else by force."""
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


def _work(maker: Callable[[], gymnasium.Env], pipe: Connection, theirs: Connection) -> None:
    """What runs in the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    theirs.close()
    env = None
    try:
        env = maker()
        while True:
            order, data = pipe.recv()
            if order == "close":
                break
            pipe.send((True, _obey(env, order, data)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    except Exception as error:
        said = isinstance(error, EnvironmentFailed)
        # `Watched` begins with "environment 3 (name) "
        reason = str(error).partition(") ")[2] if said else f"raised {error!r}"
        pipe.send((False, reason))
    finally:
        if env is not None:
            env.close()


def _obey(env: gymnasium.Env, order: str, data: Any) -> Any:
    if order == "spaces":
        return env.observation_space, env.action_space
    if order == "reset":
        return env.reset(**data)
    obs, reward, terminated, truncated, info = env.step(data)
    final = None
    if terminated or truncated:
        final = obs, info
        obs, info = env.reset()
    return obs, reward, terminated, truncated, info, final
