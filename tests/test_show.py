"""The picture of a config's data: what is in it, and that it can be read."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_images

from inception.config import load
from inception.data import crops
from inception.data.sources import ArraySource
from inception.show import __main__ as show

CONFIG = Path(__file__).parents[1] / "configs/digits.py"  # 75x75, augmentation 'none'


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    images = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    return images + list(load_sample_images().images)


@pytest.fixture
def folder(tmp_path, photographs):
    """A data set of five classes, in train/ and val/."""
    names = ("astronaut", "coffee", "cat", "temple", "a_flower_of_the_genus_Dahlia")
    for name, image in zip(names, photographs, strict=True):
        for split in ("train", "val"):
            path = tmp_path / "data" / split / name / "image.jpg"
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), image[..., ::-1])
    return tmp_path / "data"


def colours(count: int, **arguments) -> ArraySource:
    """`count` images, each of one colour and a class of its own."""
    images = [np.full((20, 30, 3), [10 * i, 255 - 10 * i, 7], np.uint8) for i in range(count)]
    return ArraySource(images, np.arange(count), **arguments)


# What is shown.


def test_a_row_is_one_example():
    """The stored image and what the network sees of it, though every epoch has its own order."""
    source = colours(10)
    rows = show.training_rows(load(CONFIG), source)
    assert [row.label for row in rows] == ["class 0", "class 3", "class 6", "class 9"]
    for row, example in zip(rows, (0, 3, 6, 9), strict=True):
        stored, *epochs = row.images
        np.testing.assert_array_equal(stored, source[example][0])
        assert len(epochs) == show.COLUMNS - 1
        for image in epochs:
            assert image.shape == (75, 75, 3)
            np.testing.assert_allclose(
                image, np.broadcast_to(stored[0, 0] / 255, image.shape), atol=1e-6
            )


def test_flip_shows_both_sides(photographs):
    config = load(CONFIG, ["augmentation=flip"])
    mirrored = []
    for row in show.training_rows(config, ArraySource(photographs, np.arange(5))):
        straight = crops.resize(row.images[0], 75) / 255
        for image in row.images[1:]:
            mirrored.append(not np.allclose(image, straight, atol=1e-6))
            if mirrored[-1]:
                np.testing.assert_allclose(image, straight[:, ::-1], atol=1e-6)
    assert 0 < sum(mirrored) < len(mirrored)


def test_inception_shows_another_image_every_epoch(photographs):
    config = load(CONFIG, ["augmentation=inception"])
    for row in show.training_rows(config, ArraySource(photographs, np.arange(5))):
        epochs = np.stack(row.images[1:])
        assert epochs.min() >= 0
        assert epochs.max() <= 1
        for first in range(len(epochs)):
            for second in range(first):
                assert np.abs(epochs[first] - epochs[second]).mean() > 0.01


def test_evaluation_shows_what_is_evaluated(photographs):
    config = load(CONFIG)
    rows = show.evaluation_rows(config, ArraySource(photographs, np.arange(5), ["a"] * 5))
    assert len(rows) == 5
    for row, photograph in zip(rows, photographs, strict=True):
        (image,) = row.images
        np.testing.assert_array_equal(image, crops.eval_crops(photograph, 75)[0])


@pytest.mark.parametrize("count", [12, 144])
def test_evaluation_shows_some_of_many_crops(photographs, count):
    config = load(CONFIG, [f"eval.crops={count}"])
    rows = show.evaluation_rows(config, ArraySource(photographs, np.arange(5)))
    assert [row.label for row in rows] == ["class 0", "class 4"]
    every = crops.eval_crops(photographs[4], 75, crops=count)
    assert len(rows[1].images) == show.COLUMNS
    for image in rows[1].images:
        assert (image == every).all(axis=(1, 2, 3)).any()
    assert len(np.unique(np.stack(rows[1].images), axis=0)) == show.COLUMNS


@pytest.mark.parametrize("size", [1, 3])
def test_small_data_sets_are_shown_whole(size):
    config = load(CONFIG)
    assert len(show.training_rows(config, colours(size))) == size
    assert len(show.evaluation_rows(config, colours(size))) == size


def test_config_is_left_as_it_was():
    config = load(CONFIG)
    before = config.to_dict()
    show.training_rows(config, colours(5))
    show.evaluation_rows(config, colours(5))
    assert config.to_dict() == before


def test_names_of_several_labels():
    images = np.zeros((2, 9, 9, 3), np.uint8)
    source = ArraySource(images, np.array([[2, 0], [1, -1]]), ["tench", "sea_lion", "cock"])
    rows = show.evaluation_rows(load(CONFIG), source)
    assert [row.label for row in rows] == ["cock, tench", "sea lion"]


# The page.


def test_folders_of_any_name_are_drawn():
    source = ArraySource(np.zeros((1, 8, 8, 3), np.uint8), [0], class_names=["caf\udce9_bar"])
    assert show._name(source, 0) == "caf? bar"


def test_texts_stay_clear_of_images_and_of_each_other(monkeypatch):
    """Also with names as long as ImageNet's, and with dollars, which are not mathematics."""
    names = ["great white shark, white shark, man-eater, Carcharodon $carcharias$"] * 20
    names[0] = "Donaudampfschifffahrtsgesellschaftskapitaen"
    monkeypatch.setattr(show, "open_source", lambda config, split: colours(20, class_names=names))
    for count in (1, 12):
        figure = show.draw(load(CONFIG, [f"eval.crops={count}"]), title="configs/digits.py")
        texts = [text.get_window_extent() for text in figure.texts if text.get_text()]
        images = [axes.get_window_extent() for axes in figure.axes]
        assert len(images) == show.ROWS * show.COLUMNS + 12
        page = figure.bbox
        for i, box in enumerate(texts):
            assert page.x0 <= box.x0 < box.x1 <= page.x1
            assert page.y0 <= box.y0 < box.y1 <= page.y1
            assert box.count_overlaps(images + texts[:i]) == 0, figure.texts[i]
        for i, box in enumerate(images):
            assert box.count_overlaps(images[:i]) == 0


