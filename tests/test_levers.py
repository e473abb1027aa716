"""benchmarks/levers.py: every lever can be left out, and comes back."""

import pytest

from benchmarks import levers
from inception import augment, state
from inception.doctor import absent
from inception.network import batch_norm, pools
from inception.ops import convolution


def _places() -> list:
    """What the levers replace."""
    return [
        *(state.make_model, batch_norm.normalize, convolution.is_onednn_used, absent.Step),
        *(augment.barrier, batch_norm.barrier, *pools._GRADIENTS.values()),
    ]


@pytest.mark.parametrize("lever", levers.LEVERS)
def test_a_lever_is_left_out_and_comes_back(lever):
    before = _places()
    with levers.Without(lever):
        assert _places() != before
    assert _places() == before


def test_nothing_is_left_out_by_default():
    before = _places()
    with levers.Without(""):
        assert _places() == before


@pytest.mark.parametrize(
    ("flag", "word"),
    [("--on=foo", "foo"), ("--images=0", "at least 1"), ("--without=x", "siblings")],
)
def test_what_is_not_known_is_refused(flag, word, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["levers", flag])
    with pytest.raises(SystemExit):
        levers.main()
    assert word in capsys.readouterr().err
