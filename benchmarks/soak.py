"""Is anything lost, or anything unsafe loaded? `python benchmarks/soak.py` takes about ten minutes.

- kills: a training is killed (kill -9) at random moments and resumed, again and again; then it must equal,
  bit for bit, one that nobody interrupted, and its logs hold every step once
- mutations: damaged and forged checkpoints and config.json go to the loader; all it may say is one message
- growth: memory and open files over 10,000 iterations

`tests/test_reliability.py` runs the same functions with smaller counts.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import envs  # noqa: E402
import rmc_agents  # noqa: E402
from rmc_agents import Trainer, UsageError  # noqa: E402
from rmc_agents.checkpoint import checkpoints, read_checkpoint, read_newest  # noqa: E402
from rmc_agents.cli import run_script  # noqa: E402
from rmc_agents.tree import leaves  # noqa: E402
from train import ppo as script  # noqa: E402

TINY = [
    *("--env", "rmc/Recall-v0", "--num-envs", "4", "--num-steps", "8", "--bptt-length", "4"),
    *("--minibatch-size", "32", "--epochs", "1", "--features", "8", "--hidden-size", "8"),
    *("--total-steps", "100_000_000"),
]
SMALL_CORES = {
    "rmc": ["num_slots=2", "num_heads=2", "head_size=4"],
    "gru": ["hidden_size=8"],
    "lstm": ["hidden_size=8"],
}
LONGEST = 1.2
"""Seconds from a start to its kill, at most."""
STEPS = 4 * 8
"""Steps of an iteration of `TINY`."""


# ---- processes


def start(args: list[str], output: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """`train/ppo.py` in a process of its own, forked (importing torch anew takes seconds); returns its id."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        process = os.fork()
    if process:
        return process
    code = 70
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        sys.argv = ["train/ppo.py", *args]
        for number in (signal.SIGINT, signal.SIGTERM):
            ctrl_c = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if ctrl_c else signal.SIG_DFL)
        prepare()
        run_script(script.main, failures=(envs.EnvironmentFailed,))
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def configured(words: list[str]) -> script.RunConfig:
    """What the flags of `train/ppo.py` say."""
    return script.parse(script.RunConfig, None, words, prog="soak")


def ended(process: int) -> int:
    """Wait for a process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        time.sleep(0.005)


# ---- kills


def everything(trainer: Trainer) -> list[torch.Tensor]:
    """All that the next iteration depends on."""
    moments = [x for s in trainer.optimizer.state.values() for x in s.values()]
    state = [x for x in trainer.env.state_dict().values() if isinstance(x, torch.Tensor)]
    rest = [*leaves(trainer.carry), *leaves(trainer.running), trainer.generator.get_state(), *state]
    return [*trainer.agent.parameters(), *moments, *rest]


def kill_and_resume(folder: Path, kills: int, core: str, seed: int = 0) -> dict[str, Any]:
    """Kill a training `kills` times at random moments; what was lost, and does it equal one never killed?"""
    rng = random.Random(seed)
    run_dir, output = folder / "run", folder / "output.txt"
    args = [*TINY, "--core", core, "--core-options", *SMALL_CORES[core]]
    warm_up(folder, core)
    command = [*args, "--run-dir", str(run_dir), "--auto-resume"]
    lost = damaged = tracebacks = 0
    while_writing = 0
    for _ in range(kills):
        # Saving all the time, so that many a kill falls into a write.
        process = start([*command, "--checkpoint-seconds", rng.choice(["0", "0", "0.05"])], output)
        if rng.random() < 0.5:  # at any moment, the start included
            time.sleep(rng.uniform(0.02, LONGEST))
        else:  # while it trains and saves
            reached = newest_step(run_dir)
            try:
                until(lambda reached=reached: newest_step(run_dir) > reached)
            except TimeoutError as error:
                raise RuntimeError(output.read_text()) from error
            time.sleep(rng.uniform(0, 0.3))
        before = newest_step(run_dir)
        os.kill(process, signal.SIGKILL)
        ended(process)
        while_writing += any((run_dir / "checkpoints").glob(".*.tmp"))
        if checkpoints(run_dir):
            try:
                _, payload, skipped = read_newest(run_dir)
                damaged += len(skipped)
                lost += payload["steps"] < before
            except UsageError:
                lost += 1
        else:
            lost += before > 0
    tracebacks = output.read_text().count("Traceback") if output.exists() else 0
    if not checkpoints(run_dir):  # too few kills to get anywhere
        raise TimeoutError("no training got as far as its first checkpoint")
    survivor, _ = script.build(script.resumed(run_dir))
    survivor.restore()
    whole, _ = script.build(configured([*args, "--run-dir", str(folder / "whole")]))
    while whole.steps < survivor.steps:
        whole.iterate()
    equal = all(torch.equal(a, b) for a, b in zip(everything(whole), everything(survivor), strict=True))
    return {
        "core": core,
        "kills": kills,
        "in the middle of a write": while_writing,
        "lost more than since the last checkpoint": lost,
        "damaged files": damaged,
        "tracebacks": tracebacks,
        "iterations survived": survivor.iterations,
        "equal to a run never killed": equal and whole.iterations == survivor.iterations,
        **check_logs(run_dir, survivor.steps),
    }


def warm_up(folder: Path, core: str) -> None:
    """Import what a training imports on its way, so that a process forked from this one trains at once."""
    words = [*TINY, "--total-steps", str(STEPS), "--run-dir", str(folder / f"warm-{core}"), "--core", core]
    words += ["--core-options", *SMALL_CORES[core]]
    trainer, _ = script.build(configured(words))
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.run()


def newest_step(run_dir: Path) -> int:
    return next((int(path.stem.removeprefix("step_")) for path in checkpoints(run_dir)), -1)


def check_logs(run_dir: Path, steps: int) -> dict[str, int]:
    """Go on for one more iteration, then look for steps that are missing or there twice.

    Args:
        run_dir: a run that was killed while it wrote figures.
        steps: where its newest checkpoint stands; logs are whole up to there.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    process = start(["--resume", str(run_dir), "--total-steps", str(steps + STEPS)], run_dir / "output.txt")
    if ended(process):
        raise RuntimeError((run_dir / "output.txt").read_text())
    expected = list(range(STEPS, steps + 2 * STEPS, STEPS))
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    logged = [line["step"] for line in lines if "note" not in line]
    with contextlib.redirect_stderr(io.StringIO()):
        events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    shown = [event.step for event in events.Scalars("time/fps")]
    return {
        "steps missing in log.jsonl": len(set(expected) - set(logged)),
        "steps doubled in log.jsonl": len(logged) - len(set(logged)),
        "steps missing in TensorBoard": len(set(expected) - set(shown)),
        "steps doubled in TensorBoard": len(shown) - len(set(shown)),
    }


