"""Features and FID equal to pytorch-fid's, torch-fidelity's and clean-fid's, with equal weights.

The network is FID's at full width with seeded random weights. The tools run in processes of their
own (inception/fid/oracles.py). FID of both features is computed by our distance, and the tool's own
value, by SciPy's root or by eigenvalues of a product, may differ from it by what that loses below
full rank; where the installed SciPy lacks what the tool asks of it, the tool's value is left out.
"""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from inception import command_line
from inception.fid.__main__ import main
from inception.fid.oracles import TOOLS
from inception.fid.verify import Agreement, verify
from tests.fid.networks import pictures

# FID's network with random weights that keep activations near 1, as pytorch-fid's file has them.
_WRITE = """
import sys
import numpy as np, torch, torchvision
from tests.oracles import random_array
network = torchvision.models.inception_v3(
    weights=None, init_weights=False, num_classes=1008, aux_logits=False)
rng, state = np.random.default_rng(0), network.state_dict()
for name, tensor in state.items():
    if tensor.is_floating_point():
        shape = np.transpose(tensor.numpy(), (*range(1, tensor.ndim), 0)).shape
        kind = "scale" if name.endswith("bn.weight") else name
        array = np.moveaxis(random_array(kind, shape, rng), -1, 0)
        state[name] = torch.from_numpy(array.copy())
torch.save(state, sys.argv[1])
"""
SMALL = ((64, 64),) * 3
MIXED = ((64, 64), (64, 64), (100, 75), (256, 256), (37, 300), (512, 512), (1024, 1024))


def _needs(tool):
    package = TOOLS[tool][0]
    if not importlib.util.find_spec(package):
        pytest.skip(f"{package} is the oracle: requirements-oracles.txt")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of FID's network."""
    for package in ("torch", "torchvision"):
        pytest.importorskip(package, reason=f"{package} writes the file: requirements-oracles.txt")
    file = tmp_path_factory.mktemp("fid") / "pt_inception.pth"
    subprocess.run([sys.executable, "-c", _WRITE, file], check=True)
    return str(file)


def _write(folder, sizes, seed):
    folder.mkdir()
    for number, size in enumerate(sizes):
        pixels = pictures(1, *size, seed + number)[0]
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    Image.fromarray(pictures(1, *sizes[0], seed)[0, ..., 0]).save(folder / "gray.png")
    Image.fromarray(pictures(1, *sizes[0], seed)[0]).save(folder / "lossy.jpg", quality=80)
    return str(folder)


def _compared(tool, weights, tmp_path, sizes) -> Agreement:
    _needs(tool)
    real = _write(tmp_path / "real", sizes, 0)
    fake = _write(tmp_path / "fake", sizes[::-1], 50)
    found = verify(real, fake, weights, tool, batch_size=4)
    print(found)  # for docs/parity.md
    return found


@pytest.mark.rounding
@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_images_of_mixed_sizes_are_those_of(tool, weights, tmp_path):
    found = _compared(tool, weights, tmp_path, MIXED)
    assert set(found.differences) >= {"pooled"}
    assert max(found.differences.values()) <= 1e-5
    assert found.ours == pytest.approx(found.theirs, rel=1e-5)
    assert np.isnan(found.printed) or found.ours == pytest.approx(found.printed, rel=1e-4)
    assert found.ours > 0.01
    assert found.is_close


@pytest.mark.rounding
@pytest.mark.slow
def test_small_images_are_pytorch_fids_and_the_command_says_so(weights, tmp_path, capsys):
    assert _compared("pytorch-fid", weights, tmp_path, SMALL).is_close
    words = [str(tmp_path / "real"), str(tmp_path / "fake"), f"--weights={weights}"]
    status = command_line.run(
        lambda: main(["verify", *words, "--against=pytorch-fid", "--batch_size=4"])
    )
    out = capsys.readouterr().out
    assert status == 0
    assert "equal" in out
    assert "DIFFERENT" not in out
