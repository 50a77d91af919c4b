"""Nothing is lost, and nothing unsafe is loaded: kills, signals, full disks, forged files, spoiled numbers.

The full counts are those of `python benchmarks/soak.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envs
import rmc_agents
from benchmarks import soak
from rmc_agents import PPOConfig, TrainingError, UsageError, checkpoint
from rmc_agents.checkpoint import best_checkpoint, checkpoints, read_checkpoint, read_newest, save_checkpoint
from rmc_agents.health import Watch
from rmc_agents.runlog import RunLog
from rmc_agents.signals import Interruption
from tests.test_trainer import assert_identical, trainer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return soak.tiny_run(tmp_path_factory.mktemp("runs"))


# ---- kills and signals


def test_a_training_killed_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    result = soak.kill_and_resume(tmp_path, 8, "gru", seed=7)
    assert result["lost more than since the last checkpoint"] == 0
    assert result["damaged files"] == result["tracebacks"] == 0
    assert result["equal to a run never killed"]
    assert result["iterations survived"] > 0
    assert [value for name, value in result.items() if name.startswith("steps ")] == [0] * 4


def begun(run_dir: Path, *more: str) -> tuple[int, Path]:
    """A training that has saved at least once."""
    output = run_dir.parent / "output.txt"
    words = [*soak.TINY, "--core", "gru", "--run-dir", str(run_dir), "--checkpoint-seconds", "0", *more]
    process = soak.start(words, output)
    soak.until(lambda: bool(checkpoints(run_dir)))
    return process, output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_iteration_saves_and_says_how_to_go_on(
    number: int, code: int, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    process, output = begun(run_dir)
    os.kill(process, number)
    assert soak.ended(process) == code
    said = output.read_text()
    assert f"go on with: python train/ppo.py --resume {run_dir}" in said
    assert "Traceback" not in said
    newest = checkpoints(run_dir)[0]
    assert newest.name in said
    last = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()][-1]
    assert last["step"] == read_checkpoint(newest)["steps"], "the iteration that was under way is saved"


def test_the_command_as_a_user_types_it_hears_sigterm_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train" / "ppo.py"), *soak.TINY, "--core", "gru"]
    command += ["--run-dir", "run", "--auto-resume", "--checkpoint-seconds", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    reached = []
    for _ in range(2):
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        at = reached[-1] if reached else -1
        soak.until(lambda at=at: soak.newest_step(tmp_path / "run") > at)
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 143, errors
        assert "go on with: python train/ppo.py --resume run" in errors
        reached.append(soak.newest_step(tmp_path / "run"))
    assert reached[1] > reached[0]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal: a job in the background is born with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_stops_at_once() -> None:
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_killed_before_it_first_saved_begins_again(tmp_path: Path) -> None:
    run_dir = soak.tiny_run(tmp_path)
    for path in checkpoints(run_dir):
        path.unlink()
    process = soak.start(["--resume", str(run_dir)], tmp_path / "again.txt")
    assert soak.ended(process) == 0, (tmp_path / "again.txt").read_text()
    steps = [json.loads(line)["step"] for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert steps == [32, 64]


# ---- disks


def test_a_disk_that_fills_up_costs_a_checkpoint_not_the_run(tmp_path: Path) -> None:
    """Files cannot grow beyond less than a checkpoint's size: writing fails midway, as on a full disk."""
    run_dir = soak.tiny_run(tmp_path)
    good, size = checkpoints(run_dir)[0], checkpoints(run_dir)[0].stat().st_size

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    words = ["--resume", str(run_dir), "--total-steps", "256", "--checkpoint-seconds", "0"]
    process = soak.start(words, tmp_path / "full.txt", fill)
    assert soak.ended(process) == 1
    said = (tmp_path / "full.txt").read_text()
    assert "could not be saved (File too large); the last good checkpoint is" in said
    assert "Traceback" not in said
    assert "step 256" in said, "it trained to the end all the same"
    assert checkpoints(run_dir)[0] == good
    assert not list((run_dir / "checkpoints").glob(".*"))
    process = soak.start(words, tmp_path / "room.txt")
    assert soak.ended(process) == 0, "there is room again"
    assert soak.newest_step(run_dir) == 256


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of its own; skipped where we may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*words: str) -> bool:
        return subprocess.run(["mount", *words, str(folder)], capture_output=True).returncode == 0

    try:
        mounted = mount("-t", "tmpfs", "-o", "size=300k", "tmpfs")
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a file system takes root")
    yield folder, mount
    subprocess.run(["umount", str(folder)], check=True)


