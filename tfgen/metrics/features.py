"""Networks whose features images are compared in, by name; nothing is ever downloaded.

classifier        a small network trained on the data's own labels: see `metrics.classifier`
random            the same network untrained: 64 features that know nothing of the data
savedmodel:PATH   any SavedModel whose "serving_default" takes one batch of images [B, H, W, C] in
                  [0, 1] and gives one output, or outputs "features" and, if it has classes,
                  "logits"
inception:PATH    Keras' InceptionV3 with the weights in a local file: 2048 pooled features, and
                  1000 logits unless the file's name says "notop". Images are repeated to 3
                  channels, resized to 299 (bilinear, antialiased) and scaled to [-1, 1]. This is
                  not the network of published FIDs ("2015-12-05"), nor are its numbers theirs.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfgen.data import Data
from tfgen.errors import UserError
from tfgen.metrics import classifier
from tfgen.metrics.measure import split_features

Network = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor | None]]


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A named function from images to features and logits.

    Attributes:
        name: stands in the names of measures, e.g. "mnist_classifier" in "fid_mnist_classifier".
        network: images float32 [B, H, W, C] in [0, 1] to features [B, d] and logits [B, K], or
            None without classes.
    """

    name: str
    network: Network

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Features float32 [B, d] and logits [B, K] or None, of images uint8 [B, H, W, C]."""
        features, logits = self.network(tf.cast(images, tf.float32) / 255.0)
        return features.numpy(), None if logits is None else logits.numpy()


def load(name: str, data: Data, cache_dir: str | os.PathLike | None = None) -> Extractor:
    """The extractor that `--features` names, for this data's images.

    Args:
        name: one of `measure.FEATURES`.
        data: what a classifier is trained on; the others use its shapes.
        cache_dir: where classifiers are kept; see `classifier.load`.

    Raises:
        UserError: if the data has no labels for a classifier, or there is nothing to load.
        ValueError: if there is no such kind.
    """
    kind, path = split_features(name)
    if kind == "classifier":
        return _classifier(data, cache_dir)
    if kind == "random":
        network = classifier.network(data.spec.image_shape, 1, seed=0)
        return Extractor("random", _compiled(lambda x: (network(x, training=False)[0], None)))
    if not os.path.exists(path):
        raise UserError(f"--features={name}: there is no {path}")
    return _saved_model(path) if kind == "savedmodel" else _inception(path)


def _classifier(data: Data, cache_dir: str | os.PathLike | None) -> Extractor:
    model = classifier.load(data, cache_dir)

    def network(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if classifier.is_stacked(data.spec):
            parts = model(classifier.channels_apart(images), training=False)
            return classifier.channels_joined(*parts)
        return tuple(model(images, training=False))

    return Extractor(f"{classifier.short_name(data.spec.name)}_classifier", _compiled(network))


def _saved_model(path: str) -> Extractor:
    try:
        loaded = tf.saved_model.load(path)
        signature = loaded.signatures["serving_default"]
    except (OSError, KeyError) as error:
        raise UserError(f"{path} is no SavedModel with a serving_default: {error}") from error
    arguments, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if len(arguments) != 1 or not (len(outputs) == 1 or "features" in outputs):
        raise UserError(
            f"{path} must take one argument and give one output, or one called 'features'. "
            f"Received: arguments {sorted(arguments)}, outputs {sorted(outputs)}"
        )
    (argument,) = arguments
    key = "features" if "features" in outputs else next(iter(outputs))

    def network(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        # By way of `loaded`, whose variables live as long as it does.
        found = loaded.signatures["serving_default"](**{argument: images})
        features = tf.reshape(found[key], [tf.shape(images)[0], -1])
        return features, found.get("logits") if key == "features" else None

    *_, parent, last = ("", *pathlib.PurePath(path).parts)
    name = f"{parent}_{last}" if last.isdigit() else last  # of a version, as for serving
    return Extractor(classifier.short_name(name), network)


def _inception(path: str) -> Extractor:
    top = "notop" not in os.path.basename(path)
    try:
        model = keras.applications.InceptionV3(
            weights=path,
            include_top=top,
            pooling=None if top else "avg",
            input_shape=(299, 299, 3),
            classifier_activation=None,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{path} holds no weights of Keras' InceptionV3: {error}") from error
    if top:
        model = keras.Model(model.input, [model.get_layer("avg_pool").output, model.output])

    def network(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        if images.shape[-1] == 1:
            images = tf.repeat(images, 3, axis=-1)
        images = 2.0 * tf.image.resize(images, [299, 299], antialias=True) - 1.0
        found = model(images, training=False)
        return (found[0], found[1]) if top else (found, None)

    return Extractor("keras_inception_v3", _compiled(network))


def _compiled(network: Network) -> Network:
    return tf.function(network, reduce_retracing=True)
