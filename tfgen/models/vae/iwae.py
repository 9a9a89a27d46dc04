"""Importance weighted autoencoder: a VAE trained by a tighter bound on log p(x).

Objective, maximised (sum over event dimensions, mean over the batch), z_1..z_k ~ q(z|x):

    L_k(x) = E[log (1/k) sum_m w_m],   w_m = p(x, z_m) / q(z_m|x)

L_1 is the sampled ELBO, L_k never falls with k and tends to log p(x). Its gradient weighs each
sample by w~_m = w_m / sum_l w_l, so better samples count more. The bound is that of `vae.VAE` and
its kin with `importance_weighted`; this system fills it with the paper's settings and adds `dreg`.

The doubly reparameterised gradient (flag `dreg`) has the same expectation for the encoder, but
none of the score terms whose signal to noise ratio falls with k:

    d L_k / d phi = E[sum_m w~_m^2 (d log w_m / d z_m) (d z_m / d phi)]

with phi inside log w_m held fixed; the decoder's gradient is unchanged.

Reference: Y. Burda, R. Grosse, R. Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016:
eq. 8 (bound), eq. 13-14 (gradient), section 5 (networks, schedule), table 1. Doubly
reparameterised gradient: G. Tucker et al. Doubly Reparameterized Gradient Estimators for Monte
Carlo Objectives. ICLR 2019, eq. 8.

Differs from the paper:
  * Adam's beta1 is 0.9 as the paper prints; the published code has 0.99 (flag `adam_beta1`).
  * The defaults train on the embedded digits; configs/iwae_mnist_paper.cfg is the paper's run.
"""

import dataclasses
from typing import Any, Literal

import keras
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.losses import bounds
from tfgen.models.vae import vae
from tfgen.models.vae._slots import GaussianPosterior


@dataclasses.dataclass(frozen=True)
class HParams(vae.HParams):
    """Flags of an IWAE; the paper's batch, schedule and k."""

    k: int = 50  # Importance samples per image; 1 is the VAE with a sampled KL.
    batch_size: int = 20  # Examples a step over all replicas (the global batch).
    epochs: float = 3280.0  # Passes over the training split; 1 + 3 + ... + 3^7 in the paper.
    # Step size over the run: constant; stages (3^i epochs each, IWAE); linear decay; drops by 10.
    schedule: Literal["constant", "stages", "linear", "piecewise"] = "stages"
    importance_weighted: bool = True  # Always: an IWAE's bound is L_k.
    analytic_kl: bool = False  # Has no meaning here: an IWAE's bound is always sampled.
    dreg: bool = False  # Doubly reparameterised gradient of the encoder (Tucker et al. 2019).

    def __post_init__(self) -> None:
        if not self.importance_weighted:
            raise ValueError(
                "the bound of vae.iwae is importance weighted: use --system=vae.vae for the ELBO. "
                "Received: --importance_weighted=false"
            )
        super().__post_init__()
        if self.dreg and self.posterior != "gaussian":
            raise ValueError(
                "--dreg asks the posterior for densities at points that it did not draw, which "
                f"take a flow one pass a dimension. Received: --dreg --posterior={self.posterior}"
            )
        if self.dreg and self.free_bits:
            raise ValueError(
                "--dreg has no gradient of single layers, which free bits stop: set --free_bits=0. "
                f"Received: --dreg --free_bits={self.free_bits}"
            )


@keras.saving.register_keras_serializable("tfgen")
class IWAE(vae.VAE):
    """An importance weighted autoencoder from the caller's networks.

    Args:
        encoder: as for `VAE`.
        decoder: as for `VAE`.
        k: importance samples per image.
        dreg: use the doubly reparameterised gradient for the encoder, which must give the same for
            the same inputs in training: no dropout, no batch statistics.
        **kwargs: further arguments of `VAE` but `importance_weighted` and `analytic_kl`.

    Raises:
        ValueError: as `VAE`, and for dreg with a posterior that is no Gaussian or with free bits.
    """

    def __init__(
        self, encoder: Any, decoder: Any, *, k: int = 50, dreg: bool = False, **kwargs: Any
    ):
        super().__init__(
            encoder, decoder, k=k, importance_weighted=True, analytic_kl=False, **kwargs
        )
        if dreg and not all(isinstance(p, GaussianPosterior) for p in self.posteriors):
            raise ValueError(
                "dreg needs Gaussian posteriors, which tell densities at points that they did not "
                f"draw. Received: {[type(p).__name__ for p in self.posteriors]}"
            )
        if dreg and self.free_bits:
            raise ValueError(
                "dreg has no gradient of single layers, which free bits stop: set free_bits=0. "
                f"Received: free_bits={self.free_bits}"
            )
        self.dreg = dreg

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        config = {**super().get_config(), "dreg": self.dreg}
        del config["importance_weighted"], config["analytic_kl"]  # always the same
        return config

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of the only player, "model"; logs as for `VAE`, "loss" being -L_k."""
        if not self.dreg:
            return super().train_step(batch)
        image, kl_weight = batch["image"], self._kl_weight()
        with tf.GradientTape() as sampling:
            latents = self.infer(image, self.k, self.noise_seed(), training=True).latents
        leaves = [tf.stop_gradient(h) for h in latents]
        with tf.GradientTape() as weighing:
            weighing.watch(leaves)
            below = [image, *leaves[:-1]]
            posteriors = [self.posterior(i, h, training=True) for i, h in enumerate(below)]
            log_q = [q.log_prob(h) for q, h in zip(posteriors, leaves, strict=True)]
            inference = vae.Inference(leaves, posteriors, log_q)
            terms = self.log_terms(image, inference, training=True)
            log_weights = self.log_weights(terms, kl_weight)
            # Its gradient is that of L_k: bounds.iwae differentiates to the normalised weights.
            loss = -tf.reduce_mean(bounds.iwae(log_weights))
        weights = bounds.normalized_weights(log_weights)[..., tf.newaxis]
        # Of the posterior's density kl_weight parts are in a weight.
        share = 1.0 - kl_weight + kl_weight * weights

        def gradients(scale: tf.Tensor) -> list[tf.Tensor]:
            inference = [v for e in self.encoders for v in e.trainable_variables]
            variables = self.players()["model"]
            known = {id(v) for v in inference}
            generative = [v for v in variables if id(v) not in known]
            of_decoder, of_latents = weighing.gradient(
                loss, [generative, leaves], output_gradients=scale
            )
            # The first pass weighs each sample by w~; the encoder's gradient wants w~ squared, and
            # w~ where the density has no weight.
            of_encoder = sampling.gradient(
                latents, inference, output_gradients=[share * g for g in of_latents]
            )
            found = {id(v): g for v, g in zip(generative, of_decoder, strict=True)}
            found.update({id(v): g for v, g in zip(inference, of_encoder, strict=True)})
            return [found[id(v)] for v in variables]

        self.apply_gradients("model", gradients)
        return self._logs(loss, terms)


def build(hparams: HParams, data_spec: DataSpec) -> IWAE:
    """The paper's networks for images of the data's shape, compiled and ready to train."""
    model = IWAE(**vae.slots(hparams, data_spec.image_shape), k=hparams.k, dreg=hparams.dreg)
    total_steps = hparams.total_steps(data_spec.train_size)
    model.compile(vae.optimizer(hparams, total_steps), **hparams.compile_options())
    return model
