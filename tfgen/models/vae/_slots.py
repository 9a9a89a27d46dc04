"""What fills a VAE's slots: posteriors, priors, likelihoods, as layers that make distributions."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfgen import distributions
from tfgen.bijectors.flow import AutoregressiveFlow
from tfgen.networks.pixelcnn import PixelCNNNetwork

LIKELIHOODS: dict[str, Callable[..., tfd.Distribution]] = {
    "bernoulli": distributions.bernoulli,
    "gaussian": distributions.gaussian,
    "discretized_logistic": distributions.discretized_logistic,
    "logistic_mixture": distributions.logistic_mixture,
}
NUMBERS = {  # That a decoder gives for each value of a pixel.
    "bernoulli": 1,
    "gaussian": 2,
    "discretized_logistic": 2,
    "logistic_mixture": 3 * distributions.MIXTURE,
}


class Posterior(keras.layers.Layer):
    """q(z|.) from what an encoder gives.

    Attributes:
        dimensions: of z.
        outputs: numbers that the encoder gives for each z.
        closed_form: whether its KL to a prior of its own kind has a closed form.
        one_hot: whether z are one-hots side by side, and not real numbers.
    """

    dimensions: int
    outputs: int
    closed_form = True
    one_hot = False

    def distribution(
        self, outputs: tf.Tensor, step: tf.Tensor, training: bool = False
    ) -> tfd.Distribution:
        """The distribution over z [..., dimensions], for an encoder's numbers [..., outputs].

        Args:
            outputs: of the encoder.
            step: training steps done, int64 scalar.
            training: whether draws may be relaxed.
        """
        raise NotImplementedError


class Prior(keras.layers.Layer):
    """p(z) of the top latents; attributes as of a `Posterior`."""

    dimensions: int
    closed_form = True
    one_hot = False

    def distribution(self, training: bool = False) -> tfd.Distribution:
        """The distribution over z [dimensions]."""
        raise NotImplementedError


class Likelihood(keras.layers.Layer):
    """p(x|.) of images [H, W, C], from what the lowest decoder gives, [..., H, W, numbers].

    Attributes:
        kind: its name among `LIKELIHOODS`; None for another.
        rows_at_once: images of which densities are found at once, which bounds the memory; None:
            any number.
    """

    kind: str | None = None
    rows_at_once: int | None = None

    def distribution(self, outputs: tf.Tensor) -> tfd.Distribution:
        """The distribution over images, for a decoder's numbers [..., H, W, numbers]."""
        raise NotImplementedError

    def image(self, distribution: tfd.Distribution, seed: tf.Tensor) -> tf.Tensor:
        """What stands for images of such a distribution, [..., H, W, C] in [0, 1]: their means.

        Args:
            distribution: made here.
            seed: int32 [2], for a likelihood whose means cannot be had.
        """
        return distribution.mean()


