"""Normalisation of each example by itself, by which a gradient penalty can be taken."""

import keras
import tensorflow as tf

from tfgen.layers.instance_normalization import InstanceNormalization


@keras.saving.register_keras_serializable("tfgen")
class LayerNormalization(InstanceNormalization):
    """Scales each image to mean 0 and variance 1, then each channel by a learnt affine map.

        y = gamma (x - mean(x)) / sqrt(var(x) + epsilon) + beta,   over pixels and channels

    An image's result does not depend on its batch, so that a critic may have it beside a gradient
    penalty, whose gradient is exact: second derivatives of `keras.layers.LayerNormalization`, which
    normalises the channels of each pixel by themselves, lack a term (Keras 3.15 on TensorFlow).
    For example [4, 32, 32, 64] -> [4, 32, 32, 64] by 4 means.

    Reference: J. L. Ba, J. R. Kiros, G. E. Hinton. Layer Normalization. arXiv:1607.06450, eq. 3;
    for critics section 4 of Gulrajani et al. 2017.

    Args:
        epsilon: added to the variance, above 0.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if epsilon is not above 0, or inputs are not [B, H, W, C].
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        return self._over(inputs, [1, 2, 3])
