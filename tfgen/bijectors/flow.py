"""A stack of autoregressive blocks as one Keras layer, which hands out its bijector."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfgen.bijectors.autoregressive import InverseAutoregressive, MaskedAutoregressive
from tfgen.bijectors.batch_normalization import FlowBatchNormalization
from tfgen.networks.made import autoregress, made

KINDS = ("masked", "inverse")
Order = Literal["reversed", "random", "same"]


@keras.saving.register_keras_serializable("tfgen")
class AutoregressiveFlow(keras.layers.Layer):
    """MAF or IAF blocks, each a MADE over the dimensions in an order of its own.

    For example `AutoregressiveFlow(2, blocks=5, hidden_units=(64, 64))` in

        tfd.TransformedDistribution(base, flow.bijector())

    is a density over [..., 2], trained like any Keras layer.

    Args:
        dimensions: of one example.
        blocks: number of MADEs.
        hidden_units: widths of each MADE's hidden layers.
        order: of the dimensions: "reversed" from each block to the next, "random", a permutation
            for each block by the seed, or the "same" for all.
        kind: "masked", whose densities are fast (MAF), or "inverse", whose samples are (IAF).
        context: dimensions of what each block is conditioned on; 0 is nothing.
        batch_norm: whether each block of a masked flow is followed by batch normalisation, seen
            from the data.
        activation: of the hidden layers.
        gate_bias: of an inverse flow's gates, see `InverseAutoregressive`.
        seed: int, of the initial weights.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: for an argument out of its range; see also `networks.made.made`.
    """

    def __init__(
        self,
        dimensions: int,
        *,
        blocks: int = 5,
        hidden_units: Sequence[int] = (512, 512),
        order: str = "reversed",
        kind: str = "masked",
        context: int = 0,
        batch_norm: bool = False,
        activation: str = "relu",
        gate_bias: float = 1.5,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**{"autocast": False, **kwargs})  # float32, whatever the networks have
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {list(KINDS)}. Received: {kind!r}")
        if order not in get_args(Order):
            raise ValueError(f"order must be one of {list(get_args(Order))}. Received: {order!r}")
        if blocks < 1:
            raise ValueError(f"blocks must be 1 or more. Received: blocks={blocks}")
        if batch_norm and kind == "inverse":
            raise ValueError(
                "batch_norm is for a masked flow: what an inverse flow transforms are draws. "
                "Received: batch_norm=True, kind='inverse'"
            )
        self.dimensions, self.blocks, self.kind = dimensions, blocks, kind
        self.order = order
        self.hidden_units = [int(width) for width in hidden_units]
        self.context, self.batch_norm, self.activation = context, batch_norm, activation
        self.gate_bias, self.seed = gate_bias, seed
        self.networks = [
            made(
                dimensions,
                self.hidden_units,
                order=self._ranks(block),
                context=context,
                activation=activation,
                seed=seed + block,
                dtype=self.dtype_policy,
                name=f"made_{block + 1}",
            )
            for block in range(blocks)
        ]
        self.norms = [
            FlowBatchNormalization(dimensions, name=f"norm_{block + 1}")
            for block in range(blocks if batch_norm else 0)
        ]
        self._passes = [
            tf.function(functools.partial(self._pass, index), reduce_retracing=True)
            for index in range(len(self.norms))
        ]
        self.built = True

    def _ranks(self, block: int) -> list[int]:
        """The rank of each dimension in a block."""
        upwards = list(range(self.dimensions))
        if self.order == "random":
            return np.random.default_rng([self.seed, block]).permutation(upwards).tolist()
        return upwards[::-1] if block % 2 and self.order == "reversed" else upwards

    def bijector(self, context: tf.Tensor | None = None, training: bool = False) -> tfb.Bijector:
        """From the base [..., d] to the data [..., d].

        Args:
            context: [..., context], whose leading axes broadcast to those of the data.
            training: whether batch normalisation takes the statistics of the batch.

        Raises:
            ValueError: if a context is missing, or none is wanted.
        """
        if (context is None) != (self.context == 0):
            raise ValueError(
                f"{self.name} has a context of {self.context} dimensions. "
                f"Received: context={'none' if context is None else context.shape}"
            )
        conditioners = [_Conditioner(n, context, training) for n in self.networks]
        if self.kind == "inverse":
            blocks = [InverseAutoregressive(c, self.gate_bias) for c in conditioners]
            return tfb.Chain(blocks[::-1])
        parts: list[tfb.Bijector] = []  # the data's end first
        for index, conditioner in enumerate(conditioners):
            parts.append(MaskedAutoregressive(conditioner))
            parts += [norm.bijector(training) for norm in self.norms[index : index + 1]]
        return tfb.Chain(parts)

    def call(
        self, x: tf.Tensor, context: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """Base to data of an inverse flow, data to base of a masked one: the fast direction."""
        x = tf.cast(x, tf.float32)
        context = None if context is None else tf.cast(context, tf.float32)
        bijector = self.bijector(context, training)
        return bijector.forward(x) if self.kind == "inverse" else bijector.inverse(x)

    def settle(self, batches: Callable[[], Any]) -> None:
        """Sets the statistics of batch normalisation to those of a whole data set.

        Each block's need those of the blocks before, so that the set, as the blocks before it give
        it, is kept in memory while one after the other sees it.

        Args:
            batches: gives an iterable over pairs of float32 [B, d] and their context, None where
                there is none.
        """
        seen = list(batches()) if self.norms else []
        for index, norm in enumerate(self.norms):
            total, squares, count = 0.0, 0.0, 0
            for batch, (x, context) in enumerate(seen):
                x, of_batch, of_squares = self._passes[index](x, context)
                seen[batch] = x, context
                total, squares, count = total + of_batch, squares + of_squares, count + len(x)
            mean = total / count
            norm.settle(tf.cast(mean, tf.float32), tf.cast(squares / count - mean**2, tf.float32))

    def _pass(
        self, index: int, x: tf.Tensor, context: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What a block makes of what the one before made, before its own batch norm; its sums.

        In a graph: eager bijectors keep what they have seen until Python collects its cycles.
        """
        if index:
            x = self.norms[index - 1](x)
        x = MaskedAutoregressive(_Conditioner(self.networks[index], context)).inverse(x)
        wide = tf.cast(x, tf.float64)
        return x, tf.reduce_sum(wide, 0), tf.reduce_sum(wide**2, 0)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "dimensions": self.dimensions,
            "blocks": self.blocks,
            "hidden_units": self.hidden_units,
            "order": self.order,
            "kind": self.kind,
            "context": self.context,
            "batch_norm": self.batch_norm,
            "activation": self.activation,
            "gate_bias": self.gate_bias,
            "seed": self.seed,
        }


class _Conditioner:
    """A MADE on [B, d] as a function of [..., d]; the context's leading axes broadcast."""

    def __init__(self, network: keras.Model, context: tf.Tensor | None, training: bool = False):
        self.network, self.context, self.training = network, context, training

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """[..., d] -> [..., d, 2]."""
        point, context = self._flat(x)
        inputs = point if context is None else [point, context]
        found = self.network(inputs, training=self.training)
        found = tf.reshape(found, tf.concat([tf.shape(x), found.shape[-1:]], axis=0))
        return tf.ensure_shape(found, [*x.shape, 2])

    def autoregress(self, transform: Callable, u: tf.Tensor) -> tf.Tensor:
        """See `networks.made.autoregress`, for [..., d]."""
        point, context = self._flat(u)
        found = autoregress(self.network, transform, point, context)
        return tf.ensure_shape(tf.reshape(found, tf.shape(u)), u.shape)

    def _flat(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        point = tf.reshape(x, [-1, x.shape[-1]])
        if self.context is None:
            return point, None
        width = self.context.shape[-1]
        shape = tf.concat([tf.shape(x)[:-1], [width]], axis=0)
        return point, tf.reshape(tf.broadcast_to(self.context, shape), [-1, width])
