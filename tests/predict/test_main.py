"""python -m inception.predict: the right classes, unreadable files, and the picture."""

import io

import matplotlib.image
import numpy as np
import pytest
import skimage.data
from PIL import Image

from inception import command_line
from inception.data.decode import decode
from inception.data.preprocessing import Preprocessing
from inception.errors import UserError
from inception.predict import answers, files, picture
from inception.predict.__main__ import main
from inception.predict.predictor import Predictor
from inception.weights import Pretrained, save
from tests.predict.test_predictor import MODEL, make_variables

LABELS = ("tench", "goldfish", "$1 shark", "cock", "hen", "ostrich", "jay")
WHOLE = Preprocessing(75, method="resize")
PHOTOGRAPHS = skimage.data.chelsea(), skimage.data.coffee()


@pytest.fixture(scope="module")
def variables():
    """Random weights whose logits are as far apart as 1 for the two photographs."""
    variables = make_variables(MODEL)
    ((_, outputs),) = Predictor(MODEL, variables, WHOLE).stream(PHOTOGRAPHS)
    logits, head = outputs["logits"], variables["params"]["Logits"]
    scale = 1 / np.abs(logits[0] - logits[1]).max()
    head["bias"] = (head["bias"] - logits.mean(axis=0)) * scale
    head["kernel"] = head["kernel"] * scale
    return variables


@pytest.fixture(scope="module")
def folder(variables, tmp_path_factory):
    """Weights, and photographs at two depths among what are none."""
    folder = tmp_path_factory.mktemp("predict")
    save(folder / "weights", Pretrained(MODEL, variables, WHOLE, LABELS, "keras", ""))
    images = folder / "images"
    (images / "below" / ".hidden").mkdir(parents=True)
    Image.fromarray(PHOTOGRAPHS[0]).save(images / "a.JPEG")
    Image.fromarray(PHOTOGRAPHS[1]).save(images / "below" / "b.png")
    Image.fromarray(PHOTOGRAPHS[1]).save(images / "below" / ".hidden" / "c.png")
    (images / "below" / "bad.jpg").write_bytes(b"\xff\xd8 no image")
    (images / "notes.txt").write_text("no image")
    return folder


def _probabilities(variables, file):
    predict = Predictor(MODEL, variables, WHOLE)
    ((_, outputs),) = predict.stream([decode(file.read_bytes())])
    exponentials = np.exp(outputs["logits"][0] - outputs["logits"].max())
    return exponentials / exponentials.sum()


def _run(*argv):
    return command_line.run(lambda: main([str(word) for word in argv]))


def test_files_and_folders_are_found_at_any_depth(folder):
    images = folder / "images"
    found = files.find_images([str(images), str(images / "notes.txt")])
    names = ["a.JPEG", "below/b.png", "below/bad.jpg", "notes.txt"]
    assert found == [str(images / name) for name in names]
    (folder / "empty").mkdir(exist_ok=True)
    with pytest.raises(UserError, match="empty"):
        files.find_images([str(images), str(folder / "empty")])


@pytest.mark.rounding
def test_the_table_has_the_most_probable_classes_of_what_can_be_read(variables, folder, capsys):
    images = folder / "images"
    missing = images / "missing.png"
    assert _run(folder / "weights", images, missing, "--topk=2", "--batch_size=2") == 0
    printed = capsys.readouterr()
    assert all(name in printed.err for name in ("bad.jpg", "missing.png", "2 of 4 files"))
    header, *lines = printed.out.splitlines()
    assert header.split() == ["image", "class", "probability"]
    assert lines[0].split()[-1] != lines[2].split()[-1]
    for name, rows in (("a.JPEG", lines[:2]), ("below/b.png", lines[2:])):
        expected = _probabilities(variables, images / name)
        assert rows[0].startswith(str(images / name))
        for row, number in zip(rows, np.argsort(-expected)[:2], strict=True):
            assert f" {LABELS[number]} " in row
            assert float(row.split()[-1].rstrip("%")) == pytest.approx(
                100 * expected[number], abs=0.2
            )


def test_this_folder_is_a_folder(folder, monkeypatch):
    monkeypatch.chdir(folder / "images")
    assert files.find_images(["."]) == ["a.JPEG", "below/b.png", "below/bad.jpg"]
    assert files.find_images(["./below"]) == ["below/b.png", "below/bad.jpg"]


def test_links_that_lead_upwards_give_each_picture_once(folder, tmp_path):
    below = tmp_path / "photos" / "below"
    below.mkdir(parents=True)
    (below / "a.jpg").write_bytes((folder / "images" / "a.JPEG").read_bytes())
    (tmp_path / "private.jpg").write_bytes(b"above what is named")
    (below / "up").symlink_to("..")
    (below / "far").symlink_to("../..")
    (tmp_path / "photos" / "same").symlink_to("below")
    assert files.find_images([str(tmp_path / "photos")]) == [str(below / "a.jpg")]


def test_several_arguments_give_each_real_file_once(folder, tmp_path):
    photos = tmp_path / "photos"
    (photos / "below").mkdir(parents=True)
    for name in ("a.jpg", "below/b.jpg"):
        (photos / name).write_bytes((folder / "images" / "a.JPEG").read_bytes())
    (tmp_path / "link").symlink_to("photos")
    (photos / "c.jpg").symlink_to("a.jpg")
    names = [str(photos / name) for name in ("a.jpg", "below", "below/b.jpg")]
    both = [names[0], names[2]]
    assert files.find_images([str(photos)]) == both
    assert files.find_images([str(tmp_path / "link"), *names]) == [
        str(tmp_path / "link" / name) for name in ("a.jpg", "below/b.jpg")
    ]
    assert files.find_images([*names, str(photos), str(photos), names[0]]) == both
    assert files.find_images([names[1], str(photos)]) == [*both[1:], *both[:1]]


