"""Semi-supervised GAN: a classifier of K classes learns from examples without labels as well.

The discriminator is a classifier of K + 1 classes, the last of which are the generated examples.
Its logit is fixed at 0, so K logits l remain, and with log Z = log sum_k exp l_k

    p(y = k | x, real) = softmax(l)_k,      D(x) = Z / (Z + 1) = sigmoid(log Z)

Losses, each minimised by its player (means over the batch; f are a layer's activations):

    discriminator:  -E_labelled log softmax(l(x))_y - 1/2 E log D(x) - 1/2 E log(1 - D(G(z)))
    generator:      ||E f(x) - E f(G(z))||^2                                  feature matching

The labelled examples are a fixed few of each class, chosen by (seed, data) before the first step;
the labels of all others are never used. What counts is the error on the test split, with the
moving average of the weights. The paper's other tricks (minibatch discrimination, historical
averaging, one-sided label smoothing, virtual batch norm) are flags of every GAN of this family;
one whose losses or networks have no place for a trick says so.

Reference: T. Salimans, I. Goodfellow, W. Zaremba, V. Cheung, A. Radford, X. Chen. Improved
Techniques for Training GANs. NeurIPS 2016: section 5 (K + 1 classes, losses), 3.1 (feature
matching), 6.1 (MNIST). Widths, noise, initial weights, optimiser, the 1/2 and the weight of feature
matching, which makes it a mean over 250 units, are those of the authors' code.

Differs from the paper:
  * Feature matching takes the examples that the discriminator just saw, and not a batch of its own.
  * The latents are uniform on [-1, 1]; the authors' on [0, 1).
  * Adam's epsilon, 1e-4, is added to the root; the authors add 1e-8 under it.
  * The moving average begins at the initial weights, of which a part of decay^steps stays, and not
    at 0.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf

from tfgen.data import DataSpec, synthetic
from tfgen.layers.batch_normalization import BatchNormalization
from tfgen.layers.gaussian_noise import GaussianNoise
from tfgen.layers.minibatch_discrimination import MinibatchDiscrimination
from tfgen.layers.weight_norm_dense import WeightNormDense
from tfgen.models.gan import _players, gan
from tfgen.training.labelled import LabelledExamples

_LABELLED = 10  # Salt.
_START = 500  # Examples by which weight norm starts.


@dataclasses.dataclass(frozen=True)
class HParams(gan.HParams):
    """Flags of a semi-supervised GAN; the paper's for MNIST."""

    batch_size: int = 100  # Examples a step over all replicas (the global batch).
    epochs: float = 300.0  # Passes over the training split; may be a fraction.
    learning_rate: float = 3e-3  # Step size of the generator's Adam.
    # Normalisation in the generator: batch, virtual or none. The discriminator has weight norm.
    norm: gan.GeneratorNorm = "batch"
    adam_epsilon: float = 1e-4  # Added to the root in Adam's step, of both.
    # Decay of the weights' moving average, which is tested; none: the weights themselves are.
    ema_decay: float | None = 0.9999
    networks: Literal["mlp"] = "mlp"  # Dense layers.
    hidden_units: tuple[int, ...] = (1000, 500, 250, 250, 250)  # Widths of the discriminator.
    generator_units: tuple[int, ...] = (500, 500)  # Widths of the generator.
    latents: gan.Latents = "uniform"  # N(0, I), or uniform on [-1, 1].
    # Discriminator's layer whose mean activations the generator matches; none is off.
    feature_matching_layer: str | None = "features"
    feature_matching_weight: float = 0.004  # Weight of feature matching: 1 / 250 units.
    adversarial_weight: float = 0.0  # Weight of the objective in the generator's loss.
    labels_per_class: int = 10  # Labelled examples of each class.
    unsupervised_weight: float = 0.5  # Weight of D's game in its loss; 0 is a plain classifier.
    input_noise: float = 0.3  # Standard deviation of the noise on the discriminator's input.
    hidden_noise: float = 0.5  # The same after each of its hidden layers.

    POSITIVE: ClassVar[tuple[str, ...]] = ("generator_units", "labels_per_class")
    NOT_EMPTY: ClassVar[tuple[str, ...]] = ("generator_units",)
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = (
        "unsupervised_weight", "input_noise", "hidden_noise",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.discriminator_norm == "spectral":
            raise ValueError(
                "the discriminator has weight norm: leave --discriminator_norm out. "
                "Received: --discriminator_norm=spectral"
            )
        if self.data in synthetic.MIXTURES:
            raise ValueError(
                "the semi-supervised GAN is for images with labels, e.g. --data=digits. "
                f"Received: --data={self.data}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """Images with labels."""
        return ("image", "label")


@keras.saving.register_keras_serializable("tfgen")
class SemiSupervisedGAN(gan.GAN):
    """A semi-supervised GAN from the caller's networks.

    `fit` wants batches of images and labels, and `adapt` before it: that chooses the labelled
    examples, which the model keeps.

    Args:
        generator: as for `GAN`.
        discriminator: built Keras model from images to logits of the K classes, [B, K].
        labels_per_class: labelled examples of each class.
        unsupervised_weight: weight of D's game in its loss; 0 is a plain classifier.
        feature_matching_layer: as for `GAN`.
        adversarial_weight: as for `GAN`.
        **kwargs: further arguments of `GAN`.

    Raises:
        ValueError: if the discriminator has no K logits, or an argument is out of range.
    """

    evaluations: tuple[str, ...] = ("classification.error", "samples.fidelity")

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        *,
        labels_per_class: int = 10,
        unsupervised_weight: float = 0.5,
        feature_matching_layer: str | None = "features",
        adversarial_weight: float = 0.0,
        **kwargs: Any,
    ):
        logits = discriminator.output_shape[1:]
        if len(logits) != 1 or logits[0] < 2:
            raise ValueError(
                "the discriminator must give logits [B, K] of 2 classes or more. "
                f"Received: output {logits}"
            )
        super().__init__(
            generator,
            discriminator,
            feature_matching_layer=feature_matching_layer,
            adversarial_weight=adversarial_weight,
            **kwargs,
        )
        self.needs = (*self.needs, "label")
        self.num_classes = logits[0]
        self.labels_per_class = labels_per_class
        self.unsupervised_weight = unsupervised_weight
        self.labelled = LabelledExamples(self, self.num_classes, labels_per_class, self.event_shape)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        return {
            **super().get_config(),
            "labels_per_class": self.labels_per_class,
            "unsupervised_weight": self.unsupervised_weight,
        }

    # Before the first step.

    def adapt_to(self, batches: tf.data.Dataset) -> None:
        """Chooses the labelled examples, and starts weight norm by the first 500 of all.

        Args:
            batches: the training split once, in fixed order.

        Raises:
            DataError: if a class has too few examples.
        """
        self.labelled.adapt(batches, self.seed)
        x = next(iter(batches.unbatch().batch(_START)))["image"]
        for layer in self.discriminator.layers:
            ready = isinstance(layer, WeightNormDense)
            x = layer.initialize(x) if ready else _call(layer, x)

    # What a step is made of.

    def class_logits(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        """l of the K classes, float32 [B, K]."""
        return tf.cast(self.discriminator(images, training=training), tf.float32)

    def as_logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """log Z, the logit of being real, float32 [B, 1]."""
        return _log_z(super().as_logits(outputs))

    def discriminator_loss(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The classifier's loss on labelled examples plus the game's on all."""
        game, logs = super().discriminator_loss(batch)
        images, labels = self.labelled.draw(tf.shape(batch["image"])[0], self.noise_seed(_LABELLED))
        logits = self.class_logits(images, training=True)
        supervised = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
        logs |= {"supervised_loss": supervised, "labelled_error": _error(labels, logits)}
        return supervised + self.unsupervised_weight * game, logs

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Both losses of the game and the error of the classifier, networks in inference mode."""
        logits = self.class_logits(batch["image"], training=False)
        return {**super().test_step(batch), "error": _error(batch["label"], logits)}

    # Using a trained model.

    def classify(self, image: tf.Tensor) -> tf.Tensor:
        """Probabilities of the K classes for images in [-1, 1]: [B, H, W, C] -> [B, K]."""
        return tf.nn.softmax(self.class_logits(image, training=False))

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Endpoints of the exported model: name -> (function of tensors, specs by argument)."""
        endpoints = super().signatures()
        return {**endpoints, "classify": (self.classify, endpoints["score"][1])}


def _log_z(logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_logsumexp(logits, axis=1, keepdims=True)


def _error(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    predicted = tf.argmax(logits, axis=1, output_type=labels.dtype)
    return tf.reduce_mean(tf.cast(predicted != labels, tf.float32))


def _call(layer: keras.layers.Layer, x: tf.Tensor) -> tf.Tensor:
    """A layer in training mode, where it has such a mode."""
    return layer(x, training=True) if isinstance(layer, GaussianNoise) else layer(x)


def _batch_norm() -> keras.layers.Layer:
    return BatchNormalization(momentum=0.9, epsilon=1e-6, scale=False, synchronized=True)


def networks(
    event_shape: tuple[int, ...], num_classes: int, hparams: HParams
) -> tuple[keras.Model, keras.Model]:
    """The paper's MLPs: weight norm in both, batch norm in the generator, noise in D."""

    def dense(units: int, index: int, activation: str | None, name: str, **kwargs: Any) -> Any:
        init = keras.initializers.RandomNormal(stddev=0.1, seed=hparams.seed * 1000 + index)
        return WeightNormDense(units, activation, kernel_initializer=init, name=name, **kwargs)

    def make_generator(norm: Callable[[], keras.layers.Layer] | None, name: str) -> Any:
        layers: list = [keras.Input((hparams.latent_dim,))]
        for index, width in enumerate(hparams.generator_units):
            init = keras.initializers.GlorotUniform(seed=hparams.seed * 1000 + 100 + index)
            layers += [
                keras.layers.Dense(width, use_bias=norm is None, kernel_initializer=init),
                *([norm()] if norm else []),
                keras.layers.Activation("softplus"),
            ]
        layers += [
            dense(math.prod(event_shape), 200, "sigmoid", "pixels"),
            keras.layers.Rescaling(2.0, -1.0),
            keras.layers.Reshape(event_shape),
        ]
        return keras.Sequential(layers, name=name)

    discriminator: list = [
        keras.Input(event_shape),
        keras.layers.Flatten(),
        keras.layers.Rescaling(0.5, 0.5),
        GaussianNoise(hparams.input_noise, seed=hparams.seed * 1000 + 300),
    ]
    for index, width in enumerate(hparams.hidden_units):
        last = index + 1 == len(hparams.hidden_units)
        discriminator += [
            dense(
                width,
                400 + index,
                "relu",
                "features" if last else f"hidden_{index + 1}",
                train_scale=False,
            ),
            GaussianNoise(hparams.hidden_noise, seed=hparams.seed * 1000 + 301 + index),
        ]
    if hparams.minibatch_kernels:
        kernels, dimensions = hparams.minibatch_kernels, hparams.minibatch_kernel_dim
        discriminator.append(MinibatchDiscrimination(kernels, dimensions))
    discriminator.append(dense(num_classes, 500, None, "logits"))
    return (
        _players.normed_generator(make_generator, hparams, {"batch": _batch_norm, "none": None}),
        keras.Sequential(discriminator, name="discriminator"),
    )


def build(hparams: HParams, data_spec: DataSpec) -> SemiSupervisedGAN:
    """The paper's networks, compiled and ready to train.

    Raises:
        ValueError: if the data has no classes.
    """
    if data_spec.num_classes is None:
        raise ValueError(f"data must have labels. Received: {data_spec.name!r} without classes")
    model = SemiSupervisedGAN(
        *networks(_players.event_shape(hparams, data_spec), data_spec.num_classes, hparams),
        labels_per_class=hparams.labels_per_class,
        unsupervised_weight=hparams.unsupervised_weight,
        **gan.slots(hparams),
    )
    return _players.compile(model, hparams, data_spec.train_size)
