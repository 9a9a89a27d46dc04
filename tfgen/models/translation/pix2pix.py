"""pix2pix: translates images by pairs of examples, judged by a discriminator and by a distance.

Losses, each minimised by its player (x the source, y its target, means over the batch, D's patches
and the pixels; D = sigmoid of the logit, G's noise is its dropout):

    discriminator:  1/2 (-E log D(x, y) - E log(1 - D(x, G(x))))
    generator:      -E log D(x, G(x)) + lambda E |y - G(x)|

By flags: D sees y alone (--conditional=false), the distance is squared or left out
(--reconstruction), or there is no discriminator (--adversarial_weight=0): the five of the paper's
table 1.

Reference: P. Isola, J.-Y. Zhu, T. Zhou, A. Efros. Image-to-Image Translation with Conditional
Adversarial Networks. CVPR 2017: eq. 1 (conditional GAN), eq. 2 (unconditional), eq. 3 and 4 (L1),
section 3.2 (U-Net, PatchGAN), section 3.3 (training, D's loss halved), section 6 (networks).

Differs from the paper:
  * The depth of the U-Net follows the image, 8 for 256 pixels: see `unet.depth_for`.
  * Dropout is drawn from a seed that goes in with the image, so that a translation can be repeated.
  * Images whose sides do not halve so often are mirrored at two edges for the generator, and cut
    back.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tfgen.data import DataSpec
from tfgen.models.translation import _translator
from tfgen.networks import patchgan, translation, unet

_NOISE = 10  # Salt of the dropout's draws.
_TEST_ROWS = 8  # In a picture.
_LEAST = 4  # Pixels of a side: it halves twice.


@dataclasses.dataclass(frozen=True)
class HParams(_translator.HParams):
    """Flags of pix2pix; the paper's networks and training."""

    # Normalisation in the generator; batch: by the statistics of a training batch, and in use of
    # the single image. With --batch_size above 1 these differ: take instance.
    norm: translation.Norm = "batch"
    discriminator_norm: translation.Norm = "batch"  # Normalisation in the discriminator.
    discriminator_weight: float = 0.5  # Weight of the objective in the discriminator's loss.
    # Which way pairs are translated: from the left (first) image to the right one, or back.
    direction: Literal["a_to_b", "b_to_a"] = "a_to_b"
    conditional: bool = True  # The discriminator sees the source beside the target.
    # Distance to the target in the generator's loss: mean absolute, mean squared, or none.
    reconstruction: Literal["l1", "l2", "none"] = "l1"
    reconstruction_weight: float = 100.0  # Its weight.
    depth: int | None = None  # Times that the U-Net halves an image; none: by the image's size.
    dropout: float = 0.5  # Part of the values dropped in three maps of the decoder: G's noise.
    # Whether they are dropped in translating as well. Without it a source has one translation.
    noise_in_inference: bool = True

    POSITIVE: ClassVar[tuple[str, ...]] = ("depth",)
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ("reconstruction_weight",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("dropout", lambda v: 0 <= v < 1, "at least 0 and below 1")
        if not self.adversarial_weight and (
            self.reconstruction == "none" or not self.reconstruction_weight
        ):
            raise ValueError(
                "the generator has nothing to learn by: set --adversarial_weight above 0, or "
                "--reconstruction to l1 or l2 with a weight. Received: --adversarial_weight=0.0 "
                f"--reconstruction={self.reconstruction} "
                f"--reconstruction_weight={self.reconstruction_weight}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """Both images of a pair."""
        return ("source", "target")


@keras.saving.register_keras_serializable("tfgen")
class Pix2Pix(_translator.Translator):
    """pix2pix from the caller's networks.

    For example on facades the generator maps label maps [B, 256, 256, 3] in [-1, 1] and a seed
    int32 [2] to photos [B, 256, 256, 3] in [-1, 1], and the discriminator both together
    [B, 256, 256, 6] to logits [B, 30, 30, 1].

    Args:
        generator: built Keras model of two inputs, sources and a seed.
        discriminator: built Keras model from targets, or sources and targets joined along the
            channels, to logits of patches; None to learn by the distance alone.
        reverse: whether a batch's "target" is translated to its "source".
        reconstruction: "l1", "l2" or "none".
        reconstruction_weight: lambda.
        **kwargs: of `Translator`.

    Raises:
        ValueError: if the networks do not fit together, or an argument is out of range.
    """

    needs = ("source", "target")
    evaluations: tuple[str, ...] = ("translation.paired",)

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model | None,
        *,
        reverse: bool = False,
        reconstruction: str = "l1",
        reconstruction_weight: float = 100.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if reconstruction not in ("l1", "l2", "none"):
            raise ValueError(f"reconstruction must be l1, l2 or none. Received: {reconstruction!r}")
        sources, targets = generator.inputs[0].shape[-1], generator.output_shape[-1]
        self.conditional = False
        if discriminator is not None:
            judged = discriminator.input_shape[-1]
            if judged not in (targets, sources + targets):
                raise ValueError(
                    f"the discriminator must take {targets} channels, the target, or "
                    f"{sources + targets}, source and target. Received: {judged}"
                )
            self.conditional = judged == sources + targets
        self.generator, self.discriminator = generator, discriminator
        self.reverse = reverse
        self.reconstruction, self.reconstruction_weight = reconstruction, reconstruction_weight
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "generator": serialize(self.generator),
            "discriminator": self.discriminator and serialize(self.discriminator),
            "reverse": self.reverse,
            "reconstruction": self.reconstruction,
            "reconstruction_weight": self.reconstruction_weight,
        }

    def players(self) -> dict[str, list[keras.Variable]]:
        """The generator and, where there is one, the discriminator."""
        found = {"generator": self.generator.trainable_variables}
        if self.discriminator is not None:
            found["discriminator"] = self.discriminator.trainable_variables
        return found

    @property
    def source_key(self) -> str:
        """The batch key of what is translated."""
        return "target" if self.reverse else "source"

    # What a step is made of.

    def source(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The images that are translated."""
        return batch[self.source_key]

    def target(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """What they should become."""
        return batch["source" if self.reverse else "target"]

    def generate(self, source: tf.Tensor, seed: tf.Tensor, training: bool) -> tf.Tensor:
        """Sources [B, H, W, C] of any size to translations of that size, for a seed int32 [2]."""
        return self.through(lambda x: self.generator([x, seed], training=training), source)

    def judge(self, source: tf.Tensor, image: tf.Tensor, training: bool = True) -> tf.Tensor:
        """Logits of patches [B, h, w, 1] of a target or a translation, float32."""
        if self.discriminator is None:
            raise ValueError("this model has no discriminator: it learnt by the distance alone")
        seen = tf.concat([source, image], -1) if self.conditional else image
        return tf.cast(self.discriminator(seen, training=training), tf.float32)

    def distance(self, target: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """Mean absolute or squared difference of pixels, a scalar."""
        difference = target - image
        power = tf.square if self.reconstruction == "l2" else tf.abs
        return tf.reduce_mean(power(difference))

    def discriminator_loss(
        self, source: tf.Tensor, target: tf.Tensor, fake: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The discriminator's loss, a scalar, and what is logged."""
        channels = source.shape[-1]
        if not self.conditional:
            return self.judge_loss(lambda x: self.judge(source, x), target, fake, 0)
        return self.judge_loss(
            lambda x: self.judge(x[..., :channels], x[..., channels:]),
            tf.concat([source, target], -1),
            tf.concat([source, fake], -1),
            0,
        )

    def generator_loss(
        self, source: tf.Tensor, target: tf.Tensor, fake: tf.Tensor, training: bool = True
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The generator's loss, a scalar, and what is logged."""
        total, logs = tf.constant(0.0), {"distance": self.distance(target, fake)}
        if self.discriminator is not None:
            logits = self.judge(source, fake, training)
            logs["generator_loss"] = tf.reduce_mean(self.losses_of.generator(logits))
            total += self.adversarial_weight * logs["generator_loss"]
        if self.reconstruction != "none":
            total += self.reconstruction_weight * logs["distance"]
        return total, logs

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One update of the discriminator, then one of the generator, by the same translations."""
        source, target = self.source(batch), self.target(batch)
        logs: dict[str, tf.Tensor] = {}
        with tf.GradientTape() as of_generator:
            fake = self.generate(source, self.noise_seed(_NOISE), training=True)
            if self.discriminator is not None:
                with of_generator.stop_recording(), tf.GradientTape() as of_discriminator:
                    loss, logs = self.discriminator_loss(source, target, tf.stop_gradient(fake))
                with of_generator.stop_recording():
                    self.minimize("discriminator", loss, of_discriminator)
            loss, more = self.generator_loss(source, target, fake)
        self.minimize("generator", loss, of_generator)
        return {**logs, **more}

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The generator's losses; the distance is that of a translation to the true target."""
        source, target = self.source(batch), self.target(batch)
        fake = self.generate(source, self.noise_seed(_NOISE), training=False)
        return self.generator_loss(source, target, fake, training=False)[1]

    # Using a trained model.

    def translate(self, image: tf.Tensor, seed: int | tf.Tensor = 0) -> tf.Tensor:
        """Images [B, H, W, C] in [-1, 1] of any size to their translations, of the same size.

        Args:
            image: the sources.
            seed: int or int32 scalar, of the noise.

        Returns:
            float32 [B, H, W, channels of the target] in [-1, 1].
        """
        return self.generate(image, tf.stack([tf.cast(seed, tf.int32), 1]), training=False)

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Rows of source, translation and target, [rows, 3, H, W, 3] in [0, 1]."""
        source, target = (x[:_TEST_ROWS] for x in (self.source(batch), self.target(batch)))
        made = self.translate(source, seed)
        columns = [_translator.as_picture(x) for x in (source, made, target)]
        return {"translations": np.stack(columns, axis=1)}

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Endpoints of the exported model: name -> (function of tensors, specs by argument)."""
        scalar = tf.TensorSpec([], tf.int32)
        image = tf.TensorSpec([None, None, None, self.image_shape[-1]])
        return {
            "translate": (self.translate, {"image": image, "seed": scalar}),
            "sample": (self.sample, {"num": scalar, "seed": scalar}),
        }


def build(hparams: HParams, data_spec: DataSpec) -> Pix2Pix:
    """The U-Net and the PatchGAN that the flags ask for, compiled and ready to train.

    Raises:
        ValueError: if the images are too small for the networks, or do not halve so often.
    """
    reverse = hparams.direction == "b_to_a"
    source, target = (data_spec.shapes[key] for key in ("source", "target"))
    source, target = (target, source) if reverse else (source, target)
    height, width, channels = source
    if min(height, width) < _LEAST:
        raise ValueError(
            f"a U-Net needs images of at least {_LEAST}x{_LEAST}; see --resize and --crop. "
            f"Received: {height}x{width}"
        )
    most = unet.deepest(height, width)
    depth = hparams.depth or max(2, unet.depth_for(height, width))
    if not 2 <= depth <= most:
        raise ValueError(
            f"--depth must be from 2 to {most} for images of {height}x{width}, whose shorter side "
            f"halves so often. Received: --depth={depth}"
        )
    if hparams.norm == "batch" and hparams.batch_size > 1:
        logging.warning(
            "--norm=batch is trained by the statistics of %d images and used by those of one: "
            "--norm=instance does not tell them apart",
            hparams.batch_size,
        )
    norm_bottleneck = min(height, width) > 2**depth
    made = unet.unet(
        channels,
        target[-1],
        depth=depth,
        filters=hparams.filters,
        norm=translation.NORMS[hparams.norm],
        norm_bottleneck=norm_bottleneck,
        dropout=hparams.dropout,
        dropout_in_inference=hparams.noise_in_inference,
        seed=hparams.seed,
    )
    judge = None
    if hparams.adversarial_weight:
        judge = patchgan.discriminator(
            target[-1] + (channels if hparams.conditional else 0),
            patch=patchgan.patch_side(hparams.patch, target),
            filters=hparams.discriminator_filters,
            norm=translation.NORMS[hparams.discriminator_norm],
            logit_bias=hparams.objective != "wasserstein",  # it cancels there
            seed=hparams.seed,
        )
    model = Pix2Pix(
        made,
        judge,
        reverse=reverse,
        reconstruction=hparams.reconstruction,
        reconstruction_weight=hparams.reconstruction_weight,
        image_shape=source,
        stride=2**depth,
        # A user's smaller image: its bottleneck must not be one pixel where that is normed.
        least=2 ** (depth + norm_bottleneck),
        **_translator.slots(hparams),
    )
    return _translator.compile(model, hparams, data_spec.train_size)
