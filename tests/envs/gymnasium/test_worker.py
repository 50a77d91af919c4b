"""Processes of environments: every start method, and an end with their parent, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

import rmc_envs
from rmc_envs.gymnasium import worker
from rmc_envs.gymnasium.workers import Workers
from tests.support import fork_server
from tests.support.commands import ROOT
from tests.support.strange_env import StrangeEnv

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

METHODS = """
import multiprocessing
import sys
import gymnasium
import numpy as np
import torch
import rmc_envs
from rmc_envs import BatchedEnv, Transition
from rmc_envs.gymnasium.workers import Workers

TWO = gymnasium.spaces.Discrete(2)

class Mine(gymnasium.Env):
    observation_space = action_space = TWO

    def reset(self, *, seed=None, options=None):
        return np.int64(0), {}

    def step(self, action):
        return np.int64(1), float(action), True, False, {}

class Echo(BatchedEnv):
    observation_space = action_space = TWO
    tasks = ("mine/Echo-v0",)

    def __init__(self, num_envs=1, device="cpu", right=1):
        self.num_envs, self.device, self.right = num_envs, torch.device(device), right
        self.task_of = torch.zeros(num_envs, dtype=torch.int64)

    def reset(self, seed=None):
        return torch.zeros(self.num_envs, dtype=torch.int64)

    def step(self, actions):
        right = actions == self.right
        obs = torch.zeros(self.num_envs, dtype=torch.int64)
        return Transition(obs, right.float(), right | True, right & False, obs, right)

def main():
    multiprocessing.set_start_method(sys.argv[1])
    gymnasium.register("mine/Mine-v0", Mine)
    rmc_envs.register("mine/Echo-v0", Echo)
    names = ["mine/Mine-v0", "mine/Echo-v0", "in_a_module:mine/Other-v0"]
    workers = Workers([rmc_envs.make_reference(name) for name in names], "Mine")
    workers.reset(seed=0)
    print(workers.step(np.array([1, 1, 0]))[1].tolist())
    workers.close()

if __name__ == "__main__":
    main()
"""
IN_A_MODULE = """
import gymnasium

class Other(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return 1, 5.0, True, False, {}

gymnasium.register("mine/Other-v0", "in_a_module:Other")
"""


def run(folder: Path, script: str, *args: str, **options: Any) -> subprocess.Popen[str]:
    (folder / "script.py").write_text(script)
    return subprocess.Popen(
        [sys.executable, "script.py", *args],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"] if os.name == "posix" else ["spawn"])
def test_ids_registered_in_main_work_with_every_start_method(method: str, tmp_path: Path) -> None:
    (tmp_path / "in_a_module.py").write_text(IN_A_MODULE)
    out, err = run(tmp_path, METHODS, method).communicate(timeout=120)
    assert out.splitlines() == ["[1.0, 1.0, 5.0]"], err


def test_script_without_a_main_guard_is_told_so() -> None:
    unborn = worker.Worker.__new__(worker.Worker)
    unborn.method, unborn.process = "spawn", SimpleNamespace(join=lambda seconds: None, exitcode=1)
    assert "below `if __name__ == '__main__':`" in unborn._exit_message()
    unborn.method = "fork"
    assert unborn._exit_message() == "is gone: its process died (exit code 1)"
    unborn.process = SimpleNamespace(join=lambda seconds: None, exitcode=-63)
    assert "died (" in unborn._exit_message()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for_end(pids: list[int], seconds: float = 10) -> list[int]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.05)
    return [pid for pid in pids if alive(pid)]


ORPHANS = """
import sys
import torch
import rmc_envs
from rmc_envs.gymnasium import worker
from tests.support import strange_env

if "watch" in sys.argv:  # as where the kernel sends no signal
    worker.PR_SET_PDEATHSIG = 0
batch = rmc_envs.make("test/Strange-v0", 3, vectorization="async", when="step", what="hang")
batch.reset(0)
print(*[each.process.pid for each in batch.env._workers], flush=True)
batch.step(torch.zeros(3, dtype=torch.int64))
"""


@posix
@pytest.mark.parametrize("how", ["signal", "watch"])
def test_workers_end_with_a_killed_parent(how: str, tmp_path: Path) -> None:
    process = fork_server.start(["-c", ORPHANS, how], tmp_path, PYTHONPATH=str(ROOT))
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 3
    assert all(map(alive, pids))
    time.sleep(0.3)  # the workers are in their step now
    process.kill()
    assert wait_for_end(pids) == []
    process.communicate()


def test_workers_outlive_the_thread_that_started_them() -> None:
    """Linux would send the signal when that thread ends, not only with the process."""
    built: list[Workers] = []
    thread = threading.Thread(target=lambda: built.append(Workers([StrangeEnv] * 2, "Strange")))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert built[0].reset(seed=0)[0].shape == (2, 2)
    built[0].close()


INTERRUPTED = """
import os
import signal
import sys
import threading
import time
import rmc_envs
from tests.support import strange_env

started = []
start = rmc_envs.gymnasium.worker.Worker.__init__

def remember(self, *args):
    start(self, *args)
    started.append(self.process.pid)

rmc_envs.gymnasium.worker.Worker.__init__ = remember
delay = float(sys.argv[1])
os.setsid()  # the signal is for this process and its workers
threading.Thread(target=lambda: (time.sleep(delay), os.killpg(0, signal.SIGINT)), daemon=True).start()
try:
    rmc_envs.make("test/Strange-v0", 64, vectorization="async", what="hang")
except KeyboardInterrupt:
    print("interrupted", *started, flush=True)
    sys.exit(130)
"""


@posix
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.3])
def test_interrupt_while_workers_start_ends_all_of_them(delay: float, tmp_path: Path) -> None:
    process = fork_server.start(["-c", INTERRUPTED, str(delay)], tmp_path, PYTHONPATH=str(ROOT))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    word, *pids = out.split()
    assert word == "interrupted"
    assert err == ""
    assert wait_for_end([int(pid) for pid in pids], 2) == []


def test_interrupts_are_delivered_after_the_block() -> None:
    reached = False

    def block() -> None:
        nonlocal reached
        with worker.interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
            reached = True

    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Large(StrangeEnv):
    """Observations of 8 MB, and an error of as many characters."""

    observation_space = spaces.Box(-1, 1, (1000, 1000), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros((1000, 1000)), {}

    def step(self, action: Any) -> Any:
        if action == 1:
            raise RuntimeError("x" * 8_000_000)
        return np.ones((1000, 1000)), 1.0, False, False, {}


def test_large_messages_arrive() -> None:
    batch = Workers([Large] * 2, "Large")
    batch.reset(seed=0)
    assert batch.step(np.array([0, 0]))[0].sum() == 2_000_000
    with pytest.raises(rmc_envs.EnvironmentFailed, match="raised RuntimeError: xxx") as error:
        batch.step(np.array([0, 1]))
    assert str(error.value).startswith("environment 1 (Large) raised")
    assert len(str(error.value)) < 2000
    batch.close()


class Local(StrangeEnv):
    """An environment with a space that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space.lock = threading.Lock()  # type: ignore[attr-defined]


def test_value_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(rmc_envs.EnvironmentFailed, match="cannot be sent to another process: TypeError"):
        Workers([Local], "Local")