def test_no_space_left_on_device(small_disk: Any) -> None:
    folder, mount = small_disk
    run = trainer(folder / "run", "gru", checkpoint_seconds=0)
    ballast = folder / "ballast"
    iterate = run.iterate

    def full_later() -> dict[str, float]:
        if run.iterations == 2:
            with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(1024)):
                    pass
        return iterate()

    run.iterate = full_later  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"No space left on device.*last good checkpoint is .*256\.pt"):
        run.run()
    ballast.unlink()
    again = trainer(folder / "run", "gru")
    again.restore()
    assert again.steps == 256
    assert mount("-o", "remount,ro")
    with pytest.raises(UsageError, match="Read-only file system"):
        trainer(folder / "other").run()
    with pytest.raises((UsageError, TrainingError), match="Read-only file system"):
        again.run()
    assert read_newest(folder / "run")[1]["steps"] == 256


def test_a_run_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to the run folder"):
        trainer(tmp_path / "file" / "run").run()


# ---- files


def test_mutated_checkpoints_are_loaded_or_refused(tiny: Path) -> None:
    found = soak.mutate_checkpoints(tiny, 1500, seed=1)
    assert soak.clear(found), found
    assert found["refused"] > 1000
    assert read_newest(tiny)[2] == []


def test_mutated_configurations_are_loaded_or_refused(tiny: Path) -> None:
    found = soak.mutate_configs(tiny, 200, seed=1)
    assert soak.clear(found), found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400), cut=st.integers(0, 400))
def test_bytes_of_any_kind_are_refused_or_change_nothing(
    data: bytes, cut: int, tiny: Path, tmp_path: Path
) -> None:
    good = checkpoints(tiny)[0].read_bytes()
    path = tmp_path / "file.pt"
    for content in (data, data + good[cut:], good[: len(good) - cut] + data, b"PK\3\4" + data):
        path.write_bytes(content)
        said = soak.outcome(lambda: read_checkpoint(path))
        assert said in ("loaded", "refused")
        if said == "loaded":  # what changed has no meaning: a zip file says some things twice
            assert len(content) == len(good)
            assert read_checkpoint(path)["steps"] == 2 * soak.STEPS


class Opcodes:
    """Structures for which a reader might run code, take memory without end, or loop for ever."""

    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n"
    bytearray_of = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."
    system = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."
    deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    pickled = pickle.dumps({"format": 2}, protocol=5)
    nothing = b""
    endless_list = b"\x80\x02]q\x00h\x00a."

    @classmethod
    def all(cls) -> dict[str, bytes]:
        return {name: value for name, value in vars(cls).items() if isinstance(value, bytes)}


@pytest.mark.parametrize("name", list(Opcodes.all()))
def test_forged_structures_are_refused(name: str, tiny: Path, tmp_path: Path) -> None:
    good = checkpoints(tiny)[0].read_bytes()
    path = tmp_path / "file.pt"
    path.write_bytes(soak.rezip(good, lambda n, x: Opcodes.all()[name] if n.endswith("data.pkl") else x))
    assert soak.outcome(lambda: read_checkpoint(path)) == "refused"


