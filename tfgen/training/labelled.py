"""The few labelled examples of a semi-supervised model, which it keeps beside its weights."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgen import stateless
from tfgen.data import DataError

_CHOICE = 11  # Folded into the seed.


class LabelledExamples:
    """Labelled images of a model: non-trainable weights of it, so checkpoints and files have them.

    Args:
        model: owns the weights.
        num_classes: classes are 0..num_classes-1.
        per_class: examples of each class, 1 or more.
        image_shape: of one image.

    Attributes:
        images: float32 [num_classes * per_class, H, W, C].
        labels: int32 [num_classes * per_class]; -1, which `draw` refuses, until `adapt`.

    Raises:
        ValueError: if per_class is below 1.
    """

    def __init__(
        self,
        model: keras.Model,
        num_classes: int,
        per_class: int,
        image_shape: tuple[int, ...],
    ):
        if per_class < 1:
            raise ValueError(f"labels_per_class must be 1 or more. Received: {per_class}")
        self.num_classes, self.per_class = num_classes, per_class
        count = num_classes * per_class
        kind: dict[str, Any] = {
            "initializer": "zeros",
            "trainable": False,
            "autocast": False,
            "aggregation": "only_first_replica",
        }
        self.images = model.add_weight(
            shape=(count, *image_shape), dtype="float32", name="labelled_images", **kind
        )
        self.labels = model.add_weight(shape=(count,), dtype="int32", name="labels", **kind)
        self.labels.assign(np.full([count], -1))

    def adapt(self, batches: tf.data.Dataset, seed: int) -> None:
        """Chooses the examples; see `choose`.

        Args:
            batches: the training split once, in fixed order.
            seed: int.

        Raises:
            DataError: if a class has too few examples.
        """
        labels = np.concatenate([batch["label"].numpy() for batch in batches])
        rows = choose(labels, self.num_classes, self.per_class, seed)
        images = np.zeros(self.images.shape, np.float32)
        first = 0
        for batch in batches:
            size = len(batch["label"])
            here = (rows >= first) & (rows < first + size)
            images[here] = batch["image"].numpy()[rows[here] - first]
            first += size
        self.images.assign(images)
        self.labels.assign(labels[rows])

    def draw(self, count: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`count` of the images and their labels, without replacement; all, if they are fewer."""
        rows = tf.argsort(stateless.uniform(self.labels.shape, seed))[:count]
        labels = tf.gather(self.labels, rows)
        message = "the labelled examples are not chosen: call adapt() before fit()"
        with tf.control_dependencies([tf.debugging.assert_non_negative(labels, message)]):
            return tf.gather(self.images, rows), tf.identity(labels)


def choose(labels: np.ndarray, num_classes: int, per_class: int, seed: int) -> np.ndarray:
    """Positions of `per_class` examples of each class, a function of the arguments.

    Args:
        labels: of all examples, int [N].
        num_classes: classes are 0..num_classes-1.
        per_class: how many of each.
        seed: int.

    Returns:
        int [num_classes * per_class], class by class.

    Raises:
        DataError: if a class has too few examples.
    """
    key = tf.constant([seed, _CHOICE], tf.int64)
    order = np.argsort(stateless.uniform([len(labels)], key).numpy(), kind="stable")
    found = [order[labels[order] == k][:per_class] for k in range(num_classes)]
    least = min(range(num_classes), key=lambda k: len(found[k]))
    if len(found[least]) < per_class:
        raise DataError(
            f"labels_per_class must be at most {len(found[least])}, the training examples of class "
            f"{least}. Received: labels_per_class={per_class}"
        )
    return np.concatenate(found)
