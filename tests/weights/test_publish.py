"""Published folders: what is in them, who can load them, and their upload to a hub of our own."""

import base64
import dataclasses
import hashlib
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from etils import epath

from inception import command_line, weights
from inception.data.preprocessing import METHODS, Preprocessing
from inception.weights import (
    WeightsError,
    card,
    publish,
    reference,
    timm_config,
    timm_folder,
    verify,
)
from inception.weights.__main__ import main
from tests.fake_runs import write_run
from tests.loopback import send
from tests.weights.test_export import random_weights

SMALL_IMAGES = Preprocessing(image_size=107)
SECRET = "/home/somebody"


@pytest.fixture
def make_run(tmp_path, monkeypatch, tiny):
    """Makes runs/v3 with results, whose weights are random."""

    def missing(*_, **__):
        raise WeightsError("timm is not installed") from ModuleNotFoundError("timm")

    def make(preprocessing=SMALL_IMAGES, **fields):
        workdir = tmp_path / "runs" / "v3"
        config = tiny(f"data_dir={SECRET}", "init_from=timm/inception_v3.tf_in1k")
        step = write_run(config, epath.Path(workdir), ema_errors=36, raw_errors=72)["step"]
        (workdir / "checkpoints").mkdir()
        source = f"{workdir}/checkpoints/{step}"
        pretrained = dataclasses.replace(random_weights(preprocessing, **fields), source=source)
        monkeypatch.setattr(publish, "from_run", lambda *_: pretrained)
        monkeypatch.setattr(reference, "endpoints", missing)
        return workdir

    return make


def test_the_folder_has_weights_labels_and_a_card_and_nothing_of_this_machine(
    make_run, tmp_path, capsys
):
    run, output = make_run(), tmp_path / "out"
    assert main(["publish", str(run), f"--output={output}", "--license=apache-2.0"]) is None
    assert "keras cannot load it: model.width_multiplier is 0.05" in capsys.readouterr().out
    names = {file.name for file in output.iterdir()}
    assert names == {"model.json", "weights.safetensors", "labels.txt", "README.md"}
    assert (output / "labels.txt").read_text().split() == list("abcde")
    assert weights.load_any(output).preprocessing.image_size == 107
    for name in ("model.json", "README.md"):
        text = (output / name).read_text()
        assert str(tmp_path) not in text
        assert SECRET not in text


def test_the_card_tells_accuracy_with_crop_config_data_and_base(make_run, tmp_path):
    publish.publish(make_run(), tmp_path / "out")
    _, head, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(head)
    assert fields["base_model"] == "timm/inception_v3.tf_in1k"
    assert fields["license"] == "unknown"
    (result,) = fields["model-index"][0]["results"]
    assert [metric["value"] for metric in result["metrics"]] == [0.9, 357 / 360]
    assert "| digits, validation | 360 | the central 87.5% of each side, resized to 75x75" in body
    assert "running averages (published here) | 90.00%" in body
    assert "model.width_multiplier = 0.05" in body
    assert "1,437 images" in body
    assert "the weights timm/inception_v3.tf_in1k (Apache-2.0" in body


