"""Reads the data in a pickle without executing anything.

Only instructions that build plain data are supported, and only the globals in `_KNOWN`, those that
torch.save needs for tensors. Any other object, such as an `argparse.Namespace` or a function to
call, becomes an `Inert` that does nothing. Source: torch/_utils.py and
torch/_weights_only_unpickler.py.
"""

import math
import pickletools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

# A state dict of this network has 17,000 instructions, with the state of an optimizer 60,000.
MAX_INSTRUCTIONS = 2_000_000
# Elements of a tensor that repeats fewer stored ones, such as torch.expand returns.
MAX_REPEATED = 1 << 24
_MAX_DIMENSIONS = 32


class Refused(ValueError):
    """A file that is intact but unsupported; the message continues a sentence after its name."""


@dataclass(frozen=True)
class Storage:
    """Contiguous elements of one type in the file.

    Attributes:
      key: Name in the file.
      dtype: Type of an element; uint8 if the tensors have types of their own.
      elements: Number of elements.
    """

    key: str
    dtype: np.dtype
    elements: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.elements * self.dtype.itemsize


@dataclass(frozen=True)
class Tensor:
    """A strided view of a storage; offset and strides count elements of its own type.

    `unsupported` says why it cannot be read, continuing a sentence after its name; "" if it can.
    """

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    unsupported: str = ""


@dataclass(frozen=True)
class Inert:
    """A placeholder for an object of an unknown class or function "module.name"."""

    name: str


def unpickle(stream: Any, storages: dict[str, Storage]) -> Any:
    """The data in a pickle; the storages that it names are added to `storages`."""
    machine = _Machine(storages)
    for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MAX_INSTRUCTIONS:
            raise Refused(f"has more than {MAX_INSTRUCTIONS} instructions. Save only its tensors")
        if instruction.name not in _INSTRUCTIONS:
            raise ValueError(f"its pickle has the unsupported instruction {instruction.name}")
        _INSTRUCTIONS[instruction.name](machine, argument)
    return machine.stack.pop()


