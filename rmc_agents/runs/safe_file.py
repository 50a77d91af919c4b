"""Validation of checkpoint files before torch reads them.

`weights_only=True` executes no code but trusts declared sizes: a few bytes may declare a tensor of terabytes,
or a storage longer than its record. `check` reads the structure first, without allocating a tensor. It
accepts numbers, strings, lists, dictionaries, and tensors that fit their records. Torch reads archives with a
library of its own, so it gets a fresh archive (`rebuilt`) of the records that were checked.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from rmc_agents.runs.archive import Damaged, read_records, write_records

MAX_BYTES = 64 * 2**30
"""No checkpoint is larger."""
MAX_STRUCTURE = 64 * 2**20
"""Bytes of the structure: everything that is not the content of a tensor."""
MAX_OBJECTS = 2**20
"""Containers and references in the structure: each takes many more bytes in memory than in a file."""

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


class Unsafe(Exception):
    """The file is damaged, or this package did not write it."""


def rebuilt(data: bytes | memoryview) -> io.BytesIO:
    """Return a file's checked records in a fresh archive, which is what torch may read.

    Raises:
        Unsafe: the message gives the reason. (Damaged files may also raise errors of pickle.)
    """
    return write_records(_checked(memoryview(data)))


def check(data: bytes | memoryview) -> None:
    """Check the records, structure and checksums of a file.

    Raises:
        Unsafe: the message gives the reason. (Damaged files may also raise errors of pickle.)
    """
    _checked(memoryview(data))


def _checked(data: memoryview) -> dict[str, bytes | memoryview]:
    """Return the records that torch needs, by the names that it expects."""
    try:
        records = read_records(data)  # torch.save writes a checksum of every record, but load ignores it
    except Damaged as error:
        raise Unsafe(str(error)) from error
    folders = [name.removesuffix("data.pkl") for name in records if name.endswith("/data.pkl")]
    if len(folders) != 1 or folders[0].count("/") != 1:
        raise Unsafe("not written by torch.save")
    own = {n.removeprefix(folders[0]): x for n, x in records.items() if n.startswith(folders[0])}
    structure = own["data.pkl"]
    if len(structure) > MAX_STRUCTURE:
        raise Unsafe(f"a structure of {len(structure):,} bytes is too large for a checkpoint")
    sizes = {n.removeprefix("data/"): len(x) for n, x in own.items() if n.startswith("data/")}
    reader = _Structure(io.BytesIO(structure), sizes)
    tree = reader.load()
    if reader.tensor_bytes > 4 * len(data):  # some may share a storage
        raise Unsafe(f"the tensors need {reader.tensor_bytes:,} bytes")
    if not isinstance(tree, dict):
        raise Unsafe(f"it holds a {type(tree).__name__}, not a dictionary")
    for part in _parts(tree):
        if type(part) not in (int, float, bool, str, type(None), dict, list, tuple, _StateDict, _Tensor):
            raise Unsafe("it holds more than numbers, strings, tensors and containers of them")
    order = bytes(own.get("byteorder", b"little"))
    if order not in (b"little", b"big"):
        raise Unsafe("an unknown order of bytes")
    needed: dict[str, bytes | memoryview] = {"data.pkl": structure, "byteorder": order, "version": b"3\n"}
    needed |= {f"data/{key}": own[f"data/{key}"] for key in reader.used}
    return {f"archive/{name}": content for name, content in needed.items()}


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
        self.used: dict[str, None] = {}
        self.tensor_bytes = self.objects = 0

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
        self.used[key] = None
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


def _counted(operation: Callable[[Any], None]) -> Callable[[_Structure], None]:
    def count(reader: _Structure) -> None:
        reader.objects += 1
        if reader.objects > MAX_OBJECTS:
            raise Unsafe(f"a structure of more than {MAX_OBJECTS:,} objects is too large for a checkpoint")
        operation(reader)

    return count


_COUNTED = (
    pickle.EMPTY_DICT + pickle.EMPTY_LIST + pickle.EMPTY_TUPLE + pickle.MARK + pickle.TUPLE + pickle.TUPLE1
    + pickle.TUPLE2 + pickle.TUPLE3 + pickle.BINPUT + pickle.LONG_BINPUT
)  # fmt: skip
_OPERATIONS = _COUNTED + (
    pickle.PROTO + pickle.STOP + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE + pickle.BININT
    + pickle.BININT1 + pickle.BININT2 + pickle.LONG1 + pickle.BINFLOAT + pickle.BINUNICODE + pickle.SETITEM
    + pickle.SETITEMS + pickle.APPEND + pickle.APPENDS + pickle.BINGET + pickle.LONG_BINGET + pickle.GLOBAL
    + pickle.BINPERSID + pickle.REDUCE + pickle.BUILD
)  # fmt: skip
_PICKLE = pickle._Unpickler.dispatch  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
_Structure.dispatch = {  # pyright: ignore[reportAttributeAccessIssue]
    code: _refuse if code not in _OPERATIONS else _counted(function) if code in _COUNTED else function
    for code, function in _PICKLE.items()
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
