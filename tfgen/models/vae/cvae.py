"""Conditional VAE: completes what is hidden of an image, in several ways, from what is seen.

The image is split into x, the quadrants that are seen, and y, those that are hidden. Objective,
maximised (sum over the hidden pixels, mean over the batch):

    CVAE:    E_q(z|x,y)[log p(y|x,z)] - KL(q(z|x,y) || p(z|x)) <= log p(y|x)
    GSNN:    E_p(z|x)[log p(y|x,z)],   the CVAE's with p(z|x) in the place of q(z|x,y)
    hybrid:  alpha CVAE + (1 - alpha) GSNN

Each is the mean over k samples; with `importance_weighted` it is the logarithm of the mean of their
weights instead, one of the two estimates below, and still a bound on log p(y|x):

    CVAE:    E[log (1/k) sum_m p(y|x,z_m) p(z_m|x) / q(z_m|x,y)],   z_m ~ q(z|x,y)
    GSNN:    E[log (1/k) sum_m p(y|x,z_m)],                         z_m ~ p(z|x)

A GSNN alone (alpha = 0) has no KL, so its weight and free bits do nothing there.

The prior p(z|x) is learnt. A baseline network without latents, y independent given x, is trained
first by log p(y|x); prior and decoder are given its guess, the mean of y, in the place of the
hidden pixels, and no gradient goes back through it. log p(y|x) is then estimated in two ways:

    Monte Carlo:           log (1/k) sum_m p(y|x, z_m),                             z_m ~ p(z|x)
    importance sampling:   log (1/k) sum_m p(y|x, z_m) p(z_m|x) / q(z_m|x,y),       z_m ~ q(z|x,y)

Seen are, with 1 quadrant, the lower left one; with 2, the left half; with 3, all but the lower
right one.

Reference: K. Sohn, H. Lee, X. Yan. Learning Structured Output Representation using Deep Conditional
Generative Models. NeurIPS 2015: section 4 (CVAE), 4.1 (estimates), 4.2 (GSNN, hybrid), 5.1 (MNIST
quadrants), table 1.

Differs from the paper:
  * One run trains the baseline in its first stage (`baseline_part`) and the rest in the second.
  * Fixed numbers of steps instead of early stopping by the validation split's log p(y|x).
  * Which quadrants are seen is the choice of Pyro's tutorial, whose baseline comes near the
    paper's: 100.4, 61.9 and 25.4 nats for 1, 2 and 3, against 99.75, 62.18 and 25.99.
  * Images are binarised anew at each use, and last biases begin at the mean image, as in `vae.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfgen import distributions, stateless
from tfgen.data import DataSpec
from tfgen.models.vae import _slots, vae
from tfgen.networks.mlp import mlp
from tfgen.training import schedules
from tfgen.training.model import deserialize

_EXAMPLES = 64  # Training images that `sample` completes.
_FROM_PRIOR = 1  # Salt of the draws from p(z|x) in a step.


@dataclasses.dataclass(frozen=True)
class HParams(vae.HParams):
    """Flags of a conditional VAE; the paper's networks for MNIST."""

    latent_dims: tuple[int, ...] = (200,)  # Dimensions of z.
    hidden_units: tuple[int, ...] = (1000,)  # Width of both hidden layers of each network.
    quadrants: int = 1  # Quadrants that are seen: lower left; left half; all but lower right.
    alpha: float = 1.0  # Weight of the CVAE's bound beside the GSNN's: 1 is the CVAE, 0 the GSNN.
    baseline_part: float = 0.5  # Part of the run in which the baseline learns, before the rest.

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("quadrants", lambda v: v in (1, 2, 3), "1, 2 or 3")
        self.check("alpha", lambda v: 0 <= v <= 1, "from 0 to 1")
        self.check("baseline_part", lambda v: 0 < v < 1, "between 0 and 1")
        self.check("likelihood", lambda v: v != "pixelcnn", "of pixels independent given z")
        if len(self.latent_dims) != 1:
            raise ValueError(
                "vae.cvae has one stochastic layer. "
                f"Received: --latent_dims={','.join(map(str, self.latent_dims))}"
            )
        if self.posterior == "categorical" or self.prior != "gaussian":
            raise ValueError(
                "the prior of vae.cvae is a Gaussian given x: its posterior is gaussian or iaf. "
                f"Received: --posterior={self.posterior} --prior={self.prior}"
            )


