"""Archives: one reading for every form of a zip file, and memory bounded by the size of the file."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks.robustness import forgeries, mutations
from rmc_agents import UsageError
from rmc_agents.runs.archive import Damaged, read_records, write_records
from rmc_agents.runs.checkpoint import read_checkpoint
from rmc_agents.runs.safe_file import rebuilt
from tests.support.commands import ROOT, run_python


def checkpoint(number: int) -> forgeries.Records:
    """Return the records of a checkpoint that holds a number."""
    buffer = io.BytesIO()
    torch.save({"format": 3, "agent": {"x": torch.full((20,), float(number))}, "steps": number}, buffer)
    return forgeries.records_of(buffer.getvalue())


GOOD, OTHER = checkpoint(1), checkpoint(2)


@pytest.mark.parametrize("form", forgeries.INTACT)
def test_archive_with_one_reading_is_loaded(form: str, tmp_path: Path) -> None:
    path = tmp_path / "step_1.pt"
    path.write_bytes(forgeries.INTACT[form](GOOD, OTHER))
    payload = read_checkpoint(path)
    assert payload["steps"] == 1
    assert torch.equal(payload["agent"]["x"], torch.ones(20))


@pytest.mark.parametrize("form", forgeries.FORGED)
def test_archive_that_readers_may_see_differently_is_refused(form: str, tmp_path: Path) -> None:
    path = tmp_path / "step_1.pt"
    path.write_bytes(forgeries.FORGED[form](GOOD, OTHER))
    with pytest.raises(UsageError, match="is damaged or not a checkpoint of this package"):
        read_checkpoint(path)


def test_python_and_torch_see_different_records_in_a_forged_archive() -> None:
    """Without this difference the test above would prove nothing."""
    forged = forgeries.FORGED["two directories"](GOOD, OTHER)
    with zipfile.ZipFile(io.BytesIO(forged)) as archive:
        assert archive.read("archive/data.pkl") == dict(GOOD)["archive/data.pkl"]
    assert torch.load(io.BytesIO(forged), weights_only=True)["steps"] == 2


def test_records_are_read_as_they_were_written() -> None:
    records = {"a/b": b"1", "a/c": b"", "a/d": bytes(range(256)) * 9}
    assert read_records(memoryview(write_records(records).getvalue())) == records


def test_torch_gets_only_the_records_that_the_structure_names() -> None:
    records = [*GOOD, ("archive/constants.pkl", b"x"), ("archive/data/7", b"unused")]
    names = zipfile.ZipFile(rebuilt(forgeries.pack(records))).namelist()
    assert names == ["archive/data.pkl", "archive/byteorder", "archive/version", "archive/data/0"]


@pytest.mark.parametrize("cut", [0, 1, 21, 22, 40])
def test_short_files_are_refused(cut: int) -> None:
    with pytest.raises(Damaged):
        read_records(memoryview(forgeries.pack(GOOD)[-cut:] if cut else b""))


def test_every_changed_byte_is_refused_or_changes_nothing() -> None:
    good = forgeries.pack(GOOD)
    records = dict(GOOD)
    for at in range(len(good)):
        for value in (good[at] ^ 1, good[at] ^ 0x80, 0, 0xFF):
            changed = good[:at] + bytes([value]) + good[at + 1 :]
            with contextlib.suppress(Damaged):
                assert read_records(memoryview(changed)) == records


MEASURE = """
import json, sys, torch
from pathlib import Path
from rmc_agents import UsageError
from rmc_agents.runs.checkpoint import read_checkpoint
def peak():
    # Not getrusage, whose peak includes that of the parent.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024
read_checkpoint(Path(sys.argv[1]))
before = peak()
found = {}
for name in sys.argv[2:]:
    try:
        read_checkpoint(Path(name))
        found[name] = "loaded", peak() - before
    except UsageError as error:
        found[name] = str(error)[-200:], peak() - before
print(json.dumps(found))
"""


def large_files() -> dict[str, bytes]:
    """Return files of a few MB that ask for gigabytes."""
    structure = GOOD[0][0]
    rest = [(name, content) for name, content in GOOD if name != structure]
    huge = io.BytesIO()
    torch.save({"format": 3, "agent": {"x": torch.ones(750_000).as_strided((1000, 750_000), (0, 1))}}, huge)
    start = b"\x80\x02}q\x00X\x06\x00\x00\x00formatq\x01K\x03s"
    pickles = {
        "lists": b"\x80\x02" + b"]" * 3_000_000 + b".",
        "marks": b"\x80\x02" + b"(" * 3_000_000 + b".",
        "tuples": b"\x80\x02N" + b"\x85" * 3_000_000 + b".",
        "references": start + b"".join(b"r" + n.to_bytes(4, "little") for n in range(200_000)) + b".",
        "nothings": b"\x80\x02](" + b"N" * 1_000_000 + b"e.",
        "claimed string": b"\x80\x02X\xff\xff\xff\x7f.",
        "claimed number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    }
    files = {name: forgeries.pack([(structure, content), *rest]) for name, content in pickles.items()}
    hidden = forgeries.records_of(huge.getvalue())
    padded = [*GOOD, ("archive/data/9", bytes(3_000_000))]
    files["strides of zero"] = huge.getvalue()
    files["hidden strides of zero"] = forgeries.two_directories(
        forgeries.pack(padded), forgeries.pack(hidden)
    )
    files["many records"] = forgeries.pack([*GOOD, *((f"archive/data/{n}", b"") for n in range(10, 10_000))])
    return files


@pytest.mark.slow
def test_loading_takes_memory_in_proportion_to_the_file(tmp_path: Path) -> None:
    paths = []
    for name, data in {"good": forgeries.pack(GOOD), **large_files()}.items():
        assert len(data) < 7_000_000
        paths.append(tmp_path / f"{name}.pt")
        paths[-1].write_bytes(data)
    result = run_python("-c", MEASURE, *map(str, paths), cwd=ROOT)
    assert result.code == 0, result.errors
    found = {Path(name).stem: outcome for name, outcome in json.loads(result.out).items()}
    assert {name for name, (text, _) in found.items() if text == "loaded"} <= {"many records", "references"}
    assert max(megabytes for _, megabytes in found.values()) < 150, found


def test_file_larger_than_any_checkpoint_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step_1.pt"
    with open(path, "wb") as file:
        file.truncate(2**40)
    assert mutations.outcome(lambda: read_checkpoint(path)) == "refused"
