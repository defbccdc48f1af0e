"""Reads the contents of a pickle without running anything that the pickle names.

A pickle is a program that imports and calls what it names, and training states name much besides
tensors: optimizers, configurations, paths, numpy scalars. This reader walks through the opcodes
and builds containers, numbers and strings, a StoredTensor for a tensor, and a SavedObject for
every other object. It imports and calls nothing that a pickle names. It hashes strings and small
integers only, since hashing nested tuples can take for ever.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import torch

# A model with its optimizer has some 100,000 opcodes. Reading this many takes seconds, and about
# 100 bytes of memory for each.
MOST_OPCODES = 2_000_000

_DTYPES = {f"torch {dtype}": v for dtype, v in vars(torch).items() if isinstance(v, torch.dtype)}

_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "UntypedStorage": torch.uint8,
}


class TooManyOpcodesError(pickle.UnpicklingError):
    """The pickles of a file have more opcodes than any checkpoint needs."""


@dataclass(eq=False, slots=True)
class SavedObject:
    """An object that is neither a container nor a tensor.

    Attributes:
        type: The object's class, or the function that would make it, as "module name".
        state: The value that ``__setstate__`` would get, mostly a dict of the attributes.
    """

    type: object
    state: object = None


class Storage(NamedTuple):
    """A run of numbers in the file, of which a tensor is a view."""

    key: str
    dtype: torch.dtype
    length: int


class StoredTensor(NamedTuple):
    """A tensor that is still in the file: a view of a storage.

    Offset and strides count elements, not bytes.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _PickleMachine:
    """The stack and the memo of pickle's virtual machine, with a method for each kind of opcode."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self.has_objects = False
        self.stack: list[Any] = []
        self.marks: list[int] = []  # how long the stack was at each mark
        self.memo: dict[int, Any] = {}

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def pop(self, _: object) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def take(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def take_marked(self, _: object = None) -> list[Any]:
        begin = self.marks.pop()
        items = self.stack[begin:]
        del self.stack[begin:]
        return items

    def remember(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):  # else an object, whose class decides what items mean
            self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            _set_items(self.stack[-1], items)

    def name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("its pickle names a class by values that are not strings")
        self.push(f"{module} {name}")

    def make(self, function: object, arguments: object = None) -> None:
        made = None
        if isinstance(function, str) and isinstance(arguments, tuple) and function in _FUNCTIONS:
            made = _FUNCTIONS[function](*arguments)
        self.push(self.saved_object(function) if made is None else made)

    def build(self, _: object) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], SavedObject):
            self.stack[-1].state = state

    def persistent(self, pid: object) -> None:
        match pid:
            case ("module", str() as name, _, _):  # a class, in the older layout
                self.push(name)
            case ("storage", str() as kind, str() | int() as key, _, int() as length, *views):
                if any(view is not None for view in views):
                    raise pickle.UnpicklingError("it has views of storages, as before PyTorch 0.4")
                self.push(self.storage(kind.split(" ")[-1], str(key), length))
            case _:
                self.push(self.saved_object(None))

    def storage(self, kind: str, key: str, length: int) -> Storage | SavedObject:
        if kind not in _STORAGE_DTYPES:
            return self.saved_object(kind)
        return self.storages.setdefault(key, Storage(key, _STORAGE_DTYPES[kind], length))

    def saved_object(self, kind: object) -> SavedObject:
        self.has_objects = True
        return SavedObject(kind)


class InertUnpickler(_PickleMachine):
    """Reads the pickles of one file, of which there may be several.

    Attributes:
        storages: All storages that the pickles named, by key.
        has_objects: True where the pickles hold a SavedObject.
    """

    def __init__(self) -> None:
        super().__init__()
        self._opcodes = 0

    def load(self, file: BinaryIO | mmap.mmap) -> Any:
        """Reads one pickle.

        Raises:
            TooManyOpcodesError: The pickles so far have too many opcodes.
            pickle.UnpicklingError, ValueError, LookupError, TypeError: The pickle is broken.
        """
        self.stack, self.marks, self.memo = [], [], {}
        for opcode, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]  # any that reads and tells
            self._opcodes += 1
            if self._opcodes > MOST_OPCODES:
                raise TooManyOpcodesError(f"its pickle has more than {MOST_OPCODES:,} opcodes")
            if opcode.name not in _ACTIONS:
                raise pickle.UnpicklingError(f"its pickle has the opcode {opcode.name}")
            _ACTIONS[opcode.name](self, argument)
        return self.stack.pop()


def _set_items(target: dict[Any, Any], items: list[Any]) -> None:
    """Adds items (key, value, key, value, ...) whose keys are strings or small integers only."""
    target.update(
        (key, value)
        for key, value in zip(items[::2], items[1::2], strict=True)
        if isinstance(key, str) or (isinstance(key, int) and abs(key) < 2**63)
    )


def _ordered_dict(pairs: object = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for pair in pairs if isinstance(pairs, list | tuple) else ():
        _set_items(made, list(pair) if isinstance(pair, list | tuple) else [])
    return made


def _tensor(
    storage: object, offset: object, size: object, stride: object, *_: object
) -> StoredTensor | None:
    if not isinstance(storage, Storage):
        return None
    if not isinstance(offset, int) or not _are_integers(size) or not _are_integers(stride):
        raise pickle.UnpicklingError("a tensor has a shape that is not made of integers")
    return StoredTensor(storage, offset, size, stride)  # type: ignore[arg-type]


def _tensor_of_type(*arguments: Any) -> StoredTensor | None:
    """Makes a tensor of a dtype that has no class of storages, such as float8_e5m2."""
    made, kind = _tensor(*arguments[:4]), arguments[6]
    dtype = _DTYPES.get(kind) if isinstance(kind, str) else None
    if made is None or dtype is None:
        return None
    length = made.storage.length // dtype.itemsize
    return made._replace(storage=Storage(made.storage.key, dtype, length))


def _tensor_of_class(function: object, _: object, arguments: object, *__: object) -> object:
    """Makes a plain tensor in place of one of a subclass, or one with attributes of its own."""
    if function != "torch._utils _rebuild_tensor_v2" or not isinstance(arguments, tuple):
        return None
    return _tensor(*arguments)


def _are_integers(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, int) for value in values)


def _first(value: object, *_: object) -> object:
    return value


# All functions that a pickle can call. Where one returns None, a SavedObject takes its place.
_FUNCTIONS: dict[str, Callable[..., object]] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_of_type,
    "torch._utils _rebuild_qtensor": _tensor,
    "torch._utils _rebuild_parameter": _first,
    "torch._utils _rebuild_parameter_with_state": _first,
    "torch._tensor _rebuild_from_type_v2": _tensor_of_class,
    "torch Size": _first,
    "collections OrderedDict": _ordered_dict,
    "builtins set": _first,  # stays a list: a set would hash its items
    "__builtin__ set": _first,
    "_codecs encode": _first,  # how pickles of protocol 2 write bytes
}

# The opcodes whose argument is the value itself; a class or function is "module name".
_VALUES = """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING
    SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES
    BINBYTES8 BYTEARRAY8 GLOBAL"""

_ACTIONS: dict[str, Callable[[_PickleMachine, Any], object]] = {
    **dict.fromkeys(_VALUES.split(), _PickleMachine.push),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda _m, _: None),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda m, _: m.push([])),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "MARK": _PickleMachine.mark,
    "POP": _PickleMachine.pop,
    "POP_MARK": _PickleMachine.take_marked,
    "DUP": lambda m, _: m.push(m.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _PickleMachine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _PickleMachine.recall),
    "TUPLE": lambda m, _: m.push(tuple(m.take_marked())),
    "TUPLE1": lambda m, _: m.push(tuple(m.take(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.take(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.take(3))),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda m, _: m.push(m.take_marked())),
    "DICT": lambda m, _: m.push(_ordered_dict([m.take_marked()])),
    "APPEND": lambda m, _: m.extend(m.take(1)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, _: m.extend(m.take_marked())),
    "SETITEM": lambda m, _: m.set_items(m.take(2)),
    "SETITEMS": lambda m, _: m.set_items(m.take_marked()),
    "STACK_GLOBAL": lambda m, _: m.name(*m.take(2)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m.make(*m.take(2))),
    "NEWOBJ_EX": lambda m, _: m.make(m.take(3)[0]),
    "OBJ": lambda m, _: m.make(m.take_marked()[0]),
    "INST": lambda m, kind: m.make((m.take_marked(), kind)[1]),
    "BUILD": _PickleMachine.build,
    "PERSID": _PickleMachine.persistent,
    "BINPERSID": lambda m, _: m.persistent(m.take(1)[0]),
}
