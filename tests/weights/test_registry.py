"""The published files: complete as data, found by name and by address."""

import re

import pytest

from inception.weights import SOURCES, WeightsError, registry
from inception.weights.registry import ALIASES, REGISTRY

TAGS = ("tv_in1k", "tf_in1k", "tf_adv_in1k", "gluon_in1k")
NAMES = {
    *("torchvision", "keras", "keras/notop", "slim", "slim/adv", "slim/ens3_adv", "slim/ens4_adv"),
    *("tensorflow-inception", "fid", *(f"timm/inception_v3.{tag}" for tag in TAGS)),
}


def test_all_sources_have_a_name():
    assert set(REGISTRY) == NAMES
    published = {published.source for published in REGISTRY.values()}
    assert published == set(SOURCES) - {"timm"}  # which is of anybody's own
    assert not set(ALIASES) & NAMES


@pytest.mark.parametrize("published", REGISTRY.values(), ids=list(REGISTRY))
def test_an_entry_is_complete_and_says_what_it_trusts(published):
    assert bool(published.urls) != bool(published.repository)
    assert all(url.startswith("https://") for url in published.urls)
    assert published.file
    assert not published.urls or published.file in published.file_names
    assert re.fullmatch("[0-9a-f]{64}|", published.sha256)
    assert re.fullmatch("[0-9a-f]{32}|", published.md5)
    assert published.digest_from
    assert published.license
    assert published.license_url.startswith("https://")
    assert (published.top1 > 70) == (published.top5 > 90)
    assert published.crop or not published.top1
    # The digest is in the name of PyTorch's files.
    for name in published.file_names:
        if match := re.search("-([0-9a-f]{8}).pth", name):
            assert published.sha256.startswith(match[1])


def test_names_aliases_and_addresses_are_found():
    timm = REGISTRY["timm/inception_v3.tf_in1k"]
    assert registry.find("timm.tf_in1k") is registry.find("tf_in1k") is timm
    assert registry.find("runs/digits") is None
    hub = registry.find("hf-hub:me/mine@v1")
    assert (hub.repository, hub.revision, hub.source) == ("me/mine", "v1", "auto")
    assert registry.find("hf-hub:me/mine").revision == "main"
    url = registry.find(f"https://host/a%20b/x%20y.pth?raw=1#sha256={'AB' * 32}")
    assert url.urls == ("https://host/a%20b/x%20y.pth?raw=1",)
    assert (url.file, url.sha256, url.source) == ("x y.pth", "ab" * 32, "auto")


@pytest.mark.parametrize(
    "address",
    [
        *("hf-hub:", "hf-hub:mine", "hf-hub:me/mine@", "hf-hub:../x", "hf-hub:me/mine/file"),
        *(
            "https://host/x.pth",
            "https://host/x.pth#sha256=123",
            "https://host/#sha256=" + "0" * 64,
        ),
    ],
)
def test_an_address_that_is_not_complete_is_refused(address):
    with pytest.raises(WeightsError) as raised:
        registry.find(address)
    assert address in str(raised.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("torchvison", "torchvision"),
        ("kears", "keras"),
        ("timm/inception_v3.tf_ink", "timm/inception_v3.tf_in1k"),
        ("slim/ens", "slim/ens3_adv"),
    ],
)
def test_the_nearest_names_are_listed(typed, meant):
    assert meant in registry.nearest(typed)
