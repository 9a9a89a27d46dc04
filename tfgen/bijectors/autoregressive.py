"""Affine autoregressive bijectors whose conditioners are Keras networks.

A conditioner maps x [..., d] to two numbers for each dimension, [..., d, 2], that depend on the
dimensions before it alone, e.g. `networks.made.made`. One direction is then one call of it, the
other d calls, one after the other, unless it has a method `autoregress(transform, u)` that knows
better, as those of `flow.AutoregressiveFlow` have. Log-dets are float32, whatever the conditioner
computes in.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

Conditioner = Callable[[tf.Tensor], tf.Tensor]
BOUND = 5.0  # Of a masked flow's log scales and an inverse flow's gates before their sigmoid.


class TrainableBijector(tfb.Bijector):
    """A bijector that TFP's caches take for another one after each eager call.

    TFP keeps the results of bijectors by their parameters and the input; variables that have been
    trained meanwhile are not among the former. In a graph, where a tensor has one value, the caches
    do what they are for: a point and its log-det share their work.
    """

    def _get_parameterization(self) -> Any:
        return object() if tf.executing_eagerly() else id(self)


class _Autoregressive(TrainableBijector):
    """What both directions share: the numbers of each dimension, and the loop over dimensions."""

    def __init__(self, conditioner: Conditioner, name: str):
        super().__init__(forward_min_event_ndims=1, dtype=tf.float32, parameters={}, name=name)
        self._conditioner = conditioner
        self._last: tuple[Any, Any] = None, None

    def _numbers(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The two numbers of each dimension, [..., d] each, float32."""
        # In a graph a point and its log-det are asked for one after the other, and share a call.
        if self._last[0] is not x or tf.executing_eagerly():
            found = tf.cast(self._conditioner(x), tf.float32)
            self._last = x, self._split(found, -1)
        return self._last[1]

    def _split(self, numbers: tf.Tensor, axis: int) -> tuple[tf.Tensor, tf.Tensor]:
        """The shift, and the bounded number of the scale: far out, too, both are finite."""
        shift, raw = tf.unstack(numbers, num=2, axis=axis)
        return shift, raw / (1.0 + tf.abs(raw) / BOUND)

    def _solve(
        self, transform: Callable[[tf.Tensor, tuple[tf.Tensor, tf.Tensor]], tf.Tensor], u: tf.Tensor
    ) -> tf.Tensor:
        """x with x = transform(u, numbers(x)): one dimension after the other."""
        autoregress = getattr(self._conditioner, "autoregress", None)
        if autoregress:  # it knows a faster way
            return autoregress(lambda row, numbers: transform(row, self._split(numbers, 0)), u)
        found = tf.while_loop(  # each round gets one further dimension right
            lambda x: True,
            lambda x: [tf.ensure_shape(transform(u, self._numbers(x)), u.shape)],
            [tf.zeros_like(u)],
            maximum_iterations=u.shape[-1],
        )
        return found[0]


class MaskedAutoregressive(_Autoregressive):
    """MAF: forward is slow and samples, inverse is one call and gives densities.

        x_i = u_i exp(a_i) + m_i,   (m_i, a'_i) = conditioner(x)_i, functions of x before i
        log |dx/du| = sum_i a_i,    a_i = a'_i / (1 + |a'_i| / 5)

    The paper has a = a'; bounded by 5 the density of a point far out is finite.

    Reference: G. Papamakarios, T. Pavlakou, I. Murray. Masked Autoregressive Flow for Density
    Estimation. NeurIPS 2017, eq. 3-5.

    Args:
        conditioner: x [..., d] -> m and a', [..., d, 2].
        name: of the bijector.
    """

    def __init__(self, conditioner: Conditioner, name: str = "masked_autoregressive"):
        super().__init__(conditioner, name)

    def _forward(self, u: tf.Tensor) -> tf.Tensor:
        return self._solve(lambda u, numbers: u * tf.exp(numbers[1]) + numbers[0], u)

    def _inverse(self, x: tf.Tensor) -> tf.Tensor:
        shift, log_scale = self._numbers(x)
        return (x - shift) * tf.exp(-log_scale)

    def _inverse_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        _, log_scale = self._numbers(x)
        return -tf.reduce_sum(log_scale, axis=-1)


class InverseAutoregressive(_Autoregressive):
    """IAF: forward is one call, so that a sample and its density are cheap; inverse is slow.

        y_i = g_i z_i + (1 - g_i) m_i,   g_i = sigmoid(s_i + gate_bias),
        (m_i, s'_i) = conditioner(z)_i, functions of z before i;   s_i = s'_i / (1 + |s'_i| / 5)
        log |dy/dz| = sum_i log g_i

    With a gate bias above 0 it begins near the identity. The paper has s = s'; bounded by 5 a gate
    is never so near to 0 that the density of a point far out is not finite.

    Reference: D. P. Kingma, T. Salimans, R. Jozefowicz, X. Chen, I. Sutskever, M. Welling.
    Improving Variational Inference with Inverse Autoregressive Flow. NeurIPS 2016, eq. 13-14 and
    algorithm 1.

    Args:
        conditioner: z [..., d] -> m and s', [..., d, 2].
        gate_bias: added to s; 1 to 2 in the paper.
        name: of the bijector.
    """

    def __init__(
        self,
        conditioner: Conditioner,
        gate_bias: float = 1.5,
        name: str = "inverse_autoregressive",
    ):
        super().__init__(conditioner, name)
        self.gate_bias = gate_bias

    def _forward(self, z: tf.Tensor) -> tf.Tensor:
        shift, gate = self._numbers(z)
        return shift + tf.sigmoid(gate + self.gate_bias) * (z - shift)

    def _forward_log_det_jacobian(self, z: tf.Tensor) -> tf.Tensor:
        _, gate = self._numbers(z)
        return tf.reduce_sum(tf.math.log_sigmoid(gate + self.gate_bias), axis=-1)

    def _inverse(self, y: tf.Tensor) -> tf.Tensor:
        def transform(y: tf.Tensor, numbers: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            shift, gate = numbers
            # (y - (1 - g) m) / g, without a division by a rounded 0.
            return shift + (y - shift) * (1.0 + tf.exp(-gate - self.gate_bias))

        return self._solve(transform, y)
