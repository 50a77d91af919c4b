"""Stage of `gpu_check` that runs the scripts on the device as people do, with each kind of task and core."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.common import ROOT
from benchmarks.speed.gpu_check_session import Session

TRAIN = "train/ppo.py --run-dir {run} --processes 1 --num-envs 16 --num-steps 64 --minibatch-size 256"
SHORT = f"{TRAIN} --device {{device}} --total-steps 8192"
EVALUATE = "train/evaluate.py {run} --device {device} --episodes 20"
RESUME = "train/ppo.py --resume {run} --total-steps 16384"

CHAINS: dict[str, tuple[str, ...]] = {
    "maze": (
        f"{SHORT} --env MiniGrid-MemoryS7-v0 --precision tf32 --eval-every 4096",
        EVALUATE,
        "train/probe.py {run} --device {device} --episodes 20",
        "train/export.py {run} --format pretrained",
        f"{RESUME} --device cpu",
        f"{RESUME} --device {{device}} --may-change total_steps",
    ),
    "bfloat16": (f"{SHORT} --env rmc/Recall-v0 --precision bf16", EVALUATE),
    "GRU, masks": (f"{SHORT} --env Taxi-v4 --core gru", EVALUATE),
    "LSTM, Box actions": (
        f"{SHORT} --env Pendulum-v1 --core lstm --normalize-observations --normalize-rewards --scale-actions",
        EVALUATE,
    ),
    "missions": (f"{SHORT} --env MiniGrid-Fetch-5x5-N2-v0", EVALUATE),
    "DNC": (f"{SHORT} --env rmc/Recall-v0 --core dnc --previous-action --previous-reward", EVALUATE),
    "RNN, memories apart": (f"{SHORT} --env CartPole-v1 --core rnn --critic-memory separate", EVALUATE),
    "auxiliary losses": (
        f"{SHORT} --env rmc/NthFarthest-v0 --aux-coef 0.1 --reconstruct --reconstruction-coef 0.1",
        EVALUATE,
    ),
    "torchrun": (
        "-m torch.distributed.run --standalone --nproc-per-node 1 "
        + SHORT.replace("--processes 1 ", "")
        + " --env MiniGrid-MemoryS7-v0",
    ),
    "supervised": (
        "train/nth_farthest.py --device {device} --run-dir {run} --total-samples 20000 --test-every 10000",
        "train/nth_farthest.py --device {device} --evaluate {run} --test-samples 1000",
    ),
}
"""Commands by name, each run after the one before; {run} is a folder of the chain's own."""
LAST_LINES = 8


def commands(session: Session) -> None:
    """Run all chains at once; note for each that its commands succeeded, or what the first to fail said."""
    chains = {"bfloat16": CHAINS["bfloat16"]} if session.quick else CHAINS
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(chains)) as pool:
        for number, (name, chain) in enumerate(chains.items()):
            pool.submit(_run_chain, session, name, chain, Path(folder) / str(number))


def _run_chain(session: Session, name: str, chain: tuple[str, ...], run: Path) -> None:
    started = time.monotonic()
    for template in chain:
        command = template.format(run=run, device=session.device)
        words = [sys.executable, *shlex.split(command)]
        ended = subprocess.run(words, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(f"$ {command}\n{ended.stdout}", flush=True)
        if ended.returncode != 0:
            said = "\n".join(ended.stdout.splitlines()[-LAST_LINES:])
            session.note("commands", chain=name, command=command, passed=False, said=said)
            return
    seconds = time.monotonic() - started
    session.note("commands", chain=name, count=len(chain), seconds=seconds, passed=True)