@keras.saving.register_keras_serializable("tfgen")
class GaussianPosterior(Posterior):
    """A diagonal Gaussian; the encoder gives means, then log sigmas."""

    def __init__(self, dimensions: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.dimensions, self.outputs = dimensions, 2 * dimensions
        self.built = True

    def distribution(
        self, outputs: tf.Tensor, step: tf.Tensor, training: bool = False
    ) -> tfd.Distribution:
        """See `Posterior`."""
        return distributions.diagonal_gaussian(outputs)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {**super().get_config(), "dimensions": self.dimensions}


@keras.saving.register_keras_serializable("tfgen")
class FlowPosterior(Posterior):
    """A diagonal Gaussian carried over by an inverse flow, whose draws are cheap (IAF).

    The encoder gives means, log sigmas, then the flow's context.

    Raises:
        ValueError: if it is a masked flow.
    """

    closed_form = False

    def __init__(self, flow: AutoregressiveFlow, **kwargs: Any):
        super().__init__(**kwargs)
        _check_kind(flow, "inverse")
        self.flow = flow
        self.dimensions, self.outputs = flow.dimensions, 2 * flow.dimensions + flow.context
        self.built = True

    def distribution(
        self, outputs: tf.Tensor, step: tf.Tensor, training: bool = False
    ) -> tfd.Distribution:
        """See `Posterior`."""
        moments = distributions.diagonal_gaussian(outputs[..., : 2 * self.dimensions])
        context = outputs[..., 2 * self.dimensions :] if self.flow.context else None
        return distributions.FlowGaussian(moments, self.flow.bijector(context, training))

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, the flow included."""
        return {**super().get_config(), "flow": keras.saving.serialize_keras_object(self.flow)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FlowPosterior":
        """The layer that `get_config` describes."""
        return cls(**{**config, "flow": keras.saving.deserialize_keras_object(config["flow"])})


@keras.saving.register_keras_serializable("tfgen")
class CategoricalPosterior(Posterior):
    """Categorical variables as one-hots side by side, relaxed in training (Jang et al. 2017).

    The encoder gives their logits. The temperature at step t is max(minimum, exp(-rate t)).

    Args:
        dimensions: variables times their values.
        categories: values of each variable, 2 or more.
        temperature_rate: of the temperature's fall.
        temperature_min: where it stops, more than 0.
        straight_through: one-hots in training too, with the relaxed draws' gradient.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if an argument is out of its range.
    """

    one_hot = True

    def __init__(
        self,
        dimensions: int,
        categories: int,
        temperature_rate: float = 1e-4,
        temperature_min: float = 0.5,
        straight_through: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        _check_categories(dimensions, categories)
        if temperature_min <= 0:
            raise ValueError(f"temperature_min must be more than 0. Received: {temperature_min}")
        self.dimensions = self.outputs = dimensions
        self.categories, self.straight_through = categories, straight_through
        self.temperature_rate, self.temperature_min = temperature_rate, temperature_min
        self.built = True

    def temperature(self, step: tf.Tensor | int) -> tf.Tensor:
        """Of the relaxed draws at a step, scalar."""
        fall = tf.exp(-self.temperature_rate * tf.cast(step, tf.float32))
        return tf.maximum(fall, self.temperature_min)

    def distribution(
        self, outputs: tf.Tensor, step: tf.Tensor, training: bool = False
    ) -> tfd.Distribution:
        """See `Posterior`."""
        temperature = self.temperature(step) if training else None
        logits = _by_variable(outputs, self.categories)
        return distributions.Categoricals(logits, temperature, self.straight_through)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "dimensions": self.dimensions,
            "categories": self.categories,
            "temperature_rate": self.temperature_rate,
            "temperature_min": self.temperature_min,
            "straight_through": self.straight_through,
        }


@keras.saving.register_keras_serializable("tfgen")
class StandardPrior(Prior):
    """N(0, I)."""

    def __init__(self, dimensions: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.dimensions = dimensions
        self.built = True

    def distribution(self, training: bool = False) -> tfd.Distribution:
        """See `Prior`."""
        return distributions.StandardGaussian(self.dimensions)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {**super().get_config(), "dimensions": self.dimensions}


@keras.saving.register_keras_serializable("tfgen")
class FlowPrior(Prior):
    """N(0, I) carried over by a masked flow, whose densities are cheap (MAF).

    Raises:
        ValueError: if it is an inverse flow, or one with a context.
    """

    closed_form = False

    def __init__(self, flow: AutoregressiveFlow, **kwargs: Any):
        super().__init__(**kwargs)
        _check_kind(flow, "masked")
        if flow.context:
            raise ValueError(f"a prior is given nothing. Received: context={flow.context}")
        self.flow, self.dimensions = flow, flow.dimensions
        self.built = True

    def distribution(self, training: bool = False) -> tfd.Distribution:
        """See `Prior`."""
        standard = distributions.StandardGaussian(self.dimensions)
        return distributions.FlowGaussian(standard, self.flow.bijector(training=training))

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, the flow included."""
        return {**super().get_config(), "flow": keras.saving.serialize_keras_object(self.flow)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FlowPrior":
        """The layer that `get_config` describes."""
        return cls(**{**config, "flow": keras.saving.deserialize_keras_object(config["flow"])})


@keras.saving.register_keras_serializable("tfgen")
class UniformPrior(Prior):
    """Categorical variables whose values are alike; dimensions as of `CategoricalPosterior`."""

    one_hot = True

    def __init__(self, dimensions: int, categories: int, **kwargs: Any):
        super().__init__(**kwargs)
        _check_categories(dimensions, categories)
        self.dimensions, self.categories = dimensions, categories
        self.built = True

    def distribution(self, training: bool = False) -> tfd.Distribution:
        """See `Prior`."""
        logits = tf.zeros([self.dimensions // self.categories, self.categories])
        return distributions.Categoricals(logits)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "dimensions": self.dimensions,
            "categories": self.categories,
        }


@keras.saving.register_keras_serializable("tfgen")
class PixelwiseLikelihood(Likelihood):
    """Pixels that are independent given the latents.

    Args:
        kind: "bernoulli" (logits), "gaussian" or "discretized_logistic" (means, then log scales),
            or "logistic_mixture" (see `distributions`).
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if there is no such kind.
    """

    kind: str

    def __init__(self, kind: str, **kwargs: Any):
        super().__init__(**kwargs)
        if kind not in LIKELIHOODS:
            raise ValueError(f"likelihood must be one of {list(LIKELIHOODS)}. Received: {kind!r}")
        self.kind = kind
        self.built = True

    def distribution(self, outputs: tf.Tensor) -> tfd.Distribution:
        """See `Likelihood`."""
        return LIKELIHOODS[self.kind](outputs)

    def image(self, distribution: tfd.Distribution, seed: tf.Tensor) -> tf.Tensor:
        """Means, see `Likelihood`; a Gaussian's, which may be outside of [0, 1], are clipped."""
        return tf.clip_by_value(distribution.mean(), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {**super().get_config(), "kind": self.kind}


@keras.saving.register_keras_serializable("tfgen")
class PixelCNNLikelihood(Likelihood):
    """A PixelCNN given what the decoder gives for each pixel (PixelVAE, Gulrajani et al. 2017).

    Its images are draws, as means cannot be had.

    Args:
        network: takes a condition.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if it does not.
    """

    def __init__(self, network: PixelCNNNetwork, **kwargs: Any):
        super().__init__(**kwargs)
        if not network.context:
            raise ValueError("a likelihood's PixelCNN needs a condition. Received: context=0")
        self.network = network
        self.rows_at_once = max(1, 2500 // network.filters)
        self.built = True

    def distribution(self, outputs: tf.Tensor) -> tfd.Distribution:
        """See `Likelihood`."""
        return distributions.Autoregressive(self.network, tf.cast(outputs, tf.float32))

    def image(self, distribution: tfd.Distribution, seed: tf.Tensor) -> tf.Tensor:
        """Draws, see `Likelihood`."""
        return distribution.sample(seed=seed)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, the network included."""
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PixelCNNLikelihood":
        """The layer that `get_config` describes."""
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


def posterior(hparams: Any, layer: int) -> Posterior:
    """The posterior of a layer, counted from the bottom, by the flags of `vae.HParams`."""
    latents = hparams.latent_dims[layer]
    if hparams.posterior == "gaussian":
        return GaussianPosterior(latents)
    if hparams.posterior == "iaf":
        return FlowPosterior(
            AutoregressiveFlow(
                latents,
                blocks=hparams.flow_blocks,
                hidden_units=hparams.flow_hidden_units,
                order=hparams.flow_order,
                kind="inverse",
                context=hparams.flow_context,
                seed=hparams.seed + 200 + 10 * layer,
                name=f"posterior_flow_{layer + 1}",
            )
        )
    return CategoricalPosterior(
        latents,
        hparams.categories,
        hparams.temperature_rate,
        hparams.temperature_min,
        hparams.straight_through,
    )


def prior(hparams: Any) -> Prior:
    """The prior by the flags of `vae.HParams`."""
    latents = hparams.latent_dims[-1]
    if hparams.posterior == "categorical":
        return UniformPrior(latents, hparams.categories)
    if hparams.prior == "gaussian":
        return StandardPrior(latents)
    return FlowPrior(
        AutoregressiveFlow(
            latents,
            blocks=hparams.flow_blocks,
            hidden_units=hparams.flow_hidden_units,
            order=hparams.flow_order,
            seed=hparams.seed + 300,
            name="prior_flow",
        )
    )


def pixel_numbers(hparams: Any, channels: int) -> int:
    """How many numbers the likelihood by the flags of `vae.HParams` is given for each pixel."""
    if hparams.likelihood == "pixelcnn":
        return hparams.pixelcnn_context
    return channels * NUMBERS[hparams.likelihood]


def likelihood(hparams: Any, image_shape: Sequence[int]) -> Likelihood:
    """The likelihood by the flags of `vae.HParams`."""
    if hparams.likelihood != "pixelcnn":
        return PixelwiseLikelihood(hparams.likelihood)
    network = PixelCNNNetwork(
        image_shape,
        levels=2 if hparams.image_range == "binary" else 256,
        layers=hparams.pixelcnn_layers,
        filters=hparams.pixelcnn_filters,
        head_filters=hparams.pixelcnn_filters,
        kernel_size=hparams.pixelcnn_kernel,
        first_kernel_size=hparams.pixelcnn_kernel,
        context=hparams.pixelcnn_context,
        seed=hparams.seed + 400,
        name="likelihood_network",
    )
    return PixelCNNLikelihood(network)


def _by_variable(outputs: tf.Tensor, categories: int) -> tf.Tensor:
    """[..., N * K] -> float32 [..., N, K], K the categories."""
    shape = tf.concat([tf.shape(outputs)[:-1], [-1, categories]], axis=0)
    found = tf.reshape(tf.cast(outputs, tf.float32), shape)
    variables = outputs.shape[-1] // categories
    return tf.ensure_shape(found, [*outputs.shape[:-1], variables, categories])


def _check_kind(flow: AutoregressiveFlow, kind: str) -> None:
    if flow.kind != kind:
        raise ValueError(f"a flow of kind {kind!r} is needed. Received: kind={flow.kind!r}")


def _check_categories(dimensions: int, categories: int) -> None:
    if categories < 2 or dimensions % categories:
        raise ValueError(
            "categories must be 2 or more and divide the dimensions. "
            f"Received: categories={categories}, dimensions={dimensions}"
        )
