"""PixelCNN: an explicit likelihood of images, one pixel after the other.

Objective, maximised (sum over pixels and channels, mean over the batch), x in raster order:

    log p(x) = sum_i sum_c log p(x_ic | x_1, ..., x_{i-1}, x_i1, ..., x_i,c-1)

each a Bernoulli, or a softmax over 256 levels, whose logits are found for all pixels in one pass of
masked convolutions. The gated form has a vertical stack for the rows above and a horizontal one for
the pixels on the left, so that every pixel before counts; in the ungated form a stack of masked
kernels leaves a blind spot above on the right. With `conditional` every layer of the gated form is
given the label, and log p(x) = log sum_y p(x|y) / classes.

As the decoder of a VAE it is the slot `likelihood` of `vae.py` (PixelVAE): --likelihood=pixelcnn.

Reference: A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu. Pixel Recurrent Neural Networks. ICML
2016: eq. 1-2, section 3.4 (masks), table 1 (architecture), table 4 (MNIST). Gated: A. van den Oord,
N. Kalchbrenner, O. Vinyals, L. Espeholt, A. Graves, K. Kavukcuoglu. Conditional Image Generation
with PixelCNN Decoders. NeurIPS 2016: section 2.1-2.3, figure 2.

Differs from the paper:
  * Images are binarised anew at each use (`binarize`); the paper took the fixed set.
  * Adam, where the paper has RMSProp.
  * Layers of 32 channels; as many layers as the paper has for MNIST.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf

from tfgen import hparams, stateless
from tfgen.data import DataSpec
from tfgen.networks.pixelcnn import PixelCNNNetwork
from tfgen.training import optimizers, schedules
from tfgen.training.model import GenerativeModel


@dataclasses.dataclass(frozen=True)
class HParams(hparams.HParams):
    """Flags of a PixelCNN."""

    # Distribution of a pixel's channel: {0, 1}, or a softmax over 256 levels.
    likelihood: Literal["bernoulli", "categorical"] = "bernoulli"
    # How grey values become {0, 1} for a Bernoulli likelihood: a fresh draw at each use, one draw
    # for ever, or a threshold at 1/2.
    binarize: Literal["dynamic", "fixed", "threshold"] = "dynamic"
    gated: bool = True  # Two gated stacks (2016b), else residual blocks with a blind spot (2016a).
    layers: int = 7  # Layers after the first; 7 residual blocks for MNIST in the paper of 2016a.
    filters: int = 32  # Channels of the layers; twice the paper's h in residual blocks.
    kernel_size: int = 3  # Side of the kernels after the first layer, odd.
    first_kernel_size: int = 7  # Side of the first layer's kernel, odd.
    head_filters: int = 32  # Channels between the two 1x1 convolutions at the end.
    conditional: bool = False  # Whether the gated form is given the label.

    POSITIVE: ClassVar[tuple[str, ...]] = ("layers", "filters", "head_filters")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("kernel_size", lambda v: v > 0 and v % 2, "odd")
        self.check("first_kernel_size", lambda v: v >= 3 and v % 2, "odd and 3 or more")
        if self.conditional and not self.gated:
            raise ValueError(
                "--conditional needs the gated form. Received: --conditional --gated=false"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """Images; and labels, if it is given them."""
        return ("image", "label") if self.conditional else ("image",)

    @property
    def image_range(self) -> str:
        """{0, 1}, or 256 levels in [0, 1]."""
        return "binary" if self.likelihood == "bernoulli" else "unit"

    @property
    def binarization(self) -> str:
        """The flag `binarize`."""
        return self.binarize


@keras.saving.register_keras_serializable("tfgen")
class PixelCNN(GenerativeModel):
    """A PixelCNN over images, from the caller's network.

    For example `PixelCNN(PixelCNNNetwork((28, 28, 1)))` trains on [B, 28, 28, 1] of 0 and 1, and
    with `levels=256` on images in [0, 1]. If the network takes a condition it is the label.

    Args:
        network: of as many levels as the images have; its context is the number of classes.
        **kwargs: of `keras.Model`.
    """

    criterion = "loss"
    evaluations = ("density.image_nll",)

    def __init__(self, network: PixelCNNNetwork, **kwargs: Any):
        super().__init__(**kwargs)
        self.network = network
        self.num_classes = network.context
        self.needs = ("image", "label") if self.num_classes else ("image",)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, the network included."""
        return {
            "network": keras.saving.serialize_keras_object(self.network),
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PixelCNN":
        """The model that `get_config` describes."""
        return cls(
            **{**config, "network": keras.saving.deserialize_keras_object(config["network"])}
        )

    # Training.

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of the only player, "model"; logs "loss", -log p(x) in nats."""
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self._log_prob(batch["image"], batch.get("label")))
        self.minimize("model", loss, tape)
        return {"loss": loss}

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same log."""
        return {"loss": -tf.reduce_mean(self._log_prob(batch["image"], batch.get("label")))}

    def _log_prob(self, image: tf.Tensor, label: tf.Tensor | None) -> tf.Tensor:
        return self.network.log_prob(self.network.to_values(image), self._condition(label))

    def _condition(self, label: tf.Tensor | None) -> tf.Tensor | None:
        return tf.one_hot(label, self.num_classes) if self.num_classes else None

    # Using a trained model.

    def log_prob(self, image: tf.Tensor) -> tf.Tensor:
        """log p(x), over all classes alike if it is given one: [B, H, W, C] -> [B], in nats."""
        if not self.num_classes:
            return self._log_prob(image, None)
        labels = [tf.fill(tf.shape(image)[:1], label) for label in range(self.num_classes)]
        found = tf.stack([self._log_prob(image, label) for label in labels])
        return tf.reduce_logsumexp(found, axis=0) - math.log(self.num_classes)

    def sample(
        self, num: int | tf.Tensor, seed: int | tf.Tensor, label: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Draws `num` images, pixel by pixel.

        Args:
            num: how many.
            seed: int or int32 scalar; the same seed gives the same images.
            label: int32 [num], the classes; None draws them, each alike.

        Returns:
            float32 [num, H, W, C], of the network's levels in [0, 1].
        """
        key = tf.stack([tf.cast(seed, tf.int32), 0])
        of_pixels, of_label = tf.unstack(stateless.split(key, 2))
        if self.num_classes and label is None:
            label = stateless.uniform([num], of_label, 0, self.num_classes, tf.int32)
        values = self.network.draw(num, of_pixels, self._condition(label))
        return self.network.to_images(values)

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Named grids [rows, columns, H, W, C] in [0, 1]: samples, a row for each class."""
        rows = self.num_classes or 8
        label = tf.repeat(tf.range(rows), 8) if self.num_classes else None
        images = self.sample(8 * rows, seed, label)
        return {"samples": tf.reshape(images, [rows, 8, *self.network.shape]).numpy()}

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Endpoints of the exported model: name -> (function of tensors, specs by argument)."""
        scalar = tf.TensorSpec([], tf.int32)
        image = tf.TensorSpec([None, *self.network.shape], tf.float32)
        return {
            "sample": (self.sample, {"num": scalar, "seed": scalar}),
            "log_prob": (self.log_prob, {"image": image}),
        }


def build(hparams: HParams, data_spec: DataSpec) -> PixelCNN:
    """A PixelCNN for the data's images, compiled and ready to train."""
    network = PixelCNNNetwork(
        data_spec.image_shape,
        levels=2 if hparams.likelihood == "bernoulli" else 256,
        gated=hparams.gated,
        layers=hparams.layers,
        filters=hparams.filters,
        kernel_size=hparams.kernel_size,
        first_kernel_size=hparams.first_kernel_size,
        head_filters=hparams.head_filters,
        context=data_spec.num_classes or 0 if hparams.conditional else 0,
        seed=hparams.seed,
        name="network",
    )
    model = PixelCNN(network)
    total_steps = hparams.total_steps(data_spec.train_size)
    adam = optimizers.Adam(schedules.learning_rate(hparams, total_steps))
    model.compile(adam, **hparams.compile_options())
    return model
