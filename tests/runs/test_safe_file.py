"""Files that are not trusted: no code in them runs, and no claim of theirs takes memory."""

from __future__ import annotations

import pickle
import resource
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.robustness import mutations, processes
from rmc_agents import UsageError
from rmc_agents.runs.checkpoint import read_checkpoint, read_newest
from rmc_agents.runs.folder import checkpoints


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two iterations."""
    return processes.tiny_run(tmp_path_factory.mktemp("runs"))


def test_code_in_a_checkpoint_is_not_run(tiny: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "owned",))

    path = tmp_path / "step_1.pt"
    for dump in (lambda: torch.save(Attack(), path), lambda: path.write_bytes(pickle.dumps(Attack()))):
        dump()
        with pytest.raises(UsageError, match="damaged or not a checkpoint"):
            read_checkpoint(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.slow
def test_mutated_checkpoints_are_loaded_or_refused(tiny: Path) -> None:
    found = mutations.mutate_checkpoints(tiny, 600, seed=1)
    assert mutations.is_clear(found), found
    assert found["refused"] > 400
    assert read_newest(tiny)[2] == []


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400), cut=st.integers(0, 400))
def test_arbitrary_bytes_are_refused_or_change_nothing(
    data: bytes, cut: int, tiny: Path, tmp_path: Path
) -> None:
    good = checkpoints(tiny)[0].read_bytes()
    path = tmp_path / "file.pt"
    for content in (data, data + good[cut:], good[: len(good) - cut] + data, b"PK\3\4" + data):
        path.write_bytes(content)
        outcome = mutations.outcome(lambda: read_checkpoint(path))
        assert outcome in ("loaded", "refused")
        if outcome == "loaded":  # the change has no meaning: a zip file states some things twice
            assert len(content) == len(good)
            assert read_checkpoint(path)["steps"] == 2 * processes.STEPS


class Opcodes:
    """Pickles with which a reader might run code, take unlimited memory, or loop without end."""

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
def test_forged_structure_is_refused(name: str, tiny: Path, tmp_path: Path) -> None:
    good = checkpoints(tiny)[0].read_bytes()
    path = tmp_path / "file.pt"
    path.write_bytes(mutations.rezip(good, lambda n, x: Opcodes.all()[name] if n.endswith("data.pkl") else x))
    assert mutations.outcome(lambda: read_checkpoint(path)) == "refused"


def test_file_that_claims_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    """A tensor of 8 TiB by a stride of zero, a storage longer than its record, a zip bomb."""
    huge = tmp_path / "huge.pt"
    torch.save({"format": 2, "x": torch.ones(1).expand(2**41)}, huge)
    assert huge.stat().st_size < 4096
    longer = tmp_path / "longer.pt"
    torch.save({"format": 2, "x": torch.ones(4, dtype=torch.uint8)}, longer)
    shortened = mutations.rezip(longer.read_bytes(), lambda n, x: x[:1] if n.endswith("data/0") else x)
    longer.write_bytes(shortened)
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"]" * 10**8 + b".")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path, message in [
        (huge, "more numbers than its storage"),
        (longer, "declared size"),
        (bomb, "compressed records"),
    ]:
        with pytest.raises(UsageError, match=message):
            read_checkpoint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
