"""Validation of checkpoint files before torch reads them.

`weights_only=True` executes no code but trusts declared sizes: a few bytes may declare a tensor of terabytes,
or a storage longer than its record. `check` reads the structure first, without allocating a tensor. It
accepts numbers, strings, lists, dictionaries, and tensors that fit their records.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

MAX_BYTES = 64 * 2**30
"""No checkpoint is larger."""
MAX_STRUCTURE = 64 * 2**20
"""Bytes of the structure: everything that is not the content of a tensor."""

_ITEM_SIZES = {
    "BoolStorage": 1,
    "ByteStorage": 1,
    "CharStorage": 1,
    "ShortStorage": 2,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "IntStorage": 4,
    "FloatStorage": 4,
    "LongStorage": 8,
    "DoubleStorage": 8,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}
_END_OF_ZIP = struct.Struct("<4s4H2LH")


class Unsafe(Exception):
    """The file is damaged, or this package did not write it."""


def check(file: BinaryIO) -> None:
    """Read the file's directory, structure and checksums.

    Raises:
        Unsafe: the message gives the reason. (Damaged files may also raise errors of the libraries.)
    """
    size = file.seek(0, 2)
    if size > MAX_BYTES:
        raise Unsafe(f"{size:,} bytes are too many for a checkpoint")
    file.seek(max(size - _END_OF_ZIP.size, 0))
    end = file.read()
    if len(end) < _END_OF_ZIP.size or _END_OF_ZIP.unpack(end)[0] != b"PK\5\6":
        raise Unsafe("truncated, or not a checkpoint")
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(set(names)) != len(names):
            raise Unsafe("duplicate record names")
        if any(e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries):
            raise Unsafe("compressed records")
        if sum(entry.file_size for entry in entries) > size:
            raise Unsafe("the records declare more bytes than the file has")
        # torch.save writes a checksum of every record, but load ignores it.
        broken = archive.testzip()
        if broken is not None:
            raise Unsafe(f"{broken} does not match its checksum")
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].filename.count("/") != 1:
            raise Unsafe("not written by torch.save")
        if pickles[0].file_size > MAX_STRUCTURE:
            raise Unsafe(f"a structure of {pickles[0].file_size:,} bytes is too large for a checkpoint")
        folder = pickles[0].filename.removesuffix("data.pkl") + "data/"
        records = {
            e.filename.removeprefix(folder): e.file_size for e in entries if e.filename.startswith(folder)
        }
        with archive.open(pickles[0]) as structure:
            reader = _Structure(structure, records)
            tree = reader.load()
    if reader.tensor_bytes > 4 * size:  # some may share a storage
        raise Unsafe(f"the tensors need {reader.tensor_bytes:,} bytes")
    if not isinstance(tree, dict):
        raise Unsafe(f"it holds a {type(tree).__name__}, not a dictionary")
    for part in _parts(tree):
        if type(part) not in (int, float, bool, str, type(None), dict, list, tuple, _StateDict, _Tensor):
            raise Unsafe("it holds more than numbers, strings, tensors and containers of them")


class _StateDict(dict):
    """Stand-in for the OrderedDict of a module's parameters; its attributes are ignored."""

    def __setstate__(self, state: object) -> None:
        pass


class _Tensor:
    """Stand-in for a tensor."""


class _Storage:
    """Stand-in for a record of the file."""

    def __init__(self, item_size: int, items: int) -> None:
        self.item_size, self.items = item_size, items


class _StorageType:
    """Stand-in for a type of numbers."""

    def __init__(self, item_size: int) -> None:
        self.item_size = item_size


class _Rebuild:
    """Stand-in for the function that builds a tensor from its storage."""


