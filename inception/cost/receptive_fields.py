"""Receptive fields: how much of the image an output of each stage can depend on."""

from typing import NamedTuple

from inception.cost.counting import NetworkCost, StageCost


class ReceptiveField(NamedTuple):
    """The receptive field of a position of a stage's output, in pixels of the image.

    Attributes:
      height: Height of the field.
      width: Width of the field.
      stride: Distance between the fields of neighboring positions.
    """

    height: int = 1
    width: int = 1
    stride: int = 1


def receptive_fields(network: NetworkCost) -> dict[str, ReceptiveField]:
    """The receptive field of every stage that has a grid, by name, from the input up.

    A field larger than the image covers all of it, from the positions in the middle. (arXiv
    1705.07049 and distill.pub/2019/computing-receptive-fields count in the same way.)
    """
    fields: dict[str, ReceptiveField] = {}
    field = ReceptiveField()
    for stage in network.stages:
        if len(stage.shape) == 3:
            field = fields[stage.name] = _after(stage, field)
    return fields


def _after(stage: StageCost, before: ReceptiveField) -> ReceptiveField:
    """The largest field of a stage's branches."""
    fields: list[ReceptiveField] = []
    for layer in stage.layers:
        read = _largest([fields[number] for number in layer.inputs] or [before])
        height, width = (
            size + (kernel - 1) * read.stride
            for size, kernel in zip(read[:2], layer.kernel, strict=True)
        )
        fields.append(ReceptiveField(height, width, read.stride * layer.stride))
    return _largest(fields)


def _largest(fields: list[ReceptiveField]) -> ReceptiveField:
    return ReceptiveField(*map(max, zip(*fields, strict=True)))
