"""The Frechet distance against known values, and where other methods fail."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from inception.fid.bridge import UserError
from inception.fid.frechet import distance, distance_at_infinity
from inception.fid.statistics import Origin, Statistics, statistics_of


def _features(count, d=20, seed=0):
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, d + 1) ** -0.55
    features = np.maximum(rng.normal(size=(count, d)) * spectrum @ rng.normal(size=(d, d)), 0)
    return features + rng.uniform(0, 0.3, d)


def _moments_only(features):
    statistics = statistics_of(features)
    return Statistics(statistics.mean, statistics.covariance, statistics.count)


@pytest.mark.rounding
@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(1, 12), st.integers(0, 99))
def test_commuting_covariances_have_a_closed_form(d, seed):
    """In one basis the root is that of the eigenvalues, zeros included."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    values = rng.uniform(0, 2, (2, d)) * rng.integers(0, 2, (2, d))
    means = rng.normal(size=(2, d))
    sides = [
        Statistics(mean, basis * each @ basis.T, 10)
        for mean, each in zip(means, values, strict=True)
    ]
    expected = ((means[0] - means[1]) ** 2).sum() + (
        (np.sqrt(values[0]) - np.sqrt(values[1])) ** 2
    ).sum()
    assert distance(*sides) == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert distance(*sides[::-1]) == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.rounding
def test_the_papers_formula_at_full_rank():
    """Tr sqrtm(S1 S2), which is accurate where both are well conditioned."""
    sides = [statistics_of(_features(500, seed=seed)) for seed in (0, 1)]
    root = linalg.sqrtm(sides[0].covariance @ sides[1].covariance)
    away = sides[0].mean - sides[1].mean
    traces = sum(np.trace(side.covariance) for side in sides)
    expected = away @ away + traces - 2 * np.trace(root).real
    assert distance(*sides) == pytest.approx(expected, rel=1e-9)


@pytest.mark.rounding
@pytest.mark.parametrize("counts", [(8, 9), (8, 400), (19, 20)])
def test_below_full_rank_features_and_moments_agree(counts):
    """The factor from an eigendecomposition against the centered features themselves."""
    sides = [_features(count, seed=seed) for seed, count in enumerate(counts)]
    exact = distance(*map(statistics_of, sides))
    assert statistics_of(sides[0]).centered is not None
    assert distance(*map(_moments_only, sides)) == pytest.approx(exact, rel=1e-10)
    assert distance(_moments_only(sides[0]), statistics_of(sides[1])) == pytest.approx(exact)


@pytest.mark.rounding
@pytest.mark.parametrize("count", [2, 10, 500])
def test_a_set_is_at_no_distance_from_itself(count):
    for side in (statistics_of(_features(count)), _moments_only(_features(count))):
        assert 0 <= distance(side, side) < 1e-10


@pytest.mark.rounding
def test_one_feature_will_do():
    first, second = (Statistics(np.array([m]), np.array([[v]])) for m, v in ((0, 4), (3, 1)))
    assert distance(first, second) == pytest.approx(9 + 1)


@pytest.mark.rounding
@pytest.mark.parametrize("field", ["protocol", "layer", "weights", "precision"])
def test_statistics_of_other_origins_are_refused_by_name(field):
    origin = {"protocol": "clean", "layer": "pooled", "weights": "a" * 64, "precision": "highest"}
    first = statistics_of(_features(9), Origin(**origin))
    second = statistics_of(_features(9), Origin(**{**origin, field: "another"}))
    unknown = statistics_of(_features(9), Origin(**{**origin, field: ""}))
    with pytest.raises(UserError, match=f"differ in their {field}, .* and another"):
        distance(first, second)
    assert distance(first, unknown) < 1e-10


@pytest.mark.rounding
def test_what_is_not_a_covariance_is_refused():
    good = statistics_of(_features(9, d=2))
    bad = Statistics(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(UserError, match="smallest eigenvalue is -1, its largest 3"):
        distance(good, bad)
    with pytest.raises(UserError, match="20 and 2 features"):
        distance(statistics_of(_features(9)), good)


def test_few_images_are_refused():
    for count, message in ((0, "0 images: "), (1, "1 image: ")):
        with pytest.raises(UserError, match=message):
            statistics_of(np.ones((count, 3)))
    with pytest.raises(UserError, match="not finite"):
        statistics_of(np.full((3, 3), np.nan))
    with pytest.raises(UserError, match=r"\[images, d\]"):
        statistics_of(np.ones(3))


@pytest.mark.rounding
def test_fid_at_infinity_removes_the_bias_of_few_images():
    """Two sets of one distribution: FID is all bias, and its limit is near 0."""
    pool = _features(22_000, seed=1)
    reference, own = statistics_of(pool[:20_000]), pool[20_000:]
    plain = distance(reference, statistics_of(own))
    limit = distance_at_infinity(reference, own, smallest=200)
    assert abs(limit) < 0.3 * plain
    assert limit == distance_at_infinity(reference, own, smallest=200)
    assert limit != distance_at_infinity(reference, own, smallest=200, seed=1)
    with pytest.raises(UserError, match="1 image"):
        distance_at_infinity(reference, own[:1])
