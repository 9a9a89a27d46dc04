"""Attribute2Image: images from a vector of attributes, foreground and background drawn apart.

The attributes y are given. Without layers it is a conditional VAE of the image x, whose objective,
maximised (sum over pixels, mean over the batch), is

    CVAE:     E_q(z|x,y)[log p(x|y,z)] - KL(q(z|x,y) || p(z)) <= log p(x|y)

The disentangling CVAE (disCVAE) paints a foreground x_F, which has the attributes, upon a
background x_B, which knows nothing of them; the gate g is 1 where the background shows:

    x = x_F + g * x_B,        (x_F, g) = f(z_F, y),        x_B = b(z_B)

Training is given the mask m of the foreground, hence x_F = m * x and g = 1 - m, and

    disCVAE:  E_q[log p(x|y,z_F,z_B) + log p(x_F|y,z_F) + gate_weight log p(g|y,z_F)]
                  - KL(q(z_F|x_F,y) || p(z_F)) - KL(q(z_B|z_F,x,y) || p(z_B))

The KL terms are in closed form, their weight `kl_weight` being 1 or rising to it. With k draws of
the latents the objective is its mean over them, or, with `importance_weighted`, the bound L_k of

    log w_m = log p(x|y,z) + log p(x_F|y,z_F) + gate_weight log p(g|y,z_F)
                  + kl_weight (log p(z_F) - log q(z_F|x_F,y) + log p(z_B) - log q(z_B|z_F,x,y))

of draws m, without the two terms of the layers where there are none: log (1/k) sum_m w_m. With
`free_bits` a group of latents, z_F or z_B, whose KL, in the mean over the minibatch, is below so
many nats gives no gradient by it.

Evaluation estimates log p(x|y) by the weights p(x|y,z) p(z) / q(z|.) alone. That q is told of the
mask, which p(x|y) knows nothing of, leaves it a lower bound: any q does.

All priors are N(0, I). Pixels are Gaussians of one `sigma`; those of x have the mean x_F + g * x_B.
Each pixel of g is a Bernoulli variable, so that log p(g|.) is minus the cross-entropy. The logged
"elbo", E_q log p(x|.) minus the KL terms, bounds log p(x|y) in both models.

One attribute is moved from its least to its largest value, all others and z held fixed, by

    y_a = (1 - a) y_min + a y_max

Reference: X. Yan, J. Yang, K. Sohn, H. Lee. Attribute2Image: Conditional Image Generation from
Visual Attributes. ECCV 2016: section 3.1 (CVAE), 3.2 (disCVAE), 5.1 (images of attributes,
progression). Widths, batch size, step size, `sigma` and `gate_weight` are those of the authors'
code.

Differs from the paper:
  * Images and their layers are in [0, 1], so that x_F is 0 where the background shows. In the
    authors' code they are in [-1, 1], and x_F is -1 there.
  * Log densities of Gaussian pixels, where the code has the smooth L1 distance; with `sigma` 0.5
    the two have the same gradient at errors below 1/2.
  * One gate for all channels of a pixel, and no dropout, weight decay or augmentation.
  * The decoders mirror the encoders; attributes are scaled to [-1, 1] by their least and largest
    values in the training split. They join the dense layers as they are; in the authors' code they
    pass a dense layer of their own first, and those of q(z_F|.) count for its mean only.
  * Novel images are encoded by the recognition networks; the paper searches their latents by
    optimisation (section 4).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfgen import distributions, hparams, stateless
from tfgen.data import DataSpec
from tfgen.losses import bounds
from tfgen.models.vae import _diagnosis, _objective
from tfgen.networks.conv_vae import decoder, encoder
from tfgen.training import optimizers, schedules
from tfgen.training.model import GenerativeModel, deserialize

_EXAMPLES = 256  # Training examples whose attributes `sample` draws from.
_SHOWN = 16  # Attributes that are moved in a picture.
_VALUES_AT_ONCE = 2**21  # Of images in an estimate; each is some tens of values in the networks.


@dataclasses.dataclass(frozen=True)
class HParams(hparams.HParams):
    """Flags of Attribute2Image; the authors' networks for faces of 64x64."""

    data: str = "layered_digits"  # Data set: layered_digits, celeb_a, folder:PATH, ...
    batch_size: int = 32  # Examples a step over all replicas (the global batch).
    learning_rate: float = 3e-4  # Step size of Adam.
    # Foreground and background apart, which needs masks; else a CVAE with as many latents.
    layered: bool = True
    foreground_dim: int = 192  # Dimensions of z_F.
    background_dim: int = 64  # Dimensions of z_B.
    # Channels of the foreground's networks (or of the only ones) at each halving of the sides.
    foreground_filters: tuple[int, ...] = (64, 128, 256, 256)
    background_filters: tuple[int, ...] = (64, 64, 64, 64)  # The same of the background's.
    foreground_units: int = 1024  # Width of the foreground's dense layers.
    background_units: int = 256  # Width of the background's.
    sigma: float = 0.5  # Standard deviation of a pixel in [0, 1] given the latents.
    gate_weight: float = 0.3  # Weight of the gate's cross-entropy.
    k: int = 1  # Samples per image in the bound.
    # The bound is the logarithm of the mean of k weights, L_k, and not the mean of k log weights.
    importance_weighted: bool = False
    # KL in nats below which z_F or z_B, in the minibatch's mean, gives no gradient.
    free_bits: float = 0.0
    # Weight of log p(z) - log q(z|.), or of the KL terms, in training; evaluation has 1.
    kl_weight: float = 1.0
    kl_warmup_steps: int = 0  # Steps over which the KL weight rises from 0; 0 is off.

    POSITIVE: ClassVar[tuple[str, ...]] = (
        "foreground_dim", "background_dim", "foreground_filters", "background_filters",
        "foreground_units", "background_units", "sigma", "k",
    )  # fmt: skip
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = (
        "gate_weight",
        "free_bits",
        "kl_weight",
        "kl_warmup_steps",
    )

    @property
    def needs(self) -> tuple[str, ...]:
        """Images with attributes; and masks of the foreground, if it is layered."""
        return ("image", "attributes", *(["mask"] if self.layered else []))


