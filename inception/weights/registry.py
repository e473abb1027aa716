"""Every published file of Inception-v3 weights: addresses, digests, accuracy and license.

Sizes and digests are those that the publishers, or projects that pin the files, state; the authors
of this file have not downloaded them. `python -m inception.evaluation.pin` downloads everything and
prints what is missing.

Accuracy is on ImageNet's validation set, as published and with the publisher's crop. The order of
the 1000 classes is that of their WordNet ids everywhere but in `fid`, see docs/weights.md.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from inception.weights.files import WeightsError

HUB, MAIN = "hf-hub:", "main"
_TIMM_CARD = "Apache-2.0"


@dataclass(frozen=True)
class Published:
    """A file of weights that somebody offers, or a repository on Hugging Face's hub with one.

    Attributes:
      name: Name that `load_pretrained` takes.
      source: One of `sources.SOURCES`, which has its network and preprocessing, or "auto".
      file: Name of the file in the caches; for a repository, the name of its file of weights.
      urls: Addresses of the same bytes, tried in this order.
      size: Exact number of bytes, enforced; 0 if unknown.
      about: Approximate number of bytes if `size` is unknown; only shown.
      sha256: SHA-256 of the file, enforced; "" if unknown.
      md5: MD5 of the file, enforced; "" if unknown.
      digest_from: Origin of the digest, or what is trusted without one.
      member: Checkpoint inside an archive, without the suffixes of a V2 checkpoint's files.
      repository: USER/REPO on the hub, instead of `urls`.
      revision: Commit, branch or tag of the repository.
      classes: Number of outputs; 0 without a head.
      top1: Published top-1 accuracy in percent; 0.0 if unknown.
      top5: Published top-5 accuracy in percent; 0.0 if unknown.
      crop: Crop of the published accuracy.
      license: License of the weights, as their publisher states it.
      license_url: Address of that statement.
    """

    name: str
    source: str = "auto"
    file: str = ""
    urls: tuple[str, ...] = ()
    size: int = 0
    about: int = 0
    sha256: str = ""
    md5: str = ""
    digest_from: str = ""
    member: str = ""
    repository: str = ""
    revision: str = MAIN
    classes: int = 0
    top1: float = 0.0
    top5: float = 0.0
    crop: str = ""
    license: str = ""
    license_url: str = ""

    @property
    def file_names(self) -> tuple[str, ...]:
        """The file's names in other libraries' caches: the last parts of its addresses."""
        return tuple(dict.fromkeys(map(file_name, self.urls)))


def file_name(url: str) -> str:
    """The last part of an address."""
    return PurePosixPath(unquote(urlsplit(url).path)).name


def _timm(
    tag: str, top1: float, top5: float, revision: str, sha256: str, trust: str, license: str
) -> Published:
    repository = f"timm/inception_v3.{tag}"
    return Published(
        name=repository,
        source=f"timm.{tag}",
        file="model.safetensors",
        about=95_500_000,
        sha256=sha256,
        digest_from=trust,
        repository=repository,
        revision=revision,
        classes=1000,
        top1=top1,
        top5=top5,
        crop="0.875 bicubic (timm's results-imagenet.csv)",
        license=license,
        license_url=f"https://huggingface.co/{repository}",
    )


_HUB_TRUST = "the SHA-256 that the hub states for the file"
_KERAS_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3"
_KERAS_RELEASE = "https://github.com/fchollet/deep-learning-models/releases/download/v0.5"


def _keras(name: str, suffix: str, mirrors: tuple[str, ...], **fields) -> Published:
    file = f"{_KERAS_FILE}{suffix}.h5"
    return Published(
        name=name,
        source="keras",
        file=file,
        urls=tuple(f"{folder}/{file}" for folder in (_KERAS, _KERAS_RELEASE, *mirrors)),
        license="Apache-2.0, as quoted",
        license_url="https://keras.io/api/applications/inceptionv3/",
        **fields,
    )


_TENSORFLOW = "https://storage.googleapis.com/download.tensorflow.org/models"
_TENSORFLOW_LICENSE = "https://github.com/tensorflow/models/blob/master/LICENSE"
_TENSORFLOW_TRUST = (
    "nobody: https and Google's x-goog-hash at the first download, whose digest is kept and "
    "checked from then on"
)


def _tensorflow(name: str, source: str, path: str, member: str, **fields) -> Published:
    return Published(
        name=name,
        source=source,
        file=PurePosixPath(path).name,
        urls=(f"{_TENSORFLOW}/{path}",),
        digest_from=_TENSORFLOW_TRUST,
        member=member,
        classes=1001,
        license="Apache-2.0",
        license_url=_TENSORFLOW_LICENSE,
        **fields,
    )


_ALL = (
    Published(
        name="torchvision",
        source="torchvision",
        file="inception_v3_google-0cc3c7bd.pth",
        urls=("https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",),
        size=108_949_747,
        sha256="0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
        digest_from="the first 8 digits torchvision; the others and the size a download log",
        classes=1000,
        top1=77.294,
        top5=93.450,
        crop="shorter side 342 bilinear, center 299 (torchvision)",
        license="BSD-3-Clause code; the weights may carry the terms of ImageNet",
        license_url="https://github.com/pytorch/vision#pre-trained-model-license",
    ),
    _timm(
        *("tv_in1k", 77.472, 93.468, MAIN),
        "9c452c63a67fd03a38a78c401ba12d4be0e926df63c93403de3a29f6df20fefb",
        "the hub's page",
        _TIMM_CARD,
    ),
    _timm("tf_in1k", 77.866, 93.644, MAIN, "", _HUB_TRUST, _TIMM_CARD),
    _timm(
        *("tf_adv_in1k", 77.598, 93.726, "909cbadce5c7ab2fa85d7a37d352c350dc2a14b3"),
        *("", f"{_HUB_TRUST}, at a pinned commit", _TIMM_CARD),
    ),
    _timm(
        *("gluon_in1k", 78.806, 94.372, "8e0669b67a46e31836862f7c11e6ffd35046c186"),
        *("", f"{_HUB_TRUST}, at a pinned commit", _TIMM_CARD),
    ),
    _keras(
        "keras",
        "",
        (),
        size=96_112_376,
        sha256="00c9ea4e4762f716ac4d300d6d9c2935639cc5e4d139b5790d765dcbeea539d0",
        md5="9a0d58056eeedaa3f26cb7ebd46da564",
        digest_from="the MD5 Keras; the SHA-256 GoMLX and DSBox",
        classes=1000,
        top1=77.9,
        top5=93.7,
        crop="not stated (keras.io)",
    ),
    _keras(
        "keras/notop",
        "_notop",
        ("https://storage.googleapis.com/mledu-datasets",),
        size=87_910_968,
        sha256="9617109a16463f250180008f9818336b767bdf5164315e8cd5761a8c34caa62a",
        md5="bcbd6486424b2319ff4ef7d526e38f63",
        digest_from="the MD5 Keras; the SHA-256 GoMLX",
    ),
    _tensorflow(
        *("slim", "slim", "inception_v3_2016_08_28.tar.gz", "inception_v3.ckpt"),
        about=100_885_009,
        top1=78.0,
        top5=93.9,
        crop="central 87.5 %, one crop (slim's README)",
    ),
    *(
        _tensorflow(
            *(f"slim/{kind}", "slim"),
            *(f"{kind}_inception_v3_2017_08_18.tar.gz", f"{kind}_inception_v3.ckpt"),
            crop="none published",
        )
        for kind in ("adv", "ens3_adv", "ens4_adv")
    ),
    _tensorflow(
        "tensorflow-inception",
        "tensorflow-inception",
        "image/imagenet/inception-v3-2016-03-01.tar.gz",
        "model.ckpt-157585",
        about=400_000_000,
    ),
    Published(
        name="fid",
        source="fid",
        file="pt_inception-2015-12-05-6726825d.pth",
        urls=(
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
        ),
        size=95_628_359,
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        digest_from="the first 8 digits pytorch-fid and torch-fidelity; the others pins of both",
        classes=1008,
        license="Apache-2.0",
        license_url="https://github.com/mseitzer/pytorch-fid/blob/master/LICENSE",
    ),
)
REGISTRY: dict[str, Published] = {published.name: published for published in _ALL}
# The names of timm and `sources.SOURCES` for the same weights.
ALIASES = {
    f"{prefix}{tag}": f"timm/inception_v3.{tag}"
    for tag in ("tv_in1k", "tf_in1k", "tf_adv_in1k", "gluon_in1k")
    for prefix in ("", "timm.", "inception_v3.")
}

_REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+)(?:@(\S+))?")
_DIGEST = re.compile(r"sha256=([0-9a-fA-F]{64})")


def find(name: str) -> Published | None:
    """The published weights of a name or an address; None if it is neither.

    Args:
      name: Name in `REGISTRY` or `ALIASES`, "hf-hub:USER/REPO", "hf-hub:USER/REPO@REVISION" or
        "https://HOST/FILE#sha256=DIGEST".

    Raises:
      WeightsError: For an address that is not complete.
    """
    if name.startswith(HUB):
        return _from_hub(name)
    if name.startswith(("https://", "http://")):
        return _from_url(name)
    return REGISTRY.get(ALIASES.get(name, name))


def get(name: str) -> Published:
    """The published weights of a name or an address.

    Raises:
      WeightsError: If there are none; names similar ones.
    """
    if published := find(name):
        return published
    near = nearest(name) or REGISTRY
    raise WeightsError(f"unknown published weights {name!r}: choose {', '.join(near)}")


def _from_hub(address: str) -> Published:
    match = _REPOSITORY.fullmatch(address.removeprefix(HUB))
    if not match or ".." in address:
        raise WeightsError(f"{address!r} is not a repository: write {HUB}USER/REPO[@REVISION]")
    return Published(address, repository=match[1], revision=match[2] or MAIN)


def _from_url(address: str) -> Published:
    url, _, fragment = address.partition("#")
    digest, file = _DIGEST.fullmatch(fragment), file_name(url)
    if not digest or not file:
        raise WeightsError(
            f"{address} does not say which file it must be. Append #sha256= and the 64 digits that "
            "`sha256sum FILE` prints"
        )
    return Published(address, file=file, urls=(url,), sha256=digest[1].lower())


def nearest(name: str) -> list[str]:
    """Up to three known names that look like this one."""
    return difflib.get_close_matches(name, [*REGISTRY, *ALIASES], 3, cutoff=0.5)
