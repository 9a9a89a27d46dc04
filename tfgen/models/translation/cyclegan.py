"""CycleGAN: translates between two sets of images of which no pairs are known.

G: A -> B and F: B -> A learn together, and what one has made the other must turn back. Losses, each
minimised by its player (means over the batch, the pixels and D's patches):

    discriminators:  1/2 (D_A(a) - 1)^2 + 1/2 D_A(F(b))^2 + 1/2 (D_B(b) - 1)^2 + 1/2 D_B(G(a))^2
    generators:      (D_A(F(b)) - 1)^2 + (D_B(G(a)) - 1)^2
                     + lambda (|F(G(a)) - a| + |G(F(b)) - b|)
                     + mu (|F(a) - a| + |G(b) - b|)

In the place of F(b) and G(a) the discriminators are shown fakes of a pool of the last 50, half of
the time. Other objectives by --objective: wasserstein with --penalty=gradient_penalty is the
lecture's CycleWGAN. Without --cycle_weight it is two GANs.

Reference: J.-Y. Zhu, T. Park, P. Isola, A. Efros. Unpaired Image-to-Image Translation using
Cycle-Consistent Adversarial Networks. ICCV 2017: eq. 1 to 3, section 4 (training: least squares,
pool, step size), section 5.2 (identity), section 7.2 (networks). Pool: A. Shrivastava et al.
Learning from Simulated and Unsupervised Images through Adversarial Training. CVPR 2017, sec. 2.3.

Differs from the paper:
  * The images of a batch meet different places of the pool; the code's may meet one place twice.
    With batch size 1, the paper's, this is the same.
  * Replicas share one pool, of all their fakes.
  * Images of other sizes are mirrored at two edges for the generators, and cut back.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf

from tfgen import stateless
from tfgen.data import DataSpec
from tfgen.models.gan import gan
from tfgen.models.translation import _translator
from tfgen.networks import patchgan, resnet, translation

_POOL_A, _POOL_B = 10, 11  # Salts of the pools' draws.
_PENALTY_A, _PENALTY_B = 20, 21  # Added to those of the penalties.
_TEST_ROWS = 8  # In a picture.


@dataclasses.dataclass(frozen=True)
class HParams(_translator.HParams):
    """Flags of a CycleGAN; the paper's networks and training."""

    # Step size over the run; linear is the paper's: constant, then to 0 from --decay_from on.
    schedule: Literal["constant", "stages", "linear", "piecewise"] = "linear"
    decay_from: float = 0.5  # Part of the run from which on the step size falls to 0.
    objective: gan.Objective = "least_squares_01"  # Pair of losses.
    # Weight of the objective in the generators' loss; that of least squares has a half of its own.
    adversarial_weight: float = 2.0
    cycle_weight: float = 10.0  # Lambda, weight of the cycles; 0 is two GANs.
    identity_weight: float = 5.0  # Mu, weight of the identity loss: half of lambda, or 0.
    pool_size: int = 50  # Past fakes of each domain that its discriminator may be shown; 0 is off.
    blocks: int | None = None  # Residual blocks; none: 9 for images of 256 pixels, else 6.

    POSITIVE: ClassVar[tuple[str, ...]] = ("blocks",)
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ("cycle_weight", "identity_weight", "pool_size")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not max(self.adversarial_weight, self.cycle_weight, self.identity_weight):
            raise ValueError(
                "the generators have nothing to learn by: set --adversarial_weight, --cycle_weight "
                "or --identity_weight above 0. Received: 0.0 for each"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """An image of each domain."""
        return ("a", "b")


class ImagePool:
    """The last fakes of a generator, some of which are shown to the discriminator again.

    While it fills, fakes are kept and shown. Then each is shown, or, with probability 1/2, takes
    the place of one that is kept, which is shown instead; those of a batch take different places.
    Its variables are not among the model's weights: they belong to the training alone.

    Args:
        size: images that it holds; whole batches.
        image_shape: (height, width, channels).

    Attributes:
        images: float32 [size, H, W, C].
        count: int32 scalar, how many of them there are.
    """

    def __init__(self, size: int, image_shape: tuple[int, int, int]):
        once = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.size = size
        self.images, self.count = (
            tf.Variable(zeros, trainable=False, aggregation=once)
            for zeros in (tf.zeros([size, *image_shape]), tf.zeros([], tf.int32))
        )

    def exchange(self, fake: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Fakes of all replicas [N, H, W, C] to what is shown, of the same shape.

        Args:
            fake: as many as ever, so that the pool holds whole batches; `size` at most.
            seed: int32 [2], the same on all replicas.

        Raises:
            ValueError: if the pool is too small for one batch, or the batch size is not known, or
                images are of another shape.
        """
        number = fake.shape[0]
        if number is None:
            raise ValueError(
                "the pool takes batches of one size: batch with drop_remainder=True, or set "
                "pool_size=0. Received: batches of a size that is not known before they come"
            )
        if fake.shape[1:] != self.images.shape[1:]:
            raise ValueError(
                f"images of the pool are {tuple(self.images.shape[1:])}, as image_shape says. "
                f"Received: {tuple(fake.shape[1:])}"
            )
        if number > self.size:
            raise ValueError(
                f"the pool must hold a batch: --pool_size must be at least the batch size, or 0. "
                f"Received: --pool_size={self.size} for {number} fakes"
            )
        count = tf.identity(self.count)
        filling = count + number <= self.size
        places, coins = tf.split(
            stateless.uniform([2, self.size // number * number], seed), 2, axis=0
        )
        drawn = tf.argsort(places[0])[:number]
        slots = tf.where(filling, count + tf.range(number), drawn)
        swap = tf.logical_and(coins[0, :number] < 0.5, tf.logical_not(filling))
        swap = tf.reshape(swap, [-1, 1, 1, 1])
        kept = tf.gather(self.images.value(), slots)
        stored = tf.where(tf.logical_or(swap, filling), fake, kept)

        def update(strategy: tf.distribute.Strategy, slots: Any, stored: Any, more: Any) -> None:
            extended = strategy.extended
            at = (slots, stored)
            extended.update(
                self.images, lambda v, i, x: v.scatter_nd_update(i[:, tf.newaxis], x), args=at
            )
            extended.update(self.count, lambda v, n: v.assign_add(n), args=(more,))

        more = tf.where(filling, number, 0)
        tf.distribute.get_replica_context().merge_call(update, args=(slots, stored, more))
        return tf.where(swap, kept, fake)


@keras.saving.register_keras_serializable("tfgen")
class CycleGAN(_translator.Translator):
    """A CycleGAN from the caller's networks.

    For example on horse2zebra each generator maps images [B, 256, 256, 3] in [-1, 1] to such
    images, and each discriminator these to logits [B, 30, 30, 1].

    Args:
        generator_ab: built Keras model G, from A to B.
        generator_ba: built Keras model F, from B to A.
        discriminator_a: built Keras model from images of A to logits of patches.
        discriminator_b: built Keras model from images of B to logits of patches.
        cycle_weight: lambda.
        identity_weight: mu; above 0 the domains have the same channels.
        pool_size: past fakes of each domain that its discriminator may be shown; 0 is off.
        **kwargs: of `Translator`.

    Raises:
        ValueError: if the networks do not fit together, or an argument is out of range.
    """

    needs = ("a", "b")
    evaluations: tuple[str, ...] = ("translation.unpaired",)

    def __init__(
        self,
        generator_ab: keras.Model,
        generator_ba: keras.Model,
        discriminator_a: keras.Model,
        discriminator_b: keras.Model,
        *,
        cycle_weight: float = 10.0,
        identity_weight: float = 5.0,
        pool_size: int = 50,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.generator_ab, self.generator_ba = generator_ab, generator_ba
        self.discriminator_a, self.discriminator_b = discriminator_a, discriminator_b
        of_a = (
            generator_ab.input_shape[-1], generator_ba.output_shape[-1],
            discriminator_a.input_shape[-1],
        )  # fmt: skip
        of_b = (
            generator_ba.input_shape[-1], generator_ab.output_shape[-1],
            discriminator_b.input_shape[-1],
        )  # fmt: skip
        if len({*of_a}) > 1 or len({*of_b}) > 1:
            raise ValueError(
                "generators and discriminators must agree in the channels of each domain. "
                f"Received: of A {of_a}, of B {of_b}"
            )
        if identity_weight and of_a != of_b:
            raise ValueError(
                f"the identity loss needs domains of the same channels; set identity_weight=0. "
                f"Received: {of_a[0]} and {of_b[0]} channels"
            )
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.pool_size = pool_size
        sides = self.image_shape[:2]
        self.pools: dict[str, ImagePool] = {}
        if pool_size:
            self.pools = {
                "a": ImagePool(pool_size, (*sides, of_a[0])),
                "b": ImagePool(pool_size, (*sides, of_b[0])),
            }
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        networks = ("generator_ab", "generator_ba", "discriminator_a", "discriminator_b")
        return {
            **super().get_config(),
            **{n: keras.saving.serialize_keras_object(getattr(self, n)) for n in networks},
            "cycle_weight": self.cycle_weight,
            "identity_weight": self.identity_weight,
            "pool_size": self.pool_size,
        }

    def players(self) -> dict[str, list[keras.Variable]]:
        """Both generators, and both discriminators."""
        return {
            "generator": [
                *self.generator_ab.trainable_variables,
                *self.generator_ba.trainable_variables,
            ],
            "discriminator": [
                *self.discriminator_a.trainable_variables,
                *self.discriminator_b.trainable_variables,
            ],
        }

    def state_variables(self) -> dict[str, Any]:
        """Those of every model, and the pools."""
        found = super().state_variables()
        for domain, pool in self.pools.items():
            found |= {f"pool/{domain}/images": pool.images, f"pool/{domain}/count": pool.count}
        return found

    # What a step is made of.

    def source(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Images of A."""
        return batch["a"]

    def to_b(self, image: tf.Tensor, training: bool = False) -> tf.Tensor:
        """G: images of A [B, H, W, C] of any size to images of B, float32 of that size."""
        return self.through(lambda x: self.generator_ab(x, training=training), image)

    def to_a(self, image: tf.Tensor, training: bool = False) -> tf.Tensor:
        """F: images of B [B, H, W, C] of any size to images of A, float32 of that size."""
        return self.through(lambda x: self.generator_ba(x, training=training), image)

    def judge(self, domain: str, image: tf.Tensor, training: bool = True) -> tf.Tensor:
        """Logits of patches [B, h, w, 1] of images of a domain, "a" or "b", float32."""
        network = self.discriminator_a if domain == "a" else self.discriminator_b
        return tf.cast(network(image, training=training), tf.float32)

    def generator_loss(
        self, a: tf.Tensor, b: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """The generators' loss, a scalar, what is logged, and the fakes of A and of B."""
        fake_b, fake_a = self.to_b(a, training), self.to_a(b, training)
        on_fakes = (self.judge("a", fake_a, training), self.judge("b", fake_b, training))
        loss = sum(tf.reduce_mean(self.losses_of.generator(logits)) for logits in on_fakes)
        logs = {"generator_loss": loss}
        total = self.adversarial_weight * loss
        kept = [
            ("cycle_a", self.cycle_weight, self.to_a(fake_b, training), a),
            ("cycle_b", self.cycle_weight, self.to_b(fake_a, training), b),
        ]
        if self.identity_weight:
            kept += [
                ("identity_a", self.identity_weight, self.to_a(a, training), a),
                ("identity_b", self.identity_weight, self.to_b(b, training), b),
            ]
        for name, weight, found, wanted in kept:
            logs[name] = tf.reduce_mean(tf.abs(found - wanted))
            total += weight * logs[name]
        return total, logs, (fake_a, fake_b)

    def shown(self, domain: str, fake: tf.Tensor, salt: int) -> tf.Tensor:
        """What a discriminator is shown in the place of this replica's fakes."""
        if domain not in self.pools:
            return fake
        replica = tf.distribute.get_replica_context()
        number, index = fake.shape[0], replica.replica_id_in_sync_group
        if replica.num_replicas_in_sync > 1:
            shape = [number * replica.num_replicas_in_sync, *fake.shape[1:]]
            fake = tf.ensure_shape(replica.all_gather(fake, axis=0), shape)
        shown = self.pools[domain].exchange(fake, self.noise_seed(salt, shared=True))
        return shown[index * number : (index + 1) * number]

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One update of the generators, then one of the discriminators by the same fakes."""
        a, b = batch["a"], batch["b"]
        with tf.GradientTape() as tape:
            loss, logs, (fake_a, fake_b) = self.generator_loss(a, b, training=True)
        self.minimize("generator", loss, tape)
        shown_a, shown_b = self.shown("a", fake_a, _POOL_A), self.shown("b", fake_b, _POOL_B)
        with tf.GradientTape() as tape:
            loss_a, of_a = self.judge_loss(lambda x: self.judge("a", x), a, shown_a, _PENALTY_A)
            loss_b, of_b = self.judge_loss(lambda x: self.judge("b", x), b, shown_b, _PENALTY_B)
            loss = loss_a + loss_b
        self.minimize("discriminator", loss, tape)
        return {**logs, **{name: (of_a[name] + of_b[name]) / 2 for name in of_a}}

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The generators' losses."""
        return self.generator_loss(batch["a"], batch["b"], training=False)[1]

    # Using a trained model.

    def translate(self, image: tf.Tensor, seed: int | tf.Tensor = 0) -> tf.Tensor:
        """Images of A [B, H, W, C] in [-1, 1] of any size to images of B, of the same size."""
        return self.to_b(image)

    def translate_back(self, image: tf.Tensor, seed: int | tf.Tensor = 0) -> tf.Tensor:
        """Images of B [B, H, W, C] in [-1, 1] of any size to images of A, of the same size."""
        return self.to_a(image)

    def translations(self) -> dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]:
        """Both ways."""
        return {"translate": self.translate, "translate_back": self.translate_back}

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Rows of an image, its translation, and that translated back: [rows, 3, H, W, 3]."""
        found = {}
        ways = {"a_to_b_to_a": ("a", self.to_b, self.to_a),
                "b_to_a_to_b": ("b", self.to_a, self.to_b)}  # fmt: skip
        for name, (domain, there, back) in ways.items():
            image = tf.cast(batch[domain][:_TEST_ROWS], tf.float32)
            made = there(image)
            columns = [_translator.as_picture(x) for x in (image, made, back(made))]
            found[name] = np.stack(columns, axis=1)
        return found

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Endpoints of the exported model: name -> (function of tensors, specs by argument)."""
        scalar = tf.TensorSpec([], tf.int32)
        a, b = (
            tf.TensorSpec([None, None, None, network.input_shape[-1]])
            for network in (self.generator_ab, self.generator_ba)
        )
        return {
            "translate": (self.to_b, {"image": a}),
            "translate_back": (self.to_a, {"image": b}),
            "sample": (self.sample, {"num": scalar, "seed": scalar}),
        }


def build(hparams: HParams, data_spec: DataSpec) -> CycleGAN:
    """The networks that the flags ask for, compiled and ready to train.

    Raises:
        ValueError: if the images are too small for the networks, the domains differ in size, or
            the pool does not hold a batch.
    """
    a, b = data_spec.shapes["a"], data_spec.shapes["b"]
    height, width = a[:2]
    if min(height, width) < resnet.LEAST:
        raise ValueError(
            f"the sides of training images must be at least {resnet.LEAST}; see --resize and "
            f"--crop. Received: {height}x{width}"
        )
    if 0 < hparams.pool_size < hparams.batch_size:
        raise ValueError(
            "the pool must hold a batch: --pool_size must be at least the batch size, or 0. "
            f"Received: --pool_size={hparams.pool_size} --batch_size={hparams.batch_size}"
        )
    blocks = hparams.blocks or resnet.blocks_for(height, width)

    def generator(source: int, target: int, number: int) -> keras.Model:
        return resnet.resnet(
            source,
            target,
            blocks=blocks,
            filters=hparams.filters,
            norm=translation.NORMS[hparams.norm],
            seed=hparams.seed + 1000 * number,
            name=f"generator_{number}",
        )

    def discriminator(channels: int, number: int) -> keras.Sequential:
        return patchgan.discriminator(
            channels,
            patch=patchgan.patch_side(hparams.patch, a),
            filters=hparams.discriminator_filters,
            norm=translation.NORMS[hparams.discriminator_norm],
            logit_bias=hparams.objective != "wasserstein",  # it cancels there
            seed=hparams.seed + 1000 * number,
            name=f"discriminator_{number}",
        )

    model = CycleGAN(
        generator(a[-1], b[-1], 0),
        generator(b[-1], a[-1], 1),
        discriminator(a[-1], 2),
        discriminator(b[-1], 3),
        cycle_weight=hparams.cycle_weight,
        identity_weight=hparams.identity_weight,
        pool_size=hparams.pool_size,
        image_shape=a,
        stride=resnet.STRIDE,
        least=resnet.LEAST,
        **_translator.slots(hparams),
    )
    return _translator.compile(model, hparams, data_spec.train_size)
