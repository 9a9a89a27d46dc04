"""VQ-VAE: latents are codes of a learnt codebook, and a PixelCNN learns how codes go together.

Objective, minimised, z_e(x) being the encoder's map of vectors, e_k the code nearest to each, sg a
stopped gradient (log p summed over pixels and channels, squares over all numbers of the map, both
averaged over the batch):

    -log p(x | e_k) + beta ||z_e(x) - sg[e_k]||^2     with codes that are moving averages, or
                    + ||sg[z_e(x)] - e_k||^2          with codes that learn by gradient

The decoder's gradient goes through the rounding as if it were the identity. Then the prior p(k)
over maps of codes learns with all else at rest, by maximising log p(k). q(k|x) being one at the
nearest codes, the bound on the likelihood is

    log p(x) >= log p(x | e_k(x)) + log p(k(x))

Reference: A. van den Oord, O. Vinyals, K. Kavukcuoglu. Neural Discrete Representation Learning.
NeurIPS 2017: eq. 1-3, section 3.3 (prior), 4.1 (networks, K = 512, beta = 0.25, Adam 2e-4, batches
of 128), appendix A.1 (moving averages).

Differs from the paper:
  * A normalised likelihood, by default discretised logistics, so that bits are bits; the paper's
    images have a squared error.
  * One run trains the VQ-VAE in its first stage (`prior_from`) and the prior in the second.
  * The prior has fewer and narrower layers, and its codes have an embedding of their own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf

from tfgen import hparams, stateless
from tfgen.data import DataSpec
from tfgen.layers.vector_quantizer import Quantized, VectorQuantizer
from tfgen.models.vae import _slots, vae
from tfgen.networks.pixelcnn import PixelCNNNetwork
from tfgen.training import optimizers, schedules
from tfgen.training.model import GenerativeModel, deserialize


@dataclasses.dataclass(frozen=True)
class HParams(hparams.HParams):
    """Flags of a VQ-VAE; the paper's networks."""

    learning_rate: float = 2e-4  # Step size of Adam.
    batch_size: int = 128  # Examples in a step, over all replicas.
    num_codes: int = 512  # Codes of the codebook, K.
    code_dim: int = 64  # Dimensions of a code, D.
    commitment: float = 0.25  # Weight of the encoder's distance to its codes, beta.
    codebook_decay: float = 0.99  # Of the averages that codes are; 0: codes learn by gradient.
    restart_below: float = 0.0  # Codes taken by fewer of a batch's vectors become one; 0: none do.
    filters: int = 256  # Channels of encoder and decoder.
    halvings: int = 2  # How often both sides of an image are halved; at 2 a code stands for 4x4.
    residual_blocks: int = 2  # Of encoder and of decoder.
    prior_from: float = 0.6  # Part of the run after which the prior learns, and it alone.
    prior_layers: int = 8  # Layers of the prior after the first.
    prior_filters: int = 64  # Channels of the prior's layers.
    # Distribution of a pixel's channel.
    likelihood: Literal["bernoulli", "gaussian", "discretized_logistic", "logistic_mixture"] = (
        "discretized_logistic"
    )
    # How grey values become {0, 1} for a Bernoulli likelihood: a fresh draw at each use, one draw
    # for ever, or a threshold at 1/2.
    binarize: Literal["dynamic", "fixed", "threshold"] = "dynamic"

    POSITIVE: ClassVar[tuple[str, ...]] = (
        "code_dim", "filters", "halvings", "residual_blocks", "prior_layers", "prior_filters",
    )  # fmt: skip
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ("commitment", "restart_below")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("num_codes", lambda v: v >= 2, "2 or more")
        self.check("codebook_decay", lambda v: 0 <= v < 1, "at least 0 and below 1")
        self.check("prior_from", lambda v: 0 < v < 1, "between 0 and 1")
        if self.restart_below and not self.codebook_decay:
            raise ValueError(
                "--restart_below needs codes that are moving averages. "
                f"Received: --restart_below={self.restart_below:g} --codebook_decay=0"
            )

    @property
    def image_range(self) -> str:
        """{0, 1} for a Bernoulli likelihood, else [0, 1]."""
        return "binary" if self.likelihood == "bernoulli" else "unit"

    @property
    def binarization(self) -> str:
        """The flag `binarize`."""
        return self.binarize


