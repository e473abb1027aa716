"""Counts the bytes that a compiled program moves from and to an accelerator's main memory (HBM).

XLA's own "bytes accessed" includes a TPU's on-chip memory. Here an instruction that is not fused
into another reads each operand once and writes each result once, with the padding of a TPU's tiles,
unless it is in on-chip memory. In detail:
* If a fusion only slices an operand, perhaps after elementwise operations, the slices count.
* An update in place reads and writes the update, not the whole array.
* An asynchronous copy or slice counts where it starts. Waiting for it, and views such as bitcasts,
  cost nothing.
* A loop's body counts once for each iteration.
This is an estimate: overlapping windows of a convolution may be read more than once, a cuDNN
algorithm may use scratch space, and a GPU's L2 cache may save some reads.
"""

import re
from collections import Counter
from typing import NamedTuple

from inception.plan.hlo import ON_CHIP, Array, Computation, Instruction, Program

VIEWS = ("bitcast", "get-tuple-element", "tuple", "parameter", "constant", "after-all")
# They wait, name devices, or run other computations, whose instructions count themselves.
FREE_OPS = (
    *("partition-id", "replica-id", "iota", "rng-get-and-update-state"),
    *("call", "conditional", "while", "async-start", "opt-barrier", "add-dependency"),
)
NO_WORK_TARGETS = ("ConcatBitcast", "AllocateBuffer", "SliceBitcast")
SLICES = ("slice", "dynamic-slice", "gather")
# A slice of their result needs only the same slice of each operand.
ELEMENTWISE = (
    *("bitcast", "convert", "add", "subtract", "multiply", "divide", "maximum", "minimum"),
    *("negate", "select", "compare"),
)
MAX_HOPS = 6  # instructions between a copy and the operation that it serves
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


class Transfer(NamedTuple):
    """Traffic of an instruction."""

    name: str
    kind: str  # see `kind_of`
    op_name: str
    times: float  # number of executions
    read: float  # bytes from main memory, of one execution
    written: float  # bytes to main memory
    padding: float  # bytes of both that are padding

    @property
    def total(self) -> float:
        """Bytes of all executions."""
        return self.times * (self.read + self.written)


class Collective(NamedTuple):
    """Communication between devices."""

    kind: str  # one of COLLECTIVES
    bytes: int  # of the result
    arrays: int
    op_name: str


def transfers(program: Program) -> list[Transfer]:
    """Traffic of a program's instructions, in execution order."""
    found = []
    for computation, instruction, times in program.instructions():
        opcode = instruction.opcode
        target = re.search(r'custom_call_target="([^"]*)"', instruction.text)
        if opcode in (*VIEWS, *FREE_OPS) or opcode.endswith(("-done", "-update")):
            continue
        if target and target[1] in NO_WORK_TARGETS:
            continue
        read, written = _hbm_bytes(program, computation, instruction)
        padding = sum(_padding(array, used) for array, used in (*read, *written))
        cause = _cause(computation, instruction)
        found.append(
            Transfer(
                instruction.name,
                kind_of(program, cause),
                cause.op_name,
                times,
                sum(used for _, used in read),
                sum(used for _, used in written),
                padding,
            )
        )
    return found


def collectives(program: Program) -> list[Collective]:
    """All communication of a program."""
    return [
        Collective(
            kind, sum(array.logical_bytes for array in arrays), len(arrays), instruction.op_name
        )
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        for kind in COLLECTIVES
        if instruction.opcode in (kind, f"{kind}-start")
        for arrays in [[array for array in instruction.arrays if array.space != 2]]
    ]


def kernels(program: Program) -> int:
    """Number of kernels that a GPU launches: fusions, library calls and copies."""
    return sum(
        round(times)
        for _, instruction, times in program.instructions()
        if instruction.opcode in ("fusion", "custom-call", "copy", "sort", "copy-start")
    )


def by_stage(found: list[Transfer], stages: tuple[str, ...]) -> Counter[tuple[str, str]]:
    """Bytes by (stage, "forward" or "backward"); the rest of the step is ("step", "")."""
    pattern = re.compile(rf"/({'|'.join(map(re.escape, stages))})(?=[./]|$)")
    sums: Counter[tuple[str, str]] = Counter()
    for each in found:
        stage = pattern.search(each.op_name)
        direction = "backward" if "transpose(" in each.op_name else "forward"
        sums[(stage[1], direction) if stage else ("step", "")] += each.total  # type: ignore[assignment]
    return sums


def by_kind(found: list[Transfer]) -> Counter[str]:
    """Bytes by `kind_of`."""
    sums: Counter[str] = Counter()
    for each in found:
        sums[each.kind] += each.total  # type: ignore[assignment]
    return sums


def kind_of(program: Program, instruction: Instruction) -> str:
    """Main kind of work of an instruction, by the operations that are fused into it."""
    opcodes = _opcodes(program, instruction)
    if any(opcode.removesuffix("-start") in COLLECTIVES for opcode in opcodes):
        return "between devices"
    if "convolution" in opcodes or "dot" in opcodes or "__cudnn" in instruction.text:
        return "convolution"
    if "__cublas" in instruction.text or "__triton" in instruction.text:
        return "convolution"
    if opcodes & {"select-and-scatter", "reduce-window", "scatter"}:
        return "pool"
    if "reduce" in opcodes:
        return "reduction"
    work = opcodes - {*VIEWS, *SLICES, "fusion", "broadcast", "iota"}
    if work <= {"copy", "transpose", "reshape", "copy-start", "slice-start", "reverse"}:
        return "copy"
    return "elementwise"


