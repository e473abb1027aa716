"""What processes compare before they train, and how differences are named."""

import numpy as np
import pytest
from etils import epath

from inception import config
from inception.data.sources import ArraySource
from inception.training import agreement
from tests.processes import start_together


def _source(images: int = 3, names: tuple[str, ...] = ("a", "b")) -> ArraySource:
    return ArraySource(np.zeros((images, 8, 8, 1), np.uint8), np.zeros(images, int), names)


@pytest.fixture
def facts(tiny, tmp_path):
    """Makes what a process tells; takes overrides and the data."""

    def make(*overrides: str, source: ArraySource | None = None, variables=None) -> dict:
        sources = {"training": source or _source()}
        return agreement.facts(tiny(*overrides), epath.Path(tmp_path), sources, variables)

    return make


def test_equal_processes_agree(facts):
    assert agreement.compare([facts(), facts(), facts()]) == ""


def test_what_is_a_hosts_own_may_differ(facts):
    other = facts("data_dir=/elsewhere", "eval.data_dir=/there", "data_threads=3")
    assert agreement.compare([facts(), other]) == ""


@pytest.mark.parametrize(
    ("overrides", "source", "named"),
    [
        (["seed=3"], None, "config.seed is 0 in process 0 and 3 in process 2"),
        ([], _source(4), "number of training images is 3 in process 0 and 4 in process 2"),
        ([], _source(names=("b", "a")), "classes of training"),
    ],
)
def test_other_configs_and_data_are_named(facts, overrides, source, named):
    other = facts(*overrides, source=source)
    assert named in agreement.compare([facts(), facts(), other])


def test_other_weights_under_the_same_name_are_named(facts):
    """Every host reads config.init_from itself, and loads what it finds there."""

    def start(value: float, name: str = "kernel") -> dict:
        variables = {"params": {"a": {name: np.full((2, 3), value, np.float32)}}}
        return facts("init_from=torchvision", variables=variables)

    assert agreement.compare([start(1.0), start(1.0)]) == ""
    for other in (start(np.nextafter(np.float32(1), 2)), start(1.0, "bias"), facts()):
        assert "weights of config.init_from='torchvision'" in agreement.compare([start(1.0), other])


def test_other_libraries_code_and_checkpoints_are_named(facts, tmp_path, monkeypatch):
    here = facts()
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    (tmp_path / "checkpoints" / "12.orbax-checkpoint-tmp").mkdir()
    monkeypatch.setattr(agreement, "_version", lambda name: f"{name} 0")
    monkeypatch.setattr(agreement, "_MAX_NAMED", 1000)
    there = facts() | {"inception/training/loop.py": "other"}
    message = agreement.compare([here, there])
    assert "newest checkpoint is None in process 0 and 7 in process 1" in message
    assert "jax is " in message
    assert "and 'numpy 0' in process 1" in message
    assert "inception/training/loop.py is " in message
    assert "inception/network/model.py" not in message


def test_many_differences_are_counted(facts):
    other = dict.fromkeys(facts(), "other")
    message = agreement.compare([facts(), other])
    assert f"and {len(other) - 5} more" in message


def test_every_field_but_the_hosts_own_is_compared(facts, tiny):
    fields = {f"config.{name}" for name in config.flatten(tiny())}
    own = {"config.data_dir", "config.eval.data_dir", "config.data_threads"}
    assert fields - facts().keys() == own


def test_one_process_has_nobody_to_ask(tiny, tmp_path):
    agreement.check(tiny(), epath.Path(tmp_path), {"training": _source()})


_START = """
import sys
import numpy as np
from etils import epath
import inception
from inception import command_line
from inception.distributed import processes
from inception.training import agreement

def main():
    processes.connect()
    config = inception.load_config("configs/digits.py", ["init_from=torchvision"])
    bias = np.full(3, processes.process_index_and_count()[0] == int(sys.argv[1]), np.float32)
    agreement.check(config, epath.Path("runs/x"), {}, {"params": {"bias": bias}})

sys.exit(command_line.run(main))
"""


def test_two_processes_with_other_weights_do_not_start():
    """Process 1 has its own ones; where nobody has, both go on."""
    for other, status in ((1, 1), (5, 0)):
        started = start_together(2, _START, other, stderr=True)
        said = [process.communicate(timeout=120)[0] for process in started]
        assert [process.returncode for process in started] == [status, status]
        assert ["weights of config.init_from='torchvision'" in text for text in said] == [
            status == 1
        ] * 2
