"""Masked autoregressive flow: a density whose dimensions are Gaussians given those before them.

Objective, maximised (mean over the batch), u = f^-1(y) by a stack of MADEs:

    log p(y) = log N(u; 0, I) + log |du/dy|,   each block   u_i = (y_i - m_i) exp(-a_i),
    (m_i, a_i) functions of y_1 .. y_{i-1}; the order is reversed from block to block

One block without batch norm is the paper's MADE. Points are modelled as they are. Images of 256
levels are dequantised and made real:

    z = (level + noise) / 256,   y = logit(alpha + (1 - 2 alpha) z),   noise uniform on [0, 1)

so that log p(x) >= E log p(z) - d log 256, with the Jacobian of the logit in log p(z). With
`conditional` every block is given the label's class, and log p(x) = log sum_c p(x|c) / classes.

Reference: G. Papamakarios, T. Pavlakou, I. Murray. Masked Autoregressive Flow for Density
Estimation. NeurIPS 2017: eq. 3-5 (block), section 4.2 (batch norm, training), appendix D (data).

Differs from the paper:
  * The log scales of a block are bounded by 5, see `bijectors.autoregressive`.
  * Batch norm's statistics of the whole training set, which the paper takes at each validation,
    are taken at validations, pictures and the end of the run; in between they follow the batches.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfgen import distributions, hparams, plane, stateless
from tfgen.bijectors.flow import AutoregressiveFlow, Order
from tfgen.data import DataSpec, synthetic
from tfgen.training import optimizers, schedules
from tfgen.training.model import GenerativeModel

LEVELS = 256


@dataclasses.dataclass(frozen=True)
class HParams(hparams.HParams):
    """Flags of a MAF; the paper's for MNIST."""

    batch_size: int = 100  # Examples a step over all replicas (the global batch).
    learning_rate: float = 1e-4  # Step size of Adam; 1e-3 for a single MADE in the paper.
    # Epochs without a lower validation loss after which training ends, at its best weights.
    early_stopping_epochs: int | None = 30
    blocks: int = 5  # MADEs in a row.
    hidden_units: tuple[int, ...] = (1024,)  # Widths of each MADE's hidden layers.
    # Dimensions from each MADE to the next: reversed, shuffled, or in the same order.
    order: Order = "reversed"
    batch_norm: bool = True  # Batch normalisation after each block, seen from the data.
    alpha: float = 1e-6  # How far images keep from the ends of the logit.
    l2: float = 1e-6  # Weight of the squared norm of all kernels in the loss, biases left out.
    conditional: bool = False  # Whether the density is given the label's class.

    POSITIVE: ClassVar[tuple[str, ...]] = ("blocks", "hidden_units")
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ("l2",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("alpha", lambda v: 0 < v < 0.5, "above 0 and below 0.5")

    @property
    def needs(self) -> tuple[str, ...]:
        """Points of the mixtures, else images; and labels, if it is given the class."""
        example = "point" if self.data in synthetic.MIXTURES else "image"
        return (example, "label") if self.conditional else (example,)


@keras.saving.register_keras_serializable("tfgen")
class MAF(GenerativeModel):
    """A masked autoregressive flow over images or points.

    For example `MAF(AutoregressiveFlow(784), (28, 28, 1))` trains on [B, 28, 28, 1] in [0, 1], and
    `MAF(AutoregressiveFlow(2), (2,))` on points [B, 2].

    Args:
        flow: masked, over as many dimensions as an example has numbers; its context, if it has
            one, is as many as there are classes.
        event_shape: of one example: (H, W, C) are images of 256 levels in [0, 1], (d,) vectors.
        alpha: how far images keep from the ends of the logit.
        l2: weight of the squared norm of all kernels in the loss.

    Raises:
        ValueError: if the flow does not fit the examples.
    """

    criterion = "loss"
    evaluations = ("density.nll", "density.gaussian_nll")

    def __init__(
        self,
        flow: AutoregressiveFlow,
        event_shape: Iterable[int],
        *,
        alpha: float = 1e-6,
        l2: float = 1e-6,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.event_shape = tuple(int(side) for side in event_shape)
        self.dimensions = math.prod(self.event_shape)
        if flow.dimensions != self.dimensions or flow.kind != "masked":
            raise ValueError(
                f"examples of shape {self.event_shape} need a masked flow of {self.dimensions} "
                f"dimensions. Received: {flow.kind}, {flow.dimensions} dimensions"
            )
        self.flow = flow
        self.alpha, self.l2 = alpha, l2
        self.num_classes = flow.context
        self.of_images = len(self.event_shape) == 3
        example = "image" if self.of_images else "point"
        self.needs = (example, "label") if self.num_classes else (example,)
        self.base = distributions.StandardGaussian(self.dimensions)
        # In a graph even where they are called outside of one: a draw loops over the dimensions,
        # and so would a density for which TFP's caches are off.
        self._draw = tf.function(self._drawn, reduce_retracing=True)
        self._judge = tf.function(self._judged, reduce_retracing=True)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, the flow included."""
        return {
            "flow": keras.saving.serialize_keras_object(self.flow),
            "event_shape": self.event_shape,
            "alpha": self.alpha,
            "l2": self.l2,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MAF":
        """The model that `get_config` describes."""
        return cls(**{**config, "flow": keras.saving.deserialize_keras_object(config["flow"])})

    def density(self, label: tf.Tensor | None = None, training: bool = False) -> tfd.Distribution:
        """p(y), or p(y|c) for labels int [B]: a distribution over vectors [..., d]."""
        context = None if label is None else tf.one_hot(label, self.num_classes)
        return tfd.TransformedDistribution(self.base, self.flow.bijector(context, training))

    # Between examples and the vectors y.

    def to_vectors(self, example: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Examples [B, ...] -> y [B, d] and log |dy/dz| [B], z in [0, 1]; 0 for vectors."""
        flat = tf.reshape(tf.cast(example, tf.float32), [-1, self.dimensions])
        if not self.of_images:
            return flat, tf.zeros(tf.shape(flat)[:1])
        levels = tf.round(flat * (LEVELS - 1.0))
        z = (levels + stateless.uniform(tf.shape(flat), seed)) / LEVELS
        s = self.alpha + (1.0 - 2.0 * self.alpha) * z
        log_s, log_rest = tf.math.log(s), tf.math.log1p(-s)
        slope = math.log(1.0 - 2.0 * self.alpha) - log_s - log_rest
        return log_s - log_rest, tf.reduce_sum(slope, axis=-1)

    def to_examples(self, y: tf.Tensor) -> tf.Tensor:
        """Vectors y [B, d] -> examples [B, ...]; images have one of 256 levels in [0, 1]."""
        if self.of_images:
            z = (tf.sigmoid(y) - self.alpha) / (1.0 - 2.0 * self.alpha)
            y = tf.clip_by_value(tf.floor(z * LEVELS), 0.0, LEVELS - 1.0) / (LEVELS - 1.0)
        return tf.reshape(y, [-1, *self.event_shape])

    # Training.

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of the only player, "model"; logs "loss" and "log_prob", in nats of y."""
        y, _ = self.to_vectors(batch[self.needs[0]], self.noise_seed())
        with tf.GradientTape() as tape:
            log_prob = tf.reduce_mean(self.density(self._label(batch), training=True).log_prob(y))
            weights = [v for v in self.trainable_variables if len(v.shape) > 1]
            norm = tf.add_n([2.0 * tf.nn.l2_loss(tf.convert_to_tensor(v)) for v in weights])
            loss = self.l2 * norm - log_prob
        self.minimize("model", loss, tape)
        return {"loss": loss, "log_prob": log_prob}

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same logs, "loss" without the weights' norm."""
        y, _ = self.to_vectors(batch[self.needs[0]], self.noise_seed())
        log_prob = tf.reduce_mean(self.density(self._label(batch)).log_prob(y))
        return {"loss": -log_prob, "log_prob": log_prob}

    def _label(self, batch: dict[str, tf.Tensor]) -> tf.Tensor | None:
        return batch["label"] if self.num_classes else None

    def settle(self, batches: Callable[[], Iterable[dict[str, tf.Tensor]]]) -> None:
        """Gives batch norm the statistics of the whole training set."""

        def vectors() -> Iterable[tuple[tf.Tensor, tf.Tensor | None]]:
            for index, batch in enumerate(batches()):
                y, _ = self.to_vectors(batch[self.needs[0]], tf.constant([self.seed, index]))
                label = self._label(batch)
                yield y, None if label is None else tf.one_hot(label, self.num_classes)

        self.flow.settle(vectors)

    # Using a trained model.

    def vector_log_prob(self, y: tf.Tensor) -> tf.Tensor:
        """log p(y) of vectors [B, d], over all classes alike if it is given one: [B], in nats."""
        return self._judge(tf.convert_to_tensor(y, tf.float32))

    def _judged(self, y: tf.Tensor) -> tf.Tensor:
        if not self.num_classes:
            return self.density().log_prob(y)
        found = []
        for label in range(self.num_classes):
            labels = tf.fill(tf.shape(y)[:1], label)
            found.append(self.density(labels).log_prob(y))
        return tf.reduce_logsumexp(tf.stack(found), axis=0) - math.log(self.num_classes)

    def log_prob(self, example: tf.Tensor, seed: int | tf.Tensor = 0) -> tf.Tensor:
        """Log density of examples [B, ...], in nats: [B].

        Of an image it is that of its dequantised pixels in [0, 1], with one draw of the noise;
        minus d log 256 it is a bound on the log probability of its levels.
        """
        y, log_det = self.to_vectors(example, _seed(seed))
        return self.vector_log_prob(y) + log_det

    def sample(
        self, num: int | tf.Tensor, seed: int | tf.Tensor, label: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Draws `num` examples.

        Args:
            num: how many.
            seed: int or int32 scalar; the same seed gives the same examples.
            label: int32 [num], the classes; None draws them, each alike.

        Returns:
            float32 [num, H, W, C] in [0, 1], or [num, d].
        """
        num, seed = (tf.convert_to_tensor(value, tf.int32) for value in (num, seed))
        return self._draw(num, seed, label)

    def _drawn(self, num: tf.Tensor, seed: tf.Tensor, label: tf.Tensor | None) -> tf.Tensor:
        of_base, of_label = tf.unstack(stateless.split(_seed(seed), 2))
        if self.num_classes and label is None:
            label = stateless.uniform([num], of_label, 0, self.num_classes, tf.int32)
        density = self.density(label)
        return self.to_examples(density.bijector.forward(self.base.sample(num, seed=of_base)))

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Named grids [rows, columns, H, W, C] in [0, 1] for a batch of at least one example."""
        if self.of_images:
            label = None
            if self.num_classes:  # a row for each class
                label = tf.repeat(tf.range(self.num_classes), 8)
            rows = self.num_classes or 8
            images = self.sample(8 * rows, seed, label)
            return {"samples": tf.reshape(images, [rows, 8, *self.event_shape]).numpy()}
        if self.dimensions != 2:
            return {}
        samples, data = self.sample(1000, seed).numpy(), batch["point"].numpy()
        return {
            "samples": plane.draw(samples, data, lambda x: self.log_prob(x).numpy())[None, None]
        }

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Endpoints of the exported model: name -> (function of tensors, specs by argument)."""
        examples = tf.TensorSpec([None, *self.event_shape], tf.float32)
        scalar = tf.TensorSpec([], tf.int32)
        return {
            "sample": (self.sample, {"num": scalar, "seed": scalar}),
            "log_prob": (self.log_prob, {"example": examples, "seed": scalar}),
        }


def _seed(seed: int | tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.cast(seed, tf.int32), 0])


def build(hparams: HParams, data_spec: DataSpec) -> MAF:
    """A flow over the data's examples, compiled and ready to train."""
    shape = data_spec.shapes[hparams.needs[0]]
    flow = AutoregressiveFlow(
        math.prod(shape),
        blocks=hparams.blocks,
        hidden_units=hparams.hidden_units,
        order=hparams.order,
        batch_norm=hparams.batch_norm,
        context=data_spec.num_classes or 0 if hparams.conditional else 0,
        seed=hparams.seed,
    )
    model = MAF(flow, shape, alpha=hparams.alpha, l2=hparams.l2)
    total_steps = hparams.total_steps(data_spec.train_size)
    adam = optimizers.Adam(schedules.learning_rate(hparams, total_steps))
    model.compile(adam, **hparams.compile_options())
    return model