def test_results_of_other_checkpoints_and_ensembles_are_not_this_ones(make_run, tmp_path):
    run = make_run()
    results = json.loads((run / "results.json").read_text())
    step, crops = results["step"], {"crops": 12}
    own = results | {"members": [f"x/checkpoints/{step}"], "eval": crops}
    for name, content in {
        "eval_a": own,
        "eval_b": own | {"members": ["x/checkpoints/1"]},
        "eval_c": own | {"members": [*own["members"], "y/checkpoints/2"]},
        "eval_d": results | {"step": 1},
    }.items():
        (run / f"{name}.json").write_text(json.dumps(content))
    publish.publish(run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.count("published here") == 2
    assert text.count("12 crops of 75x75") == 2


def test_what_is_in_a_folder_is_never_replaced(make_run, tmp_path):
    run, output = make_run(), tmp_path / "out"
    output.mkdir()  # empty
    publish.publish(run, output)
    (output / "README.md").write_text("edited")
    (note,) = publish.publish(run, output)
    assert "kept as it is" in note
    assert (output / "README.md").read_text() == "edited"
    description = json.loads((output / "model.json").read_text())
    (output / "model.json").write_text(json.dumps(description | {"labels": list("edcba")}))
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    for folder in (output, other, other / "mine.txt"):
        with pytest.raises(WeightsError, match="was not overwritten"):
            publish.publish(run, folder)
    assert (other / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out", "runs"]


def test_only_runs_are_published(tmp_path):
    weights.save(tmp_path / "weights", random_weights())
    with pytest.raises(WeightsError, match="is not a run"):
        publish.publish(tmp_path / "weights", tmp_path / "out")


@pytest.mark.parametrize(
    "scaling",
    [
        Preprocessing(method="resize_crop", crop_fraction=299 / 342, interpolation="bicubic"),
        Preprocessing(107, method="resize_crop", crop_fraction=107 / 123, mean=(0.1, 0.2, 0.3)),
        *(Preprocessing(method=method, crop_fraction=299 / 342) for method in METHODS[:-1]),
        *(Preprocessing(size, method="resize", crop_fraction=1.0) for size in (107, 299)),
    ],
)
def test_timms_description_is_read_back_as_ours(tmp_path, scaling):
    pretrained = random_weights(scaling)
    content = timm_folder.config(pretrained, "mit")
    (tmp_path / "config.json").write_text(json.dumps(content))
    shapes = {"fc.bias": (5,)}
    described = timm_config.describe(tmp_path / "model.safetensors", shapes, {})
    assert Preprocessing(**described.preprocessing) == scaling
    assert described.labels == pretrained.labels


def test_timm_creates_the_model_from_the_folder(make_run, tmp_path):
    for package in ("torch", "timm"):
        if not importlib.util.find_spec(package):
            pytest.skip(f"the reader needs {package}: requirements-oracles.txt")
    fields = {"width_multiplier": 1.0, "avg_pool_counts_padding": True, "aux_head": "bn"}
    run, output = make_run(Preprocessing(107, mean=(0.1, 0.2, 0.3)), **fields), tmp_path / "out"
    assert any("auxiliary head" in note for note in publish.publish(run, output))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 107, 107, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, json, numpy as np, torch, timm; "
        "model = timm.create_model(f'local-dir:{sys.argv[1]}/out', pretrained=True).eval(); "
        "images = torch.from_numpy(np.load(sys.argv[1] + '/images.npy')).permute(0, 3, 1, 2); "
        "np.save(sys.argv[1] + '/logits.npy', model(images).detach().numpy()); "
        "print(json.dumps(timm.data.resolve_data_config(model=model)))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, tmp_path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed)["mean"] == [0.1, 0.2, 0.3]
    assert json.loads(printed)["crop_mode"] == "squash"
    ours = weights.load_any(output)
    expected = verify.our_endpoints(ours.model, ours.variables, images, aux_head=False)["logits"]
    theirs = np.load(tmp_path / "logits.npy")
    assert verify.difference("logits", np.asarray(expected), theirs).relative < verify.TOLERANCE


@pytest.mark.slow
def test_keras_loads_the_model_of_the_folder(make_run, tmp_path):
    keras = pytest.importorskip("keras", reason="Keras is the reader")
    publish.publish(make_run(width_multiplier=1.0), tmp_path / "out")
    assert 'keras.saving.load_model("DIR/model.keras")' in (tmp_path / "out/README.md").read_text()
    model = keras.saving.load_model(tmp_path / "out" / "model.keras")
    ours = weights.load_any(tmp_path / "out")
    kernel = model.get_layer("predictions").kernel
    np.testing.assert_array_equal(kernel, ours.variables["params"]["Logits"]["kernel"])


@pytest.fixture
def hub(web, monkeypatch):
    """Makes the server a hub where me/mine can be written; huggingface_hub is its client."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="requirements-hub.txt")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_ENDPOINT", web.url())
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    batch, commit = "/me/mine.git/info/lfs/objects/batch", "/api/models/me/mine/commit/main"

    def answer(make):
        return lambda request, _: send(
            request, 200, json.dumps(make()).encode(), Content_Type="application/json"
        )

    def modes():
        files = json.loads(web.bodies["/api/models/me/mine/preupload/main"])["files"]
        kind = {True: "lfs", False: "regular"}
        return {
            "files": [
                {"path": path, "uploadMode": kind[path.endswith("tensors")], "shouldIgnore": False}
                for path in (file["path"] for file in files)
            ]
        }

    def places():
        objects = json.loads(web.bodies[batch])["objects"]
        action = {"upload": {"href": web.url("/upload")}}
        return {"objects": [{**each, "actions": action} for each in objects], "transfer": "basic"}

    web.routes |= {
        "/api/repos/create": answer(lambda: {"url": web.url("/me/mine")}),
        "/api/validate-yaml": answer(dict),
        "/api/models/me/mine/preupload/main": answer(modes),
        batch: answer(places),
        "/upload": answer(dict),
        commit: answer(lambda: {"commitUrl": web.url("/me/mine/commit/x"), "commitOid": "a" * 40}),
    }
    return commit


def test_the_folder_is_uploaded_as_it_is(make_run, web, hub, tmp_path, capsys):
    arguments = ["publish", str(make_run()), f"--output={tmp_path / 'out'}", "--push=me/mine"]
    assert main(arguments) is None
    assert web.url("/me/mine") in capsys.readouterr().out
    commit = web.bodies[hub].decode().splitlines()
    sent = {line["value"].get("path"): line["value"] for line in map(json.loads, commit)}
    for name in ("model.json", "README.md", "labels.txt"):
        content = (tmp_path / "out" / name).read_bytes()
        assert base64.b64decode(sent[name]["content"]) == content
    content = (tmp_path / "out" / "weights.safetensors").read_bytes()
    assert sent["weights.safetensors"]["oid"] == hashlib.sha256(content).hexdigest()
    assert web.bodies["/upload"] == content
    headers = dict(web.requests)["/api/repos/create"]
    assert headers.get("authorization", headers.get("Authorization")) == "Bearer hf_secret"


def test_an_upload_that_is_refused_leaves_the_folder_and_says_so(
    make_run, web, hub, tmp_path, capsys
):
    del web.routes["/api/repos/create"]
    arguments = ["publish", str(make_run()), f"--output={tmp_path / 'out'}", "--push=me/mine"]
    assert command_line.run(lambda: main(arguments)) == 1
    assert "out is written, but could not be uploaded to me/mine" in capsys.readouterr().err
    assert (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize(
    ("repository", "environment", "reason"),
    [
        ("mine", {}, "must be USER/REPO"),
        ("me/mine", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ("me/mine", {"missing": "1"}, "requirements-hub.txt"),
    ],
)
def test_what_an_upload_lacks_is_said_before_anything_is_written(
    make_run, tmp_path, monkeypatch, capsys, repository, environment, reason
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "missing" in environment:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    output = tmp_path / "out"
    arguments = ["publish", str(make_run()), f"--output={output}", f"--push={repository}"]
    assert command_line.run(lambda: main(arguments)) == 1
    assert reason in capsys.readouterr().err
    assert not output.exists()


def test_the_card_leaves_out_paths_and_names_what_is_set(tiny):
    fields = card.changed(tiny(f"data_dir={SECRET}", f"eval.exclude={SECRET}"))
    assert SECRET not in map(str, fields.values())
    assert fields["model.width_multiplier"] == 0.05
