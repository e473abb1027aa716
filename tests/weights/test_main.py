"""python -m inception.weights."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from inception import command_line
from inception.weights import load, load_pretrained, reference, verify
from inception.weights.__main__ import main
from tests.loopback import publish
from tests.pth_files import network, write_pth
from tests.weight_files import keras_shapes, write_hdf5


@pytest.fixture
def file(tmp_path):
    return write_hdf5(tmp_path / "x.h5", keras_shapes(2))


def test_import_writes_a_directory_and_says_what_it_is(file, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    output = tmp_path / "weights"
    arguments = ["import", "auto", str(file), f"--output={output}"]
    assert command_line.run(lambda: main([*arguments, f"--labels={tmp_path}/names.txt"])) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("keras", "num_classes", "cat, dog", "resize"))
    model, _, preprocessing = load_pretrained(output)
    assert (model.num_classes, preprocessing.method) == (2, "resize")
    assert json.loads((output / "model.json").read_text())["labels"] == ["cat", "dog"]


def test_a_name_is_a_file_for_import_and_verify(file, web, monkeypatch, tmp_path, capsys):
    offered = publish(monkeypatch, web, file.read_bytes())
    assert main(["import", "auto", "keras", f"--output={tmp_path / 'weights'}"]) is None
    assert offered.sha256 in capsys.readouterr().out
    seen = []
    monkeypatch.setattr(verify, "our_endpoints", lambda *_: {"logits": 1.0})
    monkeypatch.setattr(
        *(reference, "endpoints"),
        lambda source, path, *_, **__: seen.append(path) or {"logits": 1.0},
    )
    assert main(["verify", "auto", "keras"]) == 0
    assert [path.read_bytes() for path in seen] == [file.read_bytes()]


def test_import_says_what_the_file_says_and_what_is_assumed(file, tmp_path, capsys):
    output = tmp_path / "weights"
    flags = ["--mean=0.1,0.2,0.3", "--std=0.25", "--image_size=150", "--activation=sigmoid"]
    assert main(["import", "auto", str(file), f"--output={output}", *flags]) is None
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["preprocessing.mean"] == "(0.1, 0.2, 0.3)  (given)"
    assert lines["preprocessing.std"] == "(0.25, 0.25, 0.25)  (given)"
    assert lines["preprocessing.image_size"] == "150  (given)"
    assert lines["preprocessing.interpolation"] == "bilinear  (assumed)"
    assert lines["activation"] == "sigmoid  (given)"
    assert lines["labels"] == "none  (none are known)"
    saved = json.loads((output / "model.json").read_text())
    assert saved["provenance"]["preprocessing.mean"] == "given"
    assert saved["activation"] == "sigmoid"


def test_numbers_that_are_none_are_usage(file):
    with pytest.raises(SystemExit) as raised:
        main(["verify", "auto", str(file), "--mean=red"])
    assert raised.value.code == 2


def test_import_says_which_weights_it_took_and_what_it_left_out(tmp_path, capsys):
    content = {"model": network(1, aux_head=False), "model_ema": network(2, aux_head=False)}
    content["model"]["criterion.weight"] = np.ones(5, np.float32)
    file = write_pth(tmp_path / "x.pth", content)
    assert main(["import", "auto", str(file), f"--output={tmp_path}/w", "--raw"]) is None
    printed, said = capsys.readouterr().out, "model/, not the running averages"
    assert f"({said})" in printed
    assert "(left out, as they are not the network's: model/criterion.weight (5,))" in printed
    assert load(tmp_path / "w").provenance["parameters"] == said


def test_a_refused_file_leaves_no_directory(file, tmp_path, capsys):
    file.write_bytes(file.read_bytes()[:1000])
    arguments = ["import", "keras", str(file), f"--output={tmp_path / 'weights'}"]
    assert command_line.run(lambda: main(arguments)) == 1
    assert "x.h5" in capsys.readouterr().err
    assert not (tmp_path / "weights").exists()


def test_verify_fails_where_the_networks_differ(file, monkeypatch, capsys):
    ours = {"Mixed_5b": 1.0, "logits": 1.0}
    monkeypatch.setattr(verify, "our_endpoints", lambda *_: ours)
    for other in (1.1, math.nan):
        monkeypatch.setattr(reference, "endpoints", lambda *_, x=other, **__: ours | {"logits": x})
        assert main(["verify", "auto", str(file)]) == 1
        assert "DIFFERENT" in capsys.readouterr().out.splitlines()[-1]


def test_labels_must_be_text(file, tmp_path, capsys):
    (tmp_path / "labels").write_bytes(b"\xff\xfe")
    arguments = ["import", "auto", str(file), f"--output={tmp_path}/w"]
    assert command_line.run(lambda: main([*arguments, f"--labels={tmp_path}/labels"])) == 1
    assert f"--labels={tmp_path}/labels" in capsys.readouterr().err


def test_verify_without_an_original_says_so(file, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    assert command_line.run(lambda: main(["verify", "auto", str(file)])) == 1
    assert "not installed" in capsys.readouterr().err


def test_configs_are_not_asked_for(file):
    with pytest.raises(SystemExit) as raised:
        main(["verify", "auto", str(file), "--config.seed=1"])
    assert raised.value.code == 2


def test_importing_the_package_loads_no_other_framework():
    program = "import sys, inception.weights; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "inception.weights" in loaded
    assert not loaded & {"tensorflow", "torch", "h5py", "keras", "timm", "safetensors"}
    assert not loaded & {"requests", "urllib3", "orbax.checkpoint"}