class _Machine:
    """The stack of a pickle, the marks on it, and the memo."""

    def __init__(self, storages: dict[str, Storage]):
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages = storages

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        """Removes and returns the topmost values."""
        if count > len(self.stack):
            raise ValueError("its pickle pops an empty stack")
        return self._pop_from(len(self.stack) - count)

    def pop_to_mark(self) -> list[Any]:
        """Removes the last mark and returns the values above it."""
        return self._pop_from(self.marks.pop())

    def _pop_from(self, start: int) -> list[Any]:
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def push_global(self, name: str) -> None:
        """Pushes what "module name" refers to."""
        self.push(_KNOWN.get(name, Inert(name.replace(" ", "."))))

    def call(self, function: Any, arguments: Any = (), *_: Any) -> None:
        """Calls a function of `_KNOWN`: no other value in a pickle is callable."""
        self.push(function(*arguments) if callable(function) else _inert(function))

    def set_items(self, items: list[Any]) -> None:
        """Keeps string keys only: crafted numbers collide, and nested tuples hash slowly."""
        if isinstance(self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            self.stack[-1].update((key, value) for key, value in pairs if isinstance(key, str))

    def extend(self, items: list[Any]) -> None:
        """Extends a list; the items of other collections are dropped."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def push_storage(self, kind: str, dtype: Any, *rest: Any) -> None:
        """Pushes what is outside the pickle: a storage, or a class with its source."""
        if kind == "module" or not isinstance(dtype, np.dtype):
            self.push(_inert(dtype))
            return
        key, _, elements, *view = rest
        if any(part is not None for part in view):
            raise Refused(
                "has views in the form of PyTorch before 0.4. Save it again with a newer version"
            )
        if not isinstance(key, str) or not _are_counts([elements]):
            raise ValueError("its pickle names an impossible storage")
        storage = Storage(key, dtype, elements)
        self.storages.setdefault(key, storage)
        self.push(storage)


_LITERALS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    "BYTEARRAY8",
)
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], Any]] = {  # by the names in pickletools
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(_LITERALS, _Machine.push),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_SET": lambda m, _: m.push(Inert("builtins.set")),
    "TUPLE1": lambda m, _: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.pop(3))),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_to_mark())),
    "FROZENSET": lambda m, _: m.push(_inert(m.pop_to_mark())),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.pop(1),
    "POP_MARK": lambda m, _: m.pop_to_mark(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda m, key: m.memo.update({key: m.stack[-1]})),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, key: m.push(m.memo[key])),
    "MEMOIZE": lambda m, _: m.memo.update({len(m.memo): m.stack[-1]}),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.pop_to_mark()),
    "ADDITEMS": lambda m, _: m.extend(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "GLOBAL": _Machine.push_global,
    "STACK_GLOBAL": lambda m, _: m.push_global("{} {}".format(*m.pop(2))),
    "REDUCE": lambda m, _: m.call(*m.pop(2)),
    "NEWOBJ": lambda m, _: m.call(*m.pop(2)),
    "NEWOBJ_EX": lambda m, _: m.call(*m.pop(3)),
    "BUILD": lambda m, _: m.pop(1),  # drops the state of an object
    "BINPERSID": lambda m, _: m.push_storage(*m.pop(1)[0]),
}


def _inert(value: Any) -> Inert:
    return value if isinstance(value, Inert) else Inert(type(value).__name__)


def _are_counts(values: Sequence[Any]) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _dictionary(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    return {key: value for key, value in pairs if isinstance(key, str)}


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor | Inert:
    """A view of a typed storage: torch._utils._rebuild_tensor and _rebuild_tensor_v2."""
    dtype, metadata = getattr(storage, "dtype", None), rest[2:]  # after grad and hooks
    return _tensor_v3(storage, offset, shape, strides, None, None, dtype, *metadata)


def _tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
    *_: Any,
) -> Tensor | Inert:
    """A view of a storage in elements of another type: torch._utils._rebuild_tensor_v3.

    Raises:
      ValueError: If it exceeds the storage, or repeats its elements too often.
    """
    unsupported = ""
    if isinstance(storage, Storage) and isinstance(dtype, Inert):
        unsupported = f"is {dtype.name}, which is not supported"
        dtype = storage.dtype  # bytes
    if not isinstance(storage, Storage) or not isinstance(dtype, np.dtype):
        return Inert("torch.Tensor")
    if isinstance(metadata, dict) and (bits := [b for b in ("conj", "neg") if metadata.get(b)]):
        unsupported = f"is stored with the {bits[0]} bit, which is not applied"
    good = isinstance(shape, tuple) and isinstance(strides, tuple)
    good = good and len(shape) == len(strides) <= _MAX_DIMENSIONS
    if not (good and _are_counts((offset, *shape, *strides))):
        raise ValueError("its pickle names an impossible tensor")
    size = math.prod(shape)
    steps = (count - 1 for count in shape)
    last = offset + sum(step * stride for step, stride in zip(steps, strides, strict=True))
    if size and (last + 1) * dtype.itemsize > storage.nbytes:
        raise ValueError(f"a tensor of shape {shape} exceeds its storage")
    if size > max(storage.nbytes // dtype.itemsize, MAX_REPEATED):
        raise ValueError(f"a tensor of shape {shape} repeats {storage.elements} elements")
    return Tensor(storage, dtype, offset, shape, strides, unsupported)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _subclass(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    return function(*arguments) if callable(function) else _inert(function)


_TYPES = {  # torch's dtypes and the prefixes of their storages
    **{"float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16"},
    **{"int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte"},
    **{"bool": "Bool", "complex64": "ComplexFloat", "complex128": "ComplexDouble"},
}
_BFLOAT16 = np.dtype(jnp.bfloat16)
_DTYPES = {
    name: _BFLOAT16 if name == "bfloat16" else np.dtype(name).newbyteorder("<")
    for name in (*_TYPES, "uint16", "uint32", "uint64")
}
_KNOWN: dict[str, Any] = {
    "collections OrderedDict": _dictionary,
    "torch Size": tuple,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_v3,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "torch._tensor _rebuild_from_type_v2": _subclass,
    "torch.storage UntypedStorage": np.dtype(np.uint8),
    **{f"torch {name}": dtype for name, dtype in _DTYPES.items()},
    **{
        f"{module} {storage}Storage": _DTYPES[name]
        for module in ("torch", "torch.cuda")
        for name, storage in _TYPES.items()
    },
}