@keras.saving.register_keras_serializable("tfgen")
class ConditionalPrior(_slots.Prior):
    """p(z|x), a diagonal Gaussian.

    Args:
        network: built Keras model from what is given to the means and log sigmas of z.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, network: keras.Model, **kwargs: Any):
        super().__init__(**kwargs)
        self.network = network
        self.dimensions = network.output_shape[-1] // 2
        self.built = True

    def given(self, condition: tf.Tensor, training: bool = False) -> tfd.Distribution:
        """The distribution over z [B, dimensions]; it takes the place of `distribution`."""
        return distributions.diagonal_gaussian(self.network(condition, training=training))

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, the network included."""
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ConditionalPrior":
        """The layer that `get_config` describes."""
        return cls(**{**config, "network": deserialize(config["network"])})


@keras.saving.register_keras_serializable("tfgen")
class CVAE(vae.VAE):
    """A conditional VAE over the quadrants of images, from the caller's networks.

    For example with 200 latents on MNIST the encoder maps images [B, 28, 28, 1] to [B, 400], the
    prior's network the same, the decoder [B, 200] and [B, 28, 28, 1] to [B, 28, 28, 1], and the
    baseline [B, 28, 28, 1] to [B, 28, 28, 1]. What is given to prior and decoder is an image: the
    pixels that are seen, and the baseline's guess of those that are hidden.

    Args:
        encoder: built Keras model from whole images to the numbers of q(z|x,y).
        decoder: built Keras model of two inputs, latents and what is given, to the parameters of
            images, of which those of the hidden pixels count.
        baseline: built Keras model from images whose hidden pixels are 0 to such parameters.
        prior: p(z|x), of what is given.
        quadrants: how many are seen, 1 to 3.
        alpha: weight of the CVAE's bound beside the GSNN's. At 0 the encoder is not used, and
            becomes untrainable.
        baseline_steps: steps in which the baseline learns, before the rest does.
        **kwargs: further arguments of `VAE`.

    Raises:
        ValueError: if `quadrants` or `alpha` is out of its range, there are several encoders, the
            pixels are not independent given the latents, or see `VAE`.
    """

    prior: ConditionalPrior
    likelihood: _slots.PixelwiseLikelihood
    # A unit may be active by x alone: what it tells of y is its KL to p(z|x). The mutual
    # information I(y; z|x) asks for the mean of q(z|x,y) over the y of one x, of which a data set
    # has one.
    evaluations = (
        "likelihood.nll",
        "conditional.nll",
        "likelihood.active_units",
        "latents.kl_per_dimension",
    )

    def __init__(
        self,
        encoder: Any,
        decoder: Any,
        baseline: keras.Model,
        *,
        prior: ConditionalPrior,
        quadrants: int = 1,
        alpha: float = 1.0,
        baseline_steps: int = 10_000,
        **kwargs: Any,
    ):
        super().__init__(encoder, decoder, prior=prior, **kwargs)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1. Received: {alpha}")
        if len(self.encoders) != 1:
            raise ValueError(f"a CVAE has one encoder. Received: {len(self.encoders)}")
        if not isinstance(self.likelihood, _slots.PixelwiseLikelihood):
            raise ValueError(
                f"a CVAE's likelihood must be one of {list(vae.LIKELIHOODS)}. "
                f"Received: {type(self.likelihood).__name__}"
            )
        self.baseline = baseline
        self.quadrants, self.alpha, self.baseline_steps = quadrants, alpha, baseline_steps
        self.hidden = hidden_pixels(self.image_shape, quadrants)
        self._hidden_indices = np.flatnonzero(self.hidden)
        self.encoders[0].trainable = alpha > 0
        # What `sample` completes: there is no p(x).
        self.examples = self.add_state("examples", (_EXAMPLES, *self.image_shape))

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        return {
            **super().get_config(),
            "baseline": keras.saving.serialize_keras_object(self.baseline),
            "quadrants": self.quadrants,
            "alpha": self.alpha,
            "baseline_steps": self.baseline_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CVAE":
        """The model that `get_config` describes."""
        return super().from_config({**config, "baseline": deserialize(config["baseline"])})

    def adapt_to(self, batches: tf.data.Dataset) -> None:
        """Begins at the mean image, see `VAE`, and keeps some training images for `sample`."""
        super().adapt_to(batches)
        if self.likelihood.kind == "bernoulli":
            vae.begin_at_mean_image(self.baseline, batches)
        first = next(iter(batches))["image"].numpy()
        self.examples.assign(np.resize(first, self.examples.shape))

    # The distributions.

    def guess(self, image: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The baseline's parameters of images, of which it sees x: [B, H, W, ...]."""
        return self.baseline(tf.where(self.hidden, 0.0, image), training=training)

    def condition(self, image: tf.Tensor) -> tf.Tensor:
        """What prior and decoder are given: x, and the baseline's guess of y: [B, H, W, C]."""
        return tf.stop_gradient(self.fill(self.guess(image), image))

    def fill(self, parameters: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """Images whose hidden pixels are the means of a network's parameters [B, H, W, ...]."""
        means = self.likelihood.distribution(parameters).mean()
        return tf.where(self.hidden, means, tf.cast(image, tf.float32))

    def posterior(self, layer: int, below: tf.Tensor, training: bool = False) -> tfd.Distribution:
        """q(z|x,y), given whole images; for a GSNN it is p(z|x)."""
        if self.alpha:
            return super().posterior(layer, below, training)
        return self.prior.given(self.condition(below), training)

    def observation(self, latent: tf.Tensor, training: bool = False) -> tfd.Distribution:
        """Not of a conditional model: see `parameters`."""
        raise ValueError("p(y|x,z) needs x beside z: use `parameters`, or `complete`")

    def parameters(
        self, latent: tf.Tensor, condition: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Of p(y|x,z), [..., B, H, W, ...], for latents [..., B, d] and what is given."""
        (decoder,) = self.decoders
        lead = tf.shape(latent)[:-1]
        given = tf.broadcast_to(condition, tf.concat([lead, self.image_shape], 0))
        flat = [
            tf.reshape(latent, [-1, *self.latent_dims]),
            tf.reshape(given, [-1, *self.image_shape]),
        ]
        outputs = decoder(flat, training=training)
        outputs = tf.reshape(outputs, tf.concat([lead, tf.shape(outputs)[1:]], 0))
        return tf.ensure_shape(outputs, [*latent.shape[:-1], *decoder.output_shape[1:]])

    def log_likelihood(self, parameters: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        """log p(y|.) of the hidden pixels alone: [..., B, H, W, ...] -> [..., B], in nats."""
        hidden = vae.LIKELIHOODS[self.likelihood.kind](self._hidden_of(parameters), event_ndims=2)
        return hidden.log_prob(self._hidden_of(image))

    def _hidden_of(self, images: tf.Tensor) -> tf.Tensor:
        """[..., H, W, C] -> [..., number of hidden pixels, C]."""
        height, width, channels = images.shape[-3:]
        shape = tf.concat([tf.shape(images)[:-3], [height * width, channels]], 0)
        found = tf.gather(tf.reshape(images, shape), self._hidden_indices, axis=-2)
        return tf.ensure_shape(found, [*images.shape[:-3], len(self._hidden_indices), channels])

    def log_terms(
        self, image: tf.Tensor, inference: vae.Inference, training: bool = False
    ) -> dict[str, Any]:
        """See `VAE`: "likelihood" is log p(y|x,z), "prior" log p(z|x), "posterior" log q(z|x,y)."""
        condition = self.condition(image)
        (latent,), (log_q,) = inference.latents, inference.log_q
        prior = self.prior.given(condition, training)
        log_p = prior.log_prob(latent)
        ratio = log_p - log_q
        if self.analytic_kl:
            ratio = -tfd.kl_divergence(inference.posteriors[0], prior)
        parameters = self.parameters(latent, condition, training)
        return {
            "likelihood": self.log_likelihood(parameters, image),
            "prior": log_p,
            "posterior": log_q,
            "ratios": [ratio],
        }

    def factors(
        self, image: tf.Tensor, seed: tf.Tensor
    ) -> list[tuple[tfd.Distribution, tfd.Distribution]]:
        """q(z|x,y) and p(z|x), of batch shape [B] each."""
        return [(self.posterior(0, image), self.prior.given(self.condition(image)))]

    def prior_terms(
        self, image: tf.Tensor, k: int, seed: tf.Tensor, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """As `importance_terms`, of k samples z_m ~ p(z|x): the weight is p(y|x,z_m) alone."""
        condition = self.condition(image)
        latent = self.prior.given(condition, training).sample(k, seed=seed)
        likelihood = self.log_likelihood(self.parameters(latent, condition, training), image)
        zeros = tf.zeros_like(likelihood)
        return {"log_weight": likelihood, "likelihood": likelihood, "kl": zeros}

    # Training.

    def players(self) -> dict[str, list[keras.Variable]]:
        """The baseline, and encoder, prior and decoder as the "model"."""
        of_baseline = self.baseline.trainable_variables
        ids = {id(v) for v in of_baseline}
        rest = [v for v in self.trainable_variables if id(v) not in ids]
        return {"baseline": of_baseline, "model": rest}

    def stage_starts(self) -> tuple[int, ...]:
        """Where the baseline stands still and the rest begins to learn."""
        return (self.baseline_steps,)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of the "baseline"; in the second stage, of the "model".

        Logs "loss" in the baseline's stage, -log p(y|x) by it; else as `VAE`, and that as
        "baseline_nll".
        """
        image = batch["image"]
        with tf.GradientTape() as tape:
            if self.stage == 0:
                log_prob = self.log_likelihood(self.guess(image, training=True), image)
                logs = {"loss": -tf.reduce_mean(log_prob)}
            else:
                logs = self._objective(image, self._kl_weight(), training=True)
        self.minimize("baseline" if self.stage == 0 else "model", logs["loss"], tape)
        return logs

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same logs at the full KL weight, by fresh samples."""
        return self._objective(batch["image"], 1.0)

    def diagnose(self, logs: Mapping[str, float]) -> dict[str, str]:
        """See `VAE`; a GSNN has no KL."""
        return super().diagnose(logs) if self.alpha else {}

    def _kl_weight(self) -> tf.Tensor | float:
        step = self.current_step - self.baseline_steps
        return schedules.warmup(self.kl_weight, self.kl_warmup_steps, step)

    def _objective(
        self, image: tf.Tensor, kl_weight: tf.Tensor | float, training: bool = False
    ) -> dict[str, tf.Tensor]:
        inference = self.infer(image, self.k, self.noise_seed(), training)
        terms = self.log_terms(image, inference, training)
        objective = tf.reduce_mean(self.bound(terms, kl_weight))
        if 0 < self.alpha < 1:
            by_prior = self.prior_terms(image, self.k, self.noise_seed(_FROM_PRIOR), training)
            gsnn = tf.reduce_mean(self.over_samples(by_prior["log_weight"]))
            objective = self.alpha * objective + (1 - self.alpha) * gsnn
        baseline = tf.reduce_mean(self.baseline_log_prob(image))
        return {**self._logs(-objective, terms), "baseline_nll": -baseline}

    # Using a trained model.

    def baseline_log_prob(self, image: tf.Tensor) -> tf.Tensor:
        """log p(y|x) by the baseline: images [B, H, W, C] -> [B], in nats."""
        return self.log_likelihood(self.guess(image), image)

    def complete(self, image: tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C], hidden pixels now the means of p(y|x,z) for a z ~ p(z|x)."""
        condition = self.condition(image)
        latent = self.prior.given(condition).sample(seed=tf.stack([tf.cast(seed, tf.int32), 0]))
        return self.fill(self.parameters(latent, condition), image)

    def reconstruct(self, image: tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """As `complete`, for z ~ q(z|x,y), which has seen what is hidden."""
        seed = tf.stack([tf.cast(seed, tf.int32), 0])
        latent = self.infer(image, 1, seed).latents[0][0]
        return self.fill(self.parameters(latent, self.condition(image)), image)

    def sample(self, num: int | tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Completions of training images that `adapt` has kept; see `VAE`."""
        key = tf.stack([tf.cast(seed, tf.int32), 1])
        chosen = stateless.uniform([num], key, 0, _EXAMPLES, tf.int32)
        return self.complete(tf.gather(self.examples, chosen), seed)

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Named grids [rows, columns, H, W, C] in [0, 1] for a batch of at least one image.

        Columns of "completions": x, the hidden pixels grey; the baseline's guess; six completions;
        the whole image.
        """
        image = tf.cast(batch["image"][:10], tf.float32)
        drawn = [self.complete(image, seed + draw) for draw in range(6)]
        columns = [tf.where(self.hidden, 0.5, image), self.condition(image), *drawn, image]
        samples = tf.reshape(self.sample(64, seed), [8, 8, *self.image_shape])
        grids = {"samples": samples, "completions": tf.stack(columns, axis=1)}
        return {name: grid.numpy() for name, grid in grids.items()}

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Endpoints of the exported model: name -> (function of tensors, specs by argument)."""
        images = {"image": tf.TensorSpec([None, *self.image_shape], tf.float32)}
        scalar = tf.TensorSpec([], tf.int32)
        seeded = {**images, "seed": scalar}
        return {
            "sample": (self.sample, {"num": scalar, "seed": scalar}),
            "complete": (self.complete, seeded),
            "guess": (self.condition, images),
            "encode": (self.encode, images),
            "log_prob": (self.log_prob, seeded),
        }


def hidden_pixels(image_shape: Sequence[int], quadrants: int) -> np.ndarray:
    """Which pixels are hidden, bool [H, W, 1], when so many quadrants are seen.

    Raises:
        ValueError: if `quadrants` is not 1, 2 or 3.
    """
    if quadrants not in (1, 2, 3):
        raise ValueError(f"quadrants must be 1, 2 or 3. Received: {quadrants}")
    height, width, _ = image_shape
    row, column = np.indices((height, width))
    lower, right = row >= height // 2, column >= width // 2
    hidden = {1: right | ~lower, 2: right, 3: right & lower}[quadrants]
    return hidden[..., np.newaxis]


def networks(image_shape: Sequence[int], hparams: HParams, numbers: int) -> dict[str, Any]:
    """Encoder (to so many numbers), decoder, baseline and prior: MLPs of two layers of ReLUs."""
    *rest, channels = image_shape
    target = (*rest, _slots.pixel_numbers(hparams, channels))
    (latents,), (width,) = hparams.latent_dims, hparams.hidden_units

    def relus(inputs: Sequence[int], outputs: Sequence[int], name: str, seed: int) -> keras.Model:
        seed += hparams.seed
        return mlp(inputs, (width, width), outputs, activation="relu", seed=seed, name=name)

    given = keras.Input(tuple(image_shape))
    latent = keras.Input((latents,))
    joined = keras.layers.Concatenate()([latent, keras.layers.Flatten()(given)])
    decoded = relus(joined.shape[1:], target, "decoder_mlp", 100)(joined)
    return {
        "encoder": relus(image_shape, (numbers,), "encoder", 0),
        "decoder": keras.Model([latent, given], decoded, name="decoder"),
        "baseline": relus(image_shape, target, "baseline", 200),
        "prior": ConditionalPrior(relus(image_shape, (2 * latents,), "prior", 300)),
    }


def build(hparams: HParams, data_spec: DataSpec) -> CVAE:
    """The paper's networks for images of the data's shape, compiled and ready to train."""
    posterior = _slots.posterior(hparams, 0)
    total = hparams.total_steps(data_spec.train_size)
    baseline_steps = min(max(1, round(hparams.baseline_part * total)), total - 1)
    model = CVAE(
        **networks(data_spec.image_shape, hparams, posterior.outputs),
        posterior=posterior,
        quadrants=hparams.quadrants,
        alpha=hparams.alpha,
        baseline_steps=baseline_steps,
        k=hparams.k,
        importance_weighted=hparams.importance_weighted,
        likelihood=hparams.likelihood,
        analytic_kl=hparams.analytic_kl,
        free_bits=hparams.free_bits,
        kl_weight=hparams.kl_weight,
        kl_warmup_steps=hparams.kl_warmup_steps,
    )
    model.compile(
        baseline=vae.optimizer(hparams, baseline_steps),
        model=vae.optimizer(hparams, total - baseline_steps),
        **hparams.compile_options(),
    )
    return model
