"""Mutations: damaged and forged files are loaded or refused with one message, and nothing else happens."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import signal
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rmc_agents
from rmc_agents import UsageError
from rmc_agents.cli.resume import resumed
from rmc_agents.cli.script import checking
from rmc_agents.runs.checkpoint import read_checkpoint
from rmc_agents.runs.folder import checkpoints
from train import ppo

PATIENCE = 20
"""Seconds that loading a file may take."""
VALUES: list[Any] = [
    None, -1, 0, 1.5, 10**6, 10**12, 10**30, 1e308, float("nan"), True, "", "x", "rmc", [], [1], [10**9] * 5,
    {}, {"x": 1}, [[]], "\x00", "os:system",
]  # fmt: skip
"""Values that replace others in a config.json."""
CLEAR_WORDS = {"refused", "loaded", "read;", "by", "a", "training", "run", "agent"}
"""Words of the outcomes that are as they should be."""


def rezip(data: bytes, change: Callable[[str, bytes], bytes | None], compression: int = 0) -> bytes:
    """Change the records of a checkpoint, with valid checksums, as an attacker would.

    Args:
        data: the file.
        change: takes a record's name and contents, and returns new contents; None removes the record.
        compression: of the new file, as in `zipfile`.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for entry in old.infolist():
            content = change(entry.filename, old.read(entry))
            if content is not None:
                new.writestr(entry.filename, content)
    return out.getvalue()


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return a damaged or forged version of a checkpoint."""
    kind = rng.randrange(9)
    if kind <= 3:
        return scramble(data, rng)
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    structure = next(name for name in names if name.endswith("data.pkl"))
    if kind <= 6:  # the structure, with a valid checksum
        return rezip(data, lambda name, x: scramble(x, rng) if name == structure else x)
    victim = rng.choice(names)
    if kind == 7:
        return rezip(data, lambda name, x: scramble(x, rng) if name == victim else x, rng.choice([0, 8]))
    return rezip(data, lambda name, x: None if name == victim else x)


def scramble(data: bytes, rng: random.Random) -> bytes:
    """Flip bits; set, cut, insert, repeat or move bytes; or make numbers huge."""
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


def mutate_json(text: str, rng: random.Random) -> str:
    """Return a config.json with values of other types, without some keys, or with changed letters."""
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


def strange_json(rng: random.Random) -> str:
    """Return JSON that is deep, long, or without what a config.json holds."""
    return rng.choice(
        ["[" * 100_000, '{"agent":' * 50_000, "1" * 10_000, "[]", "null", "{}", '{"agent": {}}']
    )


class Hung(Exception):
    """Loading a file took longer than `PATIENCE` seconds."""


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise `Hung` if the context takes longer than `PATIENCE` seconds."""

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
    """Load, and return "loaded", "refused", or what went wrong."""
    try:
        with time_limit():
            load()
    except UsageError as error:
        return "refused" if len(str(error)) < 2000 else "an endless message"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    return "loaded"


def mutate_checkpoints(run_dir: Path, count: int, seed: int = 0) -> Counter[str]:
    """Load `count` mutated checkpoints, as an agent and in a training run; return the outcomes."""
    rng = random.Random(seed)
    path = checkpoints(run_dir)[0]
    good = path.read_bytes()
    trainer = ppo.build(resumed(run_dir))
    found: Counter[str] = Counter()
    try:
        for _ in range(count):
            path.write_bytes(mutate(good, rng))
            result = outcome(lambda: read_checkpoint(path))
            if result == "loaded":
                result = "read; " + outcome(trainer.restore) + " by a training run"
                agent = outcome(lambda: rmc_agents.load(path))
                result = result if agent in ("loaded", "refused") else agent
            found[result] += 1
    finally:
        path.write_bytes(good)
    return found


def mutate_configs(run_dir: Path, count: int, seed: int = 0) -> Counter[str]:
    """Load and resume with `count` mutated config.json; return the outcomes."""
    rng = random.Random(seed)
    path = run_dir / "config.json"
    good = path.read_text()
    found: Counter[str] = Counter()

    def resume() -> None:
        with checking():  # as the script does
            trainer = ppo.build(resumed(run_dir))
        trainer.restore()

    try:
        for _ in range(count):
            path.write_text(strange_json(rng) if rng.random() < 0.05 else mutate_json(good, rng))
            agent, training = outcome(lambda: rmc_agents.load(run_dir)), outcome(resume)
            bad = [result for result in (agent, training) if result not in ("loaded", "refused")]
            found[bad[0] if bad else f"agent {agent}, training {training}"] += 1
    finally:
        path.write_text(good)
    return found


def is_clear(outcomes: Counter[str]) -> bool:
    """Return whether every outcome is a load or one message."""
    return all(set(text.replace(",", "").split()) <= CLEAR_WORDS for text in outcomes)