# The Python unpickler: the C one allocates declared sizes, and its table of operations is fixed.
class _Structure(pickle._Unpickler):  # type: ignore[name-defined,misc] # pyright: ignore[reportAttributeAccessIssue]
    """Reader of the structure that `torch.save` writes; it calls only the stand-ins above."""

    def __init__(self, file: Any, records: dict[str, int]) -> None:
        super().__init__(file)
        self.records = records
        self.tensor_bytes = 0

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _StateDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild
        if module == "torch" and name in _ITEM_SIZES:
            return _StorageType(_ITEM_SIZES[name])
        raise Unsafe(f"it asks for {module[:40]}.{name[:40]}, not allowed in a checkpoint")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, device, items = pid
        plain = (kind, type(key), type(device), type(items)) == ("storage", str, str, int)
        if not plain or not isinstance(storage_type, _StorageType):
            raise Unsafe("a storage is not described as torch.save does")
        if items < 0 or self.records.get(key) != items * storage_type.item_size:
            raise Unsafe(f"the declared size of a storage differs from its record {key[:20]!r}")
        return _Storage(storage_type.item_size, items)

    def load_reduce(self) -> None:
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        args = stack.pop()
        function = stack[-1]
        if function is _StateDict and args == ():
            stack[-1] = _StateDict()
        elif function is _Rebuild:
            stack[-1] = self._tensor(*args)
        else:
            raise Unsafe("forbidden call")

    def load_build(self) -> None:
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        stack.pop()
        if type(stack[-1]) is not _StateDict:
            raise Unsafe("forbidden attribute state")

    def _tensor(
        self, storage: Any, offset: Any, sizes: Any, strides: Any, grad: Any, hooks: Any, *rest: Any
    ) -> _Tensor:
        numbers = (offset, *sizes, *strides)
        if not isinstance(storage, _Storage) or any(type(n) is not int or n < 0 for n in numbers):
            raise Unsafe("a tensor is not described as torch.save does")
        if grad is not False or hooks or rest or len(sizes) != len(strides) or len(sizes) > 64:
            raise Unsafe("unexpected tensor attributes")
        items, reach = 1, offset + 1
        for size, stride in zip(sizes, strides, strict=True):
            items *= size
            reach += (size - 1) * stride
        # A stride of 0 repeats numbers: harmless here, but not once the tensor is copied.
        if items > storage.items or (items and reach > storage.items):
            raise Unsafe("a tensor declares more numbers than its storage has")
        self.tensor_bytes += items * storage.item_size
        return _Tensor()


def _refuse(reader: _Structure) -> NoReturn:
    raise Unsafe("the structure has operations that torch.save does not write")


_OPERATIONS = (
    pickle.PROTO + pickle.EMPTY_DICT + pickle.EMPTY_LIST + pickle.EMPTY_TUPLE + pickle.MARK + pickle.STOP
    + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE + pickle.BININT + pickle.BININT1 + pickle.BININT2
    + pickle.LONG1 + pickle.BINFLOAT + pickle.BINUNICODE + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2
    + pickle.TUPLE3 + pickle.SETITEM + pickle.SETITEMS + pickle.APPEND + pickle.APPENDS + pickle.BINPUT
    + pickle.LONG_BINPUT + pickle.BINGET + pickle.LONG_BINGET + pickle.GLOBAL + pickle.BINPERSID
    + pickle.REDUCE + pickle.BUILD
)  # fmt: skip
_Structure.dispatch = {  # pyright: ignore[reportAttributeAccessIssue]
    code: function if code in _OPERATIONS else _refuse
    for code, function in pickle._Unpickler.dispatch.items()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
} | {pickle.REDUCE[0]: _Structure.load_reduce, pickle.BUILD[0]: _Structure.load_build}


def _parts(tree: Any) -> Iterator[Any]:
    """Yield every part of a tree once, keys included; cyclic and deep trees also terminate."""
    seen: set[int] = set()
    left = [tree]
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        if isinstance(part, dict | list | tuple):
            seen.add(id(part))
            left += [*part.keys(), *part.values()] if isinstance(part, dict) else part
        yield part
