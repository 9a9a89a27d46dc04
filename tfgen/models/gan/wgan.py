"""Wasserstein GAN: a critic whose weights are clipped estimates the earth mover's distance.

Losses, each minimised by its player (means over the batch; f is the critic, no sigmoid, no log):

    critic:      E f(G(z)) - E f(x)        with every parameter of f kept in [-c, c]
    generator:  -E f(G(z))

Clipping makes f K-Lipschitz for some K, and then max_f E f(x) - E f(G(z)) = K W1(p_r, p_g). The
critic moves n_critic = 5 times for each move of the generator; 100 times in the first 25 steps of
the generator and at every 500th, so that the estimate is good where it matters.

Reference: M. Arjovsky, S. Chintala, L. Bottou. Wasserstein Generative Adversarial Networks. ICML
2017: eq. 2-3, algorithm 1, section 4 (estimate); the 100 steps are of their published code.

Differs from the paper:
  * The last layer of the critic has no bias: it cancels in both losses.
  * The networks are those of DCGAN at the image's own size; the paper's images are 64x64.
  * The paper names no constants of RMSprop. Ours are those of the published code, PyTorch's: decay
    0.99, and 1e-8 added to the root.
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.models.gan import _players, gan


@dataclasses.dataclass(frozen=True)
class HParams(gan.HParams):
    """Flags of a WGAN; the paper's defaults."""

    objective: gan.Objective = "wasserstein"  # Pair of losses.
    optimizer: gan.Optimizer = "rmsprop"  # Of both players.
    learning_rate: float = 5e-5  # Step size of the generator's optimiser.
    discriminator_steps: int = 5  # Updates of the critic for each of the generator.
    clip: float = 0.01  # Every parameter of the critic is kept in [-clip, clip].
    boosted_steps: int = 100  # Updates of the critic at boosted steps of the generator.
    # So many steps of the generator are boosted at the start; not counted by --epochs.
    boost_first: int = 25
    boost_every: int = 500  # And each step whose number divides by this; 0 is never.

    POSITIVE = ("clip", "boosted_steps")
    NOT_NEGATIVE = ("boost_first", "boost_every")


@keras.saving.register_keras_serializable("tfgen")
class Clip(keras.constraints.Constraint):
    """Keeps every value of a weight in [-limit, limit]."""

    def __init__(self, limit: float = 0.01):
        self.limit = limit

    def __call__(self, w: Any) -> Any:
        return keras.ops.clip(w, -self.limit, self.limit)

    def get_config(self) -> dict[str, Any]:
        return {"limit": self.limit}


@keras.saving.register_keras_serializable("tfgen")
class WGAN(gan.GAN):
    """A Wasserstein GAN from the caller's networks.

    Args:
        generator: as for `GAN`.
        critic: as the discriminator of `GAN`; its logits are the critic's values.
        clip: every parameter of the critic is kept in [-clip, clip].
        discriminator_steps: updates of the critic for each of the generator.
        boosted_steps: the same at boosted steps.
        boost_first: so many steps are boosted at the start.
        boost_every: and each step whose number divides by this; 0 is never.
        **kwargs: further arguments of `GAN`.

    Raises:
        ValueError: if `clip` is not above 0.
    """

    def __init__(
        self,
        generator: keras.Model,
        critic: keras.Model,
        *,
        clip: float = 0.01,
        objective: str = "wasserstein",
        discriminator_steps: int = 5,
        boosted_steps: int = 100,
        boost_first: int = 25,
        boost_every: int = 500,
        **kwargs: Any,
    ):
        if clip <= 0:
            raise ValueError(f"clip must be more than 0. Received: clip={clip}")
        super().__init__(
            generator,
            critic,
            objective=objective,
            discriminator_steps=discriminator_steps,
            **kwargs,
        )
        self.clip, self.boosted_steps = clip, boosted_steps
        self.boost_first, self.boost_every = boost_first, boost_every
        for variable in critic.trainable_variables:
            variable.constraint = Clip(clip)  # which optimisers apply after each update

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        config = super().get_config()
        config["critic"] = config.pop("discriminator")
        return {
            **config,
            "clip": self.clip,
            "boosted_steps": self.boosted_steps,
            "boost_first": self.boost_first,
            "boost_every": self.boost_every,
        }

    def extra_steps(self, step: Any) -> Any:
        """One less than n_critic, or than the number of boosted steps."""
        if not (self.boost_first or self.boost_every):
            return self.discriminator_steps - 1
        boosted = step < self.boost_first
        if self.boost_every:
            boosted = boosted | (step % self.boost_every == 0)
        return tf.where(boosted, self.boosted_steps, self.discriminator_steps) - 1


def build(hparams: HParams, data_spec: DataSpec) -> WGAN:
    """The networks that the flags ask for, compiled and ready to train."""
    model = WGAN(
        *_players.networks(_players.event_shape(hparams, data_spec), hparams),
        clip=hparams.clip,
        boosted_steps=hparams.boosted_steps,
        boost_first=hparams.boost_first,
        boost_every=hparams.boost_every,
        **gan.slots(hparams),
    )
    return _players.compile(model, hparams, data_spec.train_size)
