"""Forged archives: checkpoints in which two readers of zip files see different records."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable

from rmc_agents.runs.archive import END, END_64, ENTRY, LOCAL, LOCATOR_64, read_records

Records = list[tuple[str, bytes]]


def records_of(data: bytes) -> Records:
    """Return the records of an intact checkpoint."""
    return [(name, bytes(content)) for name, content in read_records(memoryview(data)).items()]


def pack(records: Records) -> bytes:
    """Return an archive of records, whose names may repeat."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # about repeated names
        for name, content in records:
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def split(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the records, the directory and the end of an archive that `pack` made."""
    size, offset = END.unpack(data[-END.size :])[5:7]
    return data[:offset], data[offset : offset + size], data[-END.size :]


def patch(data: bytes, at: int, form: str, *values: int) -> bytes:
    """Overwrite numbers at an offset, which counts from the end if it is negative."""
    at = at if at >= 0 else len(data) + at
    raw = struct.pack(form, *values)
    return data[:at] + raw + data[at + len(raw) :]


def two_directories(good: bytes, hidden: bytes) -> bytes:
    """Return a file with a directory at the recorded offset, and another, which Python reads, at its end."""
    first, first_directory, _ = split(hidden)
    second, second_directory, end = split(good)
    first = first.ljust(len(second), b"\0")
    # Python adds the distance between the two directories to every offset.
    moved = move(second_directory, len(first) - len(second))
    end = patch(patch(end, 12, "<L", len(moved)), 16, "<L", len(first))
    return first + first_directory + second + moved + end


def move(directory: bytes, by: int) -> bytes:
    """Return a directory whose offsets are moved."""
    out, at = b"", 0
    while at < len(directory):
        fields = list(ENTRY.unpack_from(directory, at))
        length = ENTRY.size + sum(fields[10:13])
        fields[-1] += by
        out += ENTRY.pack(*fields) + directory[at + ENTRY.size : at + length]
        at += length
    return out


def entry_at(directory: bytes, number: int) -> int:
    """Return the offset of an entry in a directory."""
    at = 0
    for _ in range(number):
        at += ENTRY.size + sum(ENTRY.unpack_from(directory, at)[10:13])
    return at


def with_64_bit_end(good: bytes, place: int = 0, size: int = 0, offset: int = 0, count: int = 0) -> bytes:
    """Return an archive with 64-bit end records, which differ from the truth by these numbers."""
    body, directory, end = split(good)
    entries = END.unpack(end)[3]
    wide = END_64.pack(
        b"PK\6\6", END_64.size - 12, 45, 45, 0, 0, entries + count, entries + count,
        len(directory) + size, len(body) + offset,
    )  # fmt: skip
    locator = LOCATOR_64.pack(b"PK\6\7", 0, len(body) + len(directory) + place, 1)
    return body + directory + wide + locator + end


def streamed(records: Records) -> bytes:
    """Return an archive in which the sizes follow the records, as it is written to a pipe."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, part: bytes) -> int:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
            self.data += bytes(part)
            return len(part)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:  # type: ignore[arg-type]
        for name, content in records:
            archive.writestr(zipfile.ZipInfo(name), content)
    return pipe.data


def wide_headers(records: Records) -> bytes:
    """Return an archive whose records have 64-bit sizes in their headers."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in records:
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
                file.write(content)
    return out.getvalue()


Forge = Callable[[Records, Records], bytes]
"""Takes the records of an intact checkpoint and of another one, and returns a file."""


def _change_entry(number: int, at: int, form: str, *values: int) -> Forge:
    def forge(records: Records, others: Records) -> bytes:
        body, directory, end = split(pack(records))
        return body + patch(directory, entry_at(directory, number) + at, form, *values) + end

    return forge


def _change_header(at: int, form: str, *values: int) -> Forge:
    return lambda records, others: patch(pack(records), at, form, *values)


def _add(*names: str) -> Forge:
    """Add records of the other checkpoint, under other names."""
    return lambda records, others: pack([*records, *((name, others[0][1]) for name in names)])


INTACT: dict[str, Forge] = {
    "as Python writes it": lambda records, others: pack(records),
    "sizes that follow the records": lambda records, others: streamed(records),
    "64-bit headers": lambda records, others: wide_headers(records),
    "64-bit end": lambda records, others: with_64_bit_end(pack(records)),
    "records of TorchScript": _add("archive/constants.pkl", "archive/code/__torch__.py"),
    "records of another folder": _add("other/data/0"),
    "records in another order": lambda records, others: pack(records[::-1]),
}
"""Forms of an archive with only one reading."""
FORGED: dict[str, Forge] = {
    "two directories": lambda records, others: two_directories(pack(records), pack(others)),
    "archive behind another one": lambda records, others: pack(others) + pack(records),
    "prefix": lambda records, others: b"#!/bin/sh\n" + pack(records),
    "suffix": lambda records, others: pack(records) + b"\0",
    "comment": lambda records, others: patch(pack(records), -2, "<H", 3) + b"abc",
    "comment that is an archive": lambda records, others: (
        patch(pack(records), -2, "<H", len(pack(others)) % 65536) + pack(others)
    ),
    "comment length without a comment": lambda records, others: patch(pack(records), -2, "<H", 9),
    "names that differ in case": _add("archive/DATA.PKL"),
    "folders that differ in case": _add("ARCHIVE/data.pkl"),
    "tensors whose names differ in case": lambda records, others: pack(
        [*records, ("archive/data/a", b"1"), ("archive/data/A", b"2")]
    ),
    "repeated name": lambda records, others: pack([*records, records[0]]),
    "repeated name with other content": lambda records, others: pack([*records, (records[0][0], b"x")]),
    "two structures": _add("other/data.pkl"),
    "name that is not ASCII": _add("archive/data/\u00e9"),
    "overlapping records": _change_entry(1, ENTRY.size - 4, "<L", 0),
    "record inside of another": _change_entry(1, ENTRY.size - 4, "<L", LOCAL.size + 40),
    "record behind the file": _change_entry(1, ENTRY.size - 4, "<L", 2**31),
    "compressed in the directory": _change_entry(0, 10, "<H", 8),
    "encrypted in the directory": _change_entry(0, 8, "<H", 1),
    "another checksum in the directory": _change_entry(0, 16, "<L", 1),
    "another size in the directory": _change_entry(0, 20, "<LL", 5, 5),
    "64-bit size that is missing": _change_entry(0, 20, "<LL", 2**32 - 1, 2**32 - 1),
    "on another disk": _change_entry(0, 34, "<H", 1),
    "another name in the header": _change_header(LOCAL.size, "<B", ord("X")),
    "compressed in the header": _change_header(8, "<H", 8),
    "encrypted in the header": _change_header(6, "<H", 1),
    "sizes said to follow in the header": _change_header(6, "<H", 8),
    "another size in the header": _change_header(18, "<LL", 1, 1),
    "another checksum in the header": _change_header(14, "<L", 1),
    "longer extra field in the header": _change_header(28, "<H", 4),
    "more entries than there are": lambda records, others: patch(pack(records), -14, "<HH", 99, 99),
    "fewer entries than there are": lambda records, others: patch(pack(records), -14, "<HH", 1, 1),
    "two counts of entries": lambda records, others: patch(pack(records), -14, "<HH", 1, 2),
    "a directory of another size": lambda records, others: patch(pack(records), -10, "<L", 46),
    "a directory elsewhere": lambda records, others: patch(pack(records), -6, "<L", 0),
    "64-bit end elsewhere": lambda records, others: with_64_bit_end(pack(records), place=-56),
    "64-bit end of another size": lambda records, others: with_64_bit_end(pack(records), size=-46),
    "64-bit end of another offset": lambda records, others: with_64_bit_end(pack(records), offset=-1),
    "64-bit end of another count": lambda records, others: with_64_bit_end(pack(records), count=-1),
}  # fmt: skip
"""Forms in which readers may see different records, or that nobody writes."""
