"""VAE with categorical latents, whose draws are relaxed in training so that gradients pass.

Objective, maximised: the bound of `vae.py`, z being N one-hots of K values and p(z) uniform,

    E_q[log p(x|z)] - KL(q(z|x) || uniform),   the KL in closed form,

where in training the draws are Gumbel-softmax ones, softmax((logits + g) / temperature), or with
`straight_through` their one-hots with the relaxed draws' gradient. With relaxed draws it is no
bound on log p(x), as the KL is that of the one-hots; validation and evaluation draw one-hots.

`estimator=score` is what the paper compares with, the score function's gradient of the same bound:

    d/d phi = E[(signal - mean) / max(1, std) d log q(z|x) / d phi],
    signal = log p(x|z) + log p(z) - log q(z|x)

with running means of the signal and its square (Mnih and Gregor 2014, section 3.1).

The relaxation is a filling of the slot `posterior` of `vae.VAE` and its kin.

Reference: E. Jang, S. Gu, B. Poole. Categorical Reparameterization with Gumbel-Softmax. ICLR 2017:
eq. 1-2, section 2.2 (straight-through), table 1; A. Mnih, K. Gregor. Neural Variational Inference
and Learning in Belief Networks. ICML 2014.

Differs from the paper:
  * Two hidden tanh layers of 200 as in Burda et al. 2016.
  * The temperature falls at every step, where the paper updates it each 500 or 1000.
  * The score function's baseline is a running mean, without the network of Mnih and Gregor.
"""

import dataclasses
from typing import Any, Literal

import keras
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.models.vae import vae

_MOMENTUM = 0.8  # Of the signal's running moments (Mnih and Gregor 2014, appendix A).


@dataclasses.dataclass(frozen=True)
class HParams(vae.HParams):
    """Flags of a VAE with categorical latents: 20 variables of 10 values."""

    latent_dims: tuple[int, ...] = (200,)  # Variables times their values.
    # Posterior of each stochastic layer: a diagonal Gaussian, an inverse autoregressive flow, or,
    # with one layer, categorical variables.
    posterior: vae.PosteriorName = "categorical"
    # Gradient of the encoder: through relaxed draws, or the score function's with one-hots.
    estimator: Literal["relaxed", "score"] = "relaxed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.posterior != "categorical":
            raise ValueError(
                "vae.gumbel has categorical latents: use --system=vae.vae for others. "
                f"Received: --posterior={self.posterior}"
            )
        if self.estimator == "score" and self.free_bits:
            raise ValueError(
                "the score function's gradient has no free bits: leave --free_bits=0, or take "
                f"--estimator=relaxed. Received: --free_bits={self.free_bits}"
            )
        if self.estimator == "score" and self.straight_through:
            raise ValueError(
                "the score function's draws are one-hots already: leave --straight_through=false, "
                "or take --estimator=relaxed. Received: --straight_through"
            )


@keras.saving.register_keras_serializable("tfgen")
class ScoreFunctionVAE(vae.VAE):
    """A VAE with categorical latents, trained by the score function.

    Args:
        encoder: as for `VAE`, to logits.
        decoder: as for `VAE`.
        **kwargs: further arguments of `VAE`, a `CategoricalPosterior` among them.
    """

    def __init__(self, encoder: Any, decoder: Any, **kwargs: Any):
        super().__init__(encoder, decoder, **kwargs)
        shape: dict[str, Any] = {"shape": (), "trainable": False, "autocast": False}
        self.signal_mean = self.add_weight(
            initializer="zeros", name="signal_mean", aggregation="mean", **shape
        )
        self.signal_square = self.add_weight(
            initializer="ones", name="signal_square", aggregation="mean", **shape
        )

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of the only player, "model"; logs as for `VAE`, and the signal's deviation."""
        image, kl_weight = batch["image"], self._kl_weight()
        with tf.GradientTape() as tape:
            # Not in training mode: one-hots, through which no gradient passes.
            inference = self.infer(image, self.k, self.noise_seed())
            terms = self.log_terms(image, inference, training=True)
            ratio = terms["prior"] - terms["posterior"]
            signal = tf.stop_gradient(terms["likelihood"] + kl_weight * ratio)
            mean, deviation = self._moments(signal)
            score = (signal - mean) / tf.maximum(deviation, 1.0) * inference.log_q[0]
            bound = tf.reduce_mean(self.bound(terms, kl_weight))
            # The decoder's gradient is the likelihood's, the encoder's the score's.
            loss = -tf.reduce_mean(terms["likelihood"] + score)
        self.minimize("model", loss, tape)
        return {**self._logs(-bound, terms), "signal_deviation": deviation}

    def _moments(self, signal: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Running mean and standard deviation of the signal, this batch included."""
        for moment, value in ((self.signal_mean, signal), (self.signal_square, signal**2)):
            new = _MOMENTUM * moment + (1.0 - _MOMENTUM) * tf.reduce_mean(value)
            moment.assign(new)
        mean = tf.convert_to_tensor(self.signal_mean)
        return mean, tf.sqrt(tf.maximum(self.signal_square - mean**2, 0.0))


def build(hparams: HParams, data_spec: DataSpec) -> vae.VAE:
    """A VAE with categorical latents, compiled and ready to train."""
    cls = ScoreFunctionVAE if hparams.estimator == "score" else vae.VAE
    model = cls(
        **vae.slots(hparams, data_spec.image_shape), k=hparams.k, analytic_kl=hparams.analytic_kl
    )
    total_steps = hparams.total_steps(data_spec.train_size)
    model.compile(vae.optimizer(hparams, total_steps), **hparams.compile_options())
    return model
