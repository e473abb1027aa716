"""Parses the text of a compiled program, `compiled.as_text()`, as far as traffic.py needs it.

https://openxla.org/xla/operation_semantics and https://openxla.org/xla/tiled_layout.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

# Memory spaces of a TPU: S(1) is its on-chip vector memory, 0 its HBM; the others hold scalars.
ON_CHIP = 1

_BITS = re.compile(r"[a-z]+(\d+)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_TILE = re.compile(r"T\(([\d,]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_OPCODE = re.compile(r"([\w\-]+)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|true_computation|false_computation)="
    r"(\{[^}]*\}|%[\w.\-]+)"
)


class Array(NamedTuple):
    """An array of a program with its layout."""

    dtype: str
    dims: tuple[int, ...]
    order: tuple[int, ...]  # dimensions from the fastest to the slowest
    tile: tuple[int, ...]  # sizes that the fastest dimensions are padded to multiples of
    space: int  # memory space; 0 is the main memory

    @property
    def logical_bytes(self) -> int:
        """Bytes of the elements, without padding."""
        return math.ceil(math.prod(self.dims) * _bits(self.dtype) / 8)

    @property
    def bytes(self) -> int:
        """Bytes in memory, with padding: 64 channels may take 128 lanes."""
        physical = [self.dims[axis] for axis in self.order] or [1]
        for number, size in enumerate(reversed(self.tile)):
            padded = math.ceil(physical[number] / size) * size if number < len(physical) else size
            physical[number : number + 1] = [padded]
        return math.ceil(math.prod(physical) * _bits(self.dtype) / 8)


class Instruction(NamedTuple):
    """An operation of a computation."""

    name: str
    arrays: tuple[Array, ...]  # the results; those of a tuple one by one
    opcode: str
    operands: tuple[str, ...]  # names of instructions of the same computation
    called: dict[str, list[str]]  # names of computations, by "calls", "body", ...
    text: str  # from the opcode on: operands, attributes, metadata

    @property
    def op_name(self) -> str:
        """Origin such as "jit(train_step)/.../Mixed_5b/branch1x1/conv/..."; "" if unknown."""
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in execution order; `root` names the result."""

    name: str
    instructions: dict[str, Instruction]
    root: str

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Users of each instruction's result, by the name of the instruction."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for each in self.instructions.values():
            for name in dict.fromkeys(each.operands):
                found.setdefault(name, []).append(each)
        return found

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameters by number."""
        return {
            int(each.text.split("(", 1)[1].split(")", 1)[0]): each
            for each in self.instructions.values()
            if each.opcode == "parameter"
        }


class Program:
    """A compiled program.

    Attributes:
      computations: Computations by name.
      entry: The computation that the program starts with.
    """

    def __init__(self, text: str):
        """Parses what `compiled.as_text()` returns."""
        self.computations: dict[str, Computation] = {}
        lines: list[str] | None = None
        for line in text.splitlines():
            if line.startswith(("%", "ENTRY ")) and line.endswith("{"):
                lines, header = [], line
            elif line == "}" and lines is not None:
                computation = _computation(header, lines)
                self.computations[computation.name] = computation
                if header.startswith("ENTRY "):
                    self.entry = computation
                lines = None
            elif lines is not None:
                lines.append(line)

    @cached_property
    def executed(self) -> dict[str, float]:
        """Number of executions of each computation in a run of the program, by name.

        Computations that are fused into an instruction or applied to elements are left out. Loops
        count by XLA's trip count or the constant in their condition; every branch of a conditional
        counts.
        """
        times: dict[str, float] = {}

        def run(name: str, count: float) -> None:
            times[name] = times.get(name, 0) + count
            for each in self.computations[name].instructions.values():
                if each.opcode in ("call", "conditional", "while", "async-start"):
                    again = count * self._trips(each) if each.opcode == "while" else count
                    for others in each.called.values():
                        for other in others:
                            run(other, again)

        run(self.entry.name, 1)
        return times

    def instructions(self) -> Iterator[tuple[Computation, Instruction, float]]:
        """Yields (computation, instruction, number of executions) of what `executed` has."""
        for name, count in self.executed.items():
            for instruction in self.computations[name].instructions.values():
                yield self.computations[name], instruction, count

    def _trips(self, loop: Instruction) -> int:
        noted = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.text)
        if noted:
            return int(noted[1])
        condition = self.computations[loop.called["condition"][0]]
        constants = [
            int(each.text[len("constant(") :].split(")")[0])
            for each in condition.instructions.values()
            if each.opcode == "constant" and each.arrays[0].dtype == "s32"
        ]
        return max(constants, default=1)


def arrays(shape: str) -> tuple[Array, ...]:
    """Parses a shape such as "(f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)})"."""
    found = []
    for dtype, dims, order, layout in _ARRAY.findall(shape):
        if dtype == "token" or not (_BITS.match(dtype) or dtype == "pred"):
            continue
        size = _integers(dims)
        tile, space = _TILE.search(layout), _SPACE.search(layout)
        found.append(
            Array(
                dtype,
                size,
                _integers(order) or tuple(reversed(range(len(size)))),
                _integers(tile[1]) if tile else (),
                int(space[1]) if space else 0,
            )
        )
    return tuple(found)


def _computation(header: str, lines: list[str]) -> Computation:
    found = [_instruction(line) for line in lines]
    instructions = {each.name: each for each in found if each}
    roots = [line for line in lines if line.lstrip().startswith("ROOT ")]
    root = _instruction(roots[0]).name if roots else next(reversed(instructions))  # type: ignore[union-attr]
    return Computation(header.removeprefix("ENTRY ").split()[0].lstrip("%"), instructions, root)


def _instruction(line: str) -> Instruction | None:
    """Parses "  ROOT %name = SHAPE opcode(%operand, ...), attribute=..., metadata={...}"."""
    name, equals, rest = line.strip().removeprefix("ROOT ").partition(" = ")
    if not equals or not name.startswith("%"):
        return None
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, text = rest[:end], rest[end:].lstrip()
    opcode = _OPCODE.match(text)
    if not opcode:
        return None
    inside = text[opcode.end() : opcode.end() - 1 + _closing(text[opcode.end() - 1 :]) - 1]
    literal = opcode[1] in ("constant", "parameter")
    called = {kind: _NAME.findall(names) for kind, names in _CALLED.findall(text)}
    return Instruction(
        name[1:], arrays(shape), opcode[1], () if literal else tuple(_NAME.findall(inside)),
        called, text,
    )  # fmt: skip


def _closing(text: str) -> int:
    """The index after the bracket that closes the first one."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return index + 1
    return len(text)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _bits(dtype: str) -> int:
    if dtype == "pred":
        return 8
    found = _BITS.match(dtype)
    return int(found[1]) if found else 0