def test_large_images_are_reported_and_the_limit_is_a_flag(folder, capsys):
    images = folder / "images"
    assert _run(folder / "weights", images / "a.JPEG", images, "--max_pixels=200000") == 0
    printed = capsys.readouterr()
    assert "b.png: 600x400 are 240,000 pixels, more than max_pixels=200,000" in printed.err
    assert "a.JPEG" in printed.out
    assert "b.png" not in printed.out


@pytest.mark.rounding
def test_several_labels_have_a_sigmoid_each_and_that_is_said(variables, folder, tmp_path, capsys):
    several = Pretrained(MODEL, variables, WHOLE, LABELS, "keras", "", activation="sigmoid")
    save(tmp_path / "weights", several)
    image = folder / "images" / "a.JPEG"
    assert _run(tmp_path / "weights", image, "--topk=7") == 0
    _, *lines, note = capsys.readouterr().out.splitlines()
    assert "sigmoid" in note
    softmax = _probabilities(variables, image)
    ((_, outputs),) = Predictor(MODEL, variables, WHOLE).stream([decode(image.read_bytes())])
    expected = 1 / (1 + np.exp(np.sort(-outputs["logits"][0])))
    printed = [float(line.split()[-1].rstrip("%")) / 100 for line in lines]
    np.testing.assert_allclose(printed, expected, atol=2e-3)
    assert np.abs(np.sort(-softmax) + expected).max() > 0.1


def test_one_output_is_yes_or_no(folder, tmp_path, capsys):
    single, image = MODEL.clone(num_classes=1), folder / "images" / "a.JPEG"
    weights = Pretrained(
        single, make_variables(single), WHOLE, ("cat",), "keras", "", activation="sigmoid"
    )
    save(tmp_path / "weights", weights)
    assert _run(tmp_path / "weights", image) == 0
    assert " cat " in capsys.readouterr().out.splitlines()[1]


@pytest.mark.rounding
def test_classes_without_names_have_numbers(variables, folder):
    predictor = Predictor(MODEL, variables, WHOLE)
    (answer,) = answers.find_answers(predictor, (), [str(folder / "images" / "a.JPEG")], topk=99)
    assert sorted(answer.classes) == [f"class {number}" for number in range(7)]
    assert sum(answer.probabilities) == pytest.approx(1)


@pytest.mark.parametrize(
    ("weights", "images", "named"),
    [
        ("weights", "images/below/bad.jpg", "none of 1 files"),
        ("nothing", "images", "nothing"),
        ("images", "images", "model.json"),
    ],
)
def test_what_cannot_be_done_is_one_error(folder, weights, images, named, capsys):
    assert _run(folder / weights, folder / images) == 1
    assert named in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "flags",
    [
        ["--topk=0"],
        ["--batch_size=0"],
        ["--max_pixels=0"],
        ["--config.seed=1"],
        ["--layer=pooled"],
        ["--output=f.npz", "--topk=3"],
        ["--output=f.npz", "--plot=p.png"],
    ],
)
def test_senseless_flags_are_refused(folder, flags, capsys):
    with pytest.raises(SystemExit) as raised:
        main([str(folder / "weights"), str(folder / "images"), *flags])
    assert raised.value.code == 2
    assert flags[-1].split("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--plot=none/p.png", "--output=none/f.npz"])
def test_a_file_in_no_folder_is_refused_before_any_work(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert _run("absent", "absent", flag) == 1
    assert f"{flag}: there is no folder none" in capsys.readouterr().err


def test_features_alone_have_no_classes(tmp_path, folder, capsys):
    headless = MODEL.clone(num_classes=1)
    save(tmp_path / "w", Pretrained(headless, make_variables(headless), WHOLE, (), "keras", ""))
    assert _run(tmp_path / "w", folder / "images") == 1
    assert "--layer=pooled --output=FILE.npz can use it" in capsys.readouterr().err
    assert _run(tmp_path / "w", folder / "images", f"--output={tmp_path / 'f.npz'}") == 0
    assert "f.npz: pooled of 2 images" in capsys.readouterr().out


def test_the_picture_shows_the_images_and_a_bar_per_class(folder, tmp_path):
    assert _run(folder / "weights", folder / "images", f"--plot={tmp_path / 'out'}") == 0
    drawn = matplotlib.image.imread(io.BytesIO((tmp_path / "out").read_bytes()), "png")
    assert drawn.std() > 0.1
    file = str(folder / "images" / "a.JPEG")
    figure = picture.draw([answers.Answer(file, ["$1 shark", "hen"], [0.75, 0.25])])
    image, bars = figure.axes
    pixels = decode((folder / "images" / "a.JPEG").read_bytes())  # 300x451
    np.testing.assert_array_equal(image.images[0].get_array(), pixels[::2, ::2])
    assert [bar.get_width() for bar in bars.patches] == [0.75, 0.25]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["$1 shark", "hen"]
    figure.savefig(io.BytesIO())  # a dollar is no mathematics
