"""The gradient of the KL in a VAE's bound, without that of its likelihood."""

import numpy as np
import tensorflow as tf

from tfgen.losses import bounds
from tfgen.models.vae import vae


def kl_gradients(model: vae.VAE, image: tf.Tensor, k: int, seed: tf.Tensor) -> list[float]:
    """The largest component for each variable of the player "model", by k samples of a seed.

    What is left of the bound's gradient without log p(x|z) weighed as the bound weighs its samples;
    so it also shows the weights of another bound.
    """
    with tf.GradientTape() as tape:
        terms = model.log_terms(image, model.infer(image, k, seed))
        weights = (
            bounds.normalized_weights(terms["likelihood"] + terms["prior"] - terms["posterior"])
            if model.importance_weighted
            else tf.fill([k, len(image)], 1.0 / k)
        )
        alone = tf.reduce_sum(weights * terms["likelihood"], axis=0)
        of_kl = tf.reduce_mean(model.bound(terms, 1.0) - alone)
    variables = model.players()["model"]
    found = tape.gradient(of_kl, variables, unconnected_gradients="zero")
    return [float(np.abs(gradient).max()) for gradient in found]
