"""VAE/GAN: a VAE whose decoder is a GAN's generator, and whose errors a discriminator measures.

Losses, each minimised by its player (Dis_l the activations of a layer of D; sums over the latents
and over the layer, means over the batch; D(x) = sigmoid of the logit):

    prior = KL(q(z|x) || N(0, I))
    llike = 1/2 |Dis_l(x) - Dis_l(Dec(z))|^2,  z ~ q(z|x)
    GAN   = -log D(x) - 1/2 log(1 - D(Dec(z))) - 1/2 log(1 - D(Dec(z_p))),  z_p ~ N(0, I)

    encoder:        prior + llike
    generator:      gamma llike - GAN       (the decoder)
    discriminator:  GAN

The encoder's prior has a weight, `kl_weight`, which is 1 or rises to it; with `free_bits` it gives
no gradient while the KL, in the mean over the minibatch, is below so many nats. There is no
importance weighted bound: llike is of features that move with D, so its weights bound no p(x).

llike is -log N(Dis_l(x); Dis_l(Dec(z)), I) but for a constant. With another objective than minimax
its two losses take the place of GAN and -GAN. All three move from the same point, unless the
balance of D and the generator makes one wait. With c_x = -log D(x) and c_f the mean of
-log(1 - D(.)) over the fakes, both means over the batch:

    D moves unless          c_x or c_f < equilibrium - margin,
    the generator unless    c_x or c_f > equilibrium + margin, and both if neither would.

The paper's three other columns are forms of the same networks: `vae` learns by the ELBO with
pixels, `gan` is a GAN, and `vae_dis`, VAE_Dis-l, has two stages. First another generator G and D
play

    GAN = -log D(x) - log(1 - D(G(z_p)));

then D stands still, and the encoder and the decoder, both new, learn by

    encoder, decoder:    prior + llike

Reference: A. B. L. Larsen, S. K. Soenderby, H. Larochelle, O. Winther. Autoencoding beyond pixels
using a learned similarity metric. ICML 2016: section 2.3 (llike, and which error reaches which
network), algorithm 1, figures 3 and 4 (the four columns), section 4.1 (training). The balance of
the players is in the published code.

Differs from the paper:
  * The fakes weigh 1/2 each in GAN, as in the published code, so that a lost D pays log 2 for
    real and fake alike; the paper prints the sum.
  * DCGAN's networks for any image size; Dis_l is the last hidden map, normed and through its ReLU,
    where the published code has that convolution's plain output.
  * RMSprop's decay is 0.99, with 1e-8 added to the root; the published code's is 0.9.
  * One run trains the GAN of `vae_dis` in its first stage (`gan_part`), the VAE in its second.
  * The flagfiles for digits and MNIST have the non-saturating loss, as the minimax one gives no
    gradient where D is sure, and gamma 1e-2: few features of small images weigh little.
  * `vae` has a Bernoulli likelihood of grey values, where the paper has a Gaussian.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfgen import distributions
from tfgen.data import DataSpec
from tfgen.models.gan import _players, gan, mdgan
from tfgen.models.vae import _objective, vae
from tfgen.training import schedules, strategies
from tfgen.training.model import GenerativeModel

_POSTERIOR = 10  # Salt of the draws from q(z|x).
_CROSS_ENTROPY = ("minimax", "non_saturating")


@dataclasses.dataclass(frozen=True)
class HParams(gan.HParams):
    """Flags of a VAE/GAN."""

    learning_rate: float = 3e-4  # Step size of all players.
    optimizer: gan.Optimizer = "rmsprop"  # Of all players.
    objective: gan.Objective = "minimax"  # Pair of losses.
    latent_dim: int = 128  # Dimensions of the latents.
    # The whole; or, to compare with, the VAE by the features of a trained GAN's D, the VAE by
    # pixels or the GAN of the same networks.
    form: Literal["vae_gan", "vae_dis", "vae", "gan"] = "vae_gan"
    gan_part: float = 0.5  # Part of the run in which the GAN of --form=vae_dis learns.
    similarity_layer: str = "features"  # D's layer that measures errors of reconstruction.
    similarity_weight: float = 1e-6  # Gamma, weight of these errors in the decoder's loss.
    equilibrium: float = 0.68  # D's cross-entropy on real and on fake when players are balanced.
    # Distance from it at which the stronger player waits; none is off.
    margin: float | None = 0.35
    # KL in nats below which the latents, in the minibatch's mean, give no gradient.
    free_bits: float = 0.0
    kl_weight: float = 1.0  # Weight of the KL in the encoder's loss.
    kl_warmup_steps: int = 0  # Steps over which the KL weight rises from 0; 0 is off.

    NOT_NEGATIVE = (
        "similarity_weight",
        "equilibrium",
        "margin",
        "free_bits",
        "kl_weight",
        "kl_warmup_steps",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("gan_part", lambda v: 0 < v < 1, "between 0 and 1")
        if self.latents != "normal":
            raise ValueError(f"--latents must be normal for a VAE. Received: {self.latents}")
        if self.feature_matching_layer is not None:
            raise ValueError(
                "a VAE/GAN matches features by --similarity_layer. "
                f"Received: --feature_matching_layer={self.feature_matching_layer}"
            )
        if self.minibatch_kernels:
            raise ValueError(
                "a VAE/GAN's discriminator sees real and fake examples in one batch, and minibatch "
                "discrimination is of each apart: set --minibatch_kernels=0. "
                f"Received: --minibatch_kernels={self.minibatch_kernels}"
            )
        if self.margin is not None and self.objective not in _CROSS_ENTROPY:
            raise ValueError(
                "--margin compares cross-entropies: set --margin=none, or --objective to one of "
                f"{', '.join(_CROSS_ENTROPY)}. Received: --objective={self.objective}"
            )
        if self.form == "vae" and (self.networks != "dcgan" or self.norm == "virtual"):
            raise ValueError(
                "--form=vae is for --networks=dcgan without --norm=virtual. "
                f"Received: --networks={self.networks} --norm={self.norm}"
            )

    @property
    def learns_more(self) -> bool:
        """Whether the decoder learns from reconstructions."""
        by_features = self.form == "vae_gan" and self.similarity_weight > 0
        return self.form in ("vae", "vae_dis") or by_features

    @property
    def image_range(self) -> str:
        """[0, 1] for the Bernoulli likelihood of --form=vae, else [-1, 1]."""
        return "unit" if self.form == "vae" else super().image_range


@keras.saving.register_keras_serializable("tfgen")
class VAEGAN(gan.GAN):
    """A VAE/GAN from the caller's networks.

    For example on MNIST the encoder maps images [B, 28, 28, 1] to [B, 256], 128 means and 128 log
    sigmas; the generator is the decoder and maps [B, 128] to images in [-1, 1].

    Args:
        generator: as for `GAN`.
        discriminator: as for `GAN`.
        encoder: built Keras model from what the generator makes to means and log sigmas.
        objective: as for `GAN`; for another than the minimax one "-GAN" is its generator loss.
        similarity_layer: name of the discriminator's layer that measures errors.
        similarity_weight: gamma, weight of these errors in the generator's loss.
        equilibrium: cross-entropy of D on real and on fake examples that is balanced.
        margin: distance from it at which the stronger player waits; None is off.
        free_bits: KL in nats below which the latents give no gradient.
        kl_weight: weight of the KL in the encoder's loss.
        kl_warmup_steps: steps over which that weight rises from 0.
        **kwargs: further arguments of `GAN`.

    Raises:
        ValueError: if the networks do not fit together, or an argument is out of range.
    """

    evaluations = ("samples.fidelity", "likelihood.reconstruction_error")

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        encoder: keras.Model,
        *,
        objective: str = "minimax",
        similarity_layer: str = "features",
        similarity_weight: float = 1e-6,
        equilibrium: float = 0.68,
        margin: float | None = 0.35,
        free_bits: float = 0.0,
        kl_weight: float = 1.0,
        kl_warmup_steps: int = 0,
        **kwargs: Any,
    ):
        super().__init__(generator, discriminator, objective=objective, **kwargs)
        _objective.check_settings(
            free_bits=free_bits, kl_weight=kl_weight, kl_warmup_steps=kl_warmup_steps
        )
        ends = encoder.input_shape[1:], encoder.output_shape[1:]
        wanted = generator.output_shape[1:], (2 * self.latent_dim,)
        if ends != wanted:
            raise ValueError(
                "the encoder must map what the generator makes to a mean and a log sigma of each "
                f"latent, {wanted[0]} to {wanted[1]}. Received: {ends[0]} to {ends[1]}"
            )
        if self.latents != "normal" or self.feature_matching_layer is not None:
            raise ValueError(
                "a VAE/GAN has normal latents and matches features by its similarity_layer. "
                f"Received: latents={self.latents!r}, "
                f"feature_matching_layer={self.feature_matching_layer!r}"
            )
        if margin is not None and self.objective not in _CROSS_ENTROPY:
            raise ValueError(
                f"margin must be None unless the objective is one of {list(_CROSS_ENTROPY)}. "
                f"Received: margin={margin} with objective={self.objective!r}"
            )
        self.encoder = encoder
        self.remember("encoder", encoder)
        self.similarity_layer, self.similarity_weight = similarity_layer, similarity_weight
        self.equilibrium, self.margin = equilibrium, margin
        self.free_bits, self.kl_weight, self.kl_warmup_steps = free_bits, kl_weight, kl_warmup_steps
        self._see = gan.body(discriminator, similarity_layer, "similarity_layer")

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "similarity_layer": self.similarity_layer,
            "similarity_weight": self.similarity_weight,
            "equilibrium": self.equilibrium,
            "margin": self.margin,
            "free_bits": self.free_bits,
            "kl_weight": self.kl_weight,
            "kl_warmup_steps": self.kl_warmup_steps,
        }

    def players(self) -> dict[str, list[keras.Variable]]:
        """The generator, which is the decoder, the discriminator and the encoder."""
        return {**super().players(), "encoder": self.encoder.trainable_variables}

    # What a step is made of.

    def posterior(self, image: tf.Tensor, training: bool = False) -> tfd.Distribution:
        """q(z|x) for images [B, H, W, C] in [-1, 1], or points."""
        return distributions.diagonal_gaussian(self.encoder(image, training=training))

    def losses(
        self, batch: dict[str, tf.Tensor], training: bool = True
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """The loss of each player, a scalar, and what is logged; from one pass of each network."""
        real = batch[self.needs[0]]
        posterior = self.posterior(real, training)
        code = posterior.sample(seed=self.noise_seed(_POSTERIOR))
        drawn = self.draw_latents(tf.shape(real)[0], self.noise_seed(gan.FOR_G))
        made = self.generator(tf.concat([code, drawn], axis=0), training=training)
        made = tf.cast(made, tf.float32)
        seen, logits = self._see(tf.concat([real, made], axis=0), training=training)
        wanted, found, _ = tf.split(tf.cast(seen, tf.float32), 3)
        on_real, on_back, on_fake = tf.split(tf.cast(logits, tf.float32), 3)

        prior, llike = self.prior(posterior), _error(wanted, found)
        game = _of_both(lambda fake: self.losses_of.discriminator(on_real, fake), on_back, on_fake)
        fooling = _of_both(self.losses_of.generator, on_back, on_fake)
        logs = {
            "prior": prior,
            "llike": llike,
            "discriminator_loss": game,
            "generator_loss": fooling,
            "cost_real": tf.reduce_mean(tf.nn.softplus(-on_real)),
            "cost_fake": _of_both(tf.nn.softplus, on_back, on_fake),
            "logit_real": tf.reduce_mean(on_real),
            "logit_back": tf.reduce_mean(on_back),
            "logit_fake": tf.reduce_mean(on_fake),
            "spread": self.share_of_spread(tf.split(made, 2)[1], batch),
        }
        if training:
            penalty, of_penalty = self.penalty_term(real, tf.split(made, 2)[1])
            game, logs = game + penalty, {**logs, **of_penalty}
        return {
            "encoder": self._weighed(prior, llike),
            "generator": self.similarity_weight * llike + self.adversarial_weight * fooling,
            "discriminator": game,
        }, logs

    def prior(self, posterior: tfd.Distribution) -> tf.Tensor:
        """KL(q(z|x) || N(0, I)), mean over the batch, in nats."""
        standard = distributions.StandardGaussian(self.latent_dim)
        return tf.reduce_mean(tfd.kl_divergence(posterior, standard))

    def _weighed(self, prior: tf.Tensor, llike: tf.Tensor) -> tf.Tensor:
        """The encoder's loss: the KL by its weight, without its gradient if free, and llike."""
        step = self.current_step - max((0, *self.stage_starts()))
        weight = schedules.warmup(self.kl_weight, self.kl_warmup_steps, step)
        return weight * _objective.free(prior, self.free_bits) + llike

    def discriminator_loss(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The discriminator's part of `losses`, for its extra steps."""
        losses, logs = self.losses(batch)
        return losses["discriminator"], logs

    def moves(self, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Whether the discriminator and the generator move, by D's costs over all replicas."""
        if self.margin is None:
            return {}
        costs = tf.stack([logs["cost_real"], logs["cost_fake"]])
        costs = strategies.mean_over_replicas(costs)
        too_good = tf.reduce_any(costs < self.equilibrium - self.margin)
        too_bad = tf.reduce_any(costs > self.equilibrium + self.margin)
        both = too_good & too_bad
        return {"discriminator": ~too_good | both, "generator": ~too_bad | both}

    # Training.

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One move of all three players from the same point; algorithm 1."""
        return self.move(("encoder", "generator", "discriminator"), self.losses, batch)

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The terms of the losses, networks in inference mode."""
        return self.losses(batch, training=False)[1]

    # Using a trained model.

    def encode(self, image: tf.Tensor) -> tf.Tensor:
        """Means of q(z|x): images [B, H, W, C] in [-1, 1], or points -> latents [B, d]."""
        return self.posterior(image).mean()

    def reconstruct(self, image: tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Dec(z), z ~ q(z|x), of images in [-1, 1] or points, in their shape."""
        return self.decode(
            self.posterior(image).sample(seed=tf.stack([tf.cast(seed, tf.int32), 0]))
        )

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Those of `GAN`, and images (first row) with their reconstructions (second)."""
        grids = super().pictures(batch, seed)
        if self.needs == ("image",):
            some = batch["image"][:16]
            rows = tf.stack([some, self.reconstruct(some, seed)]).numpy()
            grids["reconstructions"] = np.clip((rows + 1.0) / 2.0, 0.0, 1.0)
        return grids

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Those of `GAN`, the encoder and the autoencoder."""
        image = tf.TensorSpec([None, *self.event_shape])
        seed = tf.TensorSpec([], tf.int32)
        return {
            **super().signatures(),
            "encode": (self.encode, {"image": image}),
            "reconstruct": (self.reconstruct, {"image": image, "seed": seed}),
        }


def _of_both(
    loss_of: Callable[[tf.Tensor], tf.Tensor], on_back: tf.Tensor, on_fake: tf.Tensor
) -> tf.Tensor:
    """Half of a loss of D's logits of Dec(z), and half of that of Dec(z_p)."""
    return 0.5 * (tf.reduce_mean(loss_of(on_back)) + tf.reduce_mean(loss_of(on_fake)))


def _error(wanted: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    """1/2 |.|^2 of the difference of activations [B, ...], mean over the batch."""
    error = 0.5 * tf.square(wanted - found)
    return tf.reduce_mean(tf.reduce_sum(error, axis=range(1, error.shape.rank)))


@keras.saving.register_keras_serializable("tfgen")
class VAEDis(VAEGAN):
    """VAE_Dis-l: a VAE by the features of a discriminator that a GAN has trained before.

    Args:
        generator: the VAE's decoder, as for `GAN`.
        discriminator: as for `GAN`.
        encoder: as for `VAEGAN`.
        rival: the GAN's generator, of the same inputs and outputs as `generator`.
        gan_steps: steps in which it and the discriminator play, before the VAE learns.
        **kwargs: further arguments of `VAEGAN`. There is nothing that `similarity_weight`,
            `adversarial_weight`, `equilibrium` and `margin` would weigh or hold up.

    Raises:
        ValueError: if the networks do not fit together, or an argument is out of range.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        encoder: keras.Model,
        rival: keras.Model,
        *,
        gan_steps: int = 10_000,
        **kwargs: Any,
    ):
        super().__init__(generator, discriminator, encoder, **kwargs)
        wanted, found = (
            (network.input_shape[1:], network.output_shape[1:]) for network in (generator, rival)
        )
        if found != wanted:
            raise ValueError(
                f"the rival must map {wanted[0]} to {wanted[1]}, as the generator does. "
                f"Received: {found[0]} to {found[1]}"
            )
        if gan_steps < 1:
            raise ValueError(f"gan_steps must be more than 0. Received: gan_steps={gan_steps}")
        self.rival, self.gan_steps = rival, gan_steps
        self.remember("rival", rival)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        rival = keras.saving.serialize_keras_object(self.rival)
        return {**super().get_config(), "rival": rival, "gan_steps": self.gan_steps}

    def players(self) -> dict[str, list[keras.Variable]]:
        """Those of `VAEGAN`, and the rival."""
        return {**super().players(), "rival": self.rival.trainable_variables}

    def stage_starts(self) -> tuple[int, ...]:
        """Where the discriminator stands still and the VAE begins to learn."""
        return (self.gan_steps,)

    def updates(self, player: str, steps: int) -> int:
        """How often a player moves in the first train steps and their extra steps."""
        of_game = min(steps, self.gan_steps)
        if player in ("generator", "encoder"):
            return steps - of_game
        return super().updates(player, of_game)

    def extra_steps(self, step: Any) -> Any:
        """Those of `GAN` in the first stage alone."""
        more = super().extra_steps(step)
        return tf.where(step < self.gan_steps, more, 0) if more else 0

    def moves(self, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Nobody waits."""
        return {}

    def game_losses(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """The losses of the GAN's two players in the first stage, and what is logged."""
        real = self.reals(batch)
        drawn = self.draw_latents(tf.shape(real)[0], self.noise_seed(gan.FOR_G))
        fake = tf.cast(self.rival(drawn, training=True), tf.float32)
        on_real, on_fake = tf.split(self.judge(tf.concat([real, fake], axis=0)), 2)
        loss, logs = self.game(real, fake, on_real, on_fake)
        fooling = tf.reduce_mean(self.losses_of.generator(on_fake))
        logs |= {"generator_loss": fooling, "spread": self.share_of_spread(fake, batch)}
        return {"discriminator": loss, "rival": fooling}, logs

    def discriminator_loss(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The discriminator's part of `game_losses`, for its extra steps."""
        losses, logs = self.game_losses(batch)
        return losses["discriminator"], logs

    def losses(
        self, batch: dict[str, tf.Tensor], training: bool = True
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """The losses of encoder and decoder in the second stage, and what is logged."""
        real = self.reals(batch)
        posterior = self.posterior(real, training)
        code = posterior.sample(seed=self.noise_seed(_POSTERIOR))
        made = tf.cast(self.generator(code, training=training), tf.float32)
        seen, _ = self._see(tf.concat([real, made], axis=0), training=False)  # as D was left
        llike = _error(*tf.split(tf.cast(seen, tf.float32), 2))
        prior = self.prior(posterior)
        losses = {"encoder": self._weighed(prior, llike), "generator": llike}
        return losses, {"prior": prior, "llike": llike}

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One move of the GAN's two players, or in the second stage of encoder and decoder."""
        if self.stage == 0:
            return self.move(("rival", "discriminator"), self.game_losses, batch)
        return self.move(("encoder", "generator"), self.losses, batch)


@keras.saving.register_keras_serializable("tfgen")
class PixelVAE(vae.VAE):
    """The VAE to compare with: evaluated by what a VAE/GAN is, which has no likelihood."""

    evaluations = VAEGAN.evaluations


def _without_tanh(generator: keras.Sequential) -> keras.Sequential:
    """The same network, whose outputs are logits."""
    config = generator.get_config()
    config["layers"][-1]["config"]["activation"] = "linear"
    return keras.Sequential.from_config(config)


def _of_kl(hparams: HParams) -> dict[str, Any]:
    """Arguments of `VAEGAN` and `VAE` alike."""
    names = ("free_bits", "kl_weight", "kl_warmup_steps")
    return {name: getattr(hparams, name) for name in names}


def build(hparams: HParams, data_spec: DataSpec) -> GenerativeModel:
    """The networks that the flags ask for in their form, compiled and ready to train."""
    shape = _players.event_shape(hparams, data_spec)
    generator, discriminator = _players.networks(shape, hparams)
    if hparams.form == "gan":
        plain = gan.GAN(generator, discriminator, **gan.slots(hparams))
        return _players.compile(plain, hparams, data_spec.train_size)

    own = mdgan.encoders_hparams(hparams)
    encoder = mdgan.encoder(_players.networks(shape, own)[1], 2 * hparams.latent_dim, own.seed)
    if hparams.form == "vae":
        pixels = PixelVAE(encoder, _without_tanh(generator), **_of_kl(hparams))
        rate = schedules.learning_rate(hparams, hparams.total_steps(data_spec.train_size))
        pixels.compile(_players.optimizer(hparams, rate), **hparams.compile_options())
        return pixels

    settings = {
        "similarity_layer": hparams.similarity_layer,
        "similarity_weight": hparams.similarity_weight,
        "equilibrium": hparams.equilibrium,
        "margin": hparams.margin,
        **_of_kl(hparams),
        **gan.slots(hparams),
    }
    model: VAEGAN
    if hparams.form == "vae_dis":
        total = hparams.total_steps(data_spec.train_size)
        steps = max(1, min(round(hparams.gan_part * total), total - 1))
        rival = _players.networks(shape, hparams)[0]
        model = VAEDis(generator, discriminator, encoder, rival, gan_steps=steps, **settings)
    else:
        model = VAEGAN(generator, discriminator, encoder, **settings)
    return _players.compile(model, hparams, data_spec.train_size)