def _cause(computation: Computation, instruction: Instruction) -> Instruction:
    """The consumer of a copy onto the chip or the producer of another copy; else itself."""
    if instruction.opcode not in ("copy-start", "slice-start", "copy"):
        return instruction
    onto = any(array.space == ON_CHIP for array in instruction.arrays[:2])
    each = instruction
    for _ in range(MAX_HOPS):
        made = [computation.instructions[name] for name in each.operands]
        following = computation.users[each.name] if onto else made
        if not following:
            break
        each = following[0]
        if each.op_name and each.opcode not in VIEWS:
            return each
    return instruction


def _opcodes(program: Program, instruction: Instruction) -> set[str]:
    found = {instruction.opcode}
    for name in instruction.called.get("calls", []):
        for inner in program.computations[name].instructions.values():
            found |= _opcodes(program, inner)
    return found


def _hbm_bytes(program: Program, computation: Computation, instruction: Instruction):
    """What it reads from and writes to main memory: lists of (array, bytes)."""
    operands = [
        computation.instructions[name]
        for name in dict.fromkeys(instruction.operands)
        if name in computation.instructions
    ]
    results = instruction.arrays
    if instruction.opcode == "copy-start":  # (to, from, state)
        return _in_hbm(_whole(results[1:2])), _in_hbm(_whole(results[:1]))
    if instruction.opcode in ("slice-start", "dynamic-slice-start"):  # ((from, ...), to, state)
        to = results[len(operands[0].arrays)]
        source = [(array, to.bytes) for array in operands[0].arrays]
        return _in_hbm(source), _in_hbm(_whole([to]))
    if instruction.opcode.endswith("-start"):
        results = results[len(results) // 2 :] if len(results) > 1 else results
    if instruction.opcode == "fusion":
        inner = program.computations[instruction.called["calls"][0]]
        parameters = inner.parameters
        read = []
        for number, name in enumerate(instruction.operands):
            outer = computation.instructions[name]
            used = _used(program, inner, parameters[number].name)
            read += [(array, min(used, array.bytes)) for array in outer.arrays]
        return _in_hbm(read), _in_hbm(zip(results, _written(inner, results), strict=True))
    if instruction.opcode == "dynamic-update-slice":
        update = computation.instructions[instruction.operands[1]].arrays[0]
        return _in_hbm(_whole([update])), _in_hbm([(results[0], update.bytes)])
    if instruction.opcode in SLICES:
        return _in_hbm([(operands[0].arrays[0], results[0].bytes)]), _in_hbm(_whole(results))
    read = [(array, array.bytes) for operand in operands for array in operand.arrays]
    if "__cudnn" in instruction.text and results[-1].dtype == "u8":
        results = results[:-1]  # scratch space
    return _in_hbm(read), _in_hbm(_whole(results))


def _used(
    program: Program, computation: Computation, name: str, known: dict | None = None
) -> float:
    """Bytes that a fused computation reads of its parameter; infinite for all of it.

    `known` has results by name: elementwise operations may join again, which would otherwise make
    the number of paths grow exponentially.
    """
    known = {} if known is None else known
    if name not in known:
        known[name] = _used_by_users(program, computation, name, known)
    return known[name]


def _used_by_users(program: Program, computation: Computation, name: str, known: dict) -> float:
    used = 0.0
    for user in computation.users[name]:
        if user.opcode in SLICES and user.operands[0] == name:
            used += user.arrays[0].bytes
        elif user.opcode in ELEMENTWISE and user.arrays[0].bytes:
            ratio = computation.instructions[name].arrays[0].bytes / user.arrays[0].bytes
            used += ratio * _used(program, computation, user.name, known)
        elif user.opcode == "fusion":
            inner = program.computations[user.called["calls"][0]]
            parameters = inner.parameters
            used += sum(
                _used(program, inner, parameters[number].name)
                for number, operand in enumerate(user.operands)
                if operand == name
            )
        elif user.opcode != "dynamic-update-slice" or not _in_place(computation, user, name):
            return float("inf")
    return used or (float("inf") if computation.root == name else 0.0)


def _in_place(computation: Computation, update: Instruction, name: str) -> bool:
    """Whether a dynamic-update-slice of `name` is the computation's result."""
    return update.operands[0] == name and update.name in {each.name for each in _roots(computation)}


def _written(computation: Computation, results: tuple[Array, ...]) -> list[float]:
    """Bytes that a fused computation writes of each result."""
    roots = _roots(computation)
    if len(roots) != len(results):
        return [array.bytes for array in results]
    return [
        min(array.bytes, computation.instructions[root.operands[1]].arrays[0].bytes)
        if root.opcode == "dynamic-update-slice"
        else array.bytes
        for root, array in zip(roots, results, strict=True)
    ]


def _roots(computation: Computation) -> list[Instruction]:
    """The instructions that produce the results, through tuples and bitcasts."""
    root = computation.instructions[computation.root]
    names = root.operands if root.opcode == "tuple" else (root.name,)
    found = []
    for name in names:
        each = computation.instructions[name]
        while each.opcode == "bitcast":
            each = computation.instructions[each.operands[0]]
        found.append(each)
    return found


def _whole(arrays) -> list[tuple[Array, float]]:
    return [(array, array.bytes) for array in arrays]


def _in_hbm(sizes) -> list[tuple[Array, float]]:
    return [(array, used) for array, used in sizes if array.space not in (ON_CHIP, 2, 6)]


def _padding(array: Array, used: float) -> float:
    return used * (1 - array.logical_bytes / array.bytes) if array.bytes else 0.0
