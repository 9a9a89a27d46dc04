"""Semi-supervised VAE: a classifier learns from images without labels by explaining them.

M2: a class y, uniform, and a style z, N(0, I), generate an image. The bounds on log p(x, y) of a
labelled image and on log p(x) of another, q(y|x) being the classifier, K its classes:

    -L(x, y) = E_q(z|x,y)[log p(x|y,z)] + log p(y) - KL(q(z|x,y) || p(z))
    -U(x)    = sum_y q(y|x) (-L(x, y)) + H(q(y|x))

Objective, minimised, N_l of the N training images being labelled (sum over event dimensions):

    (N_l / N) E_labelled L(x, y) + (1 - N_l / N) E U(x) + alpha E_labelled[-log q(y|x)]
        + precision / (2 N) ||W||^2

which is the paper's J^alpha with alpha 0.1 N, divided by N: at 100 labels of 50,000 images the last
expectation counts 50 times for each labelled image. Of the bounds only U trains the classifier.

The KL terms of z are in closed form, their weight `kl_weight` being 1 or rising to it. With k draws
of z the bound -L is its mean over them, or, with `importance_weighted`, of each class

    -L_k(x, y) = log (1/k) sum_m w_m + log p(y),
    log w_m = log p(x|y,z_m) + kl_weight (log p(z_m) - log q(z_m|x,y))

and U sums over the classes as before. With `free_bits` a KL of z which is below so many nats gives
no gradient by it: that of L in the mean over the labelled images, that of U over the others and
q(y|x). M1's own bound has the same settings, and each warm-up begins with its stage.

M1 is a VAE, and its classifier is given the latents z1 ~ q(z1|x). M1+M2 puts M2 upon them: M2's x
is z1, drawn anew at every step, and p(z1|y,z2) a Gaussian. Dimensions of z1 that M1 does not use,
whose posterior mean varies by less than 0.1 over the images, are noise: M2 does not see them, and
they are N(0, 1) to it. The flag `stack` says what is trained; by the labelled images alone, without
U, are trained "supervised" (M2's classifier) and "m1" (M1+M2's, M1 itself learning from all).

Reference: D. P. Kingma, D. J. Rezende, S. Mohamed, M. Welling. Semi-supervised Learning with Deep
Generative Models. NeurIPS 2014: eq. 1-2 (models), 6-9 (bounds, objective), section 4 (networks,
figures), table 1. The prior of the weights (of all but biases), the threshold of z1's dimensions
and M2's 300 hidden units at 100 labels upon M1 are those of the authors' code.

Differs from the paper:
  * M1 has Glorot weights, where the paper draws all from N(0, 0.001^2): by these M1, with its two
    hidden layers, stayed where its latents tell nothing. On MNIST M2 wants the paper's: by Glorot's
    its style tells all of an image before the classes mean anything, and no class is ever heard.
  * The flagfile for MNIST has alpha 1 and a step size of 1e-3, for 36,000 steps of M2 upon 24,000
    of M1, where the authors' code takes 300,000 upon a trained M1.
  * One run trains M1 in its first stage (`m1_part`) and what is upon it in the second.
  * M1's classifier is the network q(y|z1), where the paper has a transductive SVM.
  * Every step takes as many labelled images as others (all, if they are fewer), where the paper
    takes 1 labelled with 499 others at 100 labels; the weights of the terms are the paper's.
  * The labelled images, which are also among all others, are not taken out of U's.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfgen import distributions, hparams, stateless
from tfgen.data import DataError, DataSpec
from tfgen.layers.labelled_mlp import LabelledMLP, initializer
from tfgen.losses import bounds
from tfgen.models.vae import _diagnosis, _objective, iwae, vae
from tfgen.networks.mlp import mlp
from tfgen.training import optimizers, schedules
from tfgen.training.labelled import LabelledExamples
from tfgen.training.model import GenerativeModel

_ALIVE = 0.1  # Standard deviation of a mean of z1 over images, above which M2 sees it.
_MOMENTUM = 0.99  # Of the moments that tell it.
_CHOICE, _LABELLED, _OTHERS, _M1 = range(4)  # Salts of a step's draws.
_SHOWN = (2, 3, 4)  # Classes whose styles are drawn (the paper's figure 1a).


@dataclasses.dataclass(frozen=True)
class HParams(hparams.HParams):
    """Flags of a semi-supervised VAE; the paper's networks for MNIST."""

    learning_rate: float = 3e-4  # Step size of Adam.
    # What is trained: M2; M1 with M2 upon it; or their classifiers by the labelled images alone,
    # of images (supervised) or of M1's latents (m1).
    stack: Literal["supervised", "m1", "m2", "m1+m2"] = "m2"
    labels_per_class: int = 10  # Labelled examples of each class.
    alpha: float = 0.1  # Weight of the labelled images' mean -log q(y|x), for N = 1.
    latent_dim: int = 50  # Dimensions of the style z; of z2 upon M1.
    hidden_units: tuple[int, ...] = (500,)  # Widths of q(y|x), q(z|x,y) and p(x|y,z) alike.
    # Standard deviation of the initial weights of all but M1; none is Glorot's.
    init_stddev: float | None = 1e-3
    m1_latent_dim: int = 50  # Dimensions of M1's z1.
    m1_hidden_units: tuple[int, ...] = (600, 600)  # Widths of M1's encoder and decoder.
    m1_part: float = 0.4  # Part of the run in which M1 learns; what is upon it learns in the rest.
    # Distribution of pixels given latents.
    likelihood: Literal["bernoulli", "gaussian", "discretized_logistic"] = "bernoulli"
    # How grey values become {0, 1} for a Bernoulli likelihood: a fresh draw at each use, one draw
    # for ever, a threshold at 1/2, or not at all.
    binarize: Literal["dynamic", "fixed", "threshold", "none"] = "dynamic"
    weight_precision: float = 1.0  # Precision of the weights' Gaussian prior; 0 is off.
    k: int = 1  # Samples per image in the bounds: of z for each class, and of M1's z1.
    # The bound is the logarithm of the mean of k weights, L_k, and not the mean of k log weights.
    importance_weighted: bool = False
    # KL in nats below which z, or M1's z1, in the minibatch's mean, gives no gradient.
    free_bits: float = 0.0
    # Weight of log p(z) - log q(z|.), or of the KL terms, in training; evaluation has 1.
    kl_weight: float = 1.0
    # Steps of each stage over which the KL weight rises from 0; 0 is off.
    kl_warmup_steps: int = 0
    adam_epsilon: float = 1e-8  # Adam's epsilon.

    POSITIVE: ClassVar[tuple[str, ...]] = (
        "labels_per_class", "latent_dim", "hidden_units", "m1_latent_dim", "m1_hidden_units",
        "adam_epsilon", "k", "init_stddev",
    )  # fmt: skip
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = (
        "alpha",
        "weight_precision",
        "free_bits",
        "kl_weight",
        "kl_warmup_steps",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("m1_part", lambda v: 0 < v < 1, "between 0 and 1")

    @property
    def needs(self) -> tuple[str, ...]:
        """Images with labels."""
        return ("image", "label")

    @property
    def draws_pixels(self) -> bool:
        """Whether the model binarises: labelled images, which it keeps, want fresh draws too."""
        return self.likelihood == "bernoulli" and self.binarize == "dynamic"

    @property
    def image_range(self) -> str:
        """{0, 1} where the data are binarised once and for ever, else [0, 1]."""
        once = self.likelihood == "bernoulli" and self.binarize in ("fixed", "threshold")
        return "binary" if once else "unit"

    @property
    def binarization(self) -> str:
        """The flag `binarize`, where `image_range` is "binary"."""
        return self.binarize if self.image_range == "binary" else "dynamic"


@keras.saving.register_keras_serializable("tfgen")
class SemiSupervisedVAE(GenerativeModel):
    """M2 over images, or over the latents of an M1, from the caller's networks.

    `fit` wants batches of images and labels, and `adapt` before it: that chooses the labelled
    images, which the model keeps. Below, x are the images, or z1 of `m1`.

    Args:
        classifier: built Keras model from x to logits of the K classes, [B, K].
        encoder: layer with the call of `LabelledMLP`, from x and y to means and log sigmas of z.
        decoder: the same, from z and y to the parameters of p(x|y,z); of z1, means and log sigmas.
        num_examples: images of the training split, N.
        m1: a VAE with one layer of Gaussian latents, or None. It learns by its own bound, k, free
            bits and KL weight.
        m1_steps: steps in which it learns, before the others do.
        unlabelled: whether U is a part of the objective.
        labels_per_class: labelled images of each class.
        alpha: weight of the labelled images' mean -log q(y|x), for N = 1.
        weight_precision: of the weights' Gaussian prior; 0 is off.
        k: samples of z in the bounds, for each image and class.
        importance_weighted: the bound of a class is L_k, the logarithm of the mean of k weights,
            and not the mean of k log weights; its KL is sampled.
        free_bits: KL in nats below which z gives no gradient.
        kl_weight: weight of log p(z) - log q(z|x,y), or of the KL terms, in training.
        kl_warmup_steps: steps over which that weight rises from 0, from where `m1` stands still.
        likelihood: of images without `m1`, as for `VAE`.
        binarize: whether images in [0, 1] become a draw in {0, 1} at each use.

    Raises:
        ValueError: if networks do not fit each other, or an argument is out of range.
        DataError: if no image is left without a label.
    """

    evaluations = (
        "classification.error",
        "likelihood.nll",
        "likelihood.active_units",
        "latents.kl_per_dimension",
        "likelihood.reconstruction_error",
    )
    needs = ("image", "label")

    def __init__(
        self,
        classifier: keras.Model,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        *,
        num_examples: int,
        m1: vae.VAE | None = None,
        m1_steps: int = 25_000,
        unlabelled: bool = True,
        labels_per_class: int = 10,
        alpha: float = 0.1,
        weight_precision: float = 1.0,
        k: int = 1,
        importance_weighted: bool = False,
        free_bits: float = 0.0,
        kl_weight: float = 1.0,
        kl_warmup_steps: int = 0,
        likelihood: str = "bernoulli",
        binarize: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        _objective.check_settings(
            k=k, free_bits=free_bits, kl_weight=kl_weight, kl_warmup_steps=kl_warmup_steps
        )
        logits = classifier.output_shape[1:]
        if len(logits) != 1 or logits[0] < 2:
            raise ValueError(
                "the classifier must give logits [B, K] of 2 classes or more. "
                f"Received: output {logits}"
            )
        if likelihood not in vae.LIKELIHOODS:
            raise ValueError(
                f"likelihood must be one of {list(vae.LIKELIHOODS)}. Received: {likelihood!r}"
            )
        self.classifier, self.encoder, self.decoder, self.m1 = classifier, encoder, decoder, m1
        self.num_classes = logits[0]
        self.x_shape = tuple(classifier.input_shape[1:])
        if m1 is not None and m1.latent_dims != self.x_shape:
            raise ValueError(
                f"m1 must have one layer of {self.x_shape} latents, which the classifier takes. "
                f"Received: latents {m1.latent_dims}"
            )
        self.image_shape = m1.image_shape if m1 is not None else self.x_shape
        labelled = self.num_classes * labels_per_class
        if labelled >= num_examples:
            raise DataError(
                "some training examples must be without a label: labels_per_class must be below "
                f"{num_examples / self.num_classes:g}, {num_examples} examples over "
                f"{self.num_classes} classes. Received: labels_per_class={labels_per_class}"
            )
        self.num_examples, self.m1_steps, self.unlabelled = num_examples, m1_steps, unlabelled
        self.labels_per_class, self.alpha = labels_per_class, alpha
        self.weight_precision, self.likelihood = weight_precision, likelihood
        self.binarize = binarize
        self.k, self.importance_weighted = k, importance_weighted
        self.free_bits, self.kl_weight, self.kl_warmup_steps = free_bits, kl_weight, kl_warmup_steps
        self.labelled_share = labelled / num_examples
        self.labelled = LabelledExamples(self, self.num_classes, labels_per_class, self.image_shape)
        if m1 is not None:
            moments: dict[str, Any] = {
                "shape": self.x_shape, "trainable": False, "autocast": False, "aggregation": "mean",
            }  # fmt: skip
            self.z1_mean = self.add_weight(initializer="zeros", name="z1_mean", **moments)
            self.z1_square = self.add_weight(initializer="ones", name="z1_square", **moments)
        zero = tf.zeros([1, *self.x_shape]), tf.zeros([1, self.num_classes])
        self.latent_dim = self.encoder(*zero).shape[-1] // 2
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        serialize = keras.saving.serialize_keras_object
        return {
            "classifier": serialize(self.classifier),
            "encoder": serialize(self.encoder),
            "decoder": serialize(self.decoder),
            "num_examples": self.num_examples,
            "m1": None if self.m1 is None else serialize(self.m1),
            "m1_steps": self.m1_steps,
            "unlabelled": self.unlabelled,
            "labels_per_class": self.labels_per_class,
            "alpha": self.alpha,
            "weight_precision": self.weight_precision,
            "k": self.k,
            "importance_weighted": self.importance_weighted,
            "free_bits": self.free_bits,
            "kl_weight": self.kl_weight,
            "kl_warmup_steps": self.kl_warmup_steps,
            "likelihood": self.likelihood,
            "binarize": self.binarize,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SemiSupervisedVAE":
        """The model that `get_config` describes."""
        config = dict(config)
        for key in ("classifier", "encoder", "decoder", "m1"):
            config[key] = keras.saving.deserialize_keras_object(config[key])
        return cls(**config)

    def players(self) -> dict[str, list[keras.Variable]]:
        """M1, where there is one, and what is upon it, "m2"."""
        parts = (self.classifier, self.encoder, self.decoder)
        upper = {"m2": [v for part in parts for v in part.trainable_variables]}
        return upper if self.m1 is None else {"m1": self.m1.trainable_variables, **upper}

    def adapt_to(self, batches: tf.data.Dataset) -> None:
        """Chooses the labelled images, by the seed that `compile` was given."""
        self.labelled.adapt(batches, self.seed)

    # The distributions. Labels are one-hots [..., K].

    def seen(self, x: tf.Tensor) -> tf.Tensor:
        """What M2's networks see of x: of z1, the dimensions that M1 uses, the others being 0."""
        return x if self.m1 is None else x * self.alive()

    def alive(self) -> tf.Tensor:
        """1 for the dimensions of z1 that M1 uses, else 0: float32 [d]."""
        variance = self.z1_square - self.z1_mean**2
        return tf.cast(variance > _ALIVE**2, tf.float32)

    def class_log_probs(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """log q(y|x), float32 [..., K], for x with any leading axes."""
        lead = tf.shape(x)[: len(x.shape) - len(self.x_shape)]
        logits = self.classifier(tf.reshape(self.seen(x), [-1, *self.x_shape]), training=training)
        log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        return tf.reshape(log_probs, tf.concat([lead, [self.num_classes]], 0))

    def style(self, x: tf.Tensor, label: tf.Tensor) -> tfd.Distribution:
        """q(z|x,y)."""
        return distributions.diagonal_gaussian(self.encoder(self.seen(x), label))

    def observation(self, z: tf.Tensor, label: tf.Tensor) -> tfd.Distribution:
        """p(x|y,z)."""
        outputs = self.decoder(z, label)
        if self.m1 is None:
            return vae.LIKELIHOODS[self.likelihood](outputs)
        return distributions.diagonal_gaussian(
            tf.cast(outputs, tf.float32) * tf.tile(self.alive(), [2])
        )

    def draw_x(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """What M2 models of images [B, H, W, C] in [0, 1]: binarised pixels, or z1 ~ q(z1|x)."""
        of_pixels, of_z1 = tf.unstack(stateless.split(seed, 2))
        image = self.draw_pixels(image, of_pixels)
        return image if self.m1 is None else self.m1.infer(image, 1, of_z1).latents[0][0]

    def draw_pixels(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The pixels that are modelled of images [B, H, W, C] in [0, 1]: one binarisation."""
        if not self.binarize:
            return image
        return tf.cast(stateless.uniform(tf.shape(image), seed) < image, tf.float32)

    # The objective.

    def labelled_bound(
        self,
        x: tf.Tensor,
        label: tf.Tensor,
        seed: tf.Tensor,
        kl_weight: tf.Tensor | float = 1.0,
        shares: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """-L(x, y) by k draws of z, in nats.

        Args:
            x: [B, ...].
            label: [B, K], or [K, 1, K], which is all classes.
            seed: int32 [2].
            kl_weight: weight of log p(z) - log q(z|x,y), or of the KL.
            shares: q(y|x) of all classes [K, B], by which their KLs are averaged for free bits.

        Returns:
            [B]; or [K, B] of all classes.
        """
        likelihood, kl = self._labelled_terms(x, label, seed)
        return self._bound(likelihood - math.log(self.num_classes), kl, kl_weight, shares)

    def _labelled_terms(
        self, x: tf.Tensor, label: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """log p(x|y, z) of k draws of z, [k, ...], and KL(q(z|x, y) || p(z)), [...].

        With importance weights the KL is log q(z|x, y) - log p(z) of the draws: [k, ...] for k > 1.
        """
        style, prior = self.style(x, label), distributions.StandardGaussian(self.latent_dim)
        z = style.sample([self.k] if self.k > 1 else [], seed=seed)
        likelihood = self.observation(z, label).log_prob(x)
        if self.importance_weighted:
            kl = style.log_prob(z) - prior.log_prob(z)
        else:
            kl = tfd.kl_divergence(style, prior)
        return likelihood if self.k > 1 else likelihood[tf.newaxis], kl

    def _bound(
        self,
        likelihood: tf.Tensor,
        kl: tf.Tensor,
        kl_weight: tf.Tensor | float,
        shares: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The bound of the two `_labelled_terms`, [...]; `shares` as for `labelled_bound`."""
        kl = _objective.free(kl, self.free_bits, shares)
        if self.importance_weighted:
            return bounds.iwae(likelihood - kl_weight * kl)
        return bounds.elbo(likelihood) - kl_weight * kl

    def unlabelled_bound(
        self,
        x: tf.Tensor,
        seed: tf.Tensor,
        training: bool = False,
        kl_weight: tf.Tensor | float = 1.0,
    ) -> tf.Tensor:
        """-U(x), the sum over all classes, in nats: [B]."""
        log_q = tf.transpose(self.class_log_probs(x, training))
        shares, of_all = tf.exp(log_q), tf.eye(self.num_classes)[:, tf.newaxis]
        of_classes = self.labelled_bound(x, of_all, seed, kl_weight, shares)
        return tf.reduce_sum(shares * (of_classes - log_q), axis=0)

    def stage_starts(self) -> tuple[int, ...]:
        """Where M1 stands still and what is upon it begins to learn, if there is an M1."""
        return () if self.m1 is None else (self.m1_steps,)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of "m1", then, in the second stage, of "m2".

        Logs "loss", "m1_bound" and "kl_z1" in M1's stage; else "loss", "labelled_bound" -L,
        "unlabelled_bound" -U (of z1 where there is an M1), "kl_z" of labelled examples,
        "supervised_loss" -log q(y|x) and "labelled_error". The bounds are those of the objective,
        at the step's KL weight.
        """
        if self.m1 is not None and self.stage == 0:
            return self._m1_step(self.m1, batch["image"])
        image, seeds = batch["image"], [self.noise_seed(salt) for salt in (_LABELLED, _OTHERS)]
        (x_of_labelled, z_of_labelled), (x_of_others, z_of_others) = (
            tf.unstack(stateless.split(seed, 2)) for seed in seeds
        )
        images, labels = self.labelled.draw(tf.shape(image)[0], self.noise_seed(_CHOICE))
        x, others = self.draw_x(images, x_of_labelled), self.draw_x(image, x_of_others)
        kl_weight = self._kl_weight()
        with tf.GradientTape() as tape:
            one_hot = tf.one_hot(labels, self.num_classes)
            likelihood, kl = self._labelled_terms(x, one_hot, z_of_labelled)
            of_each = self._bound(likelihood, kl, kl_weight)
            labelled = tf.reduce_mean(of_each) - math.log(self.num_classes)
            log_q = self.class_log_probs(x, training=True)
            supervised = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=log_q)
            )
            loss = self.alpha * supervised - self.labelled_share * labelled + self._prior("m2")
            logs = {"labelled_bound": labelled, "supervised_loss": supervised}
            logs["kl_z"] = tf.reduce_mean(kl)
            if self.unlabelled:
                of_each = self.unlabelled_bound(others, z_of_others, True, kl_weight)
                bound = tf.reduce_mean(of_each)
                loss -= (1.0 - self.labelled_share) * bound
                logs["unlabelled_bound"] = bound
        self.minimize("m2", loss, tape)
        return {"loss": loss, **logs, "labelled_error": _error(labels, log_q)}

    def _kl_weight(self) -> tf.Tensor | float:
        step = self.current_step - max((0, *self.stage_starts()))
        return schedules.warmup(self.kl_weight, self.kl_warmup_steps, step)

    def _m1_step(self, m1: vae.VAE, image: tf.Tensor) -> dict[str, tf.Tensor]:
        of_pixels, of_z1 = tf.unstack(stateless.split(self.noise_seed(_M1), 2))
        image = self.draw_pixels(image, of_pixels)
        kl_weight = schedules.warmup(m1.kl_weight, m1.kl_warmup_steps, self.current_step)
        with tf.GradientTape() as tape:
            inference = m1.infer(image, m1.k, of_z1, training=True)
            terms = m1.log_terms(image, inference, training=True)
            bound = tf.reduce_mean(m1.bound(terms, kl_weight))
            loss = self._prior("m1") - bound
        self.minimize("m1", loss, tape)
        mean = inference.posteriors[0].mean()
        for moment, value in ((self.z1_mean, mean), (self.z1_square, mean**2)):
            new = _MOMENTUM * moment + (1.0 - _MOMENTUM) * tf.reduce_mean(value, axis=0)
            moment.assign(new)
        kl = tf.reduce_mean(terms["posterior"] - terms["prior"])
        return {"loss": loss, "m1_bound": bound, "kl_z1": kl}

    def diagnose(self, logs: Mapping[str, float]) -> dict[str, str]:
        """Whether some q has become its prior, so that its latents say nothing."""
        return _diagnosis.collapse(logs)

    def _prior(self, player: str) -> tf.Tensor | float:
        """-log p of a player's weights, but for biases and a constant, for N = 1."""
        if not self.weight_precision:
            return 0.0
        kernels = [v for v in self.players()[player] if len(v.shape) > 1]
        norm = tf.add_n([tf.nn.l2_loss(tf.convert_to_tensor(v)) for v in kernels])
        return self.weight_precision / self.num_examples * norm

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Logs -elbo as "loss", "elbo", "likelihood" and "kl", and "error", the classifier's.

        By one draw of all latents, the class too, and the full KL weight.
        """
        of_pixels, of_terms = tf.unstack(stateless.split(self.noise_seed(), 2))
        terms = self.importance_terms(self.draw_pixels(batch["image"], of_pixels), 1, of_terms)
        means = {name: tf.reduce_mean(value) for name, value in terms.items()}
        return {
            "loss": -means["log_weight"],
            "elbo": means["log_weight"],
            "likelihood": means["likelihood"],
            "kl": means["kl"],
            "error": _error(batch["label"], self.classify(batch["image"])),
        }

    def importance_terms(self, image: tf.Tensor, k: int, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Terms of k fresh draws of y, z and, with an M1, z1, in nats, float32 [k, B] each.

        Args:
            image: pixels as they are modelled, see `draw_pixels`: the same for all k draws.
            k: how many.
            seed: int32 [2].

        Returns:
            "log_weight": log p(x, y, z) - log q(y|x) - log q(z|x,y) = likelihood - kl, whose
            mean is -U(x) without an M1; "likelihood": log p(x|y,z), or log p(x|z1) with an M1;
            "kl": the rest.
        """
        of_z1, of_y, of_z = tf.unstack(stateless.split(seed, 3))
        x = image
        if self.m1 is not None:
            inference = self.m1.infer(image, k, of_z1)
            x = inference.latents[0]
        classes = distributions.Categoricals(self.class_log_probs(x)[..., tf.newaxis, :])
        label, log_q_y = classes.experimental_sample_and_log_prob(
            [k] if self.m1 is None else [], seed=of_y
        )
        style = self.style(x, label)
        z, log_q_z = style.experimental_sample_and_log_prob([], seed=of_z)
        prior = distributions.StandardGaussian(self.latent_dim).log_prob(z)
        kl = log_q_y + math.log(self.num_classes) + log_q_z - prior
        likelihood = self.observation(z, label).log_prob(x)
        if self.m1 is not None:
            kl += inference.log_q[0] - likelihood
            likelihood = self.m1.observation(x).log_prob(image)
        return {"log_weight": likelihood - kl, "likelihood": likelihood, "kl": kl}

    def factors(
        self, image: tf.Tensor, seed: tf.Tensor
    ) -> list[tuple[tfd.Distribution, tfd.Distribution]]:
        """q and p of z given the most probable class; of z1, then of z, with an M1.

        They are given one draw of what they depend on, the pixels of images in [0, 1] among it.
        q(z1|x), p(z1|y,z) and q(z|x,y) have the batch shape [B], p(z) has [].
        """
        of_pixels, of_z1, of_z = tf.unstack(stateless.split(seed, 3))
        pixels = self.draw_pixels(image, of_pixels)
        label, x, lower = self._label(pixels), pixels, None
        if self.m1 is not None:
            inference = self.m1.infer(pixels, 1, of_z1)
            x, lower = inference.latents[0][0], inference.posteriors[0]
        style = self.style(x, label)
        found = [(style, distributions.StandardGaussian(self.latent_dim))]
        if lower is None:
            return found
        return [(lower, self.observation(style.sample(seed=of_z), label)), *found]

    def posterior_means(self, image: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        """Means of the q of `factors`: [B, d] each."""
        return [q.mean() for q, _ in self.factors(image, seed)]

    # Using a trained model. Images are in [0, 1].

    def classify(self, image: tf.Tensor) -> tf.Tensor:
        """Probabilities of the K classes, of z1's mean with an M1: [B, H, W, C] -> [B, K]."""
        return tf.exp(self.class_log_probs(self._code(image)))

    def _code(self, image: tf.Tensor) -> tf.Tensor:
        return image if self.m1 is None else self.m1.encode(image)

    def encode(self, image: tf.Tensor) -> tf.Tensor:
        """Styles, the mean of q(z|x,y) for the most probable y: [B, H, W, C] -> [B, d]."""
        return self.style(self._code(image), self._label(image)).mean()

    def _label(self, image: tf.Tensor) -> tf.Tensor:
        """The most probable class, one-hot [B, K]."""
        return tf.one_hot(tf.argmax(self.classify(image), axis=1), self.num_classes)

    def decode(self, latent: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        """Images of styles [B, d] and classes int32 [B], by means: [B, H, W, C] in [0, 1]."""
        x = self.observation(latent, tf.one_hot(label, self.num_classes)).mean()
        return x if self.m1 is None else self.m1.decode(x)

    def sample(
        self, num: int | tf.Tensor, seed: int | tf.Tensor, label: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Draws `num` images: means of the pixels, all else being drawn.

        Args:
            num: how many.
            seed: int or int32 scalar; the same seed gives the same images.
            label: int32 [num], the classes; None draws them, each alike.

        Returns:
            float32 [num, H, W, C] in [0, 1].
        """
        of_z, of_label, of_x = tf.unstack(stateless.split(_seed(seed), 3))
        if label is None:
            label = stateless.uniform([num], of_label, 0, self.num_classes, tf.int32)
        z = distributions.StandardGaussian(self.latent_dim).sample(num, seed=of_z)
        x = self.observation(z, tf.one_hot(label, self.num_classes))
        return x.mean() if self.m1 is None else self.m1.decode(x.sample(seed=of_x))

    def reconstruct(self, image: tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Means of the pixels for the most probable y and a draw of the rest of the latents."""
        of_x, of_z, of_z1 = tf.unstack(stateless.split(_seed(seed), 3))
        x, label = self.draw_x(image, of_x), self._label(image)
        rebuilt = self.observation(self.style(x, label).sample(seed=of_z), label)
        return rebuilt.mean() if self.m1 is None else self.m1.decode(rebuilt.sample(seed=of_z1))

    def log_prob(self, image: tf.Tensor, seed: int | tf.Tensor, k: int = 100) -> tf.Tensor:
        """A lower bound on log p(x), L_k: images [B, H, W, C] -> [B], in nats."""
        of_pixels, of_terms = tf.unstack(stateless.split(_seed(seed), 2))
        pixels = self.draw_pixels(image, of_pixels)
        return bounds.iwae(self.importance_terms(pixels, k, of_terms)["log_weight"])

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Named grids [rows, columns, H, W, C] in [0, 1] for a batch of at least one image."""
        image = batch["image"][:16]
        grids = {
            "samples": tf.reshape(self.sample(64, seed), [8, 8, *self.image_shape]),
            "reconstructions": tf.stack([image, self.reconstruct(image, seed)]),
            "analogies": self.analogies(image[:10]),
        }
        if self.latent_dim == 2:
            for label in _SHOWN:
                if label < self.num_classes:
                    grids[f"styles_of_class_{label}"] = self.styles(label, 16)
        return {name: grid.numpy() for name, grid in grids.items()}

    def analogies(self, image: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C], each before all classes in its style: [B, 1 + K, H, W, C]."""
        latent = tf.repeat(self.encode(image), self.num_classes, axis=0)
        label = tf.tile(tf.range(self.num_classes), [tf.shape(image)[0]])
        made = tf.reshape(self.decode(latent, label), [-1, self.num_classes, *self.image_shape])
        return tf.concat([image[:, tf.newaxis], made], axis=1)

    def styles(self, label: int, side: int) -> tf.Tensor:
        """A class at the quantiles of a 2-D z: [side, side, H, W, C]."""
        images = self.decode(vae.plane_of_quantiles(side), tf.fill([side * side], label))
        return tf.reshape(images, [side, side, *self.image_shape])

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Endpoints of the exported model: name -> (function of tensors, specs by argument)."""
        images = tf.TensorSpec([None, *self.image_shape], tf.float32)
        scalar, labels = tf.TensorSpec([], tf.int32), tf.TensorSpec([None], tf.int32)
        latents = tf.TensorSpec([None, self.latent_dim], tf.float32)
        return {
            "sample": (self.sample, {"num": scalar, "seed": scalar}),
            "classify": (self.classify, {"image": images}),
            "encode": (self.encode, {"image": images}),
            "decode": (self.decode, {"latent": latents, "label": labels}),
            "reconstruct": (self.reconstruct, {"image": images, "seed": scalar}),
            "log_prob": (self.log_prob, {"image": images, "seed": scalar}),
        }


def _error(labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    wrong = tf.argmax(scores, axis=1, output_type=labels.dtype) != labels
    return tf.reduce_mean(tf.cast(wrong, tf.float32))


def _seed(seed: int | tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.cast(seed, tf.int32), 0])


def _m1(image_shape: tuple[int, ...], hparams: HParams) -> vae.VAE:
    """The paper's VAE with one layer of latents."""
    *rest, channels = image_shape
    numbers = 1 if hparams.likelihood == "bernoulli" else 2
    sizes = {
        "encoder": (image_shape, (2 * hparams.m1_latent_dim,)),
        "decoder": ((hparams.m1_latent_dim,), (*rest, numbers * channels)),
    }
    networks = [
        _mlp(below, hparams.m1_hidden_units, above, hparams.seed + 20 + i, f"m1_{name}")
        for i, (name, (below, above)) in enumerate(sizes.items())
    ]
    bound: dict[str, Any] = {
        "k": hparams.k,
        "free_bits": hparams.free_bits,
        "kl_weight": hparams.kl_weight,
        "kl_warmup_steps": hparams.kl_warmup_steps,
    }
    cls = iwae.IWAE if hparams.importance_weighted else vae.VAE
    return cls(*networks, likelihood=hparams.likelihood, **bound)


def _mlp(
    below: Sequence[int],
    units: Sequence[int],
    above: Sequence[int],
    seed: int,
    name: str,
    stddev: float | None = None,
) -> keras.Sequential:
    return mlp(
        below, units, above,
        activation="softplus", initializer=initializer(stddev), seed=seed, name=name,
    )  # fmt: skip


def build(hparams: HParams, data_spec: DataSpec) -> SemiSupervisedVAE:
    """The paper's networks for images of the data's shape, compiled and ready to train.

    Raises:
        ValueError: if the data has no classes.
        DataError: if no image is left without a label.
    """
    classes = data_spec.num_classes
    if classes is None:
        raise ValueError(f"data must have labels. Received: {data_spec.name!r} without classes")
    image_shape = data_spec.image_shape
    m1 = _m1(image_shape, hparams) if hparams.stack in ("m1", "m1+m2") else None
    x_shape: tuple[int, ...] = image_shape
    parameters: tuple[int, ...] = image_shape
    if m1 is not None:
        x_shape, parameters = m1.latent_dims, (2 * hparams.m1_latent_dim,)
    elif hparams.likelihood != "bernoulli":
        parameters = (*image_shape[:-1], 2 * image_shape[-1])
    total = hparams.total_steps(data_spec.train_size)
    m1_steps = 0 if m1 is None else min(max(1, round(hparams.m1_part * total)), total - 1)
    units, seed = hparams.hidden_units, hparams.seed
    stddev = hparams.init_stddev
    arguments: dict[str, Any] = {"num_classes": classes, "units": units, "stddev": stddev}
    model = SemiSupervisedVAE(
        _mlp(x_shape, units, (classes,), seed, "classifier", stddev),
        LabelledMLP(x_shape, output_shape=(2 * hparams.latent_dim,), seed=seed + 10, **arguments),
        LabelledMLP((hparams.latent_dim,), output_shape=parameters, seed=seed + 11, **arguments),
        num_examples=data_spec.train_size,
        m1=m1,
        m1_steps=m1_steps,
        unlabelled=hparams.stack in ("m2", "m1+m2"),
        labels_per_class=hparams.labels_per_class,
        alpha=hparams.alpha,
        weight_precision=hparams.weight_precision,
        k=hparams.k,
        importance_weighted=hparams.importance_weighted,
        free_bits=hparams.free_bits,
        kl_weight=hparams.kl_weight,
        kl_warmup_steps=hparams.kl_warmup_steps,
        likelihood=hparams.likelihood,
        binarize=hparams.draws_pixels,
    )
    made = {
        player: optimizers.Adam(
            schedules.learning_rate(hparams, m1_steps if player == "m1" else total - m1_steps),
            epsilon=hparams.adam_epsilon,
        )
        for player in model.players()
    }
    model.compile(**made, **hparams.compile_options())
    return model