# ---- mutations


def rezip(data: bytes, change: Callable[[str, bytes], bytes | None], compression: int = 0) -> bytes:
    """A checkpoint with other records and right checksums: what an attacker would make."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for entry in old.infolist():
            content = change(entry.filename, old.read(entry))
            if content is not None:
                new.writestr(entry.filename, content)
    return out.getvalue()


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A damaged or forged version of a checkpoint."""
    kind = rng.randrange(9)
    if kind <= 3:
        return scramble(data, rng)
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    structure = next(name for name in names if name.endswith("data.pkl"))
    if kind <= 6:  # the structure, with a checksum that fits
        return rezip(data, lambda name, x: scramble(x, rng) if name == structure else x)
    victim = rng.choice(names)
    if kind == 7:
        return rezip(data, lambda name, x: scramble(x, rng) if name == victim else x, rng.choice([0, 8]))
    return rezip(data, lambda name, x: None if name == victim else x)


def scramble(data: bytes, rng: random.Random) -> bytes:
    """Bits flipped, bytes set, cut, inserted, repeated, moved, or numbers made huge."""
    x = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        at = rng.randrange(max(len(x), 1))
        size = rng.choice([1, 2, 8, 64])
        match rng.randrange(8):
            case 0 | 1 if x:
                x[at] ^= 1 << rng.randrange(8)
            case 2 if x:
                x[at] = rng.randrange(256)
            case 3:
                x = x[:at]
            case 4:
                x[at:at] = rng.randbytes(size)
            case 5:
                del x[at : at + size]
            case 6:
                x[at : at + 4] = struct.pack("<I", rng.choice([0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0, 1]))
            case 7:
                piece = x[at : at + size]
                other = rng.randrange(len(x) + 1)
                x[other:other] = piece
            case _:
                pass
    return bytes(x)


VALUES: list[Any] = [
    None, -1, 0, 1.5, 10**6, 10**12, 10**30, 1e308, float("nan"), True, "", "x", "rmc", [], [1], [10**9] * 5,
    {}, {"x": 1}, [[]], "\x00", "os:system",
]  # fmt: skip


