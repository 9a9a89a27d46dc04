"""What both systems of image translation share: flags, losses of D, and images of any size."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf

from tfgen import hparams, stateless
from tfgen.jitter import Jitter
from tfgen.losses import adversarial, penalties
from tfgen.models.gan import _diagnosis, gan
from tfgen.networks import patchgan, translation
from tfgen.training import optimizers, schedules
from tfgen.training.model import GenerativeModel, deserialize

Penalty = Literal["none", "gradient_penalty"]
_EXAMPLES = 16  # Training images that `sample` translates.
_MIX = 1  # Salt of the penalty's draws; systems take 10 and up.


@dataclasses.dataclass(frozen=True)
class HParams(hparams.HParams):
    """Flags of an image translation."""

    batch_size: int = 1  # Examples a step over all replicas (the global batch).
    epochs: float = 200.0  # Passes over the training split; may be a fraction.
    learning_rate: float = 2e-4  # Peak step size of both players' Adam.
    adam_beta1: float = 0.5  # Adam's beta1, of both.
    # Height and width that images are brought to before they are cropped, one number for both;
    # none keeps them.
    resize: tuple[int, ...] | None = (286,)
    # Height and width of a training image, cut out at random, and of a test image, brought to it
    # whole or, where images are not resized, its middle; one number for both; none is all of it.
    crop: tuple[int, ...] | None = (256,)
    flip: bool = True  # Mirror a training image left to right, half of the time.
    objective: gan.Objective = "non_saturating"  # Pair of losses.
    adversarial_weight: float = 1.0  # Weight of the objective in the generator's loss.
    discriminator_weight: float = 1.0  # Weight of the objective in the discriminator's loss.
    penalty: Penalty = "none"  # Penalty on the discriminator, e.g. of --objective=wasserstein.
    penalty_weight: float = 10.0  # Weight of the penalty.
    patch: str = "70"  # Side of what D judges, in pixels: 1, 16, 34, 70, 142, 286 or image.
    filters: int = 64  # Channels of the generators' largest maps.
    discriminator_filters: int = 64  # Channels of the discriminators' largest maps.
    norm: translation.Norm = "instance"  # Normalisation in the generators.
    discriminator_norm: translation.Norm = "instance"  # Normalisation in the discriminators.

    POSITIVE: ClassVar[tuple[str, ...]] = (
        "resize", "crop", "filters", "discriminator_filters", "discriminator_weight",
    )  # fmt: skip
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ("adversarial_weight", "penalty_weight")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(
            "patch", lambda v: v in patchgan.PATCHES, f"one of {', '.join(patchgan.PATCHES)}"
        )
        for name in ("resize", "crop"):
            size = getattr(self, name)
            if size is not None and len(size) not in (1, 2):
                raise ValueError(
                    f"--{name} must be a side, or height and width: 256 or 256,512. "
                    f"Received: --{name}={hparams.to_text(size)}"
                )
        if self.penalty != "none" and self.discriminator_norm == "batch":
            raise ValueError(
                "a penalty is on the gradient of one example, which the others of its batch must "
                "not change: set --discriminator_norm to instance or none. "
                f"Received: --penalty={self.penalty} --discriminator_norm=batch"
            )

    @property
    def image_range(self) -> str:
        """[-1, 1], the range of tanh."""
        return "symmetric"

    @property
    def jitter(self) -> Jitter | None:
        """How images are resized, cropped and flipped."""
        if self.resize is None and self.crop is None and not self.flip:
            return None
        return Jitter(_both(self.resize), _both(self.crop), self.flip)


def _both(size: tuple[int, ...] | None) -> tuple[int, int] | None:
    return None if size is None else (size[0], size[-1])


class Translator(GenerativeModel):
    """Base of models that turn an image into another of its size.

    Args:
        image_shape: (height, width, channels) of the images that `sample` translates, the sources
            in training.
        stride: what the sides of an image must be multiples of, for the generator; others are
            padded by mirroring, and cut back.
        least: the least side that the generator takes.
        objective: a key of `losses.adversarial.OBJECTIVES`.
        adversarial_weight: its weight in the generator's loss.
        discriminator_weight: its weight in the discriminator's loss.
        penalty: "none" or "gradient_penalty".
        penalty_weight: its weight in the discriminator's loss.
        **kwargs: of `keras.Model`.
    """

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        stride: int,
        least: int,
        objective: str,
        adversarial_weight: float = 1.0,
        discriminator_weight: float = 0.5,
        penalty: str = "none",
        penalty_weight: float = 10.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.stride, self.least = stride, least
        self.objective = objective
        self.losses_of = adversarial.objective(objective)
        self.adversarial_weight = adversarial_weight
        self.discriminator_weight = discriminator_weight
        if penalty not in ("none", "gradient_penalty"):
            raise ValueError(f"penalty must be none or gradient_penalty. Received: {penalty!r}")
        self.penalty, self.penalty_weight = penalty, penalty_weight
        # What `sample` translates: an image comes from another.
        self.examples = self.add_state("examples", (_EXAMPLES, *self.image_shape))

    def get_config(self) -> dict[str, Any]:
        """Arguments of this class, the networks left out."""
        return {
            "image_shape": self.image_shape,
            "stride": self.stride,
            "least": self.least,
            "objective": self.objective,
            "adversarial_weight": self.adversarial_weight,
            "discriminator_weight": self.discriminator_weight,
            "penalty": self.penalty,
            "penalty_weight": self.penalty_weight,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Translator":
        """The model that `get_config` describes."""
        networks = {
            key: deserialize(value)
            for key, value in config.items()
            if isinstance(value, dict) and "class_name" in value
        }
        return cls(**{**config, **networks})

    def adapt_to(self, batches: tf.data.Dataset) -> None:
        """Keeps some training images for `sample`."""
        first = next(iter(batches.unbatch().batch(_EXAMPLES)))
        self.examples.assign(np.resize(self.source(first).numpy(), self.examples.shape))

    # What a system says.

    def source(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The images of a batch that `translate` takes."""
        raise NotImplementedError

    def translate(self, image: tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C] in [-1, 1] of any size to their translations, of the same size."""
        raise NotImplementedError

    # Losses.

    def judge_loss(
        self, judge: Callable, real: tf.Tensor, fake: tf.Tensor, salt: int
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """A discriminator's loss, a scalar, and what is logged.

        Args:
            judge: images [B, H, W, C] -> logits [B, h, w, 1], float32.
            real: examples.
            fake: generated examples, through which no gradient goes.
            salt: added to that of the penalty's draws.
        """
        on_real, on_fake = judge(real), judge(fake)
        loss = tf.reduce_mean(self.losses_of.discriminator(on_real, on_fake))
        logs = {
            "discriminator_loss": loss,
            "logit_real": tf.reduce_mean(on_real),
            "logit_fake": tf.reduce_mean(on_fake),
        }
        total = self.discriminator_weight * loss
        if self.penalty != "none":
            # A patch's logit counts as its share of their mean.
            mix = stateless.uniform(tf.shape(real)[:1], self.noise_seed(_MIX + salt))
            logs["penalty"] = tf.reduce_mean(
                penalties.gradient_penalty(
                    lambda x: tf.reduce_mean(judge(x), [1, 2, 3]), real, fake, mix
                )
            )
            total += self.penalty_weight * logs["penalty"]
        return total, logs

    def diagnose(self, logs: Mapping[str, float]) -> dict[str, str]:
        """Whether the discriminator has won."""
        return _diagnosis.won(self.losses_of.scale, logs, "the discriminator", "discriminator_loss")

    # Images of any size.

    def padded(self, image: tf.Tensor) -> tf.Tensor:
        """Mirrored beyond the lower and the right edge, up to sides that the generator takes."""
        for axis in (1, 2):
            static = image.shape[axis]
            if static is not None and static == self._fitting(static):
                continue
            length = tf.shape(image)[axis]
            wanted = tf.maximum(-(-length // self.stride) * self.stride, self._fitting(1))
            period = tf.maximum(2 * (length - 1), 1)
            place = tf.range(wanted) % period
            image = tf.gather(image, tf.minimum(place, period - place), axis=axis)
        return image

    def _fitting(self, side: int) -> int:
        return self.stride * math.ceil(max(side, self.least) / self.stride)

    def through(self, generator: Callable, image: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C] of any size through a network, float32 of the same size."""
        made = generator(self.padded(image))
        return tf.cast(made[:, : tf.shape(image)[1], : tf.shape(image)[2]], tf.float32)

    # Using a trained model.

    def sample(self, num: int | tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Translates `num` of the training images that are kept, drawn with replacement.

        Args:
            num: how many.
            seed: int or int32 scalar; the same seed gives the same samples.

        Returns:
            float32 [num, H, W, C] in [-1, 1].
        """
        key = tf.stack([tf.cast(seed, tf.int32), 0])
        chosen = stateless.uniform([num], key, 0, _EXAMPLES, tf.int32)
        return self.translate(tf.gather(self.examples.value, chosen), seed)

    def translations(self) -> dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]:
        """What a user's images can be put through: name -> function (image, seed) -> image."""
        return {"translate": self.translate}


def compile(model: Translator, hp: HParams, train_size: int) -> Translator:
    """Gives each player an Adam with the run's step size schedule."""
    rate = schedules.learning_rate(hp, hp.total_steps(train_size))
    made = {
        player: optimizers.Adam(rate, beta_1=hp.adam_beta1, epsilon=1e-8)
        for player in model.players()
    }
    model.compile(**made, **hp.compile_options())
    return model


def slots(hp: HParams) -> dict[str, Any]:
    """Arguments of a `Translator` that are flags."""
    names = (
        "objective", "adversarial_weight", "discriminator_weight", "penalty", "penalty_weight"
    )  # fmt: skip
    return {name: getattr(hp, name) for name in names}


def as_picture(image: tf.Tensor) -> np.ndarray:
    """Images [..., C] in [-1, 1], of 1 or 3 channels, as [..., 3] in [0, 1] for a picture."""
    image = tf.cast(image, tf.float32)
    image = tf.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]
    return np.clip((image.numpy() + 1.0) / 2.0, 0.0, 1.0)
