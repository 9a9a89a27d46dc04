"""Generative adversarial network: a generator learns to fool a discriminator that learns too.

Losses, each minimised by its player (means over the batch; D(x) = sigmoid of the logit):

    discriminator:                -E log D(x) - E log(1 - D(G(z)))
    generator, minimax:            E log(1 - D(G(z)))
    generator, non-saturating:    -E log D(G(z))

The slots that every system of this family fills or leaves empty: networks, objective, penalty on
D, how often D moves for each move of G, and the tricks of Salimans et al. 2016: features that G
matches, historical averaging, one-sided label smoothing, minibatch discrimination, virtual batch
norm in G.

Reference: I. Goodfellow et al. Generative Adversarial Nets. NeurIPS 2014: eq. 1 (game), section 3
(non-saturating loss), algorithm 1 (alternating updates).

Differs from the paper:
  * The networks are those of DCGAN (Radford et al. 2016) for images and ReLU MLPs for points, with
    Adam, where the paper has maxout MLPs with dropout and momentum.
  * Logits instead of probabilities, so that no logarithm is taken of a rounded 0.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from tfgen import hparams, plane
from tfgen.data import DataSpec, synthetic
from tfgen.layers.historical_average import HistoricalAverage
from tfgen.layers.minibatch_discrimination import MinibatchDiscrimination
from tfgen.losses import adversarial, penalties
from tfgen.models.gan import _diagnosis, _players
from tfgen.training import strategies
from tfgen.training.model import GenerativeModel, deserialize

Objective = Literal[
    "minimax", "non_saturating", "wasserstein", "least_squares", "least_squares_01", "hinge"
]
Optimizer = Literal["adam", "rmsprop"]
Norm = Literal["batch", "layer", "spectral", "none"]
GeneratorNorm = Literal["batch", "virtual", "layer", "none"]
Penalty = Literal["none", "gradient_penalty", "r1"]
Latents = Literal["normal", "uniform"]
# Salts of a step's draws, 4 being that of `_players.py`; other systems take 10 and up.
_MIX, _FOR_D, FOR_G = 1, 2, 3


@dataclasses.dataclass(frozen=True)
class HParams(hparams.HParams):
    """Flags of a GAN; the defaults of DCGAN."""

    batch_size: int = 64  # Examples a step over all replicas (the global batch).
    learning_rate: float = 2e-4  # Step size of the generator's Adam.
    discriminator_learning_rate: float | None = None  # Of the discriminator's; none: the same.
    optimizer: Optimizer = "adam"  # Of both players.
    adam_beta1: float = 0.5  # Adam's beta1, of both.
    adam_beta2: float = 0.999  # Adam's beta2, of both.
    adam_epsilon: float = 1e-8  # Added to the root in Adam's step, of both.
    objective: Objective = "non_saturating"  # Pair of losses.
    discriminator_steps: int = 1  # Updates of the discriminator for each of the generator.
    # Convolutions for images, dense layers, or a dense generator against convolutions.
    networks: Literal["dcgan", "mlp", "mlp_generator"] = "dcgan"
    filters: int = 64  # Channels of the convolutional networks' largest maps.
    discriminator_filters: int | None = None  # The same of the discriminator; none: as --filters.
    hidden_units: tuple[int, ...] = (128, 128)  # Widths of the dense networks.
    # Points in the plane have unit standard deviation for the networks, whatever the data's is.
    standardize: bool = False
    # Normalisation in the convolutional generator; a dense one has virtual batch norm or none.
    norm: GeneratorNorm = "batch"
    reference_size: int = 64  # Latents in the reference batch of --norm=virtual.
    # Normalisation in the convolutional discriminator; spectral: of the kernels of any.
    discriminator_norm: Norm = "batch"
    latent_dim: int = 100  # Dimensions of the latents.
    latents: Latents = "normal"  # N(0, I), or uniform on [-1, 1].
    penalty: Penalty = "none"  # Penalty on the discriminator.
    penalty_weight: float = 10.0  # Weight of the penalty.
    # Label of real examples in the discriminator's loss: 0.9 is one-sided label smoothing.
    positive_label: float = 1.0
    # Discriminator's layer whose mean activations the generator matches; none is off.
    feature_matching_layer: str | None = None
    feature_matching_weight: float = 1.0  # Weight of feature matching.
    adversarial_weight: float = 1.0  # Weight of the objective in the generator's loss.
    historical_average_weight: float = 0.0  # Weight of historical averaging, both players.
    minibatch_kernels: int = 0  # Kernels of minibatch discrimination; 0 is off.
    minibatch_kernel_dim: int = 5  # Dimensions of each of these kernels.

    POSITIVE: ClassVar[tuple[str, ...]] = (
        "discriminator_learning_rate", "discriminator_steps", "filters", "discriminator_filters",
        "hidden_units", "latent_dim", "minibatch_kernel_dim", "reference_size",
        "adam_epsilon",
    )  # fmt: skip
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = (
        "penalty_weight", "feature_matching_weight", "adversarial_weight",
        "historical_average_weight", "minibatch_kernels",
    )  # fmt: skip
    NOT_EMPTY: ClassVar[tuple[str, ...]] = ("hidden_units",)
    DENSE_BATCH_NORM: ClassVar[bool] = False  # Whether --norm=batch is for dense generators too.

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("positive_label", lambda v: 0.5 < v <= 1, "above 0.5 and at most 1")
        adversarial.objective(self.objective, self.positive_label)  # which must have labels
        if self.minibatch_kernels and self.batch_size < 2:
            raise ValueError(
                "minibatch discrimination compares the examples of a batch: --batch_size must be "
                f"at least 2. Received: --batch_size={self.batch_size}"
            )
        if self.data in synthetic.MIXTURES and self.networks != "mlp":
            raise ValueError(
                f"--data={self.data} has points in the plane, which image networks cannot make: "
                f"set --networks=mlp. Received: --networks={self.networks}"
            )
        if self.norm == "layer" and self.networks != "dcgan":
            raise ValueError(
                "a dense generator has virtual batch norm or none: set --norm to virtual or none. "
                f"Received: --norm=layer --networks={self.networks}"
            )
        if self.discriminator_norm == "layer" and self.networks == "mlp":
            raise ValueError(
                "a dense discriminator has spectral normalisation or none: set "
                "--discriminator_norm to spectral or none. "
                f"Received: --discriminator_norm=layer --networks={self.networks}"
            )
        matches = self.feature_matching_layer is not None and self.feature_matching_weight > 0
        if not (self.adversarial_weight or matches or self.learns_more):
            raise ValueError(
                "the generator has nothing to learn by: set --adversarial_weight above 0, or "
                "--feature_matching_layer with a weight. Received: --adversarial_weight=0.0 "
                f"--feature_matching_layer={hparams.to_text(self.feature_matching_layer)} "
                f"--feature_matching_weight={self.feature_matching_weight}"
            )
        if self.penalty != "none":
            self._check_that_examples_are_apart()
        if self.standardize and self.data not in synthetic.MIXTURES:
            raise ValueError(
                "--standardize is for points in the plane, --data=ring8 or grid25. "
                f"Received: --data={self.data}"
            )

    def _check_that_examples_are_apart(self) -> None:
        mixing = ""
        if self.discriminator_norm == "batch" and self.networks != "mlp":
            mixing = "--discriminator_norm=batch"
            right = "--discriminator_norm to layer, spectral or none"
        if self.minibatch_kernels:
            mixing, right = f"--minibatch_kernels={self.minibatch_kernels}", "--minibatch_kernels=0"
        if mixing:
            raise ValueError(
                "a penalty is on the gradient of one example, which the others of its batch must "
                f"not change: set {right}. Received: --penalty={self.penalty} {mixing}"
            )

    @property
    def learns_more(self) -> bool:
        """Whether the generator has losses beside the objective and feature matching."""
        return False

    @property
    def event_scale(self) -> float:
        """What the networks see as a length of 1."""
        return synthetic.scale(self.data) if self.standardize else 1.0

    @property
    def examples_compared(self) -> int:
        """How many examples a replica needs in a step."""
        return 2 if self.minibatch_kernels else 1

    @property
    def batches_per_step(self) -> int:
        """One for each update of the discriminator."""
        return self.discriminator_steps

    @property
    def needs(self) -> tuple[str, ...]:
        """Points of the mixtures, else images."""
        return ("point",) if self.data in synthetic.MIXTURES else ("image",)

    @property
    def image_range(self) -> str:
        """[-1, 1], the range of tanh."""
        return "symmetric"


@keras.saving.register_keras_serializable("tfgen")
class GAN(GenerativeModel):
    """A GAN from the caller's networks, with any objective, penalty and trick of this family.

    For example on MNIST the generator maps latents [B, 100] to images [B, 28, 28, 1] in [-1, 1]
    and the discriminator such images to logits [B, 1].

    `fit` wants batches of real examples; in a train step the discriminator moves
    `discriminator_steps` times and then the generator once. In `fit` they all see the step's batch,
    with other latents each time; in `tfgen.train` each has a batch of its own.

    Args:
        generator: built Keras model from latents [B, d] to images or vectors.
        discriminator: built Keras model from these to logits, [B, 1] or of patches [B, H, W, 1].
        objective: a key of `losses.adversarial.OBJECTIVES`.
        latents: "normal" for N(0, I) or "uniform" for [-1, 1].
        discriminator_steps: its updates for each of the generator's.
        penalty: "none", "gradient_penalty" or "r1".
        penalty_weight: its weight in the discriminator's loss.
        positive_label: label of real examples; below 1 it is one-sided label smoothing.
        feature_matching_layer: name of the discriminator's layer whose mean activations the
            generator matches, or None.
        feature_matching_weight: weight of that term in the generator's loss.
        adversarial_weight: weight of the objective in the generator's loss.
        historical_average_weight: weight of each player's distance to its past mean.
        event_scale: what counts as a length of 1 in penalties, for networks that divide by it.

    Raises:
        ValueError: if the networks do not fit together, or an argument is out of range.
    """

    evaluations: tuple[str, ...] = ("samples.fidelity",)

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        *,
        objective: str = "non_saturating",
        latents: str = "normal",
        discriminator_steps: int = 1,
        penalty: str = "none",
        penalty_weight: float = 10.0,
        positive_label: float = 1.0,
        feature_matching_layer: str | None = None,
        feature_matching_weight: float = 1.0,
        adversarial_weight: float = 1.0,
        historical_average_weight: float = 0.0,
        event_scale: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        made, judged = generator.output_shape[1:], discriminator.input_shape[1:]
        if not tf.TensorShape(judged).is_compatible_with(made):
            raise ValueError(
                "the discriminator must take what the generator makes. "
                f"Received: generator output {made}, discriminator input {judged}"
            )
        if discriminator_steps < 1:
            raise ValueError(
                f"discriminator_steps must be more than 0. Received: {discriminator_steps}"
            )
        weights = {
            "penalty_weight": penalty_weight,
            "feature_matching_weight": feature_matching_weight,
            "adversarial_weight": adversarial_weight,
            "historical_average_weight": historical_average_weight,
        }
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"{name} must be 0 or more. Received: {weight}")
        for name, value, kind in (("penalty", penalty, Penalty), ("latents", latents, Latents)):
            allowed = list(get_args(kind))
            if value not in allowed:
                raise ValueError(f"{name} must be one of {allowed}. Received: {value!r}")
        self.generator, self.discriminator = generator, discriminator
        self.objective, self.latents = objective, latents
        self.discriminator_steps = discriminator_steps
        self.penalty, self.penalty_weight = penalty, penalty_weight
        self._penalty = None if penalty == "none" else penalties.PENALTIES[penalty]()
        self.positive_label = positive_label
        self.feature_matching_layer = feature_matching_layer
        self.feature_matching_weight = feature_matching_weight
        self.adversarial_weight = adversarial_weight
        self.historical_average_weight = historical_average_weight
        self.event_scale = event_scale
        self.losses_of = adversarial.objective(objective, positive_label)
        self.needs = ("image",) if len(made) == 3 else ("point",)
        self.latent_dim = generator.input_shape[-1]
        self.event_shape = tuple(made)
        self._body: Any = None
        if feature_matching_layer is not None:
            self._body = body(discriminator, feature_matching_layer, "feature_matching_layer")
        self.past: dict[str, HistoricalAverage] = {}
        self.remember("generator", generator)
        self.remember("discriminator", discriminator)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        serialize = keras.saving.serialize_keras_object
        return {
            "generator": serialize(self.generator),
            "discriminator": serialize(self.discriminator),
            "objective": self.objective,
            "latents": self.latents,
            "discriminator_steps": self.discriminator_steps,
            "penalty": self.penalty,
            "penalty_weight": self.penalty_weight,
            "positive_label": self.positive_label,
            "feature_matching_layer": self.feature_matching_layer,
            "feature_matching_weight": self.feature_matching_weight,
            "adversarial_weight": self.adversarial_weight,
            "historical_average_weight": self.historical_average_weight,
            "event_scale": self.event_scale,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GAN":
        """The model that `get_config` describes."""
        networks = {
            key: deserialize(value)
            for key, value in config.items()
            if isinstance(value, dict) and "class_name" in value
        }
        return cls(**{**config, **networks})

    def players(self) -> dict[str, list[keras.Variable]]:
        """The generator and the discriminator."""
        return {
            "generator": self.generator.trainable_variables,
            "discriminator": self.discriminator.trainable_variables,
        }

    def remember(self, player: str, network: keras.Model) -> None:
        """Begins the historical average of a network that a player trains, where it is on."""
        if self.historical_average_weight:
            if player not in self.past:
                self.past[player] = HistoricalAverage()
            self.past[player].extend(network.trainable_variables)

    def restart_averages(self) -> None:
        """Those of the weights and, for historical averaging, of each player's past."""
        super().restart_averages()
        for past in self.past.values():
            past.restart()

    def updates(self, player: str, steps: int) -> int:
        """How often a player moves in the first train steps and their extra steps."""
        return self.batches_before(steps) if player.startswith("discriminator") else steps

    # What a step is made of; systems of the family override these.

    def draw_latents(self, num: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Latents float32 [num, d] for a seed int32 [2]."""
        return _players.draw_latents(self.latents, num, self.latent_dim, seed)

    def generate(self, num: int | tf.Tensor, salt: int) -> tf.Tensor:
        """Fakes [num, ...] of this step, with the generator in training mode."""
        made = self.generator(self.draw_latents(num, self.noise_seed(salt)), training=True)
        return tf.cast(made, tf.float32)

    def judge(self, images: tf.Tensor, training: bool = True) -> tf.Tensor:
        """Logits of real or fake examples, float32."""
        return self.as_logits(self.discriminator(images, training=training))

    def as_logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """The logits of being real, float32, from the discriminator's outputs."""
        return tf.cast(outputs, tf.float32)

    def reals(self, batch: dict[str, tf.Tensor], training: bool = True) -> tf.Tensor:
        """What the discriminator is told is real: the examples."""
        return batch[self.needs[0]]

    def share_of_spread(self, fake: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """The fakes' spread as a part of the examples', logged as "spread" for `diagnose`."""
        return spread(fake) / spread(batch[self.needs[0]])

    def discriminator_loss(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss that the discriminator minimises, a scalar, and what is logged."""
        real = self.reals(batch)
        fake = tf.stop_gradient(self.generate(tf.shape(real)[0], _FOR_D))
        loss, logs = self.game(real, fake, self.judge(real), self.judge(fake))
        return loss, {**logs, "spread": self.share_of_spread(fake, batch)}

    def game(
        self, real: tf.Tensor, fake: tf.Tensor, on_real: tf.Tensor, on_fake: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The discriminator's objective of its logits with its penalty, and what is logged."""
        loss = tf.reduce_mean(self.losses_of.discriminator(on_real, on_fake))
        logs = {
            "discriminator_loss": loss,
            "logit_real": tf.reduce_mean(on_real),
            "logit_fake": tf.reduce_mean(on_fake),
        }
        penalty, of_penalty = self.penalty_term(real, fake)
        return loss + penalty, {**logs, **of_penalty}

    def penalty_term(
        self, real: tf.Tensor, fake: tf.Tensor, judge: Callable | None = None
    ) -> tuple[tf.Tensor | float, dict[str, tf.Tensor]]:
        """The weighted penalty and its log, of `self.judge` or another; 0 where there is none."""
        if self._penalty is None:
            return 0.0, {}
        judge, scale = judge or self.judge, self.event_scale

        def critic(unit: tf.Tensor) -> tf.Tensor:
            return judge(unit * scale)  # The slope is in the networks' own lengths.

        each = self._penalty(critic, real / scale, fake / scale, self.noise_seed(_MIX))
        mean = tf.reduce_mean(each)
        return self.penalty_weight * mean, {"penalty": mean}

    def generator_loss(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss that the generator minimises, a scalar, and what is logged."""
        real = batch[self.needs[0]]
        fake = self.generate(tf.shape(real)[0], FOR_G)
        if self._body is None:
            logits, features = self.judge(fake), None
        else:
            features, outputs = self._body(fake, training=True)
            logits = self.as_logits(outputs)
        loss = tf.reduce_mean(self.losses_of.generator(logits))
        distance, of_features = self.feature_matching(real, features=features)
        return self.adversarial_weight * loss + distance, {"generator_loss": loss, **of_features}

    def feature_matching(
        self, real: tf.Tensor, fake: tf.Tensor | None = None, features: Any = None
    ) -> tuple[tf.Tensor | float, dict[str, tf.Tensor]]:
        """The weighted distance of mean features and its log, of fakes or of their features.

        It is 0 where feature matching is off.
        """
        if self._body is None:
            return 0.0, {}
        if features is None:
            features, _ = self._body(fake, training=True)
        wanted, _ = self._body(real, training=True)
        distance = feature_distance(wanted, features)
        return self.feature_matching_weight * distance, {"feature_distance": distance}

    # Training.

    def extra_steps(self, step: Any) -> Any:
        """All updates of the discriminator but the last, which is in the train step."""
        return self.discriminator_steps - 1

    def extra_step(self, batch: dict[str, tf.Tensor]) -> None:
        """One update of the discriminator."""
        self.move("discriminator", self.discriminator_loss, batch)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The last update of the discriminator, then one of the generator; logs both losses."""
        logs = self.move("discriminator", self.discriminator_loss, batch)
        return {**logs, **self.move("generator", self.generator_loss, batch)}

    def move(
        self, player: str | tuple[str, ...], loss_of: Callable, batch: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """One update of a player by `loss_of(batch) -> (loss, logs)`; returns the logs.

        Several players each move their own variables, from the same point, down the same loss or,
        where `loss` is a dict, down the loss of their name.
        """
        players = (player,) if isinstance(player, str) else player
        remembering = [name for name in players if name in self.past]
        with tf.GradientTape(persistent=len(players) > 1) as tape:
            loss, logs = loss_of(batch)
            losses = loss if isinstance(loss, dict) else dict.fromkeys(players, loss)
            for name in remembering:
                distance = self.past[name].penalty()
                losses[name] += self.historical_average_weight * distance
                logs[f"{name}_past_distance"] = distance
        moves = self.moves(logs)
        for name in players:
            self.minimize(name, losses[name], tape, moves.get(name))
        for name in remembering:
            self.past[name].update()
        return {**logs, **{f"{name}_moves": moves[name] for name in players if name in moves}}

    def moves(self, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Which players move, by the logs of their losses: bool scalars; one not named moves."""
        return {}

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Both losses of the objective, networks in inference mode."""
        real = self.reals(batch, training=False)
        seed = self.noise_seed(_FOR_D)
        fake = self.generator(self.draw_latents(tf.shape(real)[0], seed), training=False)
        on_real, on_fake = self.judge(real, training=False), self.judge(fake, training=False)
        return {
            "discriminator_loss": tf.reduce_mean(self.losses_of.discriminator(on_real, on_fake)),
            "generator_loss": tf.reduce_mean(self.losses_of.generator(on_fake)),
            "logit_real": tf.reduce_mean(on_real),
            "logit_fake": tf.reduce_mean(on_fake),
        }

    def loss_scale(self) -> tuple[float, float] | None:
        """The discriminator's least loss, and what it is if D cannot tell; None: no such scale."""
        return self.losses_of.scale

    def diagnose(self, logs: Mapping[str, float]) -> dict[str, str]:
        """Whether the discriminator has won, or the generator makes almost one thing alone.

        A critic never wins: its loss is minus a distance, without a bound, and the generator's
        gradient does not vanish where it is low.
        """
        found = self._wins(logs, "the discriminator", "discriminator_loss")
        return {**found, **_diagnosis.collapsed(logs)}

    def _wins(self, logs: Mapping[str, float], who: str, name: str) -> dict[str, str]:
        return _diagnosis.won(self.loss_scale(), logs, who, name)

    # Using a trained model.

    def sample(self, num: int | tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Draws `num` images in [-1, 1], or points.

        Args:
            num: how many.
            seed: int or int32 scalar; the same seed gives the same samples.

        Returns:
            float32 [num, H, W, C], or [num, 2].
        """
        return self.decode(self.draw_latents(num, tf.stack([tf.cast(seed, tf.int32), 0])))

    def decode(self, latent: tf.Tensor) -> tf.Tensor:
        """Latents [B, d] -> images [B, H, W, C] in [-1, 1], or points [B, 2]."""
        return tf.cast(self.generator(latent, training=False), tf.float32)

    def score(self, image: tf.Tensor) -> tf.Tensor:
        """Logits of the discriminator, the higher the more real: [B, ...] -> [B].

        With minibatch discrimination an example's logit depends on the others of its batch.
        """
        logits = self.judge(image, training=False)
        return tf.reduce_mean(tf.reshape(logits, [tf.shape(logits)[0], -1]), axis=1)

    def interpolate(self, rows: int, steps: int, seed: int) -> tf.Tensor:
        """Images on lines between pairs of latents: [rows, steps, H, W, C]."""
        first, last = tf.split(self.draw_latents(2 * rows, tf.constant([seed, 1])), 2)
        at = tf.reshape(tf.linspace(0.0, 1.0, steps), [1, steps, 1])
        line = first[:, tf.newaxis] * (1 - at) + last[:, tf.newaxis] * at
        images = self.decode(tf.reshape(line, [-1, self.latent_dim]))
        return tf.reshape(images, [rows, steps, *self.event_shape])

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Named grids [rows, columns, H, W, C] in [0, 1] for a batch of at least one example."""
        if self.needs == ("point",):
            samples = self.sample(1000, seed).numpy()
            compared = [
                layer
                for layer in self.discriminator._flatten_layers()
                if isinstance(layer, MinibatchDiscrimination)
            ]  # by which a point alone has no score
            score = None if compared else lambda x: self.score(x).numpy()
            scatter = plane.draw(samples, batch["point"].numpy(), score)
            return {"samples": scatter[None, None]}
        grids = {
            "samples": tf.reshape(self.sample(64, seed), [8, 8, *self.event_shape]),
            "interpolations": self.interpolate(8, 10, seed),
        }
        return {name: np.clip((g.numpy() + 1.0) / 2.0, 0.0, 1.0) for name, g in grids.items()}

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Endpoints of the exported model: name -> (function of tensors, specs by argument)."""
        scalar = tf.TensorSpec([], tf.int32)
        return {
            "sample": (self.sample, {"num": scalar, "seed": scalar}),
            "decode": (self.decode, {"latent": tf.TensorSpec([None, self.latent_dim])}),
            "score": (self.score, {"image": tf.TensorSpec([None, *self.event_shape])}),
        }


def with_batch_statistics(network: keras.Model, x: tf.Tensor) -> Any:
    """What a network says in training mode, without moving the averages of its batch norms."""
    weights, others = network.trainable_variables, network.non_trainable_variables
    return network.stateless_call(weights, others, x, training=True)[0]


def spread(batch: tf.Tensor) -> tf.Tensor:
    """Standard deviation over the batch, root mean square over all pixels: [B, ...] -> scalar."""
    return tf.sqrt(tf.reduce_mean(tf.math.reduce_variance(batch, axis=0)) + 1e-12)


def feature_distance(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """||E f(x) - E f(G(z))||^2 of activations [B, ...] (Salimans et al. 2016, section 3.1).

    In a train step the means are over the batches of all replicas.
    """
    means = (tf.reduce_mean(tf.cast(features, tf.float32), 0) for features in (real, fake))
    difference = strategies.mean_over_replicas(tf.subtract(*means))
    return tf.reduce_sum(tf.square(difference))


def body(discriminator: keras.Model, layer: str, argument: str) -> functools.partial:
    """The discriminator with two outputs, a layer's activations and the logits.

    Raises:
        ValueError: if there is no such layer; it names the argument that asked for it.
    """
    names = [found.name for found in discriminator.layers]
    if layer not in names:
        raise ValueError(
            f"{argument} must be one of the discriminator's layers {names}. Received: {layer!r}"
        )
    outputs = [discriminator.get_layer(layer).output, *discriminator.outputs]
    # In a partial, so that Keras does not track, count and save the shared layers twice.
    return functools.partial(keras.Model(discriminator.inputs, outputs))


def slots(hparams: HParams) -> dict[str, Any]:
    """Arguments of `GAN` but the networks."""
    names = (
        "objective", "latents", "discriminator_steps", "penalty", "penalty_weight",
        "positive_label", "feature_matching_layer", "feature_matching_weight",
        "adversarial_weight", "historical_average_weight", "event_scale",
    )  # fmt: skip
    return {name: getattr(hparams, name) for name in names}


def build(hparams: HParams, data_spec: DataSpec) -> GAN:
    """The networks that the flags ask for, compiled and ready to train."""
    shape = _players.event_shape(hparams, data_spec)
    model = GAN(*_players.networks(shape, hparams), **slots(hparams))
    return _players.compile(model, hparams, data_spec.train_size)