def test_command_writes_a_picture(folder, tmp_path, capsys):
    output = tmp_path / "look.png"
    overrides = [
        "--config.dataset=folder",
        f"--config.data_dir={folder}",
        "--config.image_size=299",
    ]
    arguments = [f"--config={CONFIG}", "--config.augmentation=inception", *overrides]
    show.main([*arguments, f"--output={output}"])
    assert str(output) in capsys.readouterr().out
    assert output.stat().st_size < 1_000_000
    with Image.open(output) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert 600 < pixels.shape[0] < 1000
    assert 600 < pixels.shape[1] < 1000
    assert (pixels[:5] == 255).all()  # a margin
    assert (pixels < 250).any(axis=-1).mean() > 0.5  # but most of it is images


# Errors: one line, no traceback.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.image_sise=75"], "image_size"),
        (["--config.dataset=folder", "--config.data_dir=nowhere"], "nowhere"),
        (["--config.dataset=fake", "--output=no/such/folder/a.png"], "no/such/folder/a.png"),
    ],
)
def test_errors_say_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        show.main([f"--config={CONFIG}", *arguments])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_unreadable_image_is_named(folder, capsys, tmp_path):
    """A file whose head and tail are sound, so that only decoding can tell."""
    path = folder / "train" / "cat" / "image.jpg"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : -4096] = bytes(len(data[len(data) // 2 : -4096]))
    path.write_bytes(data)
    arguments = ["--config.dataset=folder", f"--config.data_dir={folder}"]
    with pytest.raises(SystemExit):
        show.main([f"--config={CONFIG}", *arguments, f"--output={tmp_path / 'a.png'}"])
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
