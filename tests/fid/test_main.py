"""python -m inception.fid: numbers in text and JSON, and every refusal in a sentence."""

import importlib.util
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception import command_line
from inception.fid import bridge, metrics, sides
from inception.fid.__main__ import main
from inception.fid.extract import Extractor
from inception.fid.images import open_images
from inception.fid.metrics import compare
from inception.fid.pipeline import measure
from inception.weights import Pretrained, locate, save
from tests.fid.networks import loaded, pictures


def _write(folder, count, seed):
    folder.mkdir()
    for number, pixels in enumerate(pictures(count, 40, 50, seed)):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, two folders of images, and the first as an array with statistics, as ADM's."""
    folder = tmp_path_factory.mktemp("fid")
    for name, seed in (("weights", 0), ("others", 1)):
        model, variables, preprocessing = loaded(seed)
        save(folder / name, Pretrained(model, variables, preprocessing, (), "fid", ""))
    _write(folder / "real", 11, 0)
    _write(folder / "one", 1, 0)
    _write(folder / "fake", 12, 1)
    return folder


@pytest.fixture
def run(folder, capsys, caplog):
    """Runs a command line: its status, its output, its errors and warnings.

    Words that name something in the folder become its path.
    """

    def place(word):
        start, equals, end = word.rpartition("=")
        return f"{start}{equals}{folder / end}" if (folder / end).exists() else word

    def call(*words):
        status = command_line.run(lambda: main([place(word) for word in words]))
        out, err = capsys.readouterr()
        warnings = [f"WARNING: {record.message}\n" for record in caplog.records]
        caplog.clear()
        return status, out, "".join([*warnings, err])

    return call


ALL = "--metrics=fid,sfid,kid,is,pr,dc,fid_infinity"
SMALL = ("--subset_size=5", "--batch_size=4")


@pytest.fixture(scope="module")
def expected(folder):
    extract = Extractor(str(folder / "weights"), layers=("pooled", "spatial", "logits"))
    sides = (
        measure(open_images(str(folder / name)), extract, keep=("pooled", "logits"), batch_size=4)
        for name in ("real", "fake")
    )
    return compare(*sides, metrics=metrics.METRICS, subset_size=5)


@pytest.mark.rounding
def test_compare_writes_all_metrics(folder, run, expected, tmp_path):
    file = tmp_path / "result.json"
    status, out, err = run(
        "compare", "real", "fake", "--weights=weights", ALL, f"--json={file}", *SMALL
    )
    assert status == 0
    result = json.loads(file.read_text())
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, rel=1e-6)
        assert name in out
    assert result["real"]["images"] == 11
    assert result["fake"] == {
        "path": str(folder / "fake"),
        "images": 12,
        "formats": ["PNG"],
        "sizes": 1,
    }
    assert (result["protocol"], result["layer"]) == ("tensorflow", "pooled")
    assert result["arithmetic"] == "highest"
    assert len(result["weights_sha256"]) == 64
    assert "fewer than 2,048" in err
    assert len(result["warnings"]) == 3
    assert f"{result['fid']:.7g}" in out


@pytest.mark.rounding
def test_statistics_that_were_written_give_the_same_numbers(run, expected, folder, tmp_path):
    output = tmp_path / "real.npz"
    stats = ("stats", "real", "--weights=weights", f"--output={output}", "--batch_size=4")
    assert run(*stats, "--features")[0] == 0
    file = tmp_path / "result.json"
    words = (str(output), "fake", "--weights=weights", f"--json={file}", ALL, *SMALL)
    assert run("compare", *words)[0] == 0
    result = json.loads(file.read_text())
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, rel=1e-6)
    status, out, _ = run("compare", str(output), str(output))  # no images, no network
    assert status == 0
    assert "fid" in out
    status, _, err = run(*stats)
    assert status == 1
    assert "exists and is not overwritten" in err


@pytest.mark.rounding
def test_what_statistics_lack_is_computed_from_the_images_beside_them(
    run, expected, folder, tmp_path
):
    """ADM's references: moments of all images, and images for precision and recall."""
    plain = tmp_path / "plain.npz"
    stats = ("stats", "real", "--weights=weights", f"--output={plain}", "--batch_size=4")
    assert run(*stats)[0] == 0
    adm = tmp_path / "adm.npz"
    with np.load(plain) as file:
        moments = {name: file[name] for name in ("mu", "sigma", "mu_s", "sigma_s")}
    np.savez(adm, arr_0=pictures(11, 40, 50, 0), **moments)
    file = tmp_path / "result.json"
    words = (str(adm), "fake", "--weights=weights", "--protocol=adm", f"--json={file}")
    status, _, err = run("compare", *words, ALL, *SMALL)
    assert status == 0
    result = json.loads(file.read_text())
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, rel=1e-6)
    assert "does not say which weights it was made with" in err
    status, _, err = run(
        "compare", str(plain), "fake", "--weights=weights", "--metrics=kid", *SMALL
    )
    assert status == 1
    assert "has no features of layer pooled, which all metrics but FID and sFID need" in err


