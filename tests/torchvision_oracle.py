"""Runs torchvision's Inception-v3: python torchvision_oracle.py FOLDER NUM_CLASSES.

Reads FOLDER/in.npz (a state dict and "images" [batch, 3, 299, 299]), writes FOLDER/out.npz with
"logits" and "aux". Its average pools are made not to count the padding, as TensorFlow's.
"""

import functools
import sys

import numpy as np
import torch
import torchvision

folder, num_classes = sys.argv[1], int(sys.argv[2])
state = {name: torch.from_numpy(array) for name, array in np.load(f"{folder}/in.npz").items()}
images = state.pop("images")
model = torchvision.models.inception_v3(
    weights=None, num_classes=num_classes, aux_logits=True, init_weights=False
).eval()
missing, unexpected = model.load_state_dict(state, strict=False)
assert not unexpected, unexpected
assert all(name.endswith("num_batches_tracked") for name in missing), missing
torch.nn.functional.avg_pool2d = functools.partial(
    torch.nn.functional.avg_pool2d, count_include_pad=False
)
last_17x17 = []
model.Mixed_6e.register_forward_hook(lambda _, __, output: last_17x17.append(output))
with torch.no_grad():
    logits = model(images)
    aux = model.AuxLogits(last_17x17[0])
np.savez(f"{folder}/out.npz", logits=logits.numpy(), aux=aux.numpy())
