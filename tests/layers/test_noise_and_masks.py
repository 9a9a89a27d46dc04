"""What layers of one kind have in common: noise of their own, and masks that they pass on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.gaussian_noise import GaussianNoise
from tfgen.layers.gaussian_sampling import GaussianSampling
from tfgen.layers.gumbel_softmax import GumbelSoftmax
from tfgen.layers.masked_dense import MaskedDense
from tfgen.layers.vector_quantizer import VectorQuantizer
from tfgen.layers.weight_norm_dense import WeightNormDense

NOISY = {
    "noise": lambda **seed: GaussianNoise(1.0, **seed),
    "sampling": GaussianSampling,
    "gumbel": GumbelSoftmax,
}
MASKING = {
    **NOISY,
    "masked_dense": lambda: MaskedDense([1] * 4, [1] * 4),
    "weight_norm": lambda: WeightNormDense(4),
    "quantizer": lambda: VectorQuantizer(8),
}


@pytest.mark.parametrize("make", NOISY.values(), ids=NOISY)
def test_layers_without_a_seed_draw_one_that_python_knows(make) -> None:
    x = tf.zeros([200, 4])

    def draws() -> list[np.ndarray]:
        keras.utils.set_random_seed(3)
        return [make()(x, training=True).numpy().ravel() for _ in range(2)]

    (one, other), again = draws(), draws()
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.2
    np.testing.assert_array_equal(one, again[0])
    layer = make()
    assert type(layer).from_config(layer.get_config()).seed == layer.seed
    np.testing.assert_array_equal(make(seed=5)(x, training=True), make(seed=5)(x, training=True))


@pytest.mark.parametrize("make", MASKING.values(), ids=MASKING)
@pytest.mark.parametrize("training", [False, True])
def test_masks_are_passed_on(make, training) -> None:
    tokens = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    embedded = keras.layers.Embedding(4, 4, mask_zero=True)(tokens)
    made = make()(embedded, training=training)
    mean = keras.layers.GlobalAveragePooling1D()(made)
    np.testing.assert_allclose(mean[0], made[0, :2].numpy().mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean[1], made[1, 0], rtol=1e-5, atol=1e-6)
