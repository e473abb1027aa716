"""torchvision's, timm's and pytorch-fid's networks: python torch_oracle.py FOLDER.

Writes the random weights of each into FOLDER, in the formats that they are published in. Then
answers each line "SOURCE SIZE BATCH MODE" on its input: what the network computes goes to
FOLDER/answer.npz, arrays with channels last and by our endpoints' names, and a line to its output.

MODE is "endpoints"; "gradients" of sum(logits * cotangent), of the images ("grad images") and of
the state dict's tensors ("grad NAME"), with the auxiliary head's part on
large grids; or "training", without dropout, with the new statistics ("state NAME") and how many
values each is of ("count MODULE"). Both of these are computed in float64.
"""

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import safetensors.torch
import timm
import timm.data
import torch
import torchvision
from PIL import Image
from pytorch_fid import inception as pytorch_fid

from inception.weights import reference
from tests.oracles import in_float64, random_array, random_images

CLASSES = 13


def write_files(folder: Path) -> dict[str, dict]:
    """The state dicts by source, each written to a file."""
    inception_v3 = torchvision.models.inception_v3
    networks = {
        "torchvision": inception_v3(weights=None, init_weights=False, num_classes=CLASSES),
        "timm.gluon_in1k": timm.create_model("inception_v3", num_classes=CLASSES),
        "fid": inception_v3(weights=None, init_weights=False, num_classes=1008, aux_logits=False),
    }
    rng = np.random.default_rng(0)
    states = {}
    for source, network in networks.items():
        state = states[source] = network.state_dict()
        for name, tensor in state.items():
            if tensor.is_floating_point():
                output_last = np.transpose(tensor.numpy(), (*range(1, tensor.ndim), 0))
                kind = "scale" if name.endswith("bn.weight") else name
                array = random_array(kind, output_last.shape, rng)
                state[name] = torch.from_numpy(np.moveaxis(array, -1, 0).copy())
    torch.save(states["torchvision"], folder / "inception_v3.pth")
    torch.save(states["fid"], folder / "fid.pth", _use_new_zipfile_serialization=False)
    timm_file = folder / "inception_v3.gluon_in1k.safetensors"
    safetensors.torch.save_file(states["timm.gluon_in1k"], timm_file)
    return states


def write_facts(folder: Path, fid_state: dict) -> None:
    """Settings of timm by tag, both libraries' resizing, what a color becomes, FID's modules."""
    tags = ("tf_in1k", "tf_adv_in1k", "tv_in1k", "gluon_in1k")
    timm_configs = {tag: timm.get_pretrained_cfg(f"inception_v3.{tag}").to_dict() for tag in tags}
    resize = timm.data.create_transform(
        **timm.data.resolve_data_config(pretrained_cfg=timm_configs["tf_in1k"])
    ).transforms[0]
    transform = torchvision.models.Inception_V3_Weights.IMAGENET1K_V1.transforms()
    color = (10, 100, 250)
    network = torchvision.models.inception_v3(weights=None, init_weights=False)
    network.transform_input = True  # as it is with these weights
    pixels = network._transform_input(transform(Image.new("RGB", (400, 350), color))[None])
    with mock.patch.object(pytorch_fid, "load_state_dict_from_url", return_value=fid_state):
        fid = pytorch_fid.fid_inception_v3()
    facts = {
        "timm": {
            tag: {key: config[key] for key in ("mean", "std", "interpolation")}
            for tag, config in timm_configs.items()
        },
        "timm resize": resize.size,
        "torchvision resize": transform.resize_size[0],
        "color": color,
        "torchvision input": pixels[0, :, 0, 0].tolist(),
        "fid modules": [str(fid), str(reference.torch_network("fid", fid_state))],
    }
    (folder / "facts.json").write_text(json.dumps(facts))


def answer(source: str, state: dict, size: int, batch: int, mode: str) -> dict[str, np.ndarray]:
    network = reference.torch_network(source, state).train(mode == "training")
    if mode == "training":
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if source == "torchvision" and size < 299:
            network.AuxLogits = None
    images = random_images(size, batch)
    if mode != "endpoints":
        network, images = network.double(), in_float64(images)
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()
    counts: dict[str, np.ndarray] = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: counts.update(
                    {f"count {name}": np.asarray(inputs[0][:, 0].numel())}
                )
            )
    with reference.recorded(network) as found:
        network(inputs)
        if size >= 299:  # the auxiliary head needs the 17x17 grid
            reference.run_aux_head(network, found)
    answers = {name: reference.channels_last(tensor) for name, tensor in found.items()}
    answers["images"] = images
    if mode == "gradients":
        heads = [found[name] for name in ("logits", "aux_logits") if name in found]
        cotangent = np.random.default_rng(0).normal(size=(batch, heads[0].shape[1]))
        sum((head * torch.from_numpy(cotangent)).sum() for head in heads).backward()
        answers["cotangent"] = cotangent
        answers["grad images"] = reference.channels_last(inputs.grad)
        answers |= {
            f"grad {name}": parameter.grad.numpy()
            for name, parameter in network.named_parameters()
            if parameter.grad is not None
        }
    if mode == "training":
        answers |= {f"state {name}": array.numpy() for name, array in network.state_dict().items()}
        answers |= counts
    return answers


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    all_states = write_files(directory)
    write_facts(directory, all_states["fid"])
    print("ready", flush=True)
    for line in sys.stdin:
        asked, side, images_in_batch, what = line.split()
        copied = {name: tensor.clone() for name, tensor in all_states[asked].items()}
        arrays = answer(asked, copied, int(side), int(images_in_batch), what)
        np.savez(directory / "answer.npz", **arrays)
        print("answered", flush=True)
