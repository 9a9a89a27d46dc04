"""WGAN with gradient penalty: the critic's gradient is held near norm 1 instead of its weights.

Losses, each minimised by its player (means over the batch; f is the critic):

    critic:      E f(G(z)) - E f(x) + lambda E (||grad f(x^)|| - 1)^2
    generator:  -E f(G(z))

    x^ = e x + (1 - e) G(z),   e ~ U[0, 1], one for each pair

Clipped weights gather at the bounds and make the critic all but linear; the penalty does not.

Reference: I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin, A. Courville. Improved Training of
Wasserstein GANs. NeurIPS 2017: eq. 3, algorithm 1, section 4 (no batch norm in the critic).

Differs from the paper:
  * The last layer of the critic has no bias: it cancels in both losses, and in the penalty.
  * The networks are those of DCGAN at the image's own size.
  * The dense networks of the toys begin with Glorot's weights; the authors' code has He's.
"""

import dataclasses
from typing import Any

import keras

from tfgen.data import DataSpec
from tfgen.models.gan import _players, gan


@dataclasses.dataclass(frozen=True)
class HParams(gan.HParams):
    """Flags of a WGAN-GP; the paper's defaults."""

    objective: gan.Objective = "wasserstein"  # Pair of losses.
    penalty: gan.Penalty = "gradient_penalty"  # Penalty on the discriminator.
    penalty_weight: float = 10.0  # Weight of the penalty, lambda; 0.1 on points in the plane.
    discriminator_steps: int = 5  # Updates of the critic for each of the generator.
    discriminator_norm: gan.Norm = "none"  # And in the critic.
    learning_rate: float = 1e-4  # Step size of the generator's optimiser.
    adam_beta1: float = 0.0  # Adam's beta1, of both.
    adam_beta2: float = 0.9  # Adam's beta2, of both.


@keras.saving.register_keras_serializable("tfgen")
class WGANGP(gan.GAN):
    """A WGAN-GP from the caller's networks; the critic must not mix the examples of a batch.

    Args:
        generator: as for `GAN`.
        critic: as the discriminator of `GAN`; its logits are the critic's values.
        objective: as for `GAN`.
        penalty: as for `GAN`.
        penalty_weight: lambda.
        discriminator_steps: updates of the critic for each of the generator.
        **kwargs: further arguments of `GAN`.
    """

    def __init__(
        self,
        generator: keras.Model,
        critic: keras.Model,
        *,
        objective: str = "wasserstein",
        penalty: str = "gradient_penalty",
        penalty_weight: float = 10.0,
        discriminator_steps: int = 5,
        **kwargs: Any,
    ):
        super().__init__(
            generator,
            critic,
            objective=objective,
            penalty=penalty,
            penalty_weight=penalty_weight,
            discriminator_steps=discriminator_steps,
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        config = super().get_config()
        config["critic"] = config.pop("discriminator")
        return config


def build(hparams: HParams, data_spec: DataSpec) -> WGANGP:
    """The networks that the flags ask for, compiled and ready to train."""
    networks = _players.networks(_players.event_shape(hparams, data_spec), hparams)
    model = WGANGP(*networks, **gan.slots(hparams))
    return _players.compile(model, hparams, data_spec.train_size)
