"""The classifier whose features metrics use by default: a small network trained on the data itself.

Convolutions of 3x3 with batch norm and maximum pooling until a side is 7 or less, then 64 features
(ReLU) and one logit a class; Adam, step size from 1e-3 down to 0, batch 128, five passes over the
training split and at least 500 steps. It is trained once and kept in a cache, so that all runs on
the same data are compared by the same features.

For stacked digits it is the classifier of one channel, applied to each of the three: 3 * 64
features, and 1000 logits, log p(r) + log p(g) + log p(b) for class 100 r + 10 g + b. Their splits
are drawn from the digits' own, and five passes are over as many digits as images.
"""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from tfgen import run
from tfgen.data import Data, DataSpec
from tfgen.errors import UserError
from tfgen.metrics.images import to_unit

FEATURES = 64
CACHE_VARIABLE = "TFGEN_CACHE"
_VERSION = 1  # Of network and training; what is in the cache is of one version only.
_BATCH, _EPOCHS, _LEAST_STEPS = 128, 5, 500
_DIGITS = 10


def is_stacked(spec: DataSpec) -> bool:
    """Whether the images are three digits in three channels."""
    return spec.name.startswith("stacked_")


def network(image_shape: tuple[int, int, int], num_classes: int, seed: int) -> keras.Model:
    """Untrained: images [B, H, W, C] in [0, 1] to features [B, 64] and logits [B, num_classes].

    For example 28x28x1: 28x28x32 -> 14x14x32 -> 14x14x64 -> 7x7x64 -> 3136 -> 64 -> 10.
    """
    init = (keras.initializers.GlorotUniform(seed=1000 * seed + layer) for layer in range(100))
    images = keras.Input(image_shape)
    x, filters = images, 32
    for level in range(10):
        if level and min(x.shape[1:3]) <= 7:
            break
        x = keras.layers.Conv2D(
            filters, 3, padding="same", use_bias=False, kernel_initializer=next(init)
        )(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
        x = keras.layers.MaxPooling2D(padding="same")(x)
        filters = min(2 * filters, 128)
    x = keras.layers.Dropout(0.25, seed=seed)(keras.layers.Flatten()(x))
    features = keras.layers.Dense(FEATURES, "relu", kernel_initializer=next(init))(x)
    logits = keras.layers.Dense(num_classes, kernel_initializer=next(init))(features)
    return keras.Model(images, [features, logits], name="classifier")


def train(data: Data, seed: int = 0) -> keras.Model:
    """A `network` trained on the training split.

    Args:
        data: images with labels.
        seed: int, source of initial weights, dropout and order.

    Raises:
        UserError: if the data has no labels.
    """
    spec = data.spec
    if "label" not in spec.shapes or not spec.num_classes:
        raise UserError(
            f"--features=classifier needs labels, and data {spec.name!r} has none: "
            "use --features=random, or a network of your own by --features=savedmodel:PATH"
        )
    height, width, channels = spec.image_shape
    if is_stacked(spec):
        model = network((height, width, 1), _DIGITS, seed)
    else:
        model = network((height, width, channels), spec.num_classes, seed)
    digits = 3 if is_stacked(spec) else 1  # in an image
    batch_size = min(_BATCH // digits, spec.train_size)
    steps = max(_LEAST_STEPS, _EPOCHS * (spec.train_size // batch_size) // digits)
    logging.warning(
        "training the classifier of %s, %d steps; it is kept for the next time", spec.name, steps
    )

    def labelled(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = to_unit(batch["image"], spec.image_range), batch["label"]
        if is_stacked(spec):
            return channels_apart(images), digits_apart(labels)
        return images, labels

    stream = data.train(batch_size, seed=seed).map(labelled)
    fit(model, stream, keras.losses.SparseCategoricalCrossentropy(from_logits=True), steps)
    return model


def fit(network: keras.Model, stream: tf.data.Dataset, loss: keras.losses.Loss, steps: int) -> None:
    """Trains a `network` by a loss of its logits; the step size falls from 1e-3 to 0.

    Args:
        network: images to features and logits.
        stream: batches of images in [0, 1] and what the loss compares the logits with.
        loss: of that and the logits.
        steps: batches to train on.
    """
    trained = keras.Model(network.input, network.output[1])
    trained.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.PolynomialDecay(1e-3, steps, 0.0)),
        loss,
        jit_compile=False,  # XLA's convolutions are the slower ones on CPUs
    )
    trained.fit(stream, steps_per_epoch=steps, shuffle=False, verbose=0)


def load(data: Data, cache_dir: str | os.PathLike | None = None, seed: int = 0) -> keras.Model:
    """The classifier of the data from the cache, trained first where it is not there.

    Args:
        data: images with labels.
        cache_dir: None for $TFGEN_CACHE, and without that ~/.cache/tfgen.
        seed: of the training.

    Raises:
        UserError: if the data has no labels, or the cache cannot be written or read.
    """
    return cached(cache_path(data.spec, cache_dir, seed), lambda: train(data, seed))


def cached(path: pathlib.Path, make: Callable[[], keras.Model]) -> keras.Model:
    """The classifier in a file of the cache, made first where there is none.

    Raises:
        UserError: if the file cannot be written or read.
    """
    if not path.is_file():
        model = make()
        with run.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with run.atomic_path(path) as temporary:
            model.save(temporary)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read the classifier {path}; delete it: {error}") from error


def cache_path(
    spec: DataSpec,
    cache_dir: str | os.PathLike | None,
    seed: int,
    target: str = "label",
    **more: Any,
) -> pathlib.Path:
    """Where the classifier of a batch key is kept: a function of data, size, network and seed.

    Args:
        spec: of the data.
        cache_dir: as of `load`.
        seed: of the training.
        target: the batch key.
        **more: what else the classifier depends on.
    """
    folder = cache_dir or os.environ.get(CACHE_VARIABLE) or "~/.cache/tfgen"
    key: dict[str, Any] = {
        "version": _VERSION,
        "data": spec.name,
        "split": "train",
        "size": spec.train_size,
        "shape": spec.image_shape,
        "classes": spec.num_classes,
        "binary": spec.image_range == "binary",
        "seed": seed,
    }
    if target != "label":
        key["target"] = target, spec.shapes[target]
    key |= more
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return pathlib.Path(folder).expanduser() / f"classifier-{short_name(spec.name)}-{digest}.keras"


def short_name(name: str) -> str:
    """The last part of a path or a data set's name, fit for a file's: folder:/a/Cats -> cats."""
    last = name.rstrip("/").replace(":", "/").split("/")[-1]
    return re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_") or "data"


def channels_apart(images: tf.Tensor) -> tf.Tensor:
    """Each channel an image of its own: [B, H, W, 3] -> [3 B, H, W, 1], red, green, blue, red..."""
    shape = tf.shape(images)
    height, width = images.shape[1:3]
    return tf.reshape(tf.transpose(images, [0, 3, 1, 2]), [shape[0] * shape[3], height, width, 1])


def digits_apart(labels: tf.Tensor) -> tf.Tensor:
    """The three digits of each label: [B] -> [3 B]; 207 -> 2, 0, 7."""
    return tf.reshape(tf.stack([labels // 100, labels // 10 % 10, labels % 10], axis=1), [-1])


def channels_joined(features: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[3 B, d] and [3 B, 10] of channels to features [B, 3 d] and log probabilities [B, 1000]."""
    red, green, blue = tf.unstack(tf.reshape(tf.nn.log_softmax(logits), [-1, 3, _DIGITS]), axis=1)
    joined = (red[:, :, tf.newaxis, tf.newaxis] + green[:, tf.newaxis, :, tf.newaxis]) + blue[
        :, tf.newaxis, tf.newaxis, :
    ]
    width = features.shape[-1]
    return tf.reshape(features, [-1, 3 * width]), tf.reshape(joined, [-1, _DIGITS**3])
