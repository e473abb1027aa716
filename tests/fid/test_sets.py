"""KID, Inception Score, precision, recall, density and coverage: literal loops and other tools."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inception.fid import neighbors
from inception.fid.bridge import UserError
from inception.fid.kernel import kernel_distance
from inception.fid.neighbors import neighborhoods
from inception.fid.score import inception_score


def _sets(n=60, m=70, d=5):
    rng = np.random.default_rng(0)
    reference = np.maximum(rng.normal(size=(m, d)), 0) + 0.3
    generated = np.maximum(1.2 * rng.normal(size=(n, d)) + 0.3, 0) + 0.3
    return generated.astype(np.float32), reference.astype(np.float32)


def _logits(n=57, classes=11):
    return (3 * np.random.default_rng(1).normal(size=(n, classes))).astype(np.float32)


# In a process of its own: where TensorFlow was imported before, importing PyTorch can crash.
_TORCH_FIDELITY = """
import json, torch
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full
from tests.fid.test_sets import _logits, _sets
sets, logits = [torch.from_numpy(each) for each in _sets()], torch.from_numpy(_logits())
kid = kid_features_to_metric(*sets, kid_subsets=20, kid_subset_size=30, verbose=False)
scores = {str(each): isc_features_to_metric(logits, shuffle=each) for each in (True, False)}
precision_recall = [float(each) for each in calculate_precision_recall_full(*sets)]
print(json.dumps({"kid": kid, "scores": scores, "precision_recall": precision_recall}))
"""


@pytest.fixture(scope="module")
def torch_fidelity():
    """What torch-fidelity computes of the same arrays."""
    if not importlib.util.find_spec("torch_fidelity"):
        pytest.skip("torch-fidelity is the oracle: requirements-oracles.txt")
    command = [sys.executable, "-c", _TORCH_FIDELITY]
    root = Path(__file__).parents[2]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return json.loads(found.splitlines()[-1])


@pytest.mark.rounding
def test_kid_is_the_papers_sum():
    """Every subset is the whole set, so that the draws play no part."""
    x, y = (each.astype(np.float64) for each in _sets(40, 40))

    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, pairs = 40, [(i, j) for i in range(40) for j in range(40)]
    expected = (
        sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs if i != j) / (n * (n - 1))
        - 2 * sum(k(x[i], y[j]) for i, j in pairs) / n**2
    )
    mean, std = kernel_distance(x, y, subsets=3, size=40)
    assert mean == pytest.approx(expected, rel=1e-9)
    assert std < 1e-12


@pytest.mark.rounding
def test_kid_is_torch_fidelitys(torch_fidelity):
    expected = torch_fidelity["kid"]
    mean, std = kernel_distance(*_sets(), subsets=20, size=30)
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-5)
    assert std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-5)


@pytest.mark.rounding
def test_inception_score_is_the_papers_formula():
    logits = _logits(12, 4).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = []
    for part in (p[:5], p[5:10], p[10:]):  # ADM's blocks
        q = part.mean(axis=0)
        divergences = [sum(a * np.log(a / b) for a, b in zip(row, q, strict=True)) for row in part]
        scores.append(np.exp(np.mean(divergences)))
    mean, std = inception_score(logits, block=5)
    assert mean == pytest.approx(np.mean(scores), rel=1e-12)
    assert std == pytest.approx(np.std(scores), rel=1e-9)


@pytest.mark.rounding
@pytest.mark.parametrize("shuffled", [True, False])
def test_inception_score_is_torch_fidelitys(shuffled, torch_fidelity):
    expected = torch_fidelity["scores"][str(shuffled)]
    mean, std = inception_score(_logits(), seed=2020 if shuffled else None)
    assert mean == pytest.approx(expected["inception_score_mean"], rel=1e-12)
    assert std == pytest.approx(expected["inception_score_std"], rel=1e-9)


@pytest.mark.rounding
def test_a_certain_network_has_a_finite_score():
    """ADM's and StyleGAN's float32 log of 0 would be NaN."""
    logits = 1000 * np.eye(10)
    assert inception_score(logits, splits=1).mean == pytest.approx(10)


def _by_loops(generated, reference, k, closed):
    def distance(a, b):
        return np.sqrt(((a.astype(np.float64) - b) ** 2).sum())

    def radius(i, points):
        others = (distance(points[i], p) for j, p in enumerate(points) if j != i)
        return sorted(others)[k - 1]

    def holds(points, i, radii, p):
        d = distance(points[i], p)
        return d <= radii[i] if closed else d < radii[i]

    r = [radius(i, reference) for i in range(len(reference))]
    g = [radius(i, generated) for i in range(len(generated))]
    hits = np.array([[holds(reference, i, r, p) for i in range(len(r))] for p in generated])
    back = [any(holds(generated, i, g, p) for i in range(len(g))) for p in reference]
    return hits.any(axis=1).mean(), np.mean(back), hits.sum(axis=1).mean() / k, hits.any(0).mean()


@pytest.mark.rounding
@pytest.mark.parametrize(("k", "closed"), [(3, True), (5, False)])
def test_neighborhoods_are_those_of_literal_loops(k, closed, monkeypatch):
    monkeypatch.setattr(neighbors, "_BLOCK", 1000)  # several blocks
    found = neighborhoods(*_sets(), k=k, closed=closed)
    np.testing.assert_allclose(found, _by_loops(*_sets(), k, closed), rtol=1e-12)
    assert 0 < found.precision < 1
    assert 0 < found.recall < 1


@pytest.mark.rounding
def test_neighborhoods_are_prdcs():
    prdc = pytest.importorskip("prdc", reason="it is the oracle: requirements-oracles.txt")
    generated, reference = _sets()
    expected = prdc.compute_prdc(reference, generated, nearest_k=5)
    found = neighborhoods(generated, reference, k=5, closed=False)._asdict()
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.rounding
def test_precision_and_recall_are_torch_fidelitys(torch_fidelity):
    found = neighborhoods(*_sets())
    np.testing.assert_allclose(found[:2], torch_fidelity["precision_recall"], rtol=1e-6)


def test_a_set_is_in_its_own_neighborhood_also_with_equal_points():
    generated, _ = _sets()
    twice = np.concatenate([generated, generated])  # the nearest neighbor is at distance 0
    found = neighborhoods(twice, twice, k=3)
    assert found[:2] == (1.0, 1.0)
    assert found.coverage == 1.0
    far = neighborhoods(generated + 100, generated)
    assert far == (0.0, 0.0, 0.0, 0.0)


def test_sets_that_are_too_small_or_do_not_fit_are_refused():
    x, y = _sets()
    with pytest.raises(UserError, match="subsets of 1,000 images and one side has 60"):
        kernel_distance(x, y)
    with pytest.raises(UserError, match="k=3 needs more than k images on both sides"):
        neighborhoods(x[:3], y)
    with pytest.raises(UserError, match=r"\[60, 5\] and \[70, 4\]"):
        neighborhoods(x, y[:, :4])
    with pytest.raises(UserError, match="not finite"):
        kernel_distance(x * np.nan, y, size=5)
    with pytest.raises(UserError, match="9 images cannot be split into 10 parts"):
        inception_score(_logits(9))
    with pytest.raises(UserError, match="finite"):
        inception_score(_logits() * np.nan)
