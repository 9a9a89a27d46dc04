"""Unrolled GAN: the generator plays against the discriminator that is K steps ahead.

One objective, which D maximises and G minimises (means over the batch; D(x) = sigmoid of logit):

    f(theta_G, theta_D) = E log D(x) + E log(1 - D(G(z)))

    theta_D^0     = theta_D
    theta_D^(k+1) = theta_D^k + one step of D's optimiser up d f / d theta_D at theta_D^k
    f_K           = f(theta_G, theta_D^K(theta_G, theta_D))

    discriminator:  -f       an ordinary step, from theta_D
    generator:       f_K     with the gradient through all K steps of D

The K steps and f_K are on one minibatch of examples and fakes; theta_D^K is forgotten afterwards.
K = 0 is the minimax GAN. A generator that puts all its mass where the present D is fooled finds
that the D of K steps later is not: that gradient keeps it from collapsing.

Reference: L. Metz, B. Poole, D. Pfau, J. Sohl-Dickstein. Unrolled Generative Adversarial Networks.
ICLR 2017: eq. 7-9 (unrolling and surrogate), 10-12 (updates, and the gradient's second term),
section 3.1 and appendix A (ring of Gaussians: its networks), 3.3.2 (stacked MNIST, size of D).

Differs from the paper:
  * The players move in turn, the discriminator first, and not at once: K = 0 is exactly `gan.gan`.
  * The convolutional networks are those of DCGAN at the image's own size.
  * Batch, step sizes and latents by default are those of `gan.gan`. The ring's flagfile has those
    of appendix A; those of MNIST have the step sizes of a co-author's public notebook, 1e-3 for G
    and 1e-4 for D: by equal ones D wins, unrolled or not.
"""

import dataclasses
import functools
from typing import Any, Literal

import keras
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.models.gan import _players, gan

DENSE = {  # What differs in the dense networks.
    "appendix": {
        "activation": "relu",
        "initializer": functools.partial(keras.initializers.Orthogonal, 0.8),
    },
    "notebook": {
        "activation": "tanh",
        "initializer": functools.partial(keras.initializers.Orthogonal, 1.4),
    },
}
_POINT_SCALE = 0.25  # Of points, before a dense discriminator sees them.
_NOT_UNROLLED = ("weight_decay", "clipnorm", "clipvalue", "gradient_accumulation_steps")
_TINY = 1e-30  # Below it sqrt(v) counts as constant: its slope is infinite at v = 0.


