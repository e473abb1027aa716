"""Runs another tool on two folders.

    python -m inception.fid.oracles TOOL FILE.pth REAL FAKE OUTPUT.npz

It has a process of its own because PyTorch and JAX would share the cores, and PyTorch can crash
where TensorFlow is loaded. OUTPUT.npz contains "real LAYER" and "fake LAYER", features [images, d]
in the order of the files' names, and "fid", the tool's own value, or NaN where its call of SciPy
fails.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any
from unittest import mock

import numpy as np

_BATCH = 16
Features = dict[str, np.ndarray]


def main(argv: Sequence[str]) -> None:
    """Runs the tool that the command line names."""
    tool, weights, real, fake, output = argv
    features, fid = TOOLS[tool][1](weights)
    sides = {"real": features(real), "fake": features(fake)}
    try:
        value = float(fid(*(side["pooled"] for side in sides.values())))
    except (TypeError, ValueError) as error:  # SciPy without `disp`, or an imaginary component
        print(f"{tool}: {error}", file=sys.stderr)
        value = np.nan
    arrays: dict[str, Any] = {
        f"{side} {layer}": rows for side, found in sides.items() for layer, rows in found.items()
    }
    np.savez(output, fid=value, **arrays)


def fid_network(weights: str) -> Any:
    """Opens pytorch-fid's network with all four blocks and the weights of a file."""
    import torch
    from pytorch_fid import inception

    state = torch.load(weights, map_location="cpu", weights_only=True)
    with mock.patch.object(inception, "load_state_dict_from_url", return_value=state):
        network = inception.InceptionV3(range(4), resize_input=True, normalize_input=True)
    return network.eval()


def _pytorch_fid(weights: str) -> tuple[Callable, Callable]:
    import torch
    import torchvision
    from pytorch_fid import fid_score

    network = fid_network(weights)

    def features(folder: str) -> Features:
        files = sorted(
            os.path.join(folder, name)  # noqa: PTH118 (as they are given to the tool)
            for name in os.listdir(folder)  # noqa: PTH208
            if name.rpartition(".")[2] in fid_score.IMAGE_EXTENSIONS
        )
        images = fid_score.ImagePathDataset(files, torchvision.transforms.ToTensor())
        found = []
        for batch in _alike(images[index] for index in range(len(images))):
            with torch.no_grad():
                blocks = network(torch.stack(batch))
            found.append([block.mean(dim=(2, 3)).numpy() for block in blocks])
        layers = ("64", "192", "768", "pooled")
        return {
            layer: np.concatenate(rows)
            for layer, rows in zip(layers, zip(*found, strict=True), strict=True)
        }

    def fid(real: np.ndarray, fake: np.ndarray) -> float:
        moments = [
            (np.mean(side, axis=0), np.cov(side, rowvar=False))
            for side in (real.astype(np.float64), fake.astype(np.float64))
        ]
        return fid_score.calculate_frechet_distance(*moments[0], *moments[1])

    return features, fid


def _torch_fidelity(weights: str) -> tuple[Callable, Callable]:
    import torch
    from torch_fidelity import metric_fid, utils
    from torch_fidelity.datasets import ImagesPathDataset
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    layers = ["64", "192", "768", "2048", "logits_unbiased"]
    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", layers, feature_extractor_weights_path=weights
    )
    spatial: list[Any] = []
    network.Mixed_6d.branch1x1.register_forward_hook(
        lambda module, inputs, output: spatial.append(output[:, :7].permute(0, 2, 3, 1))
    )

    def features(folder: str) -> Features:
        files = utils.glob_samples_paths(
            folder, False, "bmp,jpg,jpeg,pgm,png,ppm,tif,tiff,webp", verbose=False
        )
        images, found = ImagesPathDataset(files), []
        spatial.clear()
        for batch in _alike(images[index] for index in range(len(images))):
            with torch.no_grad():
                found.append([rows.numpy() for rows in network(torch.stack(batch))])
        names = ("64", "192", "768", "pooled", "logits")
        result = {
            name: np.concatenate(rows)
            for name, rows in zip(names, zip(*found, strict=True), strict=True)
        }
        return result | {"spatial": torch.cat(spatial).flatten(1).numpy()}

    def fid(real: np.ndarray, fake: np.ndarray) -> float:
        moments = [metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (fake, real)]
        metric = metric_fid.fid_statistics_to_metric(*moments, verbose=False)
        return metric[metric_fid.KEY_METRIC_FID]

    return features, fid


def _clean_fid(weights: str) -> tuple[Callable, Callable]:
    import torch
    from cleanfid import fid as clean

    network = fid_network(weights)
    network.resize_input = network.normalize_input = False

    def model(images: Any) -> Any:
        # What InceptionV3W does around its TorchScript network, which is the same translated.
        with torch.no_grad():
            return network((images - 128) / 128)[3].flatten(1)

    def features(folder: str) -> Features:
        how: dict[str, Any] = {"num_workers": 0, "batch_size": _BATCH, "verbose": False}
        cpu = torch.device("cpu")
        found = clean.get_folder_features(folder, model, device=cpu, mode="clean", **how)
        return {"pooled": found}

    return features, clean.fid_from_feats


def _alike(images: Iterator[Any]) -> Iterator[list[Any]]:
    """Yields batches of images in order, each of one size."""
    for _, group in groupby(images, key=lambda image: tuple(image.shape)):
        while batch := list(islice(group, _BATCH)):
            yield batch


# Tool -> its package, and a function that opens it and returns two: of a folder, and of features.
TOOLS: dict[str, tuple[str, Callable[[str], tuple[Callable, Callable]]]] = {
    "pytorch-fid": ("pytorch_fid", _pytorch_fid),
    "torch-fidelity": ("torch_fidelity", _torch_fidelity),
    "clean-fid": ("cleanfid", _clean_fid),
}

if __name__ == "__main__":
    main(sys.argv[1:])
