"""Files of statistics: ours, everybody's as they are published, and those that are refused."""

import json

import numpy as np
import pytest

from inception.fid.bridge import UserError
from inception.fid.files import Summary, has_images, has_statistics, load, save
from inception.fid.frechet import distance
from inception.fid.statistics import Origin, statistics_of

ORIGIN = Origin("clean", "", "ab" * 32, "highest")


def _features(d=6, count=30):
    return np.random.default_rng(d).normal(size=(count, d)).astype(np.float32)


def _summary():
    features = {name: _features(d) for name, d in (("pooled", 6), ("spatial", 5), ("768", 4))}
    statistics = {
        name: statistics_of(rows, Origin("clean", name, "ab" * 32, "highest"))
        for name, rows in features.items()
    }
    features["logits"] = _features(3)
    return Summary("images/", 30, ORIGIN, statistics, features, ("JPEG", "PNG"))


@pytest.mark.parametrize("features", [False, True])
def test_our_files_keep_everything(features, tmp_path):
    summary = _summary()
    save(tmp_path / "a.npz", summary, features=features)
    again = load(tmp_path / "a.npz")
    assert (again.count, again.origin, again.formats) == (30, ORIGIN, ("JPEG", "PNG"))
    assert again.statistics.keys() == summary.statistics.keys()
    for name, each in summary.statistics.items():
        assert again.statistics[name].origin == each.origin
        assert again.statistics[name].count == 30
        np.testing.assert_array_equal(again.statistics[name].covariance, each.covariance)
        assert distance(again.statistics[name], each) < 1e-10
    expected = summary.features if features else {}
    assert again.features.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_array_equal(again.features[name], rows)
    assert load(tmp_path / "a.npz", "clean-fid").origin == ORIGIN
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.rounding
def test_other_tools_read_our_files(tmp_path):
    """pytorch-fid and ADM take mu and sigma, mu_s and sigma_s, and nothing pickled."""
    save(tmp_path / "a.npz", _summary())
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_allclose(file["mu"], _features(6).mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(file["sigma_s"], np.cov(_features(5), rowvar=False), rtol=1e-5)
        assert json.loads(str(file["origin"]))["weights_sha256"] == "ab" * 32


def _moments(d):
    features = _features(d, 3 * d).astype(np.float64)
    return features.mean(axis=0), np.cov(features, rowvar=False)


def _published(folder):
    """Files as tools write them -> the layers in each."""
    mu, sigma = np.arange(2048.0), np.eye(2048)
    mu_s, sigma_s = _moments(23)
    mu_768, sigma_768 = np.arange(768.0), np.eye(768)
    images = np.zeros((3, 8, 8, 3), np.uint8)
    np.savez_compressed(folder / "pytorch_fid.npz", mu=mu, sigma=sigma)
    np.savez(folder / "adm.npz", arr_0=images, mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s)
    np.savez(folder / "meanflow.npz", ref_mu=mu, ref_sigma=sigma)
    np.savez(folder / "dims_768.npz", mu=mu_768, sigma=sigma_768)
    np.savez(folder / "name_kid.npz", feats=_features())
    np.savez(folder / "score_sde.npz", pool_3=_features(), logits=_features(3))
    return {
        "pytorch_fid.npz": ({"pooled"}, set()),
        "adm.npz": ({"pooled", "spatial"}, set()),
        "meanflow.npz": ({"pooled"}, set()),
        "dims_768.npz": ({"768"}, set()),
        "name_kid.npz": ({"pooled"}, {"pooled"}),
        "score_sde.npz": ({"pooled"}, {"pooled", "logits"}),
    }


def test_published_files_are_read_as_they_are(tmp_path):
    for name, (layers, features) in _published(tmp_path).items():
        path = str(tmp_path / name)
        assert has_statistics(path)
        assert has_images(path) == (name == "adm.npz")
        summary = load(path, "adm")
        assert set(summary.statistics) == layers
        assert set(summary.features) == features
        for layer, each in summary.statistics.items():
            assert each.origin == Origin("tensorflow", layer)
        assert summary.count == 0
        with pytest.raises(UserError, match=f"{name} does not say which protocol"):
            load(path)
    np.testing.assert_array_equal(
        load(tmp_path / "adm.npz", "adm").statistics["spatial"].mean, _moments(23)[0]
    )
    np.savez(tmp_path / "images.npz", np.zeros((3, 8, 8, 3), np.uint8))
    assert not has_statistics(str(tmp_path / "images.npz"))
    assert not has_statistics(str(tmp_path))


def test_a_file_of_another_protocol_is_refused(tmp_path):
    save(tmp_path / "a.npz", _summary())
    with pytest.raises(UserError, match=r"a.npz was made with protocol clean, not tensorflow"):
        load(tmp_path / "a.npz", "torch-fidelity")


def _write(path, **changes):
    mu, sigma = _moments(4)
    np.savez(path, **{"mu": mu, "sigma": sigma, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mu": np.array([{}], object)}, "holds a pickle"),
        ({"mu": np.full(4, np.nan)}, "mu or sigma has values that are not finite"),
        ({"sigma": np.ones((4, 3))}, r"\[d\] and \[d, d\], and are \[4\] and \[4, 3\]"),
        ({"sigma": np.triu(np.ones((4, 4)))}, "sigma is not symmetric, by up to 1"),
        ({"feats": np.zeros(3)}, r"features of pooled must be floats \[images, d\]"),
        ({"origin": np.array("{}")}, "its origin cannot be read"),
        ({"origin": np.array('{"format": 99}')}, "has format 99, and this version reads 1"),
    ],
)
def test_damaged_statistics_are_one_sentence(changes, message, tmp_path):
    _write(tmp_path / "a.npz", **changes)
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path / "a.npz", "adm")
    assert "a.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_damaged_or_not_there_are_one_sentence(tmp_path):
    _write(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    for name, content in (("cut.npz", whole[:300]), ("none.npz", b""), ("text.npz", b"text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} (is missing or damaged|holds a pickle)"):
            load(tmp_path / name, "adm")
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 255
    (tmp_path / "bit.npz").write_bytes(bytes(broken))
    with pytest.raises(UserError, match=r"bit.npz is missing or damaged"):
        load(tmp_path / "bit.npz", "adm")
    with pytest.raises(UserError, match=r"gone.npz is missing or damaged"):
        load(tmp_path / "gone.npz", "adm")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(UserError, match=r"no statistics mu and sigma; it has \['weights'\]"):
        load(tmp_path / "other.npz", "adm")


def test_nothing_is_overwritten_or_half_written(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    path.write_text("mine")
    with pytest.raises(UserError, match=r"a.npz exists and is not overwritten"):
        save(path, _summary())
    assert path.read_text() == "mine"
    with pytest.raises(UserError, match=r"must end in .npz"):
        save(tmp_path / "a.npy", _summary())
    with pytest.raises(UserError, match="there is no folder"):
        save(tmp_path / "no" / "a.npz", _summary())

    def full(self, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("etils.epath.gpath.PosixGPath.replace", full)
    with pytest.raises(UserError, match=r"b.npz cannot be written: .*No space left"):
        save(tmp_path / "b.npz", _summary())
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
