"""How much the representations of a network are good for, apart from its own classifier.

Representations are what the classifier gets, of the frozen network, flattened to (N, D) float arrays.
"""

import numpy as np

Array = np.ndarray


def linear_probe(fit: Array, fit_target: Array, test: Array, test_target: Array) -> Array:
    """Which samples a linear classifier on the representations gets right (Alain and Bengio 2016, arXiv 1610.01644).

    It is multinomial logistic regression on standardised features, with scikit-learn's L2 penalty of C = 1.

    Args:
        fit: (n, D) to train on.
        fit_target: (n,) classes.
        test: (m, D).
        test_target: (m,).

    Returns:
        (m,) float: 1 where it is right, else 0.
    """
    from sklearn.linear_model import LogisticRegression  # here: it takes a while to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return np.asarray(probe.fit(fit, fit_target).predict(test) == test_target, dtype=np.float32)


def nearest(fit: Array, fit_target: Array, test: Array, test_target: Array, n_neighbors: int) -> Array:
    """Which samples get the class that most of their nearest neighbors by cosine similarity have.

    Args:
        fit: (n, D) among which the neighbors are.
        fit_target: (n,) classes.
        test: (m, D).
        test_target: (m,).
        n_neighbors: how many of them, >= 1.

    Returns:
        (m,) float: 1 where it is right, else 0.
    """
    from sklearn.neighbors import KNeighborsClassifier

    votes = KNeighborsClassifier(min(n_neighbors, len(fit)), metric="cosine").fit(fit, fit_target)
    return np.asarray(votes.predict(test) == test_target, dtype=np.float32)


def cka(x: Array, y: Array) -> float:
    """Linear centred kernel alignment of two networks' representations of the same samples.

    ``||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F)`` with centred columns (Kornblith et al. 2019, arXiv 1905.00414, section 3):
    1 when one is a rotation of the other and scaled, near 0 when they have nothing in common.

    Args:
        x: (n, D).
        y: (n, E).

    Returns:
        In [0, 1]; NaN where a network gives the same for all samples.
    """
    x, y = (np.asarray(part, dtype=np.float64) - part.mean(0) for part in (x, y))
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / own) if own > 0 else float("nan")
