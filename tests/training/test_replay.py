"""One step again: the same numbers, bit for bit, and the same images."""

import cv2
import pytest

import inception
from inception.errors import CheckpointError
from inception.workdir.checkpoints import Checkpoints
from inception.workdir.logbook import read_metrics

TRAIN, HELD_OUT = slice(0, 40), slice(100, 120)


@pytest.fixture(scope="module")
def run(tiny, digits, tmp_path_factory):
    """Six steps, of which each is logged and two are saved."""
    workdir = tmp_path_factory.mktemp("run")
    fields = ["num_epochs=2.4", "schedule=staircase", "augmentation=inception"]
    config = tiny(*fields, "log_every_steps=1", "checkpoint_every_steps=2", "keep_checkpoints=2")
    inception.train_and_evaluate(config, workdir, digits(TRAIN), digits(HELD_OUT))
    return config, workdir


# From the start, for the checkpoint of step 2 is gone; from that of step 4.
@pytest.mark.parametrize("step", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_a_step_is_what_it_was_bit_for_bit(run, digits, step, capsys):
    config, workdir = run
    files = lambda: {path for path in workdir.rglob("*") if path.is_file()}  # noqa: E731
    picture, before = workdir / f"replay_{step}.png", files()
    logged = next(line for line in read_metrics(workdir) if line["step"] == step)
    replayed = inception.replay_step(config, workdir, step, digits(TRAIN))
    names = ("loss", "main_loss", "aux_loss", "top1", "grad_norm", "learning_rate", "weight_norm")
    assert {name: replayed[name] for name in names} == {
        name: logged[f"train/{name}"] for name in names
    }
    assert replayed["finite"]
    images = [digits(TRAIN)[index] for index in replayed["example"]]
    assert [label for _, label in images] == replayed["label"]
    output = capsys.readouterr().out
    for part in (f"{replayed['loss']:.6g}", "Mixed_5b", f"{replayed['example'][0]} ("):
        assert part in output
    assert files() == before | {picture}  # and nothing else of the run has changed
    height, width, _ = cv2.imread(str(picture)).shape
    assert height > 300 < width
    assert picture.stat().st_size < 500_000
    with Checkpoints(workdir) as saved:
        assert saved.steps() == [4, 6]


@pytest.mark.parametrize("step", [0, 7])
def test_a_step_that_the_run_does_not_have_is_refused(run, digits, step):
    with pytest.raises(CheckpointError, match=rf"--step={step}: .* has 6 steps"):
        inception.replay_step(*run, step, digits(TRAIN))


def test_there_must_be_a_run_of_this_config(run, tiny, digits, tmp_path):
    config, workdir = run
    with pytest.raises(CheckpointError, match="holds no run"):
        inception.replay_step(config, tmp_path, 1, digits(TRAIN))
    with pytest.raises(CheckpointError, match=r"config\.label_smoothing"):
        inception.replay_step(tiny("label_smoothing=0.2"), workdir, 1, digits(TRAIN))