@keras.saving.register_keras_serializable("tfgen")
class VQVAE(GenerativeModel):
    """A VQ-VAE from the caller's networks, with a PixelCNN over its codes.

    For example 28x28 images, with codes that stand for 4x4 pixels: the encoder maps [B, 28, 28, 1]
    to [B, 7, 7, 64], the decoder [B, 7, 7, 64] to [B, 28, 28, 2], and the prior is
    `PixelCNNNetwork((7, 7, 1), levels=512, embedding=64)`.

    Args:
        encoder: built Keras model from images to a map of vectors [B, h, w, D].
        decoder: built Keras model from such a map to the parameters of images.
        quantizer: of these vectors.
        prior: over maps (h, w, 1) of as many levels as there are codes.
        prior_from: steps after which the prior learns, and it alone.
        likelihood: of pixels that are independent given their codes: a name as for `VAE`.
        **kwargs: of `keras.Model`.

    Raises:
        ValueError: if the networks do not fit each other, or there is no such likelihood.
    """

    evaluations = (
        "density.image_nll",
        "quantized.codebook",
        "samples.fid",
        "quantized.uniform_fid",
        "likelihood.reconstruction_error",
    )

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        quantizer: VectorQuantizer,
        prior: PixelCNNNetwork,
        *,
        prior_from: int,
        likelihood: str = "discretized_logistic",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        vectors, given = tuple(encoder.output_shape[1:]), tuple(decoder.input_shape[1:])
        if len(vectors) != 3 or vectors != given:
            raise ValueError(
                "the decoder must take the encoder's map of vectors [B, h, w, D]. "
                f"Received: the encoder gives {vectors}, the decoder takes {given}"
            )
        if prior.shape != (*vectors[:2], 1) or prior.levels != quantizer.num_codes:
            raise ValueError(
                f"the prior must be over {(*vectors[:2], 1)} of {quantizer.num_codes} levels. "
                f"Received: {prior.shape} of {prior.levels}"
            )
        self.encoder, self.decoder, self.quantizer, self.prior = encoder, decoder, quantizer, prior
        self.likelihood = _slots.PixelwiseLikelihood(likelihood)
        self.prior_from = prior_from
        self.image_shape = tuple(encoder.input_shape[1:])
        self.map_shape, self.num_codes = vectors[:2], quantizer.num_codes
        if not quantizer.built:
            quantizer.build((None, *vectors))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        serialize = keras.saving.serialize_keras_object
        return {
            "encoder": serialize(self.encoder),
            "decoder": serialize(self.decoder),
            "quantizer": serialize(self.quantizer),
            "prior": serialize(self.prior),
            "prior_from": self.prior_from,
            "likelihood": self.likelihood.kind,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VQVAE":
        """The model that `get_config` describes."""
        config = dict(config)
        for key in ("encoder", "decoder", "quantizer", "prior"):
            config[key] = deserialize(config[key])
        return cls(**config)

    def adapt_to(self, batches: tf.data.Dataset) -> None:
        """Last biases begin at the mean image, see `VAE`."""
        if self.likelihood.kind == "bernoulli":
            vae.begin_at_mean_image(self.decoder, batches)

    # Training.

    def players(self) -> dict[str, list[keras.Variable]]:
        """Encoder, decoder and codebook as "model", and the prior."""
        parts = (self.encoder, self.decoder, self.quantizer)
        return {
            "model": [v for part in parts for v in part.trainable_variables],
            "prior": self.prior.trainable_variables,
        }

    def stage_starts(self) -> tuple[int, ...]:
        """Where all else stands still and the prior begins to learn."""
        return (self.prior_from,)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of "model"; in the second stage, of "prior".

        Logs, of the first, "loss", "likelihood" log p(x|e_k) in nats, "commitment", the mean square
        of a number of z_e(x) - e_k, and "perplexity", how many codes the batch uses, as if each
        were taken alike; of the second, "loss", -log p(k) in nats.
        """
        image = batch["image"]
        if self.stage:
            indices = self.encode(image)
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(self.code_log_prob(indices))
            self.minimize("prior", loss, tape)
            return {"loss": loss}
        with tf.GradientTape() as tape:
            found = self.nearest(image, training=True)
            likelihood = tf.reduce_mean(self._log_prob(image, found.codes, training=True))
            numbers = float(np.prod(found.codes.shape[1:]))
            distance = self.quantizer.commitment * found.commitment + found.codebook
            loss = numbers * distance - likelihood
        self.minimize("model", loss, tape)
        return {
            "loss": loss,
            "likelihood": likelihood,
            "commitment": found.commitment,
            "perplexity": found.perplexity,
        }

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Logs "loss", of it "likelihood" log p(x|e_k) and "code_nll" -log p(k), "perplexity"."""
        image = batch["image"]
        found = self.nearest(image)
        likelihood = tf.reduce_mean(self._log_prob(image, found.codes))
        code_nll = -tf.reduce_mean(self.code_log_prob(found.indices))
        return {
            "loss": code_nll - likelihood,
            "likelihood": likelihood,
            "code_nll": code_nll,
            "perplexity": found.perplexity,
        }

    def nearest(self, image: tf.Tensor, training: bool = False) -> Quantized:
        """Codes [B, h, w, D] of images [B, H, W, C], with their indices and losses."""
        return self.quantizer.nearest(self.encoder(image, training=training), training)

    def _log_prob(self, image: tf.Tensor, codes: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self._observation(codes, training).log_prob(tf.cast(image, tf.float32))

    def _observation(self, codes: tf.Tensor, training: bool = False) -> Any:
        return self.likelihood.distribution(self.decoder(codes, training=training))

    # Using a trained model.

    def encode(self, image: tf.Tensor) -> tf.Tensor:
        """Indices of codes: images [B, H, W, C] -> int32 [B, h, w]."""
        return self.quantizer.indices(self.encoder(image, training=False))

    def decode(self, indices: tf.Tensor) -> tf.Tensor:
        """Means of p(x|e_k): int32 [B, h, w] -> [B, H, W, C] in [0, 1]."""
        return self._observation(self.quantizer.embed(indices)).mean()

    def reconstruct(self, image: tf.Tensor, seed: int | tf.Tensor = 0) -> tf.Tensor:
        """Images from their own codes: [B, H, W, C] -> [B, H, W, C]; nothing is drawn."""
        return self.decode(self.encode(image))

    def code_log_prob(self, indices: tf.Tensor) -> tf.Tensor:
        """log p(k) by the prior: int32 [B, h, w] -> [B], in nats."""
        return self.prior.log_prob(indices[..., tf.newaxis])

    def log_prob(self, image: tf.Tensor) -> tf.Tensor:
        """The bound on log p(x): [B, H, W, C] -> [B], in nats."""
        found = self.nearest(image)
        return self._log_prob(image, found.codes) + self.code_log_prob(found.indices)

    def sample(self, num: int | tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Draws codes from the prior, one after the other, and decodes them.

        Args:
            num: how many.
            seed: int or int32 scalar; the same seed gives the same images.

        Returns:
            float32 [num, H, W, C] in [0, 1].
        """
        return self.decode(self.prior.draw(num, _seed(seed))[..., 0])

    def sample_uniformly(self, num: int | tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """As `sample`, of codes that are each drawn alike."""
        shape = [num, *self.map_shape]
        return self.decode(stateless.uniform(shape, _seed(seed), 0, self.num_codes, tf.int32))

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Named grids [rows, columns, H, W, C] in [0, 1] for a batch of at least one image."""
        image = tf.cast(batch["image"][:16], tf.float32)
        drawn = {"samples": self.sample, "uniform_samples": self.sample_uniformly}
        grids = {
            name: tf.reshape(draw(64, seed), [8, 8, *self.image_shape])
            for name, draw in drawn.items()
        }
        grids["reconstructions"] = tf.stack([image, self.reconstruct(image)])
        return {name: grid.numpy() for name, grid in grids.items()}

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Endpoints of the exported model: name -> (function of tensors, specs by argument)."""
        images = {"image": tf.TensorSpec([None, *self.image_shape], tf.float32)}
        scalar = tf.TensorSpec([], tf.int32)
        return {
            "sample": (self.sample, {"num": scalar, "seed": scalar}),
            "encode": (self.encode, images),
            "decode": (self.decode, {"indices": tf.TensorSpec([None, *self.map_shape], tf.int32)}),
            "reconstruct": (self.reconstruct, images),
            "log_prob": (self.log_prob, images),
        }


def _seed(seed: int | tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.cast(seed, tf.int32), 0])


def networks(
    image_shape: Sequence[int], hparams: HParams, outputs: int
) -> tuple[keras.Model, keras.Model]:
    """Encoder to vectors and decoder to `outputs` channels: strided convolutions, residual blocks.

    For example 28x28x1 with 256 filters: 14x14x128 -> 7x7x256 -> blocks -> 7x7x64, and back.

    Raises:
        ValueError: if a side cannot be halved so often.
    """
    *sides, _ = image_shape
    parts = 2**hparams.halvings
    if any(side % parts or side < 2 * parts for side in sides):
        raise ValueError(
            f"--halvings={hparams.halvings} needs sides that are multiples of {parts}, at least "
            f"{2 * parts}. Received: {sides[0]}x{sides[1]}. Set --image_size"
        )
    # The paper's code has half the channels where the sides are halved but once.
    widths = [hparams.filters // 2 or 1] * (hparams.halvings - 1) + [hparams.filters]
    salts = iter(range(hparams.seed * 1000, (hparams.seed + 1) * 1000))

    def convolution(kind: type, filters: int, side: int, strides: int = 1) -> keras.layers.Layer:
        init = keras.initializers.GlorotUniform(next(salts))
        return kind(filters, side, strides, padding="same", kernel_initializer=init)

    conv, transposed = keras.layers.Conv2D, keras.layers.Conv2DTranspose

    def residual(h: Any) -> Any:
        for _ in range(hparams.residual_blocks):
            inner = convolution(conv, hparams.filters, 3)(keras.layers.ReLU()(h))
            inner = convolution(conv, hparams.filters, 1)(keras.layers.ReLU()(inner))
            h = keras.layers.Add()([h, inner])
        return keras.layers.ReLU()(h)

    image = h = keras.Input(tuple(image_shape))
    for level, width in enumerate(widths):
        h = convolution(conv, width, 4, 2)(h)
        if level < hparams.halvings - 1:
            h = keras.layers.ReLU()(h)
    h = convolution(conv, hparams.code_dim, 1)(residual(h))
    encoder = keras.Model(image, h, name="encoder")

    codes = keras.Input(h.shape[1:])
    h = residual(convolution(conv, hparams.filters, 3)(codes))
    for width in reversed(widths[:-1]):
        h = keras.layers.ReLU()(convolution(transposed, width, 4, 2)(h))
    decoder = keras.Model(codes, convolution(transposed, outputs, 4, 2)(h), name="decoder")
    return encoder, decoder


def build(hparams: HParams, data_spec: DataSpec) -> VQVAE:
    """The paper's networks for images of the data's shape, compiled and ready to train."""
    outputs = _slots.pixel_numbers(hparams, data_spec.image_shape[-1])
    encoder, decoder = networks(data_spec.image_shape, hparams, outputs)
    total = hparams.total_steps(data_spec.train_size)
    prior_from = min(max(1, round(hparams.prior_from * total)), total - 1)
    quantizer = VectorQuantizer(
        hparams.num_codes,
        hparams.commitment,
        hparams.codebook_decay or None,
        hparams.restart_below,
        hparams.seed,
        name="quantizer",
    )
    prior = PixelCNNNetwork(
        (*encoder.output_shape[1:3], 1),
        levels=hparams.num_codes,
        layers=hparams.prior_layers,
        filters=hparams.prior_filters,
        head_filters=hparams.prior_filters,
        embedding=hparams.prior_filters,
        seed=hparams.seed + 1,
        name="prior",
    )
    model = VQVAE(
        encoder, decoder, quantizer, prior, prior_from=prior_from, likelihood=hparams.likelihood
    )
    model.compile(
        model=optimizers.Adam(schedules.learning_rate(hparams, prior_from)),
        prior=optimizers.Adam(schedules.learning_rate(hparams, total - prior_from)),
        **hparams.compile_options(),
    )
    return model
