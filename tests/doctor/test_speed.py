"""What the doctor measures with: speeds against clocks of our own, memory against sizes."""

import time

import jax
import pytest

import inception
from inception.doctor import speed
from inception.training.loop import Trainer


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(speed, "MIN_SECONDS", 0.3)


def test_the_input_is_as_fast_as_its_source(tiny, digits, short):
    """Two threads that wait 20 ms for each image deliver 100 a second."""

    class Slow:
        def __getattr__(self, name):
            return getattr(source, name)

        def __len__(self):
            return len(source)

        def __getitem__(self, index):
            time.sleep(0.02)
            return source[index]

    source = digits(slice(0, 50))
    config = tiny("data_threads=2")
    images_per_second = speed.measure_input(config, Slow())
    threads = speed.threads(config)
    assert 25 * threads < images_per_second < 60 * threads


@pytest.mark.slow
def test_the_step_is_the_runs_own(tiny, digits, short):
    """The state and a batch are in its memory, and it ran several times."""
    config, source = tiny(), digits(slice(0, 1437))  # the program of test_main.py
    start = time.perf_counter()
    step = speed.measure_step(config, source)
    # It ran at least three times in the time that the whole measurement took.
    assert step.images_per_second > 3 * config.batch_size / (time.perf_counter() - start)
    assert step.batch_size == step.micro_batch == config.batch_size

    trainer = Trainer(config, "", source, source)
    state = trainer.recipe.abstract_state(trainer.mesh)
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    batch_bytes = config.batch_size * (75 * 75 * 3 + 3 * 4)
    assert step.constant_bytes == pytest.approx(state_bytes + batch_bytes, rel=0.01)
    # The backward pass keeps at least the first convolution's output, 37x37x16.
    assert step.temporary_bytes > config.batch_size * 37 * 37 * 16 * 4


@pytest.mark.parametrize(
    ("overrides", "batch_size"),
    [
        ([], 8),  # 5.7 G multiply-adds an image, and a step should take 50 G
        (["image_size=75"], 224),  # 7 groups of 32
        (["model.width_multiplier=0.25"], 96),
        (["model.width_multiplier=0.25", "model.batch_norm_group=0"], 114),
    ],
)
def test_on_a_cpu_a_large_batch_is_measured_smaller(overrides, batch_size):
    config = inception.load_config("configs/v3.py", ["accumulation_steps=2", *overrides])
    small = speed.measurable(config, num_classes=1000)
    assert (small.batch_size, small.accumulation_steps) == (batch_size, 1)
    assert config.batch_size == 1536
    assert speed.measurable(small, num_classes=1000) is small  # a small one as it is
