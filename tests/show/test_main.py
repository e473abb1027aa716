"""The picture of a config's data: what is in it, and that it can be read."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_images

from inception import command_line
from inception.data import DataError, crops
from inception.data.decode import BadImage
from inception.data.preprocessing import Preprocessing
from inception.data.sources import ArraySource
from inception.show import __main__ as show
from inception.show import images, page

CONFIG = Path(__file__).parents[2] / "configs/digits.py"  # 75x75, augmentation 'none'


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


def training(source, augmentation: str = "none"):
    return images.training_rows(source, seed=0, image_size=75, augmentation=augmentation)


def evaluation(source, crops: int = 1):
    return images.evaluation_rows(source, Preprocessing(75), crops)


# What is shown.


def test_a_row_is_of_one_example():
    """The stored image and what the network sees of it, though every epoch has its own order."""
    source = colours(10)
    rows = training(source)
    assert [row.label for row in rows] == ["class 0", "class 3", "class 6", "class 9"]
    for row, example in zip(rows, (0, 3, 6, 9), strict=True):
        stored, *epochs = row.images
        np.testing.assert_array_equal(stored, source[example][0])
        assert len(epochs) == page.COLUMNS - 1
        for image in epochs:
            assert image.shape == (75, 75, 3)
            np.testing.assert_allclose(
                image, np.broadcast_to(stored[0, 0] / 255, image.shape), atol=1e-6
            )


def test_flip_shows_both_sides(photographs):
    mirrored = []
    for row in training(ArraySource(photographs, np.arange(5)), "flip"):
        straight = crops.resize(row.images[0], 75) / 255
        for image in row.images[1:]:
            mirrored.append(not np.allclose(image, straight, atol=1e-6))
            if mirrored[-1]:
                np.testing.assert_allclose(image, straight[:, ::-1], atol=1e-6)
    assert 0 < sum(mirrored) < len(mirrored)


def test_inception_shows_another_image_every_epoch(photographs):
    for row in training(ArraySource(photographs, np.arange(5)), "inception"):
        epochs = np.stack(row.images[1:])
        assert epochs.min() >= 0
        assert epochs.max() <= 1
        for first in range(len(epochs)):
            for second in range(first):
                assert np.abs(epochs[first] - epochs[second]).mean() > 0.01


def test_evaluation_shows_what_is_evaluated(photographs):
    (row,) = evaluation(ArraySource(photographs, np.arange(5), ["a"] * 5))
    assert row.captions == ["a"] * 5
    for image, photograph in zip(row.images, photographs, strict=True):
        np.testing.assert_array_equal(image, crops.eval_crops(photograph, Preprocessing(75))[0])


@pytest.mark.parametrize("count", [12, 144])
def test_evaluation_shows_some_of_many_crops(photographs, count):
    rows = evaluation(ArraySource(photographs, np.arange(5)), count)
    assert [row.label for row in rows] == ["class 0", "class 4"]
    every = crops.eval_crops(photographs[4], Preprocessing(75), count)
    shown = np.stack(rows[1].images)
    assert len(np.unique(shown, axis=0)) == page.COLUMNS
    for image in shown:
        assert (image == every).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("size", [1, 3])
def test_small_data_sets_are_shown_whole(size):
    assert len(training(colours(size))) == size
    assert len(evaluation(colours(size))[0].images) == size


def test_names_of_several_labels():
    pixels = np.zeros((2, 9, 9, 3), np.uint8)
    source = ArraySource(pixels, np.array([[2, 0], [1, -1]]), ["tench", "sea_lion", "cock"])
    assert evaluation(source)[0].captions == ["cock, tench", "sea lion"]


# The page.


def test_folders_of_any_name_are_drawn():
    source = ArraySource(np.zeros((1, 8, 8, 3), np.uint8), [0], class_names=["caf\udce9_bar"])
    assert images._name(source, 0) == "caf? bar"


@pytest.mark.parametrize("crops", [1, 12])
def test_texts_stay_clear_of_images_and_of_each_other(crops):
    """Also with names as long as ImageNet's, and with dollars, which are not mathematics."""
    names = ["great white shark, white shark, man-eater, Carcharodon $carcharias$"] * 20
    names[0] = "Donaudampfschifffahrtsgesellschaftskapitaen"
    source = colours(20, class_names=names)
    above = page.Part("configs/digits.py: training", "folder, train", training(source))
    below = page.Part("Evaluation", "folder, val", evaluation(source, crops))
    figure = page.draw(above, below)
    figure.draw_without_rendering()
    texts = [*figure.texts, *(cell.title for cell in figure.axes)]
    texts = [text.get_window_extent() for text in texts if text.get_text()]
    cells = [cell.get_window_extent() for cell in figure.axes]
    assert len(texts) == 4 + page.COLUMNS + images.EXAMPLES + (12 if crops == 1 else 2)
    assert len(cells) == images.EXAMPLES * page.COLUMNS + 12
    for i, box in enumerate(texts):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert box.count_overlaps(cells + texts[:i]) == 0
    for i, box in enumerate(cells):
        assert box.count_overlaps(cells[:i]) == 0
        assert box.width == pytest.approx(box.height)


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


# Errors.


def test_what_cannot_be_opened_or_written(tmp_path):
    with pytest.raises(DataError, match="'nope' of fake"):
        show.main([f"--config={CONFIG}", "--config.dataset=fake", "--config.split=nope"])
    with pytest.raises(OSError, match=r"no/such/folder/a\.png"):
        show.main([f"--config={CONFIG}", "--config.dataset=fake", "--output=no/such/folder/a.png"])


def test_an_unreadable_image_is_named(folder, capsys, tmp_path):
    """A file whose head and tail are sound, so that only decoding can tell."""
    path = folder / "train" / "cat" / "image.jpg"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : -4096] = bytes(len(data[len(data) // 2 : -4096]))
    path.write_bytes(data)
    arguments = [f"--config={CONFIG}", "--config.dataset=folder", f"--config.data_dir={folder}"]
    output = tmp_path / "a.png"
    with pytest.raises(BadImage, match=str(path)):
        show.main([*arguments, f"--output={output}"])
    assert command_line.run(lambda: show.main([*arguments, f"--output={output}"])) == 1
    assert str(path) in capsys.readouterr().err
    assert not output.exists()
