"""Bounds on log p(x) from log importance weights.

A log weight of a sample z_m ~ q(z|x) is log w_m = log p(x, z_m) - log q(z_m|x), in nats, summed
over event dimensions. All functions take `log_weights` of shape [k, ...] with the samples on axis
0 and return the bound of each example, shape [...], not reduced over the batch.
"""

import math
from collections.abc import Sequence

import tensorflow as tf


def joint(log_densities: Sequence[tf.Tensor]) -> tf.Tensor:
    """The log density of several parts together: the sum of theirs, [...] each, in nats.

    The same to the bit each time: where two or more further terms are added by +, TensorFlow makes
    one `AddN` of it all, which starts with whichever of the tensors no other reader still needs.
    """
    if len(log_densities) == 1:
        return log_densities[0]
    return tf.reduce_sum(tf.stack(log_densities), axis=0)


def elbo(log_weights: tf.Tensor) -> tf.Tensor:
    """Evidence lower bound, averaged over samples: mean_m log w_m.

    Kingma and Welling 2014, eq. 6 (estimator A); "VAE with k samples" in Burda et al. 2016.
    """
    return tf.reduce_mean(log_weights, axis=0)


def iwae(log_weights: tf.Tensor) -> tf.Tensor:
    """Importance weighted bound L_k = log((1/k) sum_m w_m) (Burda et al. 2016, eq. 8).

    For k = 1 it equals `elbo` bit for bit. E L_k never falls with k and tends to log p(x).
    """
    k = log_weights.shape[0]
    log_k = math.log(k) if k else tf.math.log(tf.cast(tf.shape(log_weights)[0], log_weights.dtype))
    return tf.reduce_logsumexp(log_weights, axis=0) - log_k


def normalized_weights(log_weights: tf.Tensor) -> tf.Tensor:
    """Self-normalised importance weights w_m / sum_l w_l (Burda et al. 2016, eq. 13).

    Better samples weigh more; the weights of each example sum to 1. No gradient flows through.
    """
    return tf.stop_gradient(tf.nn.softmax(log_weights, axis=0))
