"""FID, KID, inception score and MODE score: functions of features or of class logits.

    FID  = |m_r - m_f|^2 + Tr(C_r + C_f - 2 (C_r C_f)^(1/2))   covariances divided by N - 1
    KID  = unbiased MMD^2 with k(x, y) = (x.y / d + 1)^3, mean over random subsets
    IS   = exp(E_x KL(p(y|x) || p(y))),  p(y) = E_x p(y|x) over the same generated x
    MODE = exp(E_x KL(p(y|x) || q(y)) - KL(p(y) || q(y))),  q the labels of the training data

All is computed in float64. The numbers belong to the features that they are of, and to N: FID is
biased upwards by a term that falls as 1 / N, and KID is not. None is comparable across features.

References: M. Heusel et al. GANs Trained by a Two Time-Scale Update Rule. NeurIPS 2017, eq. 6.
M. Binkowski et al. Demystifying MMD GANs. ICLR 2018, section 4. T. Salimans et al. Improved
Techniques for Training GANs. NeurIPS 2016, section 4. T. Che et al. Mode Regularized GANs. ICLR
2017, section 4.1.2.
"""

import numpy as np
from absl import logging
from scipy import special


def fid(real: np.ndarray, fake: np.ndarray) -> float:
    """Frechet distance of Gaussians fitted to features; warns where N <= d.

    Args:
        real: features [N, d].
        fake: features [M, d].

    Returns:
        At least 0 but for rounding, in squared units of the features.

    Raises:
        ValueError: if the features do not fit together, are not finite or fewer than 2.
    """
    real, fake = checked(real, fake, least=2)
    for name, features in (("real", real), ("generated", fake)):
        if len(features) <= features.shape[1]:
            logging.warning(
                "FID of %d %s samples with %d features: their covariance is singular; use more "
                "samples than features.",
                len(features),
                name,
                features.shape[1],
            )
    return frechet_distance(*moments(real), *moments(fake))


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and covariance [d, d], divided by N - 1, of features [N, d]."""
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other: np.ndarray
) -> float:
    """|m - m'|^2 + Tr(C + C' - 2 (C C')^(1/2)) of two Gaussians.

    The trace of the root is the sum of the roots of the eigenvalues of C C', and these are the
    singular values of C^(1/2) C'^(1/2): real and not negative, however singular C is.

    Args:
        mean: m [d].
        covariance: C [d, d].
        other_mean: m' [d].
        other: C' [d, d].
    """
    roots = np.linalg.svd(_root(covariance) @ _root(other), compute_uv=False)
    distance = ((mean - other_mean) ** 2).sum()
    return float(distance + np.trace(covariance) + np.trace(other) - 2 * roots.sum())


def _root(covariance: np.ndarray) -> np.ndarray:
    """C^(1/2) of a positive semidefinite C; eigenvalues below 0 are rounding."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def kid(
    real: np.ndarray,
    fake: np.ndarray,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Squared MMD with the cubic kernel, over random subsets drawn without replacement.

    Args:
        real: features [N, d].
        fake: features [M, d].
        subsets: number of subsets.
        subset_size: features of each kind in a subset; at most as many as there are.
        seed: int; the subsets are a function of it.

    Returns:
        Mean and standard deviation over the subsets. The mean may lie slightly below 0.

    Raises:
        ValueError: if the features do not fit together, are not finite or fewer than 2.
    """
    real, fake = checked(real, fake, least=2)
    if subsets < 1 or subset_size < 2:
        raise ValueError(
            "subsets must be at least 1 and subset_size at least 2. "
            f"Received: subsets={subsets}, subset_size={subset_size}"
        )
    size = min(subset_size, len(real), len(fake))
    # RandomState and not default_rng: NumPy promises that its numbers never change.
    random = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        some_real = real[random.choice(len(real), size, replace=False)]
        some_fake = fake[random.choice(len(fake), size, replace=False)]
        values.append(_squared_mmd(some_real, some_fake))
    return float(np.mean(values)), float(np.std(values))


def _squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased: pairs of an example with itself are left out. [n, d] twice."""
    size, dimensions = x.shape

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / dimensions + 1.0) ** 3

    within = 0.0
    for sample in (x, y):
        values = kernel(sample, sample)
        within += (values.sum() - np.trace(values)) / (size * (size - 1))
    return within - 2.0 * kernel(x, y).mean()


def inception_score(logits: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """exp of the mutual information of class and image, of each of `splits` parts in order.

    Args:
        logits: [N, K], or log probabilities, which are logits as well.
        splits: number of parts; at most N.

    Returns:
        Mean and (population) standard deviation over the parts; each part's score is in [1, K].

    Raises:
        ValueError: if there are fewer logits than parts, or they are not finite.
    """
    logs = _log_probabilities(logits)
    if not 1 <= splits <= len(logs):
        raise ValueError(
            f"splits must be from 1 to the number of logits, {len(logs)}. Received: {splits}"
        )
    scores = []
    for part in range(splits):
        rows = logs[part * len(logs) // splits : (part + 1) * len(logs) // splits]
        p = np.exp(rows)
        scores.append(np.exp(special.rel_entr(p, p.mean(axis=0)).sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def mode_score(logits: np.ndarray, labels: np.ndarray) -> float:
    """MODE score of Che et al. 2017 by both of its terms.

    Since E KL(p(y|x) || q) - KL(p(y) || q) = E KL(p(y|x) || p(y)) for every q with full support,
    it equals the inception score of one part: the training labels cancel. It differs where a class
    is missing from the training labels, and is undefined then.

    Args:
        logits: of generated images, [N, K], or log probabilities.
        labels: frequencies q [K] of the classes in the training data, of sum 1, all above 0.

    Raises:
        ValueError: if the frequencies do not fit the logits or one of them is 0.
    """
    p = np.exp(_log_probabilities(logits))
    q = np.asarray(labels, np.float64)
    if q.shape != p.shape[1:] or not (q > 0).all() or abs(q.sum() - 1) > 1e-5:
        raise ValueError(
            f"labels must be {p.shape[1]} frequencies above 0, of sum 1. "
            f"Received: shape {q.shape}, smallest {q.min()}, sum {q.sum()}"
        )
    sharp = special.rel_entr(p, q).sum(axis=1).mean()
    broad = special.rel_entr(p.mean(axis=0), q).sum()
    return float(np.exp(sharp - broad))


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    # -inf is the logarithm of probability 0, but not every class can have it.
    if logits.ndim != 2 or not np.isfinite(logits.max(axis=1)).all():
        raise ValueError(
            f"logits must be [N, K] without NaN or +inf. Received: shape {logits.shape}"
        )
    return special.log_softmax(logits, axis=1)


def checked(real: np.ndarray, fake: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, if they are finite features [N, d], [M, d] with N and M at least `least`.

    Raises:
        ValueError: if they are not.
    """
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            "real and fake must be features [N, d] and [M, d] of the same d. "
            f"Received: shapes {real.shape} and {fake.shape}"
        )
    for name, features in (("real", real), ("fake", fake)):
        if len(features) < least:
            raise ValueError(f"{name} must be at least {least} samples. Received: {len(features)}")
        if not np.isfinite(features).all():
            bad = int((~np.isfinite(features).all(axis=1)).sum())
            raise ValueError(f"{name} features must be finite. Received: {bad} samples are not")
    return real, fake
