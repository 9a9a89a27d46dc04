"""LSGAN: the paper's divergence on discrete distributions, labels, gradients far out."""

import numpy as np
import pytest
import tensorflow as tf

from tfgen.losses import adversarial
from tfgen.models.gan import lsgan
from tfgen.networks.mlp import mlp

P_DATA = np.array([0.5, 0.3, 0.2, 0.0])
P_MODEL = np.array([0.1, 0.2, 0.3, 0.4])
LABELS = [(-1.0, 1.0, 0.0), (0.0, 1.0, 1.0)]


def small(**arguments) -> lsgan.LSGAN:
    return lsgan.LSGAN(
        mlp((4,), (8,), (2,), seed=1, name="generator"),
        mlp((2,), (8,), (1,), seed=2, name="discriminator"),
        **arguments,
    )


def optimum(a: float, b: float) -> np.ndarray:
    """Numerically: the loss is quadratic at each point, so one Newton step finds its minimum."""
    logits = tf.Variable(np.zeros(4))
    losses = small(fake_label=a, real_label=b).losses_of.discriminator
    with tf.GradientTape() as tape:
        each_pair = losses(logits[:, None], logits[None, :])  # E over x and G(z) independently
        total = tf.reduce_sum(P_DATA[:, None] * P_MODEL[None, :] * each_pair)
    return logits.numpy() - tape.gradient(total, logits).numpy() / (P_DATA + P_MODEL)


@pytest.mark.parametrize(("a", "b", "c"), LABELS)
def test_optimum_of_the_discriminator(a: float, b: float, c: float) -> None:
    expected = (b * P_DATA + a * P_MODEL) / (P_DATA + P_MODEL)  # Mao et al. 2017, eq. 5
    np.testing.assert_allclose(optimum(a, b), expected, rtol=1e-12)


@pytest.mark.parametrize(("a", "b", "c"), LABELS)
def test_value_at_the_optimum_is_the_pearson_divergence(a: float, b: float, c: float) -> None:
    best = optimum(a, b)
    pearson = np.sum((P_DATA - P_MODEL) ** 2 / (P_DATA + P_MODEL))
    value = 0.5 * np.sum(P_DATA * (best - b) ** 2 + P_MODEL * (best - a) ** 2)
    assert value == pytest.approx((b - a) ** 2 / 4 * (1 - pearson / 2), rel=1e-12)
    if c == 0.0:
        both = np.sum(P_DATA * (best - c) ** 2) + np.sum(P_MODEL * (best - c) ** 2)
        assert both == pytest.approx(pearson, rel=1e-12)


def test_far_samples_that_are_called_real_still_get_a_gradient() -> None:
    far = tf.constant([[30.0]])
    slopes = []
    for pair in (small().losses_of, adversarial.objective("non_saturating")):
        with tf.GradientTape() as tape:
            tape.watch(far)
            loss = pair.generator(far)
        slopes.append(float(tape.gradient(loss, far)[0, 0]))
    assert slopes[0] == 30.0
    assert abs(slopes[1]) < 1e-12


def test_labels_reach_the_losses_and_the_config() -> None:
    model = small(fake_label=0.0, real_label=1.0, wanted_label=1.0, positive_label=0.9)
    real, fake = tf.constant([[0.9]]), tf.constant([[0.0]])
    assert float(model.losses_of.discriminator(real, fake)[0, 0]) == pytest.approx(0.0, abs=1e-12)
    assert float(model.losses_of.generator(fake)[0, 0]) == 0.5
    twin = lsgan.LSGAN.from_config(model.get_config())
    assert twin.get_config() == model.get_config()


def test_equal_labels_are_refused() -> None:
    with pytest.raises(
        ValueError, match="must differ. Received: --fake_label=1.0 --real_label=1.0"
    ):
        lsgan.HParams(fake_label=1.0)