@dataclasses.dataclass(frozen=True)
class HParams(gan.HParams):
    """Flags of an unrolled GAN."""

    objective: Literal["minimax"] = "minimax"  # Pair of losses.
    optimizer: Literal["adam"] = "adam"  # Of both players, and of the unrolled steps.
    penalty: Literal["none"] = "none"  # Penalty on the discriminator.
    unrolled_steps: int = 5  # Steps of D that G looks ahead, K; 0 is the minimax GAN.
    # Dense networks for points: of the paper's appendix A, or of a co-author's public notebook.
    dense_networks: Literal["appendix", "notebook"] = "appendix"

    NOT_NEGATIVE = ("unrolled_steps",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision == "mixed_float16":
            raise ValueError(
                "the losses of unrolled steps are not scaled, and float16 would round their "
                "gradients to 0: set --precision to float32 or mixed_bfloat16. "
                "Received: --precision=mixed_float16"
            )


class Lookahead:
    """The next steps of a Keras optimiser as functions of tensors; nothing is assigned.

    The arithmetic is that of Adam, from the optimiser's present moments, count and step size, or of
    plain SGD; every result is differentiable with respect to every gradient that went in.

    Args:
        optimizer: a built `keras.optimizers.Adam` without AMSGrad, or `SGD` without momentum.

    Raises:
        ValueError: if it is another optimiser, or has weight decay or clips single gradients.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        adam = isinstance(optimizer, keras.optimizers.Adam) and not optimizer.amsgrad
        sgd = isinstance(optimizer, keras.optimizers.SGD) and not optimizer.momentum
        more = [name for name in _NOT_UNROLLED if getattr(optimizer, name) is not None]
        if more:
            raise ValueError(
                f"unrolled steps know no {' and no '.join(more)}. Received: "
                + ", ".join(f"{name}={getattr(optimizer, name)}" for name in more)
            )
        if not (adam or sgd):
            raise ValueError(
                "unrolled steps are those of Adam without AMSGrad, or of SGD without momentum. "
                f"Received: {type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        self.learning_rate = tf.convert_to_tensor(optimizer.learning_rate)
        self.clip_norm = optimizer.global_clipnorm
        # Adam's count of steps and its moments m and v, now; SGD has none.
        self.moments: tuple = ()
        if adam:
            count = tf.cast(optimizer.iterations.value, tf.float32)
            moments = (optimizer._momentums, optimizer._velocities)
            self.moments = (count, *([tf.convert_to_tensor(v) for v in vs] for vs in moments))

    def step(
        self, weights: list[tf.Tensor], gradients: list[tf.Tensor], moments: tuple
    ) -> tuple[list[tf.Tensor], tuple]:
        """The weights after one more step, and the moments that go on with it."""
        if self.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
        if not moments:
            return [w - self.learning_rate * g for w, g in zip(weights, gradients, strict=True)], ()
        beta1, beta2 = self.optimizer.beta_1, self.optimizer.beta_2
        count, ms, vs = moments
        count += 1.0
        ms = [beta1 * m + (1 - beta1) * g for m, g in zip(ms, gradients, strict=True)]
        vs = [beta2 * v + (1 - beta2) * g**2 for v, g in zip(vs, gradients, strict=True)]
        rate = self.learning_rate * tf.sqrt(1 - beta2**count) / (1 - beta1**count)
        weights = [
            w - rate * m / (tf.sqrt(tf.maximum(v, _TINY)) + self.optimizer.epsilon)
            for w, m, v in zip(weights, ms, vs, strict=True)
        ]
        return weights, (count, ms, vs)


@keras.saving.register_keras_serializable("tfgen")
class UnrolledGAN(gan.GAN):
    """An unrolled GAN from the caller's networks.

    Args:
        generator: as for `GAN`.
        discriminator: as for `GAN`. What its layers update by themselves when they are called, e.g.
            moving averages of batch norm, is left as it is by unrolled steps.
        unrolled_steps: K, steps of D that G looks ahead; 0 is the minimax GAN.
        **kwargs: further arguments of `GAN` but `objective` and `penalty`. Feature matching and
            historical averaging are of the present D, and not part of its unrolled steps.

    Raises:
        ValueError: if `unrolled_steps` is negative, or a penalty is asked for.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        *,
        unrolled_steps: int = 5,
        **kwargs: Any,
    ):
        if unrolled_steps < 0:
            raise ValueError(f"unrolled_steps must be 0 or more. Received: {unrolled_steps}")
        if kwargs.get("penalty", "none") != "none":
            raise ValueError(
                "unrolled steps are of the objective alone, penalty must be 'none'. "
                f"Received: {kwargs['penalty']!r}"
            )
        kwargs["objective"] = "minimax"
        super().__init__(generator, discriminator, **kwargs)
        self.unrolled_steps = unrolled_steps

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        return {**super().get_config(), "unrolled_steps": self.unrolled_steps}

    def loss_at(self, weights: list[tf.Tensor], real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        """-f with the discriminator's trainable weights replaced by `weights`, a scalar."""
        fixed = [tf.convert_to_tensor(v) for v in self.discriminator.non_trainable_variables]
        on_real, on_fake = (
            tf.cast(
                self.discriminator.stateless_call(weights, fixed, x, training=True)[0], tf.float32
            )
            for x in (real, fake)
        )
        return tf.reduce_mean(self.losses_of.discriminator(on_real, on_fake))

    def _gradients_at(
        self, weights: list[tf.Tensor], real: tf.Tensor, fake: tf.Tensor
    ) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = self.loss_at(weights, real, fake)
        return tape.gradient(loss, weights)

    def look_ahead(self, real: tf.Tensor, fake: tf.Tensor) -> list[tf.Tensor]:
        """theta_D^K: the discriminator's trainable weights after K steps on this minibatch.

        Differentiable with respect to the fakes; the discriminator itself stays as it is.
        """
        replica = tf.distribute.get_replica_context()
        replicas = self.distribute_strategy.num_replicas_in_sync
        ahead = Lookahead(self.optimizers["discriminator"])
        weights = [tf.convert_to_tensor(v) for v in self.discriminator.trainable_variables]
        moments = ahead.moments
        # Each is traced once and not K times.
        gradients_at, step = (
            tf.function(f, autograph=False) for f in (self._gradients_at, ahead.step)
        )
        for _ in range(self.unrolled_steps):
            gradients = gradients_at(weights, real, fake)
            if replicas > 1:  # D moves by the mean over replicas, which is differentiable too.
                gradients = replica.all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
            weights, moments = step(weights, gradients, moments)
        return weights

    def generator_loss(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """f_K, a scalar, and what is logged."""
        real = batch[self.needs[0]]
        fake = self.generate(tf.shape(real)[0], gan.FOR_G)
        surrogate = -self.loss_at(self.look_ahead(real, fake), real, fake)
        loss = self.adversarial_weight * surrogate
        distance, of_features = self.feature_matching(real, fake)
        return loss + distance, {"generator_loss": surrogate, **of_features}


def networks(event_shape: tuple[int, ...], hparams: HParams) -> tuple[keras.Model, keras.Model]:
    """As of `gan`; for points those of appendix A, whose discriminator has one hidden layer."""
    dense = DENSE[hparams.dense_networks]
    generator, discriminator = _players.networks(event_shape, hparams, **dense)
    if len(event_shape) == 1 and hparams.dense_networks == "appendix":
        shallow = dataclasses.replace(hparams, hidden_units=hparams.hidden_units[:1])
        scaled = {**dense, "input_scale": _POINT_SCALE / hparams.event_scale}
        _, discriminator = _players.networks(event_shape, shallow, **scaled)
    return generator, discriminator


def build(hparams: HParams, data_spec: DataSpec) -> UnrolledGAN:
    """The networks that the flags ask for, compiled and ready to train."""
    model = UnrolledGAN(
        *networks(_players.event_shape(hparams, data_spec), hparams),
        unrolled_steps=hparams.unrolled_steps,
        **{k: v for k, v in gan.slots(hparams).items() if k not in ("objective", "penalty")},
    )
    return _players.compile(model, hparams, data_spec.train_size)