def test_a_layer_and_a_protocol_may_be_chosen(run, tmp_path):
    file = tmp_path / "result.json"
    flags = ("--layer=768", "--protocol=clean-fid", f"--json={file}", "--batch_size=4")
    assert run("compare", "real", "fake", "--weights=weights", *flags)[0] == 0
    result = json.loads(file.read_text())
    assert (result["protocol"], result["layer"]) == ("clean", "768")


def test_statistics_of_other_weights_or_protocols_are_refused(run, tmp_path):
    for name, flags in (("a", ()), ("b", ("--protocol=clean",)), ("c", ("--precision=default",))):
        weights = "others" if name == "a" else "weights"
        output = f"--output={tmp_path / name}.npz"
        words = ("stats", "real", f"--weights={weights}", output, *flags, "--layers=64")
        assert run(*words, "--batch_size=4")[0] == 0
    layer = ("--layer=64", "--weights=weights")
    for pair, message in (
        ((f"{tmp_path}/a.npz", "fake"), "differ in their weights"),
        ((f"{tmp_path}/c.npz", "fake"), "differ in their precision"),
        ((f"{tmp_path}/b.npz", f"{tmp_path}/c.npz"), "differ in their protocol, clean and tensor"),
    ):
        status, _, err = run("compare", *pair, *layer)
        assert status == 1
        assert message in err
        assert err.count("\n") == 1
    status, _, err = run("compare", f"{tmp_path}/b.npz", "fake", *layer, "--protocol=adm")
    assert status == 1
    assert "made with protocol clean, not tensorflow" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("real", "nothing", "--weights=weights"), "nothing does not exist"),
        (("nothing", "real", "--weights=weights"), "nothing does not exist"),
        (("real", "one", "--weights=weights"), "one: 1 image: a covariance needs at least 2"),
        (("real", "fake", "--weights=weights", "--metrics=pr", "--k=11"), "k=11 needs more than k"),
        (
            ("real", "one", "--weights=weights", "--metrics=is", "--num=9"),
            "fewer than the 9",
        ),
        (("real", "fake", "--weights=weights", "--metrics=is", "--splits=13"), "into 13 parts"),
        (("real", "fake"), "images need --weights"),
        (("real", "fake", "--weights=nowhere"), "nowhere holds no weights"),
        (("real", "fake", "--metrics=fid,ppl"), "metric 'ppl' is unknown"),
        (("real", "fake", "--weights=weights", "--protocol=x"), "protocol 'x' is unknown"),
        (("real", "fake", "--weights=weights", "--layer=Mixed_9"), "layer 'Mixed_9' is unknown"),
        (("real", "fake", "--weights=weights", "--num=12"), "fewer than the 12 wanted"),
        (("real", "fake", "--json=no/such/file.json"), "file.json must be a file in a folder that"),
        (("real", "fake", "--weights=weights", "--metrics=kid"), "subsets of 1,000 images"),
    ],
)
def test_refusals_of_compare_are_one_line_before_any_measuring(words, message, run, monkeypatch):
    monkeypatch.setattr(sides, "measure", None)
    status, _, err = run("compare", *words)
    assert status == 1
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_lossy_files_against_others_and_other_networks_are_warned_of(run, folder, tmp_path):
    model, variables, preprocessing = loaded(0)
    other = model.clone(mixed_7c_pool="average")
    save(tmp_path / "other", Pretrained(other, variables, preprocessing, (), "fid", ""))
    (tmp_path / "jpeg").mkdir()
    with zipfile.ZipFile(tmp_path / "jpeg.zip", "w") as archive:
        for number, pixels in enumerate(pictures(3, 40, 50, 1)):
            file = tmp_path / "jpeg" / f"{number}.jpg"
            Image.fromarray(pixels).save(file)
            archive.write(file)
    words = (str(tmp_path / "jpeg.zip"), f"--weights={tmp_path / 'other'}", "--layer=64")
    status, _, err = run("compare", "real", *words, "--batch_size=4")
    assert status == 0
    assert "is compressed with loss (JPEG) and" in err
    assert "is not FID's network (1008 outputs)" in err
    assert "the sides have 11 and 3 images" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--against=ttur",), "tool 'ttur' is unknown"),
        (("--against=pytorch-fid",), "must be pytorch-fid's .pth"),
    ],
)
def test_refusals_of_verify_are_one_line(words, message, run):
    if not importlib.util.find_spec("pytorch_fid"):
        pytest.skip("pytorch-fid is the oracle: requirements-oracles.txt")
    status, _, err = run("verify", "real", "fake", "--weights=weights", *words)
    assert status == 1
    assert message in err


def test_wrong_flags_are_answered_with_the_usage(run):
    for words in (("compare", "a", "b", "--batch_size=0"), ("compare", "a"), ("other",)):
        with pytest.raises(SystemExit) as stopped:
            run(*words)
        assert stopped.value.code == 2


def test_verify_takes_weights_by_name_too(monkeypatch):
    monkeypatch.setattr(locate, "locate", lambda published: Path(f"{published.name}.pth"))
    assert bridge.weights_file("fid") == "fid.pth"
    assert bridge.weights_file("other/w.pth") == "other/w.pth"
