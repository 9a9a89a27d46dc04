"""Adversarial losses by numbers that can be checked by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tfgen.losses import adversarial

REAL = np.array([[0.0], [2.0]], np.float32)
FAKE = np.array([[0.0], [-1.0]], np.float32)
LOG_2 = np.log(2)


def softplus(x):
    return np.log1p(np.exp(x))


EXPECTED = {  # name: (discriminator at REAL and FAKE, generator at FAKE)
    "minimax": ([LOG_2 + LOG_2, softplus(-2) + softplus(-1)], [-LOG_2, -softplus(-1)]),
    "non_saturating": ([LOG_2 + LOG_2, softplus(-2) + softplus(-1)], [LOG_2, softplus(1)]),
    "wasserstein": ([0 - 0, -1 - 2], [0, 1]),
    # 1/2 (0 - 1)^2 + 1/2 (0 + 1)^2 and 1/2 (2 - 1)^2 + 1/2 (-1 + 1)^2; 1/2 (-1)^2
    "least_squares": ([1.0, 0.5], [0.0, 0.5]),
    # 1/2 (0 - 1)^2 + 0 and 1/2 (2 - 1)^2 + 1/2 (-1)^2; 1/2 (0 - 1)^2 and 1/2 (-1 - 1)^2
    "least_squares_01": ([0.5, 1.0], [0.5, 2.0]),
    "hinge": ([1 + 1, 0 + 0], [0, 1]),
}


@pytest.mark.parametrize("name", adversarial.OBJECTIVES)
def test_values(name: str) -> None:
    pair = adversarial.objective(name)
    on_both, on_fake = EXPECTED[name]
    np.testing.assert_allclose(pair.discriminator(REAL, FAKE)[:, 0], on_both, rtol=1e-6)
    np.testing.assert_allclose(pair.generator(FAKE)[:, 0], on_fake, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", adversarial.OBJECTIVES)
def test_shape_of_patches_is_kept_and_extreme_logits_are_finite(name: str) -> None:
    pair = adversarial.objective(name)
    logits = tf.constant([-1e4, -30.0, 30.0, 1e4], shape=[1, 2, 2, 1])
    for loss in (pair.discriminator(logits, -logits), pair.generator(logits)):
        assert loss.shape == logits.shape
        assert np.isfinite(loss).all()


@pytest.mark.parametrize("name", adversarial.OBJECTIVES)
def test_each_player_wants_what_its_name_says(name: str) -> None:
    # Between the labels of the two, -1 and 0 or 0 and 1 for least squares.
    real, fake = tf.constant([[0.3]]), tf.constant([[0.2 if name.endswith("_01") else -0.2]])
    pair = adversarial.objective(name)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([real, fake])
        of_d, of_g = pair.discriminator(real, fake), pair.generator(fake)
    assert tape.gradient(of_d, real) < 0  # D wants D(real) up
    assert tape.gradient(of_d, fake) > 0  # and D(fake) down
    assert tape.gradient(of_g, fake) < 0  # G wants D(fake) up


def test_saturation() -> None:
    sure = tf.constant([[-20.0]])  # D is sure that it is a fake
    slopes = {}
    for name in ("minimax", "non_saturating"):
        with tf.GradientTape() as tape:
            tape.watch(sure)
            loss = adversarial.objective(name).generator(sure)
        slopes[name] = float(tape.gradient(loss, sure)[0, 0])
    assert slopes["minimax"] == pytest.approx(-np.exp(-20), rel=1e-3)  # 1 - D rounds to 1
    assert slopes["non_saturating"] == pytest.approx(-1.0, rel=1e-6)


def test_label_smoothing_moves_the_optimum() -> None:
    """With D free at each point of a discrete space, D* = 0.9 p_r / (p_r + p_g)."""
    p_real, p_fake = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.3, 0.6])
    logits = tf.Variable(np.zeros(3))
    loss = adversarial.objective("non_saturating", positive_label=0.9).discriminator
    for _ in range(2000):
        with tf.GradientTape() as tape:
            fixed = tf.zeros_like(logits)  # A term of the real logit, and one of the fake.
            on_real, on_fake = loss(logits, fixed), loss(fixed, logits)
            total = tf.reduce_sum(p_real * on_real + p_fake * on_fake)
        logits.assign_sub(2.0 * tape.gradient(total, logits))
    np.testing.assert_allclose(tf.sigmoid(logits), 0.9 * p_real / (p_real + p_fake), rtol=1e-5)


def test_smoothed_least_squares_changes_the_label_of_the_reals_alone() -> None:
    pair = adversarial.objective("least_squares_01", positive_label=0.9)
    np.testing.assert_allclose(
        pair.discriminator(REAL, FAKE)[:, 0], [0.5 * 0.81, 0.5 * 1.21 + 0.5], rtol=1e-6
    )


@pytest.mark.parametrize("label", [1.0, 0.9])
@pytest.mark.parametrize("name", adversarial.OBJECTIVES)
def test_scale_is_the_least_loss_and_that_of_one_that_cannot_tell(name: str, label: float) -> None:
    if label < 1 and adversarial.OBJECTIVES[name].smoothed is None:
        return
    pair = adversarial.objective(name, label)
    grid = np.linspace(-20.0, 20.0, 4001)
    zero = np.zeros_like(grid)
    of = lambda real, fake: pair.discriminator(tf.constant(real), tf.constant(fake)).numpy()  # noqa: E731
    least = of(grid, zero).min() + of(zero, grid).min() - of(zero, zero)[0]
    cannot_tell = of(grid, grid).min()
    if name == "wasserstein":
        assert pair.scale is None
        assert (least, cannot_tell) == (-40.0, 0.0)  # as far as the grid goes
    else:
        np.testing.assert_allclose(pair.scale, [least, cannot_tell], atol=2e-5)


def test_wrong_names_and_labels() -> None:
    with pytest.raises(ValueError, match=r"positive_label must be above 0 .*Received: 1\.1"):
        adversarial.objective("minimax", positive_label=1.1)
    with pytest.raises(ValueError, match="objective must be one of .*Received: 'wgan'"):
        adversarial.objective("wgan")
    with pytest.raises(ValueError, match="needs an objective with labels, one of .*'wasserstein'"):
        adversarial.objective("wasserstein", positive_label=0.9)
