"""Penalties on the gradient of a critic with respect to its inputs.

A `critic` is a function of a batch of any rank, [B, ...], that returns logits [B], [B, 1] or, of
patches, [B, ...], which are summed. Both functions return the penalty of each example, shape [B] in
float32, not weighted and not reduced over the batch, and can be differentiated with respect to the
critic's weights. They take D(x_i) to be a function of x_i alone: a critic that mixes the examples
of a batch (batch normalisation) has no gradient of its own for each of them.

`GradientPenalty` and `R1Penalty` are the same as objects that a model can keep in its config, with
one call, (critic, real, fake, seed). `PENALTIES` has them by name.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfgen import stateless

Critic = Callable[[tf.Tensor], tf.Tensor]
EPSILON = 1e-12  # Inside the root, so that its gradient is finite where the norm is 0.


def gradient_penalty(
    critic: Critic, real: tf.Tensor, fake: tf.Tensor, mix: tf.Tensor, *, target: float = 1.0
) -> tf.Tensor:
    """(sqrt(||grad D(x^)||^2 + 1e-12) - target)^2 at x^ = mix real + (1 - mix) fake.

    The norm is over all axes but the first. It pulls the critic's slope to `target` on the lines
    between real and generated examples; Gulrajani et al. weigh it by 10. For example for images
    [64, 28, 28, 1] and mix [64] the result is [64].

    Reference: I. Gulrajani et al. Improved Training of Wasserstein GANs. NeurIPS 2017, eq. 3 and
    algorithm 1.

    Args:
        critic: function of x^, as above.
        real: examples of the data, [B, ...], rank 2 or more.
        fake: generated examples, of the same shape.
        mix: [B], uniform in [0, 1); one number for each pair. Drawn by the caller, so that the
            penalty is a function of its arguments.
        target: the norm at which the penalty is 0, 0 or more.

    Raises:
        ValueError: if the shapes do not fit.
    """
    real, fake, mix = (tf.cast(part, tf.float32) for part in (real, fake, mix))
    fits = mix.shape.rank == 1 and real.shape.is_compatible_with(fake.shape)
    if not fits or not mix.shape.is_compatible_with(real.shape[:1]):
        raise ValueError(
            "real and fake must have one shape [B, ...], and mix must be [B]. Received: "
            f"real {real.shape}, fake {fake.shape}, mix {mix.shape}"
        )
    mix = tf.reshape(mix, [-1] + [1] * (real.shape.rank - 1))
    squares = _squared_norm(critic, mix * real + (1 - mix) * fake)
    return (tf.sqrt(squares + EPSILON) - target) ** 2


def r1_penalty(critic: Critic, real: tf.Tensor) -> tf.Tensor:
    """||grad D(x)||^2 / 2 at real examples.

    It keeps the critic flat on the data, where a perfect generator would end. The paper's gamma is
    the weight of this result. For example for images [64, 28, 28, 1] the result is [64].

    Reference: L. Mescheder et al. Which Training Methods for GANs do actually Converge? ICML 2018,
    eq. 9.

    Args:
        critic: function of `real`, as above.
        real: examples of the data, [B, ...], rank 2 or more.
    """
    return _squared_norm(critic, tf.cast(real, tf.float32)) / 2


@keras.saving.register_keras_serializable("tfgen")
class GradientPenalty:
    """`gradient_penalty` on lines that are drawn from a seed.

    For example in a train step of a Keras model, with images [64, 28, 28, 1]:

        penalty = GradientPenalty()(self.critic, real, fake, seed=[step, 0])  # [64]
        loss += 10.0 * tf.reduce_mean(penalty)

    Args:
        target: the norm at which the penalty is 0, 0 or more.
    """

    def __init__(self, target: float = 1.0):
        if target < 0:
            raise ValueError(f"target must be 0 or more. Received: target={target}")
        self.target = target

    def __call__(
        self, critic: Critic, real: tf.Tensor, fake: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """The penalty of each pair, [B], for a seed int32 [2], of which `mix` is drawn."""
        mix = stateless.uniform(tf.shape(real)[:1], seed)
        return gradient_penalty(critic, real, fake, mix, target=self.target)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {"target": self.target}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientPenalty":
        """The penalty that `get_config` describes."""
        return cls(**config)


@keras.saving.register_keras_serializable("tfgen")
class R1Penalty:
    """`r1_penalty` with the call of `GradientPenalty`; fakes and seed are not looked at."""

    def __call__(
        self,
        critic: Critic,
        real: tf.Tensor,
        fake: tf.Tensor | None = None,
        seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The penalty of each real example, [B]."""
        return r1_penalty(critic, real)

    def get_config(self) -> dict[str, Any]:
        """No arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "R1Penalty":
        """The penalty that `get_config` describes."""
        return cls(**config)


PENALTIES = {"gradient_penalty": GradientPenalty, "r1": R1Penalty}


def _squared_norm(critic: Critic, x: tf.Tensor) -> tf.Tensor:
    if x.shape.rank < 2:
        raise ValueError(f"examples must have rank 2 or more. Received: shape {x.shape}")
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = critic(x)
    gradient = tape.gradient(logits, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.reduce_sum(gradient**2, axis=list(range(1, x.shape.rank)))
