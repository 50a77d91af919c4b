"""Stages of `gpu_check` about every core and every native task: graphs change no result; steps per second."""

from __future__ import annotations

from functools import partial

import torch

import rmc_envs
from benchmarks.speed.device_checks import synchronize
from benchmarks.speed.gpu_check_kernels import MOST_DIFFERENCE
from benchmarks.speed.gpu_check_session import MAZE, QUICK, Session, Sizes, capture_failure, make_trained
from benchmarks.speed.gpu_check_training import SCALE_8, SCALE_32, measure_speed
from rmc_agents.cores import CORES

SMALL = Sizes(64, 32, 16, 512, epochs=1)
TIMED = (
    "rmc/BoxWorldViewport-v0",
    "rmc/MemoryMaze-9x9-v0",
    "rmc/MiniPacManViewport-v0",
    "popgym-ConcentrationEasy-v0",
    "rmc/KeyValue-v0",
)
"""Tasks whose training is timed, with an RMC."""


def cores(session: Session) -> None:
    """Compare training in CUDA graphs with training without, for every core."""
    # The DNC's many small operations take a minute to record.
    for core in ["gru", "shm"] if session.quick else sorted(CORES, key="dnc".__eq__):
        session.attempt("cores", partial(_compare, session, core, MAZE), needs=5, core=core)


def tasks(session: Session) -> None:
    """Step every native task without waiting, and compare training in CUDA graphs with training without."""
    for task in ["rmc/Recall-v0", "rmc/TMaze-v0"] if session.quick else rmc_envs.NATIVE:
        session.attempt("waits", partial(_step_without_waiting, session, task), needs=3, task=task)
        session.attempt("tasks", partial(_compare, session, "gru", task), needs=5, task=task)


def task_speed(session: Session) -> None:
    """Measure steps per second of training in some tasks."""
    for task in TIMED[:1] if session.quick else TIMED:
        for sizes in (QUICK,) if session.quick else (SCALE_8, SCALE_32):
            measure = partial(measure_speed, session, "rmc", sizes, "tf32 graphs", task=task)
            session.attempt("speed", measure, needs=8, task=task, **sizes.facts)


def _compare(session: Session, core: str, task: str) -> None:
    sizes = QUICK if session.quick else SMALL
    trainers = [make_trained(session, core, sizes, graphs, task) for graphs in (False, True)]
    weights = [trainer.optimizer.values.clone() for trainer in trainers]
    seconds = [session.time(trainer.iterate, rounds=3, warm_up=0) for trainer in trainers]
    difference = float((weights[0] - weights[1]).abs().max())
    failure = capture_failure(trainers[1])
    session.note(
        session.stage,
        core=core,
        task=task,
        rollout_recorded=trainers[1].collect.enabled,
        difference=difference,
        failure=failure,
        host_steps_per_s=sizes.transitions / seconds[0],
        graph_steps_per_s=sizes.transitions / seconds[1],
        passed=difference < MOST_DIFFERENCE and failure is None,
    )


def _step_without_waiting(session: Session, task: str, steps: int = 60) -> None:
    env = rmc_envs.make(task, 64, session.device)
    env.action_space.seed(0)
    actions = torch.stack([torch.as_tensor(env.action_space.sample()) for _ in range(64)])
    actions = actions.to(session.device)
    env.reset(0)
    env.step(actions)
    synchronize(session.device)
    if session.cuda:
        torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(steps):
            env.step(actions)
            env.auxiliary_targets()
            env.action_masks()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        session.note("waits", task=task, failed=str(error)[:200], passed=not env.capturable)
        return
    finally:
        if session.cuda:
            torch.cuda.set_sync_debug_mode("default")
    session.note("waits", task=task, passed=True)
