"""A layer of a gated PixelCNN: two stacks that together see every pixel before."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfgen.layers.masked_conv2d import MaskedConv2D


@keras.saving.register_keras_serializable("tfgen")
class GatedPixelCNNLayer(keras.layers.Layer):
    """One layer of both stacks; k is its kernel's half side, c the condition.

        vertical:    u = V * v + b + A c,   v' = gate(u)
        horizontal:  h' = h + W_1 gate(W * h + U u + d + B c)
        gate(x) = tanh(x_1) sigmoid(x_2),   x_1 and x_2 the halves of the channels of x

    The vertical stack at (i, j) knows rows above i alone, as wide as k to both sides, and the
    horizontal one the pixels of row i before j as well. The first layer has mask "A": V sees k
    rows above i, W the k pixels before j, and h is not added. In the others, mask "B", V sees row
    i of v too, and W pixel j of h.

    For example `GatedPixelCNNLayer(32, 7, "A")` maps twice the image [64, 28, 28, 1] to two of
    [64, 28, 28, 32], which `GatedPixelCNNLayer(32, 3)` takes. Channels in several groups are masked
    in the horizontal stack as in `MaskedConv2D`.

    Reference: A. van den Oord, N. Kalchbrenner, O. Vinyals, L. Espeholt, A. Graves, K. Kavukcuoglu.
    Conditional Image Generation with PixelCNN Decoders. NeurIPS 2016: eq. 2 (gate), eq. 4-5
    (condition: a vector, or a map), figure 2 (a layer).

    Args:
        filters: channels of each output, a multiple of `groups`.
        kernel_size: odd side of the unmasked kernel; with mask "A" 3 or more.
        mask: "A" for the first layer, whose inputs are both the image, else "B".
        groups: of the channels.
        seed: int, of the initial weights; None draws them anew.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if an argument is out of its range or the inputs do not fit.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        mask: str = "B",
        groups: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if mask == "A" and kernel_size < 3:
            raise ValueError(
                "with mask 'A' kernel_size must be 3 or more, as the stacks see nothing else. "
                f"Received: kernel_size={kernel_size}"
            )
        self.filters, self.kernel_size, self.mask = filters, kernel_size, mask
        self.groups, self.seed = groups, seed
        seeds = [None] * 5 if seed is None else [seed * 10 + n for n in range(5)]
        glorot = [keras.initializers.GlorotUniform(s) for s in seeds]
        self.vertical_initializer = glorot[0]
        inner = {"dtype": self.dtype_policy}
        self.left = MaskedConv2D(
            2 * filters, (1, kernel_size), mask, groups, kernel_initializer=glorot[1], name="left",
            **inner,
        )  # fmt: skip
        self.out = MaskedConv2D(
            filters, 1, "B", groups, kernel_initializer=glorot[2], name="out", **inner
        )
        self.down = keras.layers.Dense(
            2 * filters, use_bias=False, kernel_initializer=glorot[3], name="down", **inner
        )
        self.given: keras.layers.Dense | None = None
        self.given_initializer = glorot[4]

    def build(self, input_shape: Sequence[tuple]) -> None:
        """Makes the weights, for v [B, H, W, C], h [B, H, W, C'] and perhaps c."""
        if len(input_shape) not in (2, 3) or not isinstance(input_shape[0], (tuple, list)):
            raise ValueError(
                f"{self.name} takes [v, h] or [v, h, condition]. Received: shapes {input_shape}"
            )
        v, h = (tuple(shape) for shape in input_shape[:2])
        if self.mask == "B" and h[-1] != self.filters:
            raise ValueError(
                f"with mask 'B' h is added to the output and has {self.filters} channels. "
                f"Received: input shape {h}"
            )
        half = self.kernel_size // 2
        rows = half if self.mask == "A" else half + 1
        self.vertical_kernel = self.add_weight(
            shape=(rows, self.kernel_size, v[-1], 2 * self.filters),
            initializer=self.vertical_initializer,
            name="vertical_kernel",
        )
        self.vertical_bias = self.add_weight(
            shape=(2 * self.filters,), initializer="zeros", name="vertical_bias"
        )
        self.left.build(h)
        self.down.build((*v[:-1], 2 * self.filters))
        self.out.build((*v[:-1], self.filters))
        if len(input_shape) == 3:
            # Of both stacks: A c, then B c.
            self.given = keras.layers.Dense(
                4 * self.filters,
                use_bias=False,
                kernel_initializer=self.given_initializer,
                dtype=self.dtype_policy,
                name="given",
            )
            self.given.build(tuple(input_shape[2]))

    def gate(self, x: tf.Tensor) -> tf.Tensor:
        """[..., 2 * filters] -> [..., filters]; each group of channels has two halves."""
        if self.groups == 1:
            first, second = tf.split(x, 2, axis=-1)
            return tf.tanh(first) * tf.sigmoid(second)
        lead = tf.shape(x)[:-1]
        first, second = tf.split(
            tf.reshape(x, tf.concat([lead, [self.groups, -1]], axis=0)), 2, axis=-1
        )
        flat = tf.reshape(
            tf.tanh(first) * tf.sigmoid(second), tf.concat([lead, [self.filters]], axis=0)
        )
        return tf.ensure_shape(flat, [*x.shape[:-1], self.filters])

    def condition(self, c: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """A c and B c of a vector [B, D] or a map [B, H, W, D]: [B, 1 or H, 1 or W, 2 filters]."""
        if self.given is None:
            raise ValueError(f"{self.name} was built without a condition. Received: one")
        c = c if c.shape.rank == 4 else c[:, tf.newaxis, tf.newaxis]
        vertical, horizontal = tf.split(self.given(c), 2, axis=-1)
        return vertical, horizontal

    def call(self, inputs: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """[v, h] or [v, h, condition] -> (v', h'), [B, H, W, filters] each."""
        v, h, *condition = inputs
        half = self.kernel_size // 2
        seen = v[:, :-1] if self.mask == "A" else v
        padded = tf.pad(seen, [[0, 0], [half, 0], [half, half], [0, 0]])
        kernel = tf.convert_to_tensor(self.vertical_kernel)
        vertical = tf.nn.conv2d(padded, kernel, 1, "VALID")
        vertical = tf.nn.bias_add(vertical, tf.convert_to_tensor(self.vertical_bias))
        horizontal = self.left(h)
        if condition:
            of_vertical, of_horizontal = self.condition(condition[0])
            vertical += of_vertical
            horizontal += of_horizontal
        horizontal = self.out(self.gate(horizontal + self.down(vertical)))
        return self.gate(vertical), horizontal if self.mask == "A" else h + horizontal

    def compute_output_shape(self, input_shape: Sequence[tuple]) -> tuple[tuple, tuple]:
        """Twice [B, H, W, filters]."""
        shape = (*input_shape[0][:-1], self.filters)
        return shape, shape

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "mask": self.mask,
            "groups": self.groups,
            "seed": self.seed,
        }