def test_what_claims_more_than_it_is_takes_no_memory(tmp_path: Path) -> None:
    """A tensor of 8 TiB by a stride of zero, a storage longer than its record, a bomb of a zip."""
    huge = tmp_path / "huge.pt"
    torch.save({"format": 2, "x": torch.ones(1).expand(2**41)}, huge)
    assert huge.stat().st_size < 4096
    longer = tmp_path / "longer.pt"
    torch.save({"format": 2, "x": torch.ones(4, dtype=torch.uint8)}, longer)
    shortened = soak.rezip(longer.read_bytes(), lambda n, x: x[:1] if n.endswith("data/0") else x)
    longer.write_bytes(shortened)
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"]" * 10**8 + b".")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path, message in [
        (huge, "more numbers than its storage"),
        (longer, "another size"),
        (bomb, "compressed records"),
    ]:
        with pytest.raises(UsageError, match=message):
            read_checkpoint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_description_of_a_giant_is_refused_before_it_is_built(tiny: Path) -> None:
    path = tiny / "config.json"
    good = path.read_text()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for change in ({"features": 10**6}, {"hidden_size": 10**6}, {"core_options": {"hidden_size": 10**6}}):
            config = json.loads(good)
            config["agent"] |= change
            path.write_text(json.dumps(config))
            with pytest.raises(UsageError, match="another configuration"):
                rmc_agents.load(tiny)
            with pytest.raises(UsageError, match="another configuration"):
                soak.script.resumed(tiny)
    finally:
        path.write_text(good)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_rollout_larger_than_any_memory_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit into memory"):
        trainer(tmp_path, config=PPOConfig(num_steps=2**44, bptt_length=16, minibatch_size=512))


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe", "dangling", "device"])
def test_what_is_no_file_is_said_to_be_none(kind: str, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "step_1.pt"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"loop": path, "dangling": tmp_path / "none", "device": Path("/dev/zero")}[kind])
    assert soak.outcome(lambda: read_checkpoint(path)) == "refused"
    assert soak.outcome(lambda: rmc_agents.load(path)) == "refused"
    newest = tiny / "checkpoints" / "step_999999999999.pt"
    path.rename(newest) if kind != "loop" else newest.symlink_to(newest)
    try:
        assert read_newest(tiny)[0] != newest
        assert len(read_newest(tiny)[2]) == 1
    finally:
        newest.rmdir() if kind == "folder" else newest.unlink()


def test_an_older_format_is_migrated(tmp_path: Path) -> None:
    """Format 1, whose recent episodes had no returns, made by hand from a run of this version."""
    whole = trainer(tmp_path / "whole")
    whole.run()
    cut = trainer(tmp_path / "run", checkpoint_seconds=1e9)
    cut._open_run_dir()
    cut.iterate()
    path = cut.save()
    old = torch.load(path, weights_only=True)
    old["format"], old["recent"] = 1, [pair[:2] for pair in old["recent"]]
    torch.save(old, path)
    again = trainer(tmp_path / "run")
    again.restore()
    assert list(again.recent) == [(n, solved, 0.0) for n, solved, _ in cut.recent]
    again.recent = cut.recent
    while not again.done:
        again.iterate()
    assert_identical(again, whole)
    for broken in ({"format": 1, "recent": 3}, {"format": 1, "recent": [[1]]}, {"format": 10**30}, {}):
        torch.save(broken, path)
        assert soak.outcome(lambda: read_checkpoint(path)) == "refused"


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    parts = torch.zeros(()).expand(5), torch.arange(6.0)[::2], torch.nn.Parameter(torch.ones(2))
    read = read_checkpoint(save_checkpoint(tmp_path, 1, {"env": parts, "shared": [parts[2]] * 3}))
    assert all(torch.equal(a, b) for a, b in zip(read["env"], parts, strict=True))
    with pytest.raises(TrainingError, match="could not be read again"):
        save_checkpoint(tmp_path, 2, {"env": np.float64(3.0)})
    assert soak.newest_step(tmp_path) == 1


def test_the_best_and_the_judged_stay(tmp_path: Path) -> None:
    for step, score in [(1, 0.1), (2, 0.9), (3, 0.3), (4, 0.2), (5, 0.1), (6, 0.2)]:
        save_checkpoint(tmp_path, step, {"x": torch.ones(1)}, keep=2, score=(score, 0.0))
        if step == 3:
            judged = {"e": {"checkpoint": str(checkpoints(tmp_path)[0])}}
            checkpoint.write_json(tmp_path / "evaluation.json", judged)
    assert [int(p.stem[5:]) for p in checkpoints(tmp_path)] == [6, 5, 3, 2]
    best = best_checkpoint(tmp_path)
    assert best is not None
    assert best[0].name == "step_000000000002.pt"
    for text in ("", "[]", '{"checkpoint": "../../x", "score": []}'):
        (tmp_path / "checkpoints" / "best.json").write_text(text)
        assert best_checkpoint(tmp_path) is None


