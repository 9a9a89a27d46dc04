"""A layer that remembers the mean of all past values of some variables."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfgen")
class HistoricalAverage(keras.layers.Layer):
    """Penalises the distance of variables to the mean of their own past.

    Two players that turn around their equilibrium stay near the middle of the circle with it:

        mean_t  = (1 / t) sum over i <= t of theta[i] = mean_{t-1} + (theta[t] - mean_{t-1}) / t
        penalty = sum over all entries of (theta - mean_t)^2

    theta[1] are the values when the layer is made, and each `update` adds one. Only the mean and t
    are kept, no past values. It has no `call`; as an attribute of a `keras.Model` its weights are
    the model's, which are saved and restored, and are not trained. `theta` stays with its owner:

        self.past = HistoricalAverage(self.generator.trainable_variables)
        ...
        loss += 0.1 * self.past.penalty()       # in train_step, under the tape
        self.past.update()                      # after the optimiser's step

    For example a Dense(3) on 4 features has theta of shapes [4, 3] and [3]: the layer's weights are
    t and two means of these shapes, in float32, and the penalty is a scalar. With `tf.distribute`,
    `update` may be called in replica context: theta is equal on all replicas, and so is the mean.

    Reference: T. Salimans et al. Improved Techniques for Training GANs. NeurIPS 2016, section 3.3.

    Args:
        variables: theta, built. An instance that is made from its configuration has the means of
            the shapes that there were, and watches nothing until `watch` is called.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, variables: Iterable[Any] = (), **kwargs: Any):
        super().__init__(**kwargs)
        self.count = self._weight("count", (), "ones", "int64")
        self.means: list[keras.Variable] = []
        self._theta: Callable[[], tuple] = tuple
        self.extend(variables)
        self.built = True

    def _weight(self, name: str, shape: tuple, initializer: str, dtype: str) -> keras.Variable:
        return self.add_weight(
            shape=shape,
            initializer=initializer,
            dtype=dtype,
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name=name,
        )

    def _remember(self, shapes: Iterable[Sequence[int]]) -> None:
        self.means += [self._weight("mean", tuple(shape), "zeros", "float32") for shape in shapes]

    def extend(self, variables: Iterable[Any]) -> None:
        """Takes further variables into theta, before the first `update`: their past begins now."""
        further = tuple(variables)
        begin = len(self.means)
        self._remember(v.shape for v in further)
        self.watch([*self._theta(), *further])
        for mean, variable in zip(self.means[begin:], further, strict=True):
            mean.assign(tf.cast(tf.convert_to_tensor(variable), tf.float32))

    def restart(self) -> None:
        """Forgets the past: it begins with the current values."""
        self.count.assign(1)
        for value, mean in self._pairs():
            mean.assign(value)

    def watch(self, variables: Iterable[Any]) -> None:
        """Takes these variables as theta from now on; means and count stay.

        Args:
            variables: of the shapes of the means, in their order.
        """
        theta = tuple(variables)
        shapes, expected = ([tuple(v.shape) for v in vs] for vs in (theta, self.means))
        if shapes != expected:
            raise ValueError(f"variables must have the shapes {expected}. Received: {shapes}")
        self._theta = lambda: theta  # A function, so that Keras does not take them for weights.

    def _pairs(self) -> list[tuple[tf.Tensor, keras.Variable]]:
        theta = [tf.cast(tf.convert_to_tensor(v), tf.float32) for v in self._theta()]
        if not theta:
            raise ValueError(
                "no variables are watched; call watch(variables) first. "
                f"Received: {self.name} with {len(self.means)} means"
            )
        return list(zip(theta, self.means, strict=True))

    def penalty(self) -> tf.Tensor:
        """sum (theta - mean)^2, a float32 scalar that is differentiable with respect to theta."""
        return 2.0 * tf.add_n([tf.nn.l2_loss(v - mean.value) for v, mean in self._pairs()])

    def update(self) -> None:
        """Folds the current values into the mean."""
        pairs, count = self._pairs(), self.count.value + 1
        self.count.assign(count)
        for value, mean in pairs:
            mean.assign(mean.value + (value - mean.value) / tf.cast(count, tf.float32))

    def get_config(self) -> dict[str, Any]:
        """The shapes of the means; the variables belong to others."""
        return {**super().get_config(), "shapes": [list(mean.shape) for mean in self.means]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "HistoricalAverage":
        """A layer with means of zeros, until its weights are loaded."""
        shapes = config["shapes"]
        layer = cls(**{key: value for key, value in config.items() if key != "shapes"})
        layer._remember(shapes)
        return layer
