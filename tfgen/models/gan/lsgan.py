"""Least squares GAN: fakes that are on the right side of D are still pulled to the data.

Losses, each minimised by its player (means over the batch; D is the logit itself):

    discriminator:  1/2 E (D(x) - b)^2 + 1/2 E (D(G(z)) - a)^2
    generator:      1/2 E (D(G(z)) - c)^2

With b - c = 1 and b - a = 2, e.g. (a, b, c) = (-1, 1, 0), the best D makes the game that of the
Pearson chi^2 divergence between p_d + p_g and 2 p_g; (0, 1, 1) makes samples as real as can be.

Reference: X. Mao, Q. Li, H. Xie, R. Lau, Z. Wang, S. Smolley. Least Squares Generative Adversarial
Networks. ICCV 2017: eq. 2, section 3.2 (relation to the divergence), 3.3 (choice of a, b, c).

Differs from the paper:
  * The networks are those of DCGAN, with its Adam steps of 2e-4; the authors' code has VGG-like
    ones with 1e-3 for the scenes of LSUN, and 1024 latents, uniform on [-1, 1]; ours are N(0, I).
  * By default (a, b, c) = (-1, 1, 0), those of the divergence; the authors train with (0, 1, 1).
"""

import dataclasses
from typing import Any, Literal

import keras

from tfgen.data import DataSpec
from tfgen.losses import adversarial
from tfgen.models.gan import _players, gan


@dataclasses.dataclass(frozen=True)
class HParams(gan.HParams):
    """Flags of an LSGAN."""

    objective: Literal["least_squares"] = "least_squares"  # Pair of losses.
    fake_label: float = -1.0  # a: what D says of fakes.
    real_label: float = 1.0  # b: what D says of real examples.
    wanted_label: float = 0.0  # c: what G wants D to say of its fakes.

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fake_label == self.real_label:
            raise ValueError(
                "--fake_label and --real_label must differ. "
                f"Received: --fake_label={self.fake_label} --real_label={self.real_label}"
            )


@keras.saving.register_keras_serializable("tfgen")
class LSGAN(gan.GAN):
    """A least squares GAN from the caller's networks.

    Args:
        generator: as for `GAN`.
        discriminator: as for `GAN`; its logits are taken as they are.
        fake_label: a, what D says of fakes.
        real_label: b, what D says of real examples.
        wanted_label: c, what G wants D to say of its fakes.
        positive_label: one-sided label smoothing: b is multiplied by it.
        **kwargs: further arguments of `GAN` but `objective`.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        *,
        fake_label: float = -1.0,
        real_label: float = 1.0,
        wanted_label: float = 0.0,
        positive_label: float = 1.0,
        **kwargs: Any,
    ):
        kwargs["objective"] = "least_squares"
        super().__init__(generator, discriminator, positive_label=positive_label, **kwargs)
        self.fake_label, self.real_label = fake_label, real_label
        self.wanted_label = wanted_label
        self.losses_of = adversarial.least_squares(
            fake_label, real_label * positive_label, wanted_label
        )

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        return {
            **super().get_config(),
            "fake_label": self.fake_label,
            "real_label": self.real_label,
            "wanted_label": self.wanted_label,
        }


def build(hparams: HParams, data_spec: DataSpec) -> LSGAN:
    """The networks that the flags ask for, compiled and ready to train."""
    model = LSGAN(
        *_players.networks(_players.event_shape(hparams, data_spec), hparams),
        fake_label=hparams.fake_label,
        real_label=hparams.real_label,
        wanted_label=hparams.wanted_label,
        **gan.slots(hparams),
    )
    return _players.compile(model, hparams, data_spec.train_size)
