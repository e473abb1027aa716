"""The picture of a config's data: what is in it, and that it can be read."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from inception import command_line
from inception.data import DataError, crops
from inception.data.preprocessing import Preprocessing
from inception.data.sources import ArraySource
from inception.show import __main__ as show
from inception.show import images, page

CONFIG = Path(__file__).parents[2] / "configs/digits.py"  # 75x75
PHOTOGRAPHS = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]


def colors(count: int, **arguments) -> ArraySource:
    """`count` images, each of one color and a class of its own."""
    images = [np.full((20, 30, 3), [10 * i, 255 - 10 * i, 7], np.uint8) for i in range(count)]
    return ArraySource(images, np.arange(count), **arguments)


def training(source, augmentation: str = "none"):
    return images.training_rows(source, seed=0, image_size=75, augmentation=augmentation)


def evaluation(source, crops: int = 1):
    return images.evaluation_rows(source, Preprocessing(75), crops)


def test_a_row_is_of_one_example_though_every_epoch_has_its_own_order():
    rows = training(colors(10))
    assert [row.label for row in rows] == ["class 0", "class 3", "class 6", "class 9"]
    for row in rows:
        stored, *epochs = row.images
        assert np.shape(epochs) == (page.COLUMNS - 1, 75, 75, 3)
        expected = np.broadcast_to(stored[0, 0] / 255, np.shape(epochs))
        np.testing.assert_allclose(epochs, expected, atol=1e-6)


def test_every_epoch_augments_in_its_own_way():
    for row in training(ArraySource(PHOTOGRAPHS, np.arange(3)), "inception"):
        epochs = np.stack(row.images[1:])
        assert 0 <= epochs.min() < epochs.max() <= 1
        for first, second in pairwise(epochs):
            assert np.abs(first - second).mean() > 0.01


@pytest.mark.parametrize("count", [1, 12, 144])
def test_evaluation_shows_what_is_evaluated(count):
    rows = evaluation(ArraySource(PHOTOGRAPHS, np.arange(3), ["a", "sea_lion", "c"]), count)
    shown = np.stack(rows[-1].images)
    assert rows[-1].captions == (["a", "sea lion", "c"] if count == 1 else ())
    assert len(np.unique(shown, axis=0)) == (3 if count == 1 else page.COLUMNS)
    every = crops.eval_crops(PHOTOGRAPHS[2], Preprocessing(75), count)
    for image in shown[-1:] if count == 1 else shown:
        assert (image == every).all(axis=(1, 2, 3)).any()


def test_names_of_several_labels():
    pixels = np.zeros((2, 9, 9, 3), np.uint8)
    source = ArraySource(pixels, np.array([[2, 0], [1, -1]]), ["tench", "sea_lion", "cock"])
    assert evaluation(source)[0].captions == ["cock, tench", "sea lion"]


def test_texts_stay_clear_of_images_and_of_each_other():
    """Also names as long as ImageNet's, with dollars, which are not mathematics."""
    names = ["great white shark, white shark, man-eater, Carcharodon $carcharias$"] * 20
    source = colors(20, class_names=["Donaudampfschifffahrtsgesellschaftskapitaen", *names[1:]])
    parts = (page.Part("Title", "details", rows) for rows in (training(source), evaluation(source)))
    figure = page.draw(*parts)
    figure.draw_without_rendering()
    texts = [*figure.texts, *(cell.title for cell in figure.axes)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    cells = [cell.get_window_extent() for cell in figure.axes]
    assert len(boxes) == 4 + page.COLUMNS + images.EXAMPLES + 2 * page.COLUMNS
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert box.count_overlaps(cells + boxes[:i]) == 0


def test_the_command_writes_a_picture_and_names_what_cannot_be_read(tmp_path, capsys):
    for split in ("train", "val"):
        for name, image in zip("abc", PHOTOGRAPHS, strict=True):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(image).save(tmp_path / split / name / "image.jpg")
    output = tmp_path / "look.png"
    arguments = [f"--config={CONFIG}", "--config.dataset=folder", f"--config.data_dir={tmp_path}"]
    show.main([*arguments, f"--output={output}"])
    assert str(output) in capsys.readouterr().out
    pixels = np.asarray(Image.open(output).convert("RGB"))
    assert (pixels[:5] == 255).all()  # a margin
    assert (pixels < 250).any(axis=-1).mean() > 0.4  # images
    bad = tmp_path / "train" / "b" / "image.jpg"
    bad.write_bytes(bad.read_bytes()[:20_000] + bytes(5000))
    assert command_line.run(lambda: show.main([*arguments, f"--output={tmp_path / 'b.png'}"])) == 1
    assert str(bad) in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()
    with pytest.raises(DataError, match="'nope' of fake"):
        show.main([f"--config={CONFIG}", "--config.dataset=fake", "--config.split=nope"])