@keras.saving.register_keras_serializable("tfgen")
class AttributeCVAE(GenerativeModel):
    """The CVAE without layers, from the caller's networks.

    For example with 256 latents and 40 attributes the encoder maps [B, 64, 64, 3] and [B, 40] to
    [B, 512], and the decoder [B, 256] and [B, 40] to [B, 64, 64, 3]. The networks are given the
    attributes scaled to [-1, 1]; all methods take them as they are in the data.

    Args:
        encoder: built Keras model of images and attributes, to means and log sigmas of z.
        decoder: built Keras model of z and attributes, to the logits of images in [0, 1].
        sigma: standard deviation of a pixel given the latents.
        k: samples per image in the bound.
        importance_weighted: the bound is L_k, the logarithm of the mean of k weights, and not the
            mean of k log weights; its KL is sampled.
        free_bits: KL in nats below which a group of latents gives no gradient.
        kl_weight: weight of log p(z) - log q(z|.), or of the KL terms, in training.
        kl_warmup_steps: steps over which that weight rises from 0.

    Raises:
        ValueError: if the networks do not fit each other, or an argument is out of its range.
    """

    criterion = "loss"
    evaluations: tuple[str, ...] = (
        "attributes.accuracy",
        "likelihood.nll",
        "likelihood.active_units",
        "latents.kl_per_dimension",
    )
    needs: tuple[str, ...] = ("image", "attributes")
    NETWORKS: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    GATES: ClassVar[int] = 0  # Channels that the decoder gives besides those of the image.

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        *,
        sigma: float = 0.5,
        k: int = 1,
        importance_weighted: bool = False,
        free_bits: float = 0.0,
        kl_weight: float = 1.0,
        kl_warmup_steps: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if sigma <= 0:
            raise ValueError(f"sigma must be more than 0. Received: {sigma}")
        _objective.check_settings(
            k=k, free_bits=free_bits, kl_weight=kl_weight, kl_warmup_steps=kl_warmup_steps
        )
        self.encoder, self.decoder = encoder, decoder
        self.sigma, self.k, self.importance_weighted = sigma, k, importance_weighted
        self.free_bits, self.kl_weight, self.kl_warmup_steps = free_bits, kl_weight, kl_warmup_steps
        if len(encoder.inputs) != 2:
            raise ValueError(
                "the encoder must be given images and attributes. "
                f"Received: {len(encoder.inputs)} inputs"
            )
        (_, height, width, channels), (_, attributes) = encoder.input_shape
        latents = encoder.output_shape[-1] // 2
        self.image_shape, self.num_attributes = (height, width, channels), attributes
        self.latent_dims: tuple[int, ...] = (latents,)
        _require(encoder, [self.image_shape, (attributes,)], (2 * latents,))
        _require(decoder, [(latents,), (attributes,)], (height, width, channels + self.GATES))
        self.lowest = self.add_state("lowest", (attributes,))
        self.highest = self.add_state("highest", (attributes,), "ones")
        self.examples = self.add_state("examples", (_EXAMPLES, attributes))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        serialize = keras.saving.serialize_keras_object
        return {
            **{name: serialize(getattr(self, name)) for name in self.NETWORKS},
            "sigma": self.sigma,
            "k": self.k,
            "importance_weighted": self.importance_weighted,
            "free_bits": self.free_bits,
            "kl_weight": self.kl_weight,
            "kl_warmup_steps": self.kl_warmup_steps,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AttributeCVAE":
        """The model that `get_config` describes."""
        networks = {name: deserialize(config[name]) for name in cls.NETWORKS}
        return cls(**{**config, **networks})

    def adapt_to(self, batches: tf.data.Dataset) -> None:
        """Keeps the least and largest values of the attributes, and those of some examples."""
        rows = np.concatenate([batch["attributes"].numpy() for batch in batches])
        self.lowest.assign(rows.min(0))
        self.highest.assign(rows.max(0))
        spread = np.linspace(0, len(rows) - 1, _EXAMPLES).round().astype(int)
        self.examples.assign(rows[spread])  # folders are in the order of their names

    def scaled(self, attributes: tf.Tensor) -> tf.Tensor:
        """Attributes [..., A] to [-1, 1]; one that never varies to -1."""
        above = 2.0 * (tf.cast(attributes, tf.float32) - self.lowest)
        return tf.math.divide_no_nan(above, self.highest - self.lowest) - 1.0

    # The distributions.

    def infer(
        self,
        batch: Mapping[str, tf.Tensor],
        seed: tf.Tensor | None,
        training: bool = False,
        k: int = 1,
    ) -> tuple[list[tf.Tensor], list[tfd.Distribution]]:
        """Latents [k B, d] and the posteriors that they are drawn from; without seed their means.

        First come the first draws of all images, then the second ones, as in `repeated`.
        """
        given = [batch["image"], self.scaled(batch["attributes"])]
        outputs = repeated(self.encoder(given, training=training), k)
        posterior = distributions.diagonal_gaussian(outputs)
        return [_drawn(posterior, seed)], [posterior]

    def paint(
        self, latents: Sequence[tf.Tensor], attributes: tf.Tensor, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """What is drawn of latents [B, d] each: "image", the means of pixels [B, H, W, C]."""
        given = [*latents, self.scaled(attributes)]
        logits = tf.cast(self.decoder(given, training=training), tf.float32)
        return {"image": tf.sigmoid(logits)}

    def terms(
        self, painted: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Log densities of what is seen, given what is painted: [B] each, in nats."""
        return {"likelihood": self.log_density(batch["image"], painted["image"])}

    def log_density(self, image: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
        """log N(image; mean, sigma^2), [B, H, W, C] -> [B], in nats."""
        return tfd.Independent(tfd.Normal(mean, self.sigma), 3).log_prob(image)

    def reconstruction(self, terms: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """What the objective has of the `terms`, [B]."""
        return terms["likelihood"]

    # Training.

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of the only player, "model"; logs "loss", "elbo", "kl" and all `terms`."""
        weight = schedules.warmup(self.kl_weight, self.kl_warmup_steps, self.current_step)
        with tf.GradientTape() as tape:
            logs = self._objective(batch, weight, training=True)
        self.minimize("model", logs["loss"], tape)
        return logs

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same logs at the full KL weight, by fresh samples."""
        return self._objective(batch, 1.0)

    def _objective(
        self, batch: dict[str, tf.Tensor], kl_weight: tf.Tensor | float, training: bool = False
    ) -> dict[str, tf.Tensor]:
        terms, latents, posteriors = self._draw(batch, self.k, self.noise_seed(), training)
        reconstruction = self.reconstruction(terms)
        if self.importance_weighted:
            sampled = self._sampled_kls(latents, posteriors)
            kls = [tf.reduce_mean(kl) for kl in sampled]
            log_weights = reconstruction - kl_weight * self._joint_free(sampled)
            bound = bounds.iwae(tf.reshape(log_weights, [self.k, -1]))
            loss = -tf.reduce_mean(bound)
        else:
            priors = map(distributions.StandardGaussian, self.latent_dims)
            kls = [
                tf.reduce_mean(tfd.kl_divergence(q, p))
                for q, p in zip(posteriors, priors, strict=True)
            ]
            loss = kl_weight * self._joint_free(kls) - tf.reduce_mean(reconstruction)
        kl = bounds.joint(kls)
        means = {name: tf.reduce_mean(term) for name, term in terms.items()}
        logs = {"loss": loss, "elbo": means["likelihood"] - kl, **means, "kl": kl}
        return logs | ({"kl_background": kls[1]} if len(kls) > 1 else {})

    def _joint_free(self, kls: Sequence[tf.Tensor]) -> tf.Tensor:
        """The sum of the KLs of all groups of latents, without the gradient of free ones."""
        return bounds.joint([_objective.free(kl, self.free_bits) for kl in kls])

    def _draw(
        self, batch: Mapping[str, tf.Tensor], k: int, seed: tf.Tensor, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor], list[tfd.Distribution]]:
        """The `terms` of k draws [k B], the latents and the posteriors, as `infer` gives them."""
        latents, posteriors = self.infer(batch, seed, training, k)
        seen = {key: repeated(batch[key], k) for key in self.needs}
        painted = self.paint(latents, seen["attributes"], training)
        return self.terms(painted, seen), latents, posteriors

    def _sampled_kls(
        self, latents: Sequence[tf.Tensor], posteriors: Sequence[tfd.Distribution]
    ) -> list[tf.Tensor]:
        """log q(z|.) - log p(z) of each group of latents, [k B] each, in nats."""
        return [
            q.log_prob(z) - distributions.StandardGaussian(d).log_prob(z)
            for z, q, d in zip(latents, posteriors, self.latent_dims, strict=True)
        ]

    def diagnose(self, logs: Mapping[str, float]) -> dict[str, str]:
        """Whether q has become the prior, so that latents say nothing of the image."""
        return _diagnosis.collapse(logs)

    # For the evaluations of `metrics`. What they hand over is a batch of what the model needs.

    def evidence(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Images with attributes and, with layers, masks."""
        return {key: batch[key] for key in self.needs}

    @property
    def rows_at_once(self) -> int:
        """Images that are painted at once in an estimate, which bounds the memory."""
        return max(1, _VALUES_AT_ONCE // math.prod(self.image_shape))

    def importance_terms(
        self, evidence: Mapping[str, tf.Tensor], k: int, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Terms of k fresh samples z_m ~ q(z|.), in nats, float32 [k, B] each.

        Returns:
            "log_weight": log p(x, z_m|y) - log q(z_m|.) = likelihood - kl, without what the
            objective has of layers; "likelihood": log p(x|y,z_m); "kl": log q(z_m|.) - log p(z_m).
        """
        terms, latents, posteriors = self._draw(evidence, k, seed)
        kl = bounds.joint(self._sampled_kls(latents, posteriors))
        found = {"likelihood": terms["likelihood"], "kl": kl}
        found["log_weight"] = terms["likelihood"] - kl
        return {name: tf.reshape(value, [k, -1]) for name, value in found.items()}

    def posterior_means(
        self, evidence: Mapping[str, tf.Tensor], seed: tf.Tensor
    ) -> list[tf.Tensor]:
        """Means of q of z, or of z_F and, given one sample of it, of z_B: [B, d] each."""
        return [q.mean() for q in self.infer(evidence, seed)[1]]

    def factors(
        self, evidence: Mapping[str, tf.Tensor], seed: tf.Tensor
    ) -> list[tuple[tfd.Distribution, tfd.Distribution]]:
        """q and p of z, or of z_F and, given one sample of it, of z_B: batch shapes [B] and []."""
        priors = map(distributions.StandardGaussian, self.latent_dims)
        return list(zip(self.infer(evidence, seed)[1], priors, strict=True))

    # Using a trained model.

    def encode(
        self, image: tf.Tensor, attributes: tf.Tensor, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Means of q: [B, H, W, C], [B, A] and, with layers, masks [B, H, W, 1] -> [B, d].

        With layers these are z_F, then z_B.
        """
        batch = {"image": image, "attributes": attributes, "mask": mask}
        return tf.concat(self.infer(batch, None)[0], axis=-1)

    def decode(self, latent: tf.Tensor, attributes: tf.Tensor) -> tf.Tensor:
        """Latents as of `encode` and attributes [B, A] to images [B, H, W, C] in [0, 1]."""
        latents = tf.split(latent, self.latent_dims, axis=-1)
        return tf.clip_by_value(self.paint(latents, attributes)["image"], 0.0, 1.0)

    def generate(self, attributes: tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Images of attributes [B, A], latents from the prior: [B, H, W, C] in [0, 1]."""
        return self.decode(self.draw_latents(tf.shape(attributes)[0], seed), attributes)

    def draw_latents(self, num: int | tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """N(0, I), float32 [num, d]."""
        return stateless.normal([num, sum(self.latent_dims)], _key(seed, 0))

    def sample(self, num: int | tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Draws `num` images whose attributes are those of training examples that `adapt` kept.

        Args:
            num: how many.
            seed: int or int32 scalar; the same seed gives the same images.

        Returns:
            float32 [num, H, W, C] in [0, 1].
        """
        return self.generate(self.draw_attributes(num, seed), seed)

    def draw_attributes(self, num: int | tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Attributes of training examples, float32 [num, A]."""
        chosen = stateless.uniform([num], _key(seed, 1), 0, _EXAMPLES, tf.int32)
        return tf.gather(self.examples, chosen)

    def interpolate(
        self, latent: tf.Tensor, attributes: tf.Tensor, attribute: int, steps: int
    ) -> tf.Tensor:
        """Images as one attribute goes from y_min to y_max, all else held: [B, steps, H, W, C].

        Args:
            latent: [B, d], as of `encode` or `draw_latents`.
            attributes: [B, A], of which one is replaced.
            attribute: which, from 0.
            steps: images of each row, 2 or more.
        """
        at = tf.linspace(0.0, 1.0, steps)
        moved = (1.0 - at) * self.lowest[attribute] + at * self.highest[attribute]
        one = tf.one_hot(attribute, self.num_attributes)
        y = attributes[:, tf.newaxis] * (1.0 - one) + moved[:, tf.newaxis] * one  # [B, steps, A]
        images = self.decode(
            tf.repeat(latent, steps, axis=0), tf.reshape(y, [-1, self.num_attributes])
        )
        return tf.reshape(images, [-1, steps, *self.image_shape])

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Named grids [rows, columns, H, W, C] in [0, 1] for a batch of at least one image.

        A row of "progressions" moves one attribute, the others being the training examples' means;
        all rows have the latents of the batch's first image.
        """
        some = {key: batch[key][:16] for key in self.needs}
        rebuilt = self.decode(self.encode(**some), some["attributes"])
        latent = self.encode(**{key: some[key][:1] for key in self.needs})
        usual = tf.reduce_mean(self.examples, axis=0, keepdims=True)
        moved = [
            self.interpolate(latent, usual, attribute, 10)
            for attribute in range(min(self.num_attributes, _SHOWN))
        ]
        grids = {
            "samples": tf.reshape(self.sample(64, seed), [8, 8, *self.image_shape]),
            "reconstructions": tf.stack([some["image"], rebuilt]),
            "progressions": tf.concat(moved, axis=0),
        }
        return {name: grid.numpy() for name, grid in grids.items()}

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Endpoints of the exported model: name -> (function of tensors, specs by argument)."""
        scalar = tf.TensorSpec([], tf.int32)
        attributes = tf.TensorSpec([None, self.num_attributes], tf.float32)
        seen = {
            "image": tf.TensorSpec([None, *self.image_shape], tf.float32),
            "attributes": attributes,
            "mask": tf.TensorSpec([None, *self.image_shape[:2], 1], tf.float32),
        }
        latent = tf.TensorSpec([None, sum(self.latent_dims)], tf.float32)
        return {
            "sample": (self.sample, {"num": scalar, "seed": scalar}),
            "generate": (self.generate, {"attributes": attributes, "seed": scalar}),
            "encode": (self.encode, {key: seen[key] for key in self.needs}),
            "decode": (self.decode, {"latent": latent, "attributes": attributes}),
        }


@keras.saving.register_keras_serializable("tfgen")
class DisCVAE(AttributeCVAE):
    """The disentangling CVAE with its two layers, from the caller's networks.

    For example with z_F of 192, z_B of 64 and 40 attributes on 64x64x3: the encoder maps images
    whose background is 0 and attributes to [B, 384], the decoder [B, 192] and [B, 40] to
    [B, 64, 64, 4], the gate last; the background's encoder maps images, attributes and z_F to
    [B, 128], its decoder [B, 64] to [B, 64, 64, 3].

    Args:
        encoder: built Keras model of q(z_F|x_F,y).
        decoder: built Keras model to the logits of x_F, then of g.
        background_encoder: built Keras model of images, attributes and z_F, of q(z_B|z_F,x,y).
        background_decoder: built Keras model from z_B to the logits of x_B.
        gate_weight: weight of the gate's cross-entropy.
        **kwargs: further arguments of `AttributeCVAE`.

    Raises:
        ValueError: if the networks do not fit each other, or an argument is out of its range.
    """

    needs = ("image", "attributes", "mask")
    NETWORKS = (*AttributeCVAE.NETWORKS, "background_encoder", "background_decoder")
    GATES = 1

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        background_encoder: keras.Model,
        background_decoder: keras.Model,
        *,
        gate_weight: float = 0.3,
        **kwargs: Any,
    ):
        super().__init__(encoder, decoder, **kwargs)
        (foreground,) = self.latent_dims
        background = background_encoder.output_shape[-1] // 2
        seen = [self.image_shape, (self.num_attributes,), (foreground,)]
        _require(background_encoder, seen, (2 * background,))
        _require(background_decoder, [(background,)], self.image_shape)
        self.latent_dims = (foreground, background)
        self.background_encoder = background_encoder
        self.background_decoder = background_decoder
        self.gate_weight = gate_weight

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        return {**super().get_config(), "gate_weight": self.gate_weight}

    def infer(
        self,
        batch: Mapping[str, tf.Tensor],
        seed: tf.Tensor | None,
        training: bool = False,
        k: int = 1,
    ) -> tuple[list[tf.Tensor], list[tfd.Distribution]]:
        """Of z_F, then of z_B; see `AttributeCVAE`."""
        first, second = (None, None) if seed is None else tf.unstack(stateless.split(seed, 2))
        foreground = {**batch, "image": batch["mask"] * batch["image"]}
        latents, posteriors = super().infer(foreground, first, training, k)
        seen = [batch["image"], self.scaled(batch["attributes"])]
        given = [*(repeated(x, k) for x in seen), *latents]
        q = distributions.diagonal_gaussian(self.background_encoder(given, training=training))
        return [*latents, _drawn(q, second)], [*posteriors, q]

    def paint(
        self, latents: Sequence[tf.Tensor], attributes: tf.Tensor, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Of z_F and z_B: "image", x_F + g * x_B, its layers, and the gate's logits.

        "foreground" and "background" are [B, H, W, C] in [0, 1], "gate_logits" [B, H, W, 1].
        """
        of_foreground, of_background = latents
        given = [of_foreground, self.scaled(attributes)]
        logits = tf.cast(self.decoder(given, training=training), tf.float32)
        behind = tf.cast(self.background_decoder(of_background, training=training), tf.float32)
        foreground, gate = tf.sigmoid(logits[..., :-1]), logits[..., -1:]
        background = tf.sigmoid(behind)
        return {
            "image": foreground + tf.sigmoid(gate) * background,
            "foreground": foreground,
            "background": background,
            "gate_logits": gate,
        }

    def terms(
        self, painted: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Of the image, of the foreground, and of the gate; see `AttributeCVAE`."""
        mask = batch["mask"]
        cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(1.0 - mask, painted["gate_logits"])
        return {
            **super().terms(painted, batch),
            "foreground": self.log_density(mask * batch["image"], painted["foreground"]),
            "gate": -tf.reduce_sum(cross_entropy, axis=[1, 2, 3]),
        }

    def reconstruction(self, terms: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """All three, the gate by its weight."""
        gate = self.gate_weight * terms["gate"]
        return bounds.joint([terms["likelihood"], terms["foreground"], gate])

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Those of `AttributeCVAE`, and "layers": foregrounds, gates, backgrounds, images."""
        latents = tf.split(self.draw_latents(8, seed), self.latent_dims, axis=-1)
        painted = self.paint(latents, self.draw_attributes(8, seed))
        gate = tf.broadcast_to(tf.sigmoid(painted["gate_logits"]), painted["image"].shape)
        rows = [painted["foreground"], gate, painted["background"], painted["image"]]
        layers = tf.clip_by_value(tf.stack(rows), 0.0, 1.0)
        return {**super().pictures(batch, seed), "layers": layers.numpy()}


def repeated(tensor: tf.Tensor, k: int) -> tf.Tensor:
    """A batch k times: [B, ...] -> [k B, ...], e.g. rows a, b to a, b, a, b."""
    return tf.tile(tensor, [k, *[1] * (len(tensor.shape) - 1)]) if k > 1 else tensor


def _drawn(posterior: tfd.Distribution, seed: tf.Tensor | None) -> tf.Tensor:
    return posterior.mean() if seed is None else posterior.sample(seed=seed)


def _key(seed: int | tf.Tensor, salt: int) -> tf.Tensor:
    return tf.stack([tf.cast(seed, tf.int32), salt])


def _require(
    network: keras.Model, inputs: Sequence[tuple[int, ...]], output: tuple[int, ...]
) -> None:
    """Checks that a network is of so many inputs and an output of these shapes."""
    found = [tuple(x.shape[1:]) for x in network.inputs], tuple(network.output_shape[1:])
    if found != (list(inputs), output):
        raise ValueError(
            f"{network.name} must map inputs of shapes {list(inputs)} to {output}. "
            f"Received: {found[0]} to {found[1]}"
        )


def build(hparams: HParams, data_spec: DataSpec) -> AttributeCVAE:
    """The paper's networks for images of the data's shape, compiled and ready to train."""
    shape, seed = data_spec.image_shape, hparams.seed
    (attributes,) = data_spec.shapes["attributes"]
    of_foreground = (hparams.foreground_filters, hparams.foreground_units)
    of_background = (hparams.background_filters, hparams.background_units)
    objective: dict[str, Any] = {
        "sigma": hparams.sigma,
        "k": hparams.k,
        "importance_weighted": hparams.importance_weighted,
        "free_bits": hparams.free_bits,
        "kl_weight": hparams.kl_weight,
        "kl_warmup_steps": hparams.kl_warmup_steps,
    }
    model: AttributeCVAE
    if hparams.layered:
        z_f, z_b = hparams.foreground_dim, hparams.background_dim
        with_gate = (*shape[:2], shape[2] + 1)
        model = DisCVAE(
            encoder(shape, [attributes], *of_foreground, z_f, seed=seed),
            decoder([z_f, attributes], with_gate, *of_foreground, seed=seed + 100),
            encoder(
                shape, [attributes, z_f], *of_background, z_b,
                seed=seed + 200, name="background_encoder",
            ),
            decoder([z_b], shape, *of_background, seed=seed + 300, name="background_decoder"),
            gate_weight=hparams.gate_weight,
            **objective,
        )  # fmt: skip
    else:
        z = hparams.foreground_dim + hparams.background_dim
        model = AttributeCVAE(
            encoder(shape, [attributes], *of_foreground, z, seed=seed),
            decoder([z, attributes], shape, *of_foreground, seed=seed + 100),
            **objective,
        )
    adam = optimizers.Adam(
        schedules.learning_rate(hparams, hparams.total_steps(data_spec.train_size))
    )
    model.compile(adam, **hparams.compile_options())
    return model
