"""Probes of representations, against what they must find."""

import numpy as np
import pytest

from kdexp.robustness.probes import cka, linear_probe, nearest

RNG = np.random.default_rng(0)


def test_a_linear_probe_finds_what_is_linear_and_nothing_else():
    points, new = RNG.normal(size=(2, 400, 2)).astype(np.float32)
    halves, quadrants = (lambda x: (x @ [1, -2] > 0).astype(int)), (lambda x: (x[:, 0] * x[:, 1] > 0).astype(int))
    right = linear_probe(points, halves(points), new, halves(new))
    assert right.dtype == np.float32
    assert right.mean() > 0.97
    assert linear_probe(1000 * points + 5, halves(points), 1000 * new + 5, halves(new)).mean() == right.mean()
    assert 0.35 < linear_probe(points, quadrants(points), new, quadrants(new)).mean() < 0.65


def test_neighbours_are_those_of_the_largest_cosine():
    known, asked = RNG.normal(size=(60, 8)), RNG.normal(size=(40, 8))
    classes, truth = RNG.integers(3, size=60), RNG.integers(3, size=40)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (known, asked)]
    closest = np.argsort(-(unit[1] @ unit[0].T), axis=1)[:, :5]
    voted = np.array([np.bincount(classes[row], minlength=3).argmax() for row in closest])
    assert nearest(known, classes, asked, truth, 5).tolist() == (voted == truth).tolist()
    assert nearest(known, classes, known, classes, 1).all()


def test_cka_is_that_of_the_gram_matrices_and_blind_to_rotation_and_scale():
    x, y = RNG.normal(size=(50, 6)), RNG.normal(size=(50, 9))
    center = np.eye(50) - 1 / 50
    k, m = (center @ z @ z.T @ center for z in (x, y))  # Kornblith et al. 2019, equations 3 and 4
    assert cka(x, y) == pytest.approx((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))
    rotation, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
    assert cka(x, 3 * x @ rotation + 7) == pytest.approx(1)
    assert cka(x, y) == pytest.approx(cka(y, x))
    assert np.isnan(cka(x, np.ones((50, 3))))
