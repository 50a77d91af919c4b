"""Zip archives with one reading: no two readers can see different records in them.

A zip file states most things twice (in its directory, and before each record). Readers differ in which they
believe, in how they search for the directory, and in whether names differ by case. `read_records` accepts
only the form that `torch.save` and Python's `zipfile` write without compression; `write_records` writes a
fresh archive of records that were read.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

END = struct.Struct("<4s4H2LH")
"""End of the archive: signature, two disks, two counts, size and offset of the directory, comment length."""
END_64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR_64 = struct.Struct("<4sLQL")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
UNKNOWN_16, UNKNOWN_32 = 0xFFFF, 0xFFFFFFFF
"""Numbers that stand in the 64-bit fields instead."""
SIZES_FOLLOW = 0x8
"""Flag: the record's sizes follow its content; the directory has them, too."""
UTF_8 = 0x800
MAX_NAME = 1024
"""Bytes of the longest name."""


class Damaged(Exception):
    """The archive is damaged, or of another form than `torch.save` writes."""


class _Entry(NamedTuple):
    name: bytes
    flags: int
    crc: int
    size: int
    offset: int


def read_records(data: memoryview) -> dict[str, memoryview]:
    """Return the records of an archive by name, without copying them.

    Raises:
        Damaged: the message gives the reason.
    """
    directory, count = _directory(data)
    records: dict[str, memoryview] = {}
    names: set[str] = set()
    free = 0  # where the next record may start
    for entry in sorted(_entries(data[directory:], count), key=lambda entry: entry.offset):
        try:
            name = entry.name.decode("ascii")
        except UnicodeDecodeError:
            raise Damaged("a record's name is not ASCII") from None
        if name.lower() in names:
            raise Damaged("duplicate record names")
        if entry.offset < free:
            raise Damaged("overlapping records")
        names.add(name.lower())
        start = _content(data, entry, directory)
        free = start + entry.size
        records[name] = data[start:free]
        if zlib.crc32(records[name]) != entry.crc:
            raise Damaged(f"{name[:60]} does not match its checksum")
    return records


def write_records(records: Mapping[str, bytes | memoryview]) -> io.BytesIO:
    """Return an archive of these records, without compression."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # type: ignore[arg-type]
    out.seek(0)
    return out


def _directory(data: memoryview) -> tuple[int, int]:
    """Return the offset of the directory, which reaches up to the end records, and the number of entries."""
    at = len(data) - END.size
    if at < 0 or data[at : at + 4] != b"PK\5\6":
        raise Damaged("truncated, or not a checkpoint")
    _, disk, first_disk, here, count, size, offset, comment = END.unpack_from(data, at)
    if disk or first_disk or here != count or comment:
        raise Damaged("not the end of an archive that torch.save writes")
    locator = at - LOCATOR_64.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\6\7":
        at = locator - END_64.size
        _, disk, place, disks = LOCATOR_64.unpack_from(data, locator)
        if at < 0 or place != at or data[at : at + 4] != b"PK\6\6" or disk or disks != 1:
            raise Damaged("the 64-bit end of the archive is not where it should be")
        found = END_64.unpack_from(data, at)
        for given, actual, unknown in (
            (count, found[7], UNKNOWN_16),
            (size, found[8], UNKNOWN_32),
            (offset, found[9], UNKNOWN_32),
        ):
            if given not in (actual, unknown):
                raise Damaged("the two ends of the archive differ")
        if found[1] != END_64.size - 12 or found[4] or found[5] or found[6] != found[7]:
            raise Damaged("not the end of an archive that torch.save writes")
        count, size, offset = found[7:]
    if offset + size != at:
        raise Damaged("the directory of the archive is not at its end")
    return offset, count


def _entries(directory: memoryview, count: int) -> Iterator[_Entry]:
    """Yield the entries of the directory, which the end records follow."""
    at = 0
    for _ in range(count):
        if len(directory) - at < ENTRY.size + END.size or directory[at : at + 4] != b"PK\1\2":
            raise Damaged("the directory of the archive is damaged")
        (_, _, _, flags, method, _, _, crc, packed, size, *lengths, disk, _, _, offset) = ENTRY.unpack_from(
            directory, at
        )
        name_end = at + ENTRY.size + lengths[0]
        extra_end = name_end + lengths[1]
        if method or packed != size:
            raise Damaged("compressed records")
        if flags & ~(SIZES_FOLLOW | UTF_8) or disk or lengths[2] or lengths[0] > MAX_NAME:
            raise Damaged("a record is described in a way that torch.save does not write")
        name = bytes(directory[at + ENTRY.size : name_end])
        if UNKNOWN_32 in (size, offset):
            size, offset = _in_64_bits(directory[name_end:extra_end], size, offset)
        yield _Entry(name, flags, crc, size, offset)
        at = extra_end
    if directory[at : at + 4] not in (b"PK\5\6", b"PK\6\6"):
        raise Damaged("the directory of the archive is damaged")


def _in_64_bits(extra: memoryview, size: int, offset: int) -> tuple[int, int]:
    """Return size and offset of an entry whose 64-bit fields hold one of them, or both."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = (size == UNKNOWN_32) * 2 + (offset == UNKNOWN_32)  # the size stands there twice
            if length == 8 * wide <= len(extra) - 4:
                numbers = struct.unpack_from(f"<{wide}Q", extra, 4)
                if size != UNKNOWN_32 or numbers[0] == numbers[1]:
                    size = numbers[0] if size == UNKNOWN_32 else size
                    return size, numbers[-1] if offset == UNKNOWN_32 else offset
            break
        extra = extra[4 + length :]
    raise Damaged("the 64-bit size of a record is damaged")


def _content(data: memoryview, entry: _Entry, directory: int) -> int:
    """Return where a record's content starts, behind a header that repeats what the directory says."""
    at = entry.offset
    if at + LOCAL.size > directory or data[at : at + 4] != b"PK\3\4":
        raise Damaged("a record is not where the directory says")
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = LOCAL.unpack_from(data, at)
    start = at + LOCAL.size + name_length + extra_length
    follow = bool(flags & SIZES_FOLLOW)
    own = all(x == entry.size or x == UNKNOWN_32 or (follow and x == 0) for x in (packed, size))
    if method or flags != entry.flags or not own or not (crc == entry.crc or (follow and crc == 0)):
        raise Damaged("the header of a record differs from the directory")
    if data[at + LOCAL.size : at + LOCAL.size + name_length] != entry.name:
        raise Damaged("the name of a record differs from the directory")
    if start + entry.size > directory:
        raise Damaged("the records declare more bytes than the file has")
    return start