def mutate_json(text: str, rng: random.Random) -> str:
    """A config.json with values of other types, keys missing, or letters changed."""
    if rng.random() < 0.2:
        return scramble(text.encode(), rng).decode("utf-8", "replace")
    tree = json.loads(text)
    for _ in range(rng.choice([1, 1, 2, 4])):
        node: Any = tree
        parent: Any = None
        key: Any = None
        while isinstance(node, dict | list) and node and (parent is None or rng.random() < 0.8):
            parent = node
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            node = node[key]
        if parent is None or (isinstance(parent, dict) and rng.random() < 0.2):
            tree.pop(key, None) if isinstance(tree, dict) and key is not None else None
        else:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(tree)


def deep_json(rng: random.Random) -> str:
    return rng.choice(
        ["[" * 100_000, '{"agent":' * 50_000, "1" * 10_000, "[]", "null", "{}", '{"agent": {}}']
    )


class Hung(Exception):
    """A file took longer than `PATIENCE` seconds."""


PATIENCE = 20


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Raise `Hung` when what is within takes too long."""

    def ring(number: int, frame: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(load: Callable[[], object]) -> str:
    """ "loaded", "refused", or what went wrong."""
    try:
        with watched():
            load()
    except UsageError as error:
        return "refused" if len(str(error)) < 2000 else "a message without end"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    return "loaded"


def tiny_run(folder: Path, core: str = "gru") -> Path:
    """The folder of a run of two iterations."""
    run_dir = folder / f"tiny-{core}"
    words = [*TINY, "--core", core, "--core-options", *SMALL_CORES[core], "--run-dir", str(run_dir)]
    process = start([*words, "--total-steps", str(2 * STEPS)], folder / "tiny.txt")
    if ended(process):
        raise RuntimeError((folder / "tiny.txt").read_text())
    return run_dir


def mutate_checkpoints(run_dir: Path, count: int, seed: int = 0) -> Counter[str]:
    """What the loader, and a training that goes on, say to `count` mutated checkpoints."""
    rng = random.Random(seed)
    path = checkpoints(run_dir)[0]
    good = path.read_bytes()
    trainer, _ = script.build(script.resumed(run_dir))
    found: Counter[str] = Counter()
    try:
        for _ in range(count):
            path.write_bytes(mutate(good, rng))
            said = outcome(lambda: read_checkpoint(path))
            if said == "loaded":
                said = "read; " + outcome(trainer.restore) + " by a training"
                agent = outcome(lambda: rmc_agents.load(path))
                said = said if agent in ("loaded", "refused") else agent
            found[said] += 1
    finally:
        path.write_bytes(good)
    return found


def mutate_configs(run_dir: Path, count: int, seed: int = 0) -> Counter[str]:
    """What loading and resuming say to `count` mutated config.json."""
    rng = random.Random(seed)
    path = run_dir / "config.json"
    good = path.read_text()
    found: Counter[str] = Counter()

    def resume() -> None:
        try:
            trainer, _ = script.build(script.resumed(run_dir))
        except ValueError as error:  # as main() does
            raise UsageError(str(error)) from error
        trainer.restore()

    try:
        for _ in range(count):
            path.write_text(deep_json(rng) if rng.random() < 0.05 else mutate_json(good, rng))
            agent, training = outcome(lambda: rmc_agents.load(run_dir)), outcome(resume)
            bad = [said for said in (agent, training) if said not in ("loaded", "refused")]
            found[bad[0] if bad else f"agent {agent}, training {training}"] += 1
    finally:
        path.write_text(good)
    return found


def clear(found: Counter[str]) -> bool:
    """Whether every outcome was a load or a message."""
    return all(set(said.replace(",", "").split()) <= WORDS for said in found)


WORDS = {"refused", "loaded", "read;", "by", "a", "training", "agent"}


# ---- growth


def growth(folder: Path, iterations: int, marks: int = 10, core: str = "gru") -> list[dict[str, float]]:
    """Memory and open files at `marks` moments of a run of so many iterations."""
    args = [
        *TINY,
        "--core",
        core,
        "--core-options",
        *SMALL_CORES[core],
        "--run-dir",
        str(folder / f"long-{core}"),
    ]
    config = configured([*args, "--checkpoint-seconds", "0.5"])
    trainer, _ = script.build(config)
    trainer.config = script.dataclasses.replace(trainer.config, total_steps=iterations * STEPS)
    seen: list[dict[str, float]] = []
    iterate = trainer.iterate

    def measured() -> dict[str, float]:
        figures = iterate()
        if trainer.iterations % (iterations // marks) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory = pages * resource.getpagesize() / 2**20
            files = len(os.listdir("/proc/self/fd"))
            seen.append({"iteration": trainer.iterations, "memory (MiB)": memory, "open files": files})
        return figures

    trainer.iterate = measured  # type: ignore[method-assign]
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.run()
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--configs", type=int, default=2_000)
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "reliability.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    parts: dict[str, Callable[[Path], Any]] = {"growth": lambda folder: growth(folder, args.iterations)}
    for n, core in enumerate(SMALL_CORES):
        share = args.kills // len(SMALL_CORES) + (n < args.kills % len(SMALL_CORES))
        parts[f"kills-{core}"] = lambda folder, x=(share, core, n): kill_and_resume(folder, *x)
    parts["mutations"] = lambda folder: mutate_checkpoints(tiny_run(folder), args.mutations)
    parts["configs"] = lambda folder: mutate_configs(tiny_run(folder), args.configs)
    # A part that is done is not done again by a soak that was stopped and started again.
    state = args.out.with_suffix(".unfinished.json")
    done: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {}
    for name, part in parts.items():
        if name not in done:
            print(f"{name} ...", flush=True)
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="soak-") as folder:
                result = part(Path(folder))
            done[name] = {"result": result, "seconds": time.monotonic() - began}
            state.parent.mkdir(parents=True, exist_ok=True)
            state.write_text(json.dumps(done))
        print(done[name], flush=True)
    killed = [done[f"kills-{core}"]["result"] for core in SMALL_CORES]
    damaged, configs = (Counter(done[name]["result"]) for name in ("mutations", "configs"))
    seconds = sum(part["seconds"] for part in done.values())
    report(args.out, done["growth"]["result"], killed, damaged, configs, seconds)
    state.unlink()


def report(
    path: Path,
    grown: list[dict[str, float]],
    killed: list[dict[str, Any]],
    damaged: Counter[str],
    configs: Counter[str],
    seconds: float,
) -> None:
    """Write the results as Markdown."""
    from benchmarks.common import Machine, markdown, target

    first, last = grown[0], grown[-1]
    lost = sum(row["lost more than since the last checkpoint"] for row in killed)
    kills = sum(row["kills"] for row in killed)
    wrong = sum(n for said, n in damaged.items() if not clear(Counter([said])))
    wrong_configs = sum(n for said, n in configs.items() if not clear(Counter([said])))
    between = f"iteration {first['iteration']:,.0f} and {last['iteration']:,.0f}"
    more = 100 * (last["memory (MiB)"] / first["memory (MiB)"] - 1)
    doubled = sum(row["steps doubled in log.jsonl"] + row["steps doubled in TensorBoard"] for row in killed)
    unequal = sum(not row["equal to a run never killed"] for row in killed)
    rows = [
        target(f"of {kills} kills at random moments, lost more than since a checkpoint", lost, at_most=0),
        target("runs that did not equal one never killed", unequal, at_most=0),
        target(f"of {damaged.total():,} mutated checkpoints, no load and no clear message", wrong, at_most=0),
        target(f"of {configs.total():,} mutated config.json, likewise", wrong_configs, at_most=0),
        target(f"growth of memory between {between} (%)", round(more, 2), at_most=1),
        target("growth of open files between them", last["open files"] - first["open files"], at_most=0),
        target("steps doubled in log.jsonl or TensorBoard after all kills", doubled, at_most=0),
    ]
    text = [
        "# Is anything lost, or anything unsafe loaded?\n",
        f"`python benchmarks/soak.py`, {seconds / 60:.0f} minutes.\n",
        markdown(rows),
        "\n## Kills\n\n"
        "`kill -9` of a training that goes on by `--auto-resume`: one half up to "
        f"{LONGEST} seconds after its start, the other up to 0.3 seconds after it first saved; it saves "
        "after every iteration, or every 0.05 seconds. Lost: the newest whole checkpoint is older than one "
        "that was there before the kill. Equal: every parameter, moment, generator, memory and environment "
        "after the last kill.\n",
        markdown(killed),
        "\n## Mutated checkpoints\n\n"
        "Bits, bytes and blocks changed, in the file and, with checksums that fit, in its records. What was "
        "read and then loaded by a training is a well-formed file that says something else, or the same.\n",
        markdown([{"outcome": said, "files": n} for said, n in damaged.most_common()]),
        "\n## Mutated config.json\n",
        markdown([{"outcome": said, "files": n} for said, n in configs.most_common()]),
        "\n## Memory and open files\n",
        markdown(grown),
        f"\n## The machine\n\n{Machine([1])}\n",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
