"""The savings that the paper states, counted."""

import math

import pytest

from inception.cost.factorizations import FACTORIZATIONS, Factorization, multiply_adds


@pytest.mark.parametrize("each", FACTORIZATIONS, ids=str)
def test_a_saving_is_the_papers(each):
    filters = sum(height * width for height, width in each.factors)
    assert each.saving(grid=5, channels=3) == pytest.approx(
        100 * (1 - filters / (each.kernel[0] * each.kernel[1]))
    )
    if not math.isnan(each.reported):
        assert round(each.saving(grid=5, channels=3)) == each.reported


def test_it_is_counted_and_named():
    assert multiply_adds([(3, 1), (1, 3)], grid=4, channels=2) == 2 * 4 * 4 * 3 * 2 * 2
    assert str(Factorization((7, 7), ((1, 7), (7, 1)), "")) == "7x7 as 1x7, 7x1"