# ---- numbers


class Poisoned(envs.Recall):
    """Recall with one number replaced at the 21st step of environment 3."""

    def __init__(self, what: str, number: float) -> None:
        super().__init__(8)
        self.what, self.number, self.steps = what, number, 0

    def step(self, actions: torch.Tensor) -> envs.Transition:
        transition = super().step(actions)
        self.steps += 1
        spoiled = transition.reward if self.what == "reward" else transition.obs
        assert isinstance(spoiled, torch.Tensor)
        if self.steps == 21:
            spoiled[3] = self.number
        return transition


@pytest.mark.parametrize("what", ["reward", "observation"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_named_and_described(what: str, number: float, tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", env=Poisoned(what, number), checkpoint_seconds=0)
    with pytest.raises(
        TrainingError, match=rf"the {what} of environment 3 \(rmc/Recall-v0\) is not finite at step"
    ):
        run.run()
    facts = json.loads((tmp_path / "run" / "diagnostic.json").read_text())
    assert (facts["what"], facts["environment"]) == (what, 3)
    assert facts["step"] == 128 + 8 * (4 if what == "reward" else 5)
    assert facts["numbers"]["nan" if number != number else "infinite"] > 0
    assert (tmp_path / "run" / "diagnostic.json").stat().st_size < 10_000
    assert all(p.isfinite().all() for p in run.agent.parameters())
    assert read_newest(tmp_path / "run")[1]["steps"] == 128


@pytest.mark.parametrize("reward", [1e25, 3e38])
def test_a_loss_that_overflows_reaches_neither_weights_nor_moments(reward: float, tmp_path: Path) -> None:
    """Each reward is a finite number; its square is none."""
    run = trainer(tmp_path / "run", env=Poisoned("reward", reward), checkpoint_seconds=0)
    with pytest.raises(TrainingError, match=r"environment 3 .* is not finite.*diagnostic\.json"):
        run.run()
    moments = [x for state in run.optimizer.state.values() for x in state.values()]
    assert all(x.isfinite().all() for x in [*run.agent.parameters(), *moments])
    facts = json.loads((tmp_path / "run" / "diagnostic.json").read_text())
    assert facts["losses_not_finite"] or facts["gradients_not_finite"]
    assert facts["parameters_not_finite"] == []
    assert read_newest(tmp_path / "run")[1]["steps"] == 128


def test_exploding_value_loss_and_collapsed_entropy_are_said_once() -> None:
    watch = Watch(spaces.Discrete(4))
    well = {"train/value_loss": 0.5, "train/entropy_loss": -1.2, "rollout/success_rate": 0.3}
    for _ in range(20):
        assert watch.warnings(well) == []
    (message,) = watch.warnings({**well, "train/value_loss": 1e4})
    assert "value loss exploded to 1e+04, from 0.5" in message
    assert watch.warnings({**well, "train/value_loss": 1e4}) == []
    assert watch.warnings({**well, "train/entropy_loss": -1e-3, "rollout/success_rate": 1.0}) == []
    (message,) = watch.warnings({**well, "train/entropy_loss": -1e-3})
    assert "entropy collapsed" in message
    continuous = Watch(spaces.Box(-1, 1, (2,)))
    assert continuous.warnings({**well, "train/entropy_loss": -2.8}) == []
    assert continuous.warnings({**well, "train/entropy_loss": 5.0}) == []
    assert len(continuous.warnings({**well, "train/entropy_loss": 8.0})) == 1


def test_warnings_are_seen_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = PPOConfig(
        total_steps=8 * 16 * 30, num_steps=16, bptt_length=8, minibatch_size=64, epochs=1, learning_rate=1e-5
    )

    class Inflation(envs.Recall):
        steps = 0

        def step(self, actions: torch.Tensor) -> envs.Transition:
            self.steps += 1
            transition = super().step(actions)
            return transition._replace(reward=transition.reward + (1000.0 if self.steps > 25 * 16 else 0.0))

    trainer(tmp_path / "run", env=Inflation(8), config=config).run()
    assert capsys.readouterr().out.count("warning: the value loss exploded") == 1
    assert "value loss exploded" in (tmp_path / "run" / "log.jsonl").read_text()


# ---- environments


class Naughty(gymnasium.Env):
    """Behaves for two steps; what it does at the third is its name."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, trick: str = "none", culprit: bool = True) -> None:
        self.trick, self.time = trick if culprit else "none", 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.time += 1
        obs: Any = np.full(2, 0.5, np.float32)
        reward: Any = 1.0
        if self.time == 3:
            if self.trick == "hang":
                time.sleep(60)
            elif self.trick == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.trick == "exit":
                os._exit(3)
            elif self.trick == "raise":
                raise RuntimeError("the robot fell over")
            obs = {
                "shape": np.zeros(3, np.float32),
                "text": np.array(["a", "b"]),
                "ragged": [[1.0], 2.0],
                "nothing": None,
                "infinite": np.full(2, np.inf, np.float32),
            }.get(self.trick, obs)
            reward = "much" if self.trick == "reward" else reward
        return obs, reward, False, self.time % 5 == 0, {}


def naughty(trick: str, vectorization: str, **options: Any) -> envs.GymnasiumEnvs:
    """Three of them, the second of which has the trick."""
    from envs.gymnasium_adapter import watched
    from envs.workers import Workers

    makers = [watched(lambda i=i: Naughty(trick, i == 1), i, "Naughty-v0") for i in range(3)]
    if vectorization == "async":
        return envs.GymnasiumEnvs(Workers(makers, "Naughty-v0", **options), name="Naughty-v0")
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    return envs.GymnasiumEnvs(gymnasium.vector.SyncVectorEnv(makers, autoreset_mode=mode), name="Naughty-v0")


ACTIONS = torch.zeros(3, dtype=torch.int64)


def play(batch: envs.GymnasiumEnvs, steps: int) -> None:
    for _ in range(steps):
        batch.step(ACTIONS)


TRICKS = {
    "raise": "the robot fell over",
    "shape": r"shape \(3,\), expected \(2,\)",
    "text": "type <U1, expected float32",
    "ragged": "not of its space",
    "nothing": "not of its space",
    "infinite": "infinity at",
    "reward": "'much' as a reward",
}


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("trick", TRICKS)
def test_an_environment_that_misbehaves_is_named(trick: str, vectorization: str) -> None:
    batch = naughty(trick, vectorization)
    batch.reset(seed=0)
    with pytest.raises(envs.EnvironmentFailed, match=f"environment 1.*{TRICKS[trick]}"):
        play(batch, 3)
    batch.close()


@pytest.mark.parametrize(
    ("trick", "message"),
    [("hang", r"did not answer within 0\.5 s"), ("die", "died .SIGKILL"), ("exit", "died .exit code 3")],
)
def test_a_worker_that_hangs_or_dies_is_named(trick: str, message: str) -> None:
    batch = naughty(trick, "async", timeout=0.5)
    batch.reset(seed=0)
    began = time.monotonic()
    with pytest.raises(envs.EnvironmentFailed, match=rf"environment 1 \(Naughty-v0\) .*{message}"):
        play(batch, 3)
    batch.close()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("trick", ["hang", "die", "raise", "shape"])
def test_a_crashed_environment_is_started_again_where_asked(trick: str) -> None:
    batch = naughty(trick, "async", timeout=0.5, restart=True)
    batch.reset(seed=0)
    for _ in range(2):
        last = batch.step(ACTIONS)
    step = batch.step(ACTIONS)
    assert step.truncated.tolist() == [False, True, False]
    assert step.reward.tolist() == [1, 0, 1]
    assert torch.equal(step.final_obs[1], last.obs[1])
    assert step.obs.tolist() == [[0.5, 0.5], [0, 0], [0.5, 0.5]]
    (message,) = batch.news()
    assert "environment 1 (Naughty-v0)" in message
    assert "restart 1 of this run" in message
    assert batch.news() == []
    batch.env.timeout = 0.2
    with pytest.raises(envs.EnvironmentFailed, match="crashed 11 times in a row"):
        play(batch, 40)
    batch.close()


def test_restarts_are_logged_and_training_goes_on(tmp_path: Path) -> None:
    batch = naughty("none", "async", restart=True)
    config = PPOConfig(total_steps=3 * 8 * 4, num_steps=8, bptt_length=8, minibatch_size=24, epochs=1)
    run = trainer(tmp_path / "run", env=batch, config=config)
    iterate = run.iterate

    def murder() -> dict[str, float]:
        figures = iterate()
        if run.iterations == 2:
            batch.env._workers[2].process.kill()
        return figures

    run.iterate = murder  # type: ignore[method-assign]
    run.run()
    batch.close()
    assert run.done
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert "environment 2 (Naughty-v0) is gone: its process died (SIGKILL); started again" in log


def test_only_processes_can_be_started_again() -> None:
    with pytest.raises(ValueError, match="vectorization='async'"):
        envs.make("CartPole-v1", 2, restart_crashed=True)


def test_an_environment_without_state_says_that_its_episodes_begin_afresh(tmp_path: Path) -> None:
    """And two runs resumed from one checkpoint are the same run."""
    config = PPOConfig(total_steps=512, num_steps=16, bptt_length=8, minibatch_size=64, epochs=1)
    first = trainer(tmp_path / "run", env=envs.make("CartPole-v1", 8), config=config)
    first._open_run_dir()
    first.iterate()
    first.save()
    resumed = [trainer(tmp_path / "run", env=envs.make("CartPole-v1", 8), config=config) for _ in range(2)]
    for run in resumed:
        assert any("episodes begin afresh" in note for note in run.restore())
        run.iterate()
    assert_identical(*resumed)


# ---- configuration and logs


def test_differences_are_listed_unless_they_may_be(tiny: Path, tmp_path: Path) -> None:
    words = ["--resume", str(tiny), "--gamma", "0.5", "--seed", "3", "--total-steps", "96"]
    saved = soak.script.resumed(tiny)
    asked = soak.script.parse(soak.script.RunConfig, saved, words, prog="test")
    with pytest.raises(UsageError, match=r"--seed was 0, asked for 3; --gamma was 0\.99, asked for 0\.5"):
        soak.script.require_same(saved, asked)
    more = [*words, "--may-change", "gamma", "seed"]
    soak.script.require_same(saved, soak.script.parse(soak.script.RunConfig, saved, more, prog="test"))
    wrong = soak.script.parse(soak.script.RunConfig, saved, [*words, "--may-change", "gama"], prog="test")
    with pytest.raises(UsageError, match="no such flag"):
        soak.script.require_same(saved, wrong)


@pytest.mark.parametrize(
    "options",
    [{"checkpoint_seconds": -1}, {"keep_checkpoints": 0}, {"stop_at_success": 2.0}, {"stop_at_success": 0}],
)
def test_settings_out_of_range_fail_before_anything_is_created(
    options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        trainer(tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())


def test_a_log_that_was_cut_short_goes_on_without_doubles(tmp_path: Path) -> None:
    lines = [json.dumps({"step": n}) for n in (1, 2, 3, 4)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "ti')
    log = RunLog(tmp_path, 2, note=pytest.fail)
    log.figures(3, {"time/fps": float("nan")})
    log.close()
    assert [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "time/fps": None},
    ]


def test_figures_that_cannot_be_written_cost_one_warning(tmp_path: Path) -> None:
    said: list[str] = []
    log = RunLog(tmp_path, 0, note=said.append)
    log.lines.close()
    log.lines = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    for step in range(3):
        log.figures(step, {"time/fps": 1.0})
    log.close()
    assert len(said) == 1
    assert "No space left on device" in said[0]


def test_memory_and_files_do_not_grow(tmp_path: Path) -> None:
    seen = soak.growth(tmp_path, 300, marks=3)
    assert seen[-1]["memory (MiB)"] < 1.01 * seen[0]["memory (MiB)"]
    assert seen[-1]["open files"] == seen[0]["open files"]
