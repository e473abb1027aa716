"""Four protocols by which tools turn an image into the network's input, as data.

The network is the same everywhere. The resize to 299x299 and the scaling differ, and that alone
changes FID by more than most papers' improvements (docs/fid.md). Source: the tools' own code.
"""

from dataclasses import dataclass

from inception.fid.bridge import UserError

SIZE = 299  # height and width of the network's input


@dataclass(frozen=True)
class Protocol:
    """Steps from pixels 0 to 255 to the network's input: resize, clip, (pixel - center) / spread.

    Attributes:
      name: Name in results and statistics.
      resize: Kind of resize, a key of `resize.KINDS`. The aspect ratio is not kept.
      center: Pixel value that becomes 0.
      spread: Pixel difference that becomes 1.
      clip: Whether resized values are clipped to [0, 255] (bicubic overshoots).
    """

    name: str
    resize: str
    center: float
    spread: float
    clip: bool = False


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        # F.interpolate(bilinear, align_corners=False) of x / 255, then 2 x - 1.
        Protocol("pytorch", "torch_bilinear", 127.5, 127.5),
        # TensorFlow 1's ResizeBilinear, without half-pixel centers, then (x - 128) / 128.
        Protocol("tensorflow", "tensorflow_bilinear", 128.0, 128.0),
        # Pillow's antialiased bicubic of each channel in floating point.
        Protocol("clean", "pillow_bicubic", 128.0, 128.0, clip=True),
        # torchmetrics' default since 1.8.0 (antialias=True); before, it was "tensorflow".
        Protocol("torchmetrics", "torch_antialiased", 128.0, 128.0),
    )
}

# Tools -> the protocol that they follow.
TOOLS: dict[str, str] = {
    "pytorch-fid": "pytorch",
    "legacy_pytorch": "pytorch",
    "ttur": "tensorflow",
    "adm": "tensorflow",
    "guided-diffusion": "tensorflow",
    "torch-fidelity": "tensorflow",
    "stylegan2-ada": "tensorflow",
    "stylegan3": "tensorflow",
    "edm": "tensorflow",
    "edm2": "tensorflow",
    "dit": "tensorflow",
    "sit": "tensorflow",
    "mar": "tensorflow",
    "meanflow": "tensorflow",
    "legacy_tensorflow": "tensorflow",
    "clean-fid": "clean",
}


def find_protocol(name: str | Protocol) -> Protocol:
    """The protocol of a name or of a tool.

    Raises:
      UserError: If the name is unknown.
    """
    if isinstance(name, Protocol):
        return name
    key = name.lower()
    if (key := TOOLS.get(key, key)) not in PROTOCOLS:
        raise UserError(
            f"protocol {name!r} is unknown. It is one of {', '.join(PROTOCOLS)}, or a tool: "
            f"{', '.join(TOOLS)}"
        )
    return PROTOCOLS[key]
