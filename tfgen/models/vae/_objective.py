"""What the objectives of several systems share beside `losses.bounds`: free bits, and bad settings.

Each group of latents has its own KL, in closed form or as log q - log p of draws, in nats.
"""

import tensorflow as tf

from tfgen.training import strategies


def free(kl: tf.Tensor, free_bits: float, shares: tf.Tensor | None = None) -> tf.Tensor:
    """The same KL, without its gradient where it is below `free_bits`: that of max(free_bits, KL).

    Kingma et al. 2016, eq. 15. What is compared is the mean over the minibatch, of all replicas.

    Args:
        kl: of one group of latents, [...], in nats.
        free_bits: in nats; 0 is off.
        shares: weights that sum to 1 over axis -2 of `kl`, [K, B] for [..., K, B]; None: that axis
            is no mixture.
    """
    if not free_bits:
        return kl
    mean = tf.reduce_mean(kl if shares is None else tf.reduce_sum(shares * kl, axis=-2))
    mean = strategies.mean_over_replicas(mean)
    return tf.where(mean < free_bits, tf.stop_gradient(kl), kl)


def check_settings(
    *,
    k: int = 1,
    free_bits: float = 0.0,
    kl_weight: float = 1.0,
    kl_warmup_steps: int = 0,
) -> None:
    """Whether a model's arguments of these names are in range.

    Raises:
        ValueError: if one is not; it is named.
    """
    if k < 1:
        raise ValueError(f"k must be more than 0. Received: k={k}")
    others = {"free_bits": free_bits, "kl_weight": kl_weight, "kl_warmup_steps": kl_warmup_steps}
    for name, value in others.items():
        if value < 0:
            raise ValueError(f"{name} must be 0 or more. Received: {name}={value}")
