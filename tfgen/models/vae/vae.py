"""Variational autoencoder: a generative model with latents, trained by a bound on log p(x).

Objective, maximised (sum over event dimensions, mean over the batch):

    ELBO(x) = E_q(z|x)[log p(x|z) + log p(z) - log q(z|x)]
            = E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z))

With several stochastic layers z = (h_1, ..., h_L), h_L at the top:

    q(z|x) = q(h_1|x) q(h_2|h_1) ... q(h_L|h_{L-1})
    p(x,z) = p(h_L) p(h_{L-1}|h_L) ... p(h_1|h_2) p(x|h_1)

Each factor is a slot: q(h_i|.) is a diagonal Gaussian, an inverse autoregressive flow from one, or
categorical variables, relaxed in training (`posterior`); p(h_L) is the standard Gaussian, a masked
autoregressive flow from it (`prior`), or uniform over the categories; p(x|h_1) has independent
pixels, or a PixelCNN is given h_1 by the decoder (`likelihood`).

The estimate uses k reparameterised samples per image; `analytic_kl` takes the KL of the top layer
in closed form (which for one layer is the whole KL term), else everything is sampled: the mean of
k log weights, "VAE with k samples" in Burda et al. 2016. With `importance_weighted` it is, from the
same samples, the logarithm of the mean weight, the bound of `iwae.py`:

    L_k(x) = E[log (1/k) sum_m w_m],   log w_m = log p(x|z_m) + log p(z_m) - log q(z_m|x)

With `free_bits` a layer whose KL, in the mean over the minibatch, is below so many nats gives no
gradient: max(free_bits, KL) for each layer. `kl_weight` multiplies log p(z) - log q(z|x) of each
sample, in either of the bounds; at less than 1, as in its warm-up, it is no bound on log p(x).

Reference: D. P. Kingma, M. Welling. Auto-Encoding Variational Bayes. ICLR 2014: eq. 3 (bound),
eq. 7 (sampled estimate), appendix B (analytic KL), appendix C (networks). Several layers:
Y. Burda et al. ICLR 2016, L_k in their eq. 8. Free bits: D. P. Kingma et al. NeurIPS 2016, eq. 15.

Differs from the paper:
  * Two hidden tanh layers of 200 and 50 latents, Glorot weights and Adam as in Burda et al.,
    where the paper has one of 500, N(0, 0.01) weights and Adagrad.
  * The likelihood may also be a discretised logistic or a mixture of them, or a PixelCNN.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfgen import distributions, hparams, stateless
from tfgen.bijectors.flow import Order
from tfgen.data import DataSpec
from tfgen.losses import bounds
from tfgen.models.vae import _diagnosis, _objective, _slots
from tfgen.models.vae._slots import (
    GaussianPosterior,
    Likelihood,
    PixelwiseLikelihood,
    Posterior,
    Prior,
    StandardPrior,
)
from tfgen.networks.mlp import mlp
from tfgen.training import optimizers, schedules
from tfgen.training.model import GenerativeModel, deserialize

LIKELIHOODS = _slots.LIKELIHOODS
_PIXELS = 20  # Salt of the draws of pixels.
PosteriorName = Literal["gaussian", "iaf", "categorical"]


@dataclasses.dataclass(frozen=True)
class HParams(hparams.HParams):
    """Flags of a VAE; the networks of Burda et al. 2016, one stochastic layer."""

    k: int = 1  # Samples per image in the bound.
    # The bound is the logarithm of the mean of k weights, L_k, and not the mean of k log weights.
    importance_weighted: bool = False
    latent_dims: tuple[int, ...] = (50,)  # Dimensions of each stochastic layer, bottom first.
    # Hidden widths of both networks at each stochastic layer, bottom first: two layers each.
    hidden_units: tuple[int, ...] = (200,)
    analytic_kl: bool = True  # Closed form of the top layer's KL instead of its sampled value.
    # Distribution of pixels given latents: independent ones, or a PixelCNN.
    likelihood: Literal[
        "bernoulli", "gaussian", "discretized_logistic", "logistic_mixture", "pixelcnn"
    ] = "bernoulli"
    pixelcnn_layers: int = 4  # Layers of a PixelCNN likelihood after its first one.
    pixelcnn_filters: int = 32  # Their channels.
    pixelcnn_kernel: int = 5  # Side of their kernels, odd; a small one leaves more to the latents.
    pixelcnn_context: int = 8  # Numbers that the decoder gives to the PixelCNN for each pixel.
    # How grey values become {0, 1} for a Bernoulli or PixelCNN likelihood: a fresh draw at each
    # use, one draw for ever, a threshold at 1/2, or not at all.
    binarize: Literal["dynamic", "fixed", "threshold", "none"] = "dynamic"
    # Posterior of each stochastic layer: a diagonal Gaussian, an inverse autoregressive flow, or,
    # with one layer, categorical variables.
    posterior: PosteriorName = "gaussian"
    # Prior of the top layer: the standard Gaussian, or a masked autoregressive flow.
    prior: Literal["gaussian", "maf"] = "gaussian"
    flow_blocks: int = 2  # MADEs in a row in each flow.
    flow_hidden_units: tuple[int, ...] = (200,)  # Widths of their hidden layers.
    # Dimensions from each MADE to the next: reversed, shuffled, or in the same order.
    flow_order: Order = "reversed"
    flow_context: int = 50  # Numbers that the encoder gives to each flow of the posterior.
    categories: int = 10  # Values of each categorical variable; they divide --latent_dims.
    temperature_rate: float = 1e-4  # The temperature of relaxed draws at step t is exp(-rate t).
    temperature_min: float = 0.5  # Where that temperature stops falling.
    straight_through: bool = False  # One-hots in training too, with the relaxed draws' gradient.
    # KL in nats below which a stochastic layer, in the minibatch's mean, gives no gradient.
    free_bits: float = 0.0
    kl_weight: float = 1.0  # Weight of log p(z) - log q(z|x) in training; evaluation has 1.
    kl_warmup_steps: int = 0  # Steps over which the KL weight rises from 0; 0 is off.
    adam_epsilon: float = 1e-4  # Adam's epsilon (Burda et al. 2016).
    adam_beta1: float = 0.9  # Adam's beta1.

    POSITIVE: ClassVar[tuple[str, ...]] = (
        "k", "latent_dims", "hidden_units", "adam_epsilon", "flow_blocks", "flow_hidden_units",
        "flow_context", "temperature_min", "pixelcnn_layers", "pixelcnn_filters",
        "pixelcnn_context",
    )  # fmt: skip
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = (
        "kl_weight",
        "kl_warmup_steps",
        "free_bits",
        "temperature_rate",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.latent_dims) != len(self.hidden_units) or not self.latent_dims:
            raise ValueError(
                "--latent_dims and --hidden_units need one number for each stochastic layer. "
                f"Received: --latent_dims={self.latent_dims} --hidden_units={self.hidden_units}"
            )
        self.check("categories", lambda v: v >= 2, "2 or more")
        self.check("pixelcnn_kernel", lambda v: v >= 3 and v % 2, "odd and 3 or more")
        if self.posterior == "categorical":
            if len(self.latent_dims) > 1 or self.latent_dims[0] % self.categories:
                raise ValueError(
                    "--posterior=categorical has one stochastic layer, whose --latent_dims are a "
                    f"multiple of --categories. Received: --latent_dims={self.latent_dims} "
                    f"--categories={self.categories}"
                )
            if self.prior != "gaussian":
                raise ValueError(
                    "--posterior=categorical has a uniform prior over the categories. "
                    f"Received: --prior={self.prior}"
                )
        if self.analytic_kl and (self.posterior == "iaf" or self.prior == "maf"):
            raise ValueError(
                "the KL of a flow has no closed form: set --analytic_kl=false. "
                f"Received: --posterior={self.posterior} --prior={self.prior}"
            )
        if self.importance_weighted and self.posterior == "categorical":
            raise ValueError(
                "categorical latents are trained by the ELBO: relaxed draws have no importance "
                "weights. Received: --importance_weighted=true --posterior=categorical. Use "
                "--system=vae.gumbel --importance_weighted=false for them"
            )
        if self.importance_weighted and self.analytic_kl:
            raise ValueError(
                "--analytic_kl has no meaning for the importance weighted bound, which is sampled: "
                "set --analytic_kl=false. Received: --importance_weighted=true --analytic_kl=true"
            )
        if self.prior == "maf" and self.latent_dims[-1] < 2:
            raise ValueError(
                "a flow as prior needs 2 latents or more, of which one is given those before: set "
                f"--latent_dims. Received: --latent_dims={hparams.to_text(self.latent_dims)}"
            )
        # A MADE with a context has units that see it alone, of degree 0.
        needed = max(
            max(self.latent_dims) if self.posterior == "iaf" else 0,
            self.latent_dims[-1] - 1 if self.prior == "maf" else 0,
        )
        right = f"at least {needed} for these latents, else the last do not see those just before"
        self.check("flow_hidden_units", lambda width: width >= needed, right)

    @property
    def image_range(self) -> str:
        """{0, 1} for a Bernoulli or PixelCNN likelihood unless told otherwise, else [0, 1]."""
        of_bits = self.likelihood in ("bernoulli", "pixelcnn")
        return "binary" if of_bits and self.binarize != "none" else "unit"

    @property
    def binarization(self) -> str:
        """The flag `binarize`; with "none" no image is binarised and it has no meaning."""
        return "dynamic" if self.binarize == "none" else self.binarize


@dataclasses.dataclass(frozen=True)
class Inference:
    """k samples of the latents of B images, all lists bottom first.

    Attributes:
        latents: h_i of each stochastic layer, [k, B, d].
        posteriors: the distribution q(h_i | layer below) that they are drawn from.
        log_q: log q(h_i | layer below), in nats, [k, B].
        observation: p(x|h_1), [k, B], where it was found on the way; None: the decoder tells it.
    """

    latents: list[tf.Tensor]
    posteriors: list[tfd.Distribution]
    log_q: list[tf.Tensor]
    observation: tfd.Distribution | None = None


@keras.saving.register_keras_serializable("tfgen")
class VAE(GenerativeModel):
    """A VAE with any number of Gaussian stochastic layers, from the caller's networks.

    For example with one layer of 50 latents on MNIST the encoder maps [B, 28, 28, 1] to [B, 100]
    (50 means, 50 log sigmas) and the decoder [B, 50] to [B, 28, 28, 1] (logits).

    Args:
        encoder: built Keras model from images to the means and log sigmas of q(h_1|x), or a list
            with one network for each layer, from h_i to those of h_{i+1}.
        decoder: built Keras model from latents to the parameters of p(x|h_1); or a list, top
            first: h_L to means and log sigmas of h_{L-1}, ..., h_1 to the parameters of x.
        k: samples per image in the bound.
        importance_weighted: the bound is L_k, the logarithm of the mean of k weights, and not the
            mean of k log weights. It is sampled: `analytic_kl` must be False.
        likelihood: "bernoulli" (logits), "gaussian" or "discretized_logistic" (means, then log
            scales, on the last axis); or a `_slots.Likelihood`.
        analytic_kl: closed form for the top layer's KL, which must be of Gaussians.
        posterior: what makes q(h_i|.) of an encoder's numbers, a `_slots.Posterior`, or a list with
            one for each layer, bottom first. None is a diagonal Gaussian for all.
        prior: p(h_L), a `_slots.Prior`. None is the standard Gaussian.
        free_bits: KL in nats below which a layer gives no gradient.
        kl_weight: weight of log p(z) - log q(z|x) in training.
        kl_warmup_steps: steps over which that weight rises from 0.

    Raises:
        ValueError: if the numbers of networks differ, a network is not built, a posterior or the
            prior does not fit, k or a setting of the KL is out of its range, or the importance
            weighted bound is asked for with `analytic_kl` or categorical latents.
    """

    criterion = "loss"
    evaluations: tuple[str, ...] = (
        "likelihood.nll",
        "likelihood.active_units",
        "latents.kl_per_dimension",
        "latents.mutual_information",
        "likelihood.reconstruction_error",
    )

    def __init__(
        self,
        encoder: keras.Model | Sequence[keras.Model],
        decoder: keras.Model | Sequence[keras.Model],
        *,
        k: int = 1,
        importance_weighted: bool = False,
        likelihood: str | Likelihood = "bernoulli",
        analytic_kl: bool = True,
        posterior: Posterior | Sequence[Posterior] | None = None,
        prior: Prior | None = None,
        free_bits: float = 0.0,
        kl_weight: float = 1.0,
        kl_warmup_steps: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.encoders = _as_list(encoder)
        self.decoders = _as_list(decoder)
        _objective.check_settings(
            k=k, free_bits=free_bits, kl_weight=kl_weight, kl_warmup_steps=kl_warmup_steps
        )
        if isinstance(likelihood, str):
            likelihood = PixelwiseLikelihood(likelihood)
        if len(self.encoders) != len(self.decoders):
            raise ValueError(
                "a VAE needs as many encoders as decoders, one for each stochastic layer. "
                f"Received: {len(self.encoders)} and {len(self.decoders)}"
            )
        for network in [*self.encoders, *self.decoders]:
            if not network.built:
                raise ValueError(
                    f"networks must be built: start {network.name!r} with a keras.Input"
                )
        self.k, self.importance_weighted = k, importance_weighted
        self.likelihood = likelihood
        self.analytic_kl = analytic_kl
        self.kl_weight = kl_weight
        self.kl_warmup_steps = kl_warmup_steps
        self.image_shape = tuple(self.encoders[0].input_shape[1:])
        self.latent_dims = tuple(_latents(d) for d in reversed(self.decoders))
        if posterior is None:
            posterior = [GaussianPosterior(dimensions) for dimensions in self.latent_dims]
        self.posteriors = [posterior] if isinstance(posterior, Posterior) else list(posterior)
        self.prior = prior or StandardPrior(self.latent_dims[-1])
        self._check_slots()
        self.free_bits = free_bits
        self.built = True

    def _check_slots(self) -> None:
        found = [p.dimensions for p in (*self.posteriors, self.prior)]
        wanted = [*self.latent_dims, self.latent_dims[-1]]
        if found != wanted:
            raise ValueError(
                f"posteriors and prior must be over {wanted} latents. Received: {found}"
            )
        *above, lowest = self.decoders
        for decoder, below in zip(above, reversed(self.latent_dims[:-1]), strict=True):
            if tuple(decoder.output_shape[1:]) != (2 * below,):
                raise ValueError(
                    f"{decoder.name} must give means and log sigmas of {below} latents, "
                    f"{(2 * below,)}. Received: {tuple(decoder.output_shape[1:])}"
                )
        if self.likelihood.kind is not None:
            *sides, channels = self.image_shape
            shape = (*sides, channels * _slots.NUMBERS[self.likelihood.kind])
            if tuple(lowest.output_shape[1:]) != shape:
                raise ValueError(
                    f"{lowest.name} must give {shape} for a {self.likelihood.kind} likelihood of "
                    f"images {self.image_shape}. Received: {tuple(lowest.output_shape[1:])}"
                )
        for encoder, posterior in zip(self.encoders, self.posteriors, strict=True):
            if encoder.output_shape[-1] != posterior.outputs:
                raise ValueError(
                    f"{posterior.name} takes {posterior.outputs} numbers of its encoder. "
                    f"Received: {encoder.name} gives {encoder.output_shape[-1]}"
                )
        top = self.posteriors[-1]
        if len({p.one_hot for p in (*self.posteriors, self.prior)}) > 1 or (
            top.one_hot and len(self.posteriors) > 1
        ):
            raise ValueError(
                "one-hot latents need one layer, a CategoricalPosterior and a UniformPrior. "
                f"Received: {[type(p).__name__ for p in (*self.posteriors, self.prior)]}"
            )
        if self.analytic_kl and not (top.closed_form and self.prior.closed_form):
            raise ValueError("the KL of a flow has no closed form. Received: analytic_kl=True")
        if self.importance_weighted and top.one_hot:
            raise ValueError(
                "categorical latents are trained by the ELBO: relaxed draws have no importance "
                f"weights. Received: importance_weighted=True, {type(top).__name__}"
            )
        if self.importance_weighted and self.analytic_kl:
            raise ValueError(
                "analytic_kl has no meaning for the importance weighted bound, which is sampled: "
                "set analytic_kl=False. Received: importance_weighted=True, analytic_kl=True"
            )

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        serialize = keras.saving.serialize_keras_object
        return {
            "encoder": [serialize(n) for n in self.encoders],
            "decoder": [serialize(n) for n in self.decoders],
            "k": self.k,
            "importance_weighted": self.importance_weighted,
            "likelihood": self.likelihood.kind or serialize(self.likelihood),
            "analytic_kl": self.analytic_kl,
            "posterior": [serialize(p) for p in self.posteriors],
            "prior": serialize(self.prior),
            "free_bits": self.free_bits,
            "kl_weight": self.kl_weight,
            "kl_warmup_steps": self.kl_warmup_steps,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VAE":
        """The model that `get_config` describes."""
        config = dict(config)
        for key in ("encoder", "decoder", "posterior"):
            config[key] = [deserialize(part) for part in config[key]]
        config["prior"] = deserialize(config["prior"])
        if not isinstance(config["likelihood"], str):
            config["likelihood"] = deserialize(config["likelihood"])
        return cls(**config)

    def adapt_to(self, batches: tf.data.Dataset) -> None:
        """Sets the output bias to the logit of the mean image, clipped to [0.001, 0.999].

        Only for a Bernoulli likelihood whose decoder ends in a `Dense` layer (Burda et al.).
        """
        if self.likelihood.kind == "bernoulli":
            begin_at_mean_image(self.decoders[-1], batches)

    # The distributions, bottom to top and back.

    def posterior(self, layer: int, below: tf.Tensor, training: bool = False) -> tfd.Distribution:
        """q(h_{layer+1} | h_layer); for layer 0 `below` is images [..., H, W, C]."""
        outputs = _apply(self.encoders[layer], below, training)
        return self.posteriors[layer].distribution(outputs, self.current_step, training)

    def conditional_prior(
        self, layer: int, above: tf.Tensor, training: bool = False
    ) -> tfd.Distribution:
        """p(h_{layer+1} | h_{layer+2}), given `above` [..., d], below the top layer."""
        return distributions.diagonal_gaussian(_apply(self.decoders[-2 - layer], above, training))

    def observation(self, latent: tf.Tensor, training: bool = False) -> tfd.Distribution:
        """p(x | h_1): a distribution over images, given the bottom latents [..., d]."""
        return self.likelihood.distribution(_apply(self.decoders[-1], latent, training))

    def observed(self, inference: Inference, training: bool = False) -> tfd.Distribution:
        """p(x|h_1) of an inference, over images [k, B, H, W, C]."""
        if inference.observation is not None:
            return inference.observation
        return self.observation(inference.latents[0], training)

    def infer(self, image: tf.Tensor, k: int, seed: tf.Tensor, training: bool = False) -> Inference:
        """Draws k samples of every latent layer from q(z|x).

        Args:
            image: [B, H, W, C] in the range of the likelihood.
            k: samples per image.
            seed: int32 [2].
            training: whether the networks run in training mode (dropout, batch statistics).
        """
        found, below = Inference([], [], []), image
        for layer, layer_seed in enumerate(tf.unstack(stateless.split(seed, len(self.encoders)))):
            posterior = self.posterior(layer, below, training)
            below, log_q = posterior.experimental_sample_and_log_prob(
                [] if layer else [k], seed=layer_seed
            )
            found.latents.append(below)
            found.posteriors.append(posterior)
            found.log_q.append(log_q)
        return found

    def log_terms(
        self, image: tf.Tensor, inference: Inference, training: bool = False
    ) -> dict[str, Any]:
        """The log densities of a bound, in nats, [k, B] each.

        Args:
            image: [B, H, W, C].
            inference: of these images, as `infer` returns it.
            training: as for `infer`.

        Returns:
            "likelihood": log p(x|h_1); "prior": log p(z); "posterior": log q(z|x); "ratios": the
            log p - log q of each layer, bottom first, whose sum is their difference. With
            `analytic_kl` the last is minus the KL of the top layer instead, [B] with one layer.
        """
        latents, log_q = inference.latents, inference.log_q
        log_p = [
            self.conditional_prior(i, latents[i + 1], training).log_prob(latents[i])
            for i in range(len(latents) - 1)
        ]
        prior = self.prior.distribution(training)
        log_p.append(prior.log_prob(latents[-1]))
        ratios = [p - q for p, q in zip(log_p, log_q, strict=True)]
        if self.analytic_kl:
            ratios[-1] = -tfd.kl_divergence(inference.posteriors[-1], prior)
        return {
            "likelihood": self.observed(inference, training).log_prob(image),
            "prior": bounds.joint(log_p),
            "posterior": bounds.joint(log_q),
            "ratios": ratios,
        }

    def importance_terms(self, image: tf.Tensor, k: int, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Terms of k fresh samples z_m ~ q(z|x), in nats, float32 [k, B] each.

        Returns:
            "log_weight": log p(x, z_m) - log q(z_m|x) = likelihood - kl; "likelihood":
            log p(x|z_m); "kl": log q(z_m|x) - log p(z_m).
        """
        terms = self.log_terms(image, self.infer(image, k, seed))
        kl = terms["posterior"] - terms["prior"]
        return {
            "log_weight": terms["likelihood"] - kl,
            "likelihood": terms["likelihood"],
            "kl": kl,
        }

    def posterior_means(self, image: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        """Means of each layer's q, given one sample of the layer below: [B, d] each."""
        posteriors = self.infer(image, 1, seed).posteriors
        above = [q.mean()[0] for q in posteriors[1:]]  # these carry the axis of the one sample
        return [posteriors[0].mean(), *above]

    def factors(
        self, image: tf.Tensor, seed: tf.Tensor
    ) -> list[tuple[tfd.Distribution, tfd.Distribution]]:
        """q and p of each layer, bottom first, given one sample of the layers that they depend on.

        q(h_1|x) has the batch shape [B], p(h_L) of the top layer [], all others [1, B].
        """
        inference = self.infer(image, 1, seed)
        priors = [self.conditional_prior(i, h) for i, h in enumerate(inference.latents[1:])]
        priors.append(self.prior.distribution())
        return list(zip(inference.posteriors, priors, strict=True))

    # Training.

    def bound(self, terms: dict[str, Any], kl_weight: tf.Tensor | float) -> tf.Tensor:
        """The bound that training maximises, from `log_terms`: [B], in nats.

        L_k of each image with `importance_weighted`, else the ELBO by its k samples.
        """
        return self.over_samples(self.log_weights(terms, kl_weight))

    def over_samples(self, log_weights: tf.Tensor) -> tf.Tensor:
        """The bound of log weights [k, B]: [B]; L_k with `importance_weighted`, else the ELBO."""
        bound = bounds.iwae if self.importance_weighted else bounds.elbo
        return bound(log_weights)

    def log_weights(self, terms: dict[str, Any], kl_weight: tf.Tensor | float) -> tf.Tensor:
        """log p(x|z) + kl_weight (log p(z) - log q(z|x)), without the gradient of free layers."""
        ratio = bounds.joint([self._free(r) for r in terms["ratios"]])
        return terms["likelihood"] + kl_weight * ratio

    def _free(self, ratio: tf.Tensor) -> tf.Tensor:
        if not self.free_bits:
            return ratio
        return -_objective.free(-ratio, self.free_bits)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of the only player, "model"; logs "loss", "elbo", "likelihood" and "kl".

        "loss" is minus the bound, at the KL weight of the step; "elbo" is the ELBO without weights.
        With several stochastic layers also the KL of each, "kl_1", ..., bottom first.
        """
        image = batch["image"]
        with tf.GradientTape() as tape:
            inference = self.infer(image, self.k, self.noise_seed(), training=True)
            terms = self.log_terms(image, inference, training=True)
            loss = -tf.reduce_mean(self.bound(terms, self._kl_weight()))
        self.minimize("model", loss, tape)
        return self._logs(loss, terms)

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same logs at the full KL weight, by k fresh samples."""
        image = batch["image"]
        terms = self.log_terms(image, self.infer(image, self.k, self.noise_seed()))
        return self._logs(-tf.reduce_mean(self.bound(terms, 1.0)), terms)

    def diagnose(self, logs: Mapping[str, float]) -> dict[str, str]:
        """Whether q(z|x) has become the prior, so that the latents say nothing of the image."""
        return _diagnosis.collapse(logs)

    def _kl_weight(self) -> tf.Tensor | float:
        return schedules.warmup(self.kl_weight, self.kl_warmup_steps, self.current_step)

    @staticmethod
    def _logs(loss: tf.Tensor, terms: dict[str, Any]) -> dict[str, tf.Tensor]:
        kl = tf.reduce_mean(terms["posterior"] - terms["prior"])
        likelihood = tf.reduce_mean(terms["likelihood"])
        logs = {"loss": loss, "elbo": likelihood - kl, "likelihood": likelihood, "kl": kl}
        ratios = terms["ratios"] if len(terms["ratios"]) > 1 else ()
        return logs | {f"kl_{i}": -tf.reduce_mean(r) for i, r in enumerate(ratios, start=1)}

    # Using a trained model.

    def encode(self, image: tf.Tensor) -> tf.Tensor:
        """Top latents by the means of each q: images [B, H, W, C] -> [B, d]."""
        latent = image
        for layer in range(len(self.encoders)):
            latent = self.posterior(layer, latent).mean()
        return latent

    def decode(self, latent: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Means of p(x|z): top latents [B, d] -> images [B, H, W, C] in [0, 1].

        The layers between are sampled with `seed`, or are their means without one. With a PixelCNN
        likelihood it is draws from p(x|z).
        """
        for layer in reversed(range(len(self.decoders) - 1)):
            between = self.conditional_prior(layer, latent)
            if seed is None:
                latent = between.mean()
            else:
                seed, here = tf.unstack(stateless.split(seed, 2))
                latent = between.sample(seed=here)
        return self._image(self.observation(latent), _seed(0) if seed is None else seed)

    def _image(self, observation: tfd.Distribution, seed: tf.Tensor) -> tf.Tensor:
        return self.likelihood.image(observation, stateless.fold_in(seed, _PIXELS))

    def sample(self, num: int | tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Draws `num` images from the model: means of p(x|z), see `decode`, z ~ p(z).

        Args:
            num: how many.
            seed: int or int32 scalar; the same seed gives the same images.

        Returns:
            float32 [num, H, W, C] in [0, 1].
        """
        top, between = tf.unstack(stateless.split(_seed(seed), 2))
        return self.decode(self.prior.distribution().sample(num, seed=top), between)

    def reconstruct(self, image: tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Means of p(x|z) for z ~ q(z|x): images [B, H, W, C] -> [B, H, W, C] in [0, 1]."""
        return self._image(self.observed(self.infer(image, 1, _seed(seed))), _seed(seed))[0]

    def interpolate(self, start: tf.Tensor, end: tf.Tensor, steps: int) -> tf.Tensor:
        """Decodes lines between the codes of images: [B, H, W, C] twice -> [B, steps, H, W, C]."""
        first, last = self.encode(start), self.encode(end)
        at = tf.reshape(tf.linspace(0.0, 1.0, steps), [1, steps, 1])
        line = first[:, tf.newaxis] * (1 - at) + last[:, tf.newaxis] * at
        images = self.decode(tf.reshape(line, [-1, self.latent_dims[-1]]))
        return tf.reshape(images, [-1, steps, *self.image_shape])

    def traverse(
        self, image: tf.Tensor, dimensions: Sequence[int] | tf.Tensor, steps: int
    ) -> tf.Tensor:
        """Moves one top latent at a time of an image's code, between a Gaussian's 1 % and 99 %.

        Args:
            image: [H, W, C].
            dimensions: of the top latents, which are moved.
            steps: images of each.

        Returns:
            float32 [len(dimensions), steps, H, W, C] in [0, 1].
        """
        (code,) = tf.unstack(self.encode(image[tf.newaxis]), num=1)
        at = tfd.Normal(0.0, 1.0).quantile(tf.linspace(0.01, 0.99, steps))
        moved = tf.one_hot(dimensions, self.latent_dims[-1])[:, tf.newaxis]
        latents = code * (1.0 - moved) + at[:, tf.newaxis] * moved
        images = self.decode(tf.reshape(latents, [-1, self.latent_dims[-1]]))
        return tf.reshape(images, [-1, steps, *self.image_shape])

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Named grids [rows, columns, H, W, C] in [0, 1] for a batch of at least one image.

        Rows of "traversals" move the latents, 8 at most, whose means vary most over the batch.
        """
        image = batch["image"][:16]
        rebuilt = self.reconstruct(image, seed)
        grids = {
            "samples": tf.reshape(self.sample(64, seed), [8, 8, *self.image_shape]),
            "reconstructions": tf.stack([image, rebuilt]),
            "interpolations": self.interpolate(image[:-1][:8], image[1:][:8], 10),
        }
        if not self.prior.one_hot:
            spread = tf.math.reduce_variance(self.encode(batch["image"]), axis=0)
            most = tf.argsort(spread, direction="DESCENDING", stable=True)[:8]
            grids["traversals"] = self.traverse(image[0], most, 10)
        if self.latent_dims[-1] == 2:
            grids["latent_grid"] = self.latent_grid(16)
        return {name: grid.numpy() for name, grid in grids.items()}

    def latent_grid(self, side: int) -> tf.Tensor:
        """Images at a 2-D Gaussian's quantiles (the paper's figure 4): [side, side, H, W, C]."""
        images = self.decode(plane_of_quantiles(side))
        return tf.reshape(images, [side, side, *self.image_shape])

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Endpoints of the exported model: name -> (function of tensors, specs by argument)."""
        images = tf.TensorSpec([None, *self.image_shape], tf.float32)
        scalar = tf.TensorSpec([], tf.int32)
        return {
            "sample": (self.sample, {"num": scalar, "seed": scalar}),
            "encode": (self.encode, {"image": images}),
            "decode": (self.decode, {"latent": tf.TensorSpec([None, self.latent_dims[-1]])}),
            "reconstruct": (self.reconstruct, {"image": images, "seed": scalar}),
            "log_prob": (self.log_prob, {"image": images, "seed": scalar}),
        }

    def log_prob(self, image: tf.Tensor, seed: int | tf.Tensor, k: int = 100) -> tf.Tensor:
        """A lower bound on log p(x), L_k: images [B, H, W, C] -> [B], in nats."""
        if self.likelihood.rows_at_once is None:
            return bounds.iwae(self.importance_terms(image, k, _seed(seed))["log_weight"])
        log_weights = tf.map_fn(  # one sample of all images at a time, for the memory
            lambda seed: self.importance_terms(image, 1, seed)["log_weight"][0],
            stateless.split(_seed(seed), k),
            fn_output_signature=tf.float32,
        )
        return bounds.iwae(log_weights)


def plane_of_quantiles(side: int) -> tf.Tensor:
    """Points at a 2-D Gaussian's quantiles, row by row, top row first: [side * side, 2]."""
    quantiles = tfd.Normal(0.0, 1.0).quantile((tf.range(side, dtype=tf.float32) + 0.5) / side)
    return tf.reshape(tf.stack(tf.meshgrid(quantiles, -quantiles), axis=-1), [side * side, 2])


def begin_at_mean_image(network: keras.Model, batches: tf.data.Dataset) -> None:
    """Sets the bias of a last `Dense` layer, where there is one, to the mean image's logit."""
    layers = [w for w in network.weights if w.path.endswith("bias")]
    if not layers:
        return
    total, count = 0.0, 0
    for batch in batches:
        images = batch["image"].numpy().astype(np.float64)
        total, count = total + images.sum(0), count + len(images)
    mean = np.clip(total / count, 0.001, 0.999)
    if layers[-1].shape == (mean.size,):
        layers[-1].assign(np.log(mean / (1 - mean)).reshape(-1).astype(np.float32))


def _latents(decoder: keras.Model) -> int:
    """Dimensions of a decoder's input, or of its first where it has several."""
    shape = decoder.input_shape
    return (shape[0] if isinstance(shape, list) else shape)[-1]


def _as_list(networks: keras.Model | Sequence[keras.Model]) -> list[keras.Model]:
    return [networks] if isinstance(networks, keras.Model) else list(networks)


def _apply(network: keras.Model, inputs: tf.Tensor, training: bool) -> tf.Tensor:
    """Applies a network to inputs with any number of leading axes, e.g. [k, B, d]."""
    event = len(network.input_shape) - 1
    lead = tf.shape(inputs)[: len(inputs.shape) - event]
    static = inputs.shape[: len(inputs.shape) - event]
    if len(static) == 1:
        return network(inputs, training=training)
    flat = tf.reshape(inputs, [-1, *network.input_shape[1:]])
    outputs = network(flat, training=training)
    outputs_shape = network.output_shape[1:]
    result = tf.reshape(outputs, tf.concat([lead, outputs_shape], axis=0))
    result.set_shape([*static, *outputs_shape])
    return result


def _seed(seed: int | tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.cast(seed, tf.int32), 0])


def networks(
    image_shape: Sequence[int], hparams: HParams, numbers: Sequence[int] | None = None
) -> tuple[list[keras.Model], list[keras.Model]]:
    """Encoders (bottom first) and decoders (top first) of Burda et al. 2016: tanh MLPs.

    Each encoder gives so many `numbers`; by default a diagonal Gaussian's.
    """
    numbers = numbers or [2 * latents for latents in hparams.latent_dims]
    *rest, channels = image_shape
    seed = hparams.seed
    encoders: list[keras.Model] = []
    decoders: list[keras.Model] = []
    below: Sequence[int] = image_shape
    for layer, (latents, width, given) in enumerate(
        zip(hparams.latent_dims, hparams.hidden_units, numbers, strict=True)
    ):
        encoders.append(
            mlp(
                below,
                (width, width),
                (given,),
                seed=seed + layer,
                name=f"encoder_{layer + 1}",
            )
        )
        pixels = (*rest, _slots.pixel_numbers(hparams, channels))
        decoders.insert(
            0,
            mlp(
                (latents,),
                (width, width),
                (2 * below[0],) if layer else pixels,
                seed=seed + 100 + layer,
                name=f"decoder_{layer + 1}",
            ),
        )
        below = (latents,)
    return encoders, decoders


def optimizer(hparams: HParams, total_steps: int) -> keras.optimizers.Optimizer:
    """Adam with the run's step size schedule."""
    return optimizers.Adam(
        schedules.learning_rate(hparams, total_steps),
        beta_1=hparams.adam_beta1,
        epsilon=hparams.adam_epsilon,
    )


def slots(hparams: HParams, image_shape: Sequence[int]) -> dict[str, Any]:
    """Arguments of `VAE` but for those of its estimate: networks, slots, settings.

    The estimate's are `k`, `importance_weighted` and `analytic_kl`.
    """
    posteriors = [_slots.posterior(hparams, i) for i in range(len(hparams.latent_dims))]
    encoders, decoders = networks(image_shape, hparams, [p.outputs for p in posteriors])
    return {
        "encoder": encoders,
        "decoder": decoders,
        "likelihood": _slots.likelihood(hparams, image_shape),
        "posterior": posteriors,
        "prior": _slots.prior(hparams),
        "free_bits": hparams.free_bits,
        "kl_weight": hparams.kl_weight,
        "kl_warmup_steps": hparams.kl_warmup_steps,
    }


def build(hparams: HParams, data_spec: DataSpec) -> VAE:
    """The paper's networks for images of the data's shape, compiled and ready to train."""
    model = VAE(
        **slots(hparams, data_spec.image_shape),
        k=hparams.k,
        importance_weighted=hparams.importance_weighted,
        analytic_kl=hparams.analytic_kl,
    )
    model.compile(
        optimizer(hparams, hparams.total_steps(data_spec.train_size)), **hparams.compile_options()
    )
    return model
