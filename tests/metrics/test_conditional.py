"""NLL of hidden pixels against a model whose log p(y|x) is known."""

import numpy as np
import tensorflow as tf

from tests.conditional_gaussian import ConditionalGaussian
from tfgen.metrics import conditional, likelihood
from tfgen.metrics.measure import Settings


class _Images:
    """Draws of the model as a data set."""

    def __init__(self, images: np.ndarray):
        self.images = images

    def batches(self, split: str, batch_size: int, seed: int, limit: int | None):
        assert (split, limit) == ("test", None)
        return tf.data.Dataset.from_tensor_slices({"image": self.images}).batch(batch_size)


def test_all_three_agree_with_closed_forms() -> None:
    exact = ConditionalGaussian()
    images, model = exact.images(150), exact.model(widen=1.3)
    settings = Settings(k=2000)
    found = conditional.nll(model, _Images(images), settings)
    by_posterior = likelihood.nll(model, _Images(images), settings)
    truth, baseline = -exact.log_prob(images).mean(), -exact.baseline_log_prob(images).mean()
    np.testing.assert_allclose(found["nll_baseline"].value, baseline, rtol=1e-5)
    # A finite k errs to above: E[-L_k] - truth is (1/ESS - 1/k) / 2 an image, small at k = 2000.
    assert abs(by_posterior["nll"].value - truth) < 0.005
    assert 0 < found["nll_monte_carlo"].value - truth < 0.1
    assert found["nll_monte_carlo"].note == "2000 samples of p(z|x), 150 test images"
    assert found["nll_baseline"].note == "without latents, 150 test images"
