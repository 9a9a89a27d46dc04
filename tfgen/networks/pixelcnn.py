"""PixelCNN: the distribution of each pixel given those before it, by masked convolutions.

`draw` makes one pixel after the other and computes each activation once: what the layers have made
of the rows above and of the pixels on the left is kept. A pixel costs its share of one pass of the
network, where calling the network for each pixel, `draw_plainly`, costs a whole pass.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfgen import distributions, stateless
from tfgen.layers.gated_pixelcnn import GatedPixelCNNLayer
from tfgen.layers.masked_conv2d import MaskedConv2D


@keras.saving.register_keras_serializable("tfgen")
class PixelResidual(keras.layers.Layer):
    """h + W_3 relu(W_2 * relu(W_1 relu(h))), W_2 masked "B" (van den Oord et al. 2016, figure 5).

    Args:
        filters: channels 2m of h, even; the layers between have m.
        kernel_size: of W_2; W_1 and W_3 are 1x1.
        groups: of the channels.
        seed: int, of the initial weights.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self, filters: int, kernel_size: int, groups: int = 1, seed: int = 0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.filters, self.kernel_size = filters, kernel_size
        self.groups, self.seed = groups, seed
        sizes = ((filters // 2, 1), (filters // 2, kernel_size), (filters, 1))
        self.convolutions = [
            MaskedConv2D(
                width,
                side,
                "B",
                groups,
                kernel_initializer=_glorot(seed * 10 + n),
                name=f"w_{n}",
                dtype=self.dtype_policy,
            )
            for n, (width, side) in enumerate(sizes)
        ]

    def build(self, input_shape: tuple) -> None:
        """Makes the weights, for inputs [B, H, W, filters]."""
        shape = tuple(input_shape)
        for convolution in self.convolutions:
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, H, W, filters] -> [B, H, W, filters]."""
        hidden = inputs
        for convolution in self.convolutions:
            hidden = convolution(tf.nn.relu(hidden))
        return inputs + hidden

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """[B, H, W, filters] -> [B, H, W, filters]."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "groups": self.groups,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable("tfgen")
class PixelCNNNetwork(keras.layers.Layer):
    """p(x) = prod_(i, j, c) p(x_ijc | x before in raster order, channel by channel; a condition).

    The values x are integers 0 .. levels - 1: grey levels, or codes of a quantiser. For example
    `PixelCNNNetwork((28, 28, 1))` has x [B, 28, 28, 1] of 0 and 1 and gives as many logits, and
    with 256 levels [B, 28, 28, 1, 256]. A first layer with mask "A", `layers` with mask "B", and
    two 1x1 convolutions after ReLUs.

    Args:
        shape: (H, W, C) of x.
        levels: number of values, 2 or more.
        gated: two gated stacks (van den Oord et al. 2016b), or residual blocks (2016a).
        layers: number of them after the first.
        filters: channels of the layers, a multiple of C; even if they are not gated.
        kernel_size: of the layers after the first, odd.
        first_kernel_size: of the first layer, odd.
        head_filters: channels between the two 1x1 convolutions, a multiple of C.
        context: numbers of the condition; 0 is none. A condition is gated only.
        embedding: numbers that stand for a value at the network's entrance; 0 is the level
            itself, from -1 to 1.
        seed: int, of the initial weights.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 2,
        *,
        gated: bool = True,
        layers: int = 6,
        filters: int = 32,
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        head_filters: int = 32,
        context: int = 0,
        embedding: int = 0,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.shape = tuple(int(side) for side in shape)
        groups = self.shape[-1]
        if levels < 2:
            raise ValueError(f"levels must be 2 or more. Received: levels={levels}")
        if filters % groups or head_filters % groups or (filters // groups % 2 and not gated):
            raise ValueError(
                f"filters and head_filters must be multiples of the {groups} channels of x, and "
                "filters of twice that in residual blocks. "
                f"Received: filters={filters}, head_filters={head_filters}"
            )
        if context and not gated:
            raise ValueError(
                f"a condition needs gated=True. Received: context={context}, gated=False"
            )
        self.levels, self.gated, self.num_layers, self.filters = levels, gated, layers, filters
        self.kernel_size, self.first_kernel_size = kernel_size, first_kernel_size
        self.head_filters, self.context = head_filters, context
        self.embedding, self.seed = embedding, seed
        salts = iter(range(seed * 1000, (seed + 1) * 1000))
        self.blocks: list[keras.layers.Layer] = []
        for index in range(layers + 1):
            side = kernel_size if index else first_kernel_size
            inner: dict[str, Any] = {"dtype": self.dtype_policy, "name": f"layer_{index}"}
            if gated:
                mask = "B" if index else "A"
                block = GatedPixelCNNLayer(filters, side, mask, groups, next(salts), **inner)
            elif index:
                block = PixelResidual(filters, side, groups, next(salts), **inner)
            else:
                block = MaskedConv2D(
                    filters, side, "A", groups, kernel_initializer=_glorot(next(salts)), **inner
                )
            self.blocks.append(block)
        self.outputs = 1 if levels == 2 else levels
        self.head = [
            MaskedConv2D(
                width,
                1,
                "B",
                groups,
                kernel_initializer=_glorot(next(salts)),
                name=f"head_{n}",
                dtype=self.dtype_policy,
            )
            for n, width in enumerate((head_filters, groups * self.outputs))
        ]
        self.inputs_per_value = embedding or 1
        self.table: Any = None
        # In a graph even where it is called outside of one: a loop over the pixels.
        in_graph = functools.partial(tf.function, reduce_retracing=True, autograph=False)
        self._draw, self._draw_plainly = in_graph(self._drawn), in_graph(self._drawn_plainly)
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes all weights; the shapes are known."""
        height, width, channels = self.shape
        if self.embedding:
            self.table = self.add_weight(
                shape=(self.levels, self.embedding),
                initializer=keras.initializers.RandomNormal(stddev=1.0, seed=self.seed),
                name="table",
            )
        lead = (None, height, width)
        found = (*lead, channels * self.inputs_per_value)
        for block in self.blocks:
            given = [(*lead, self.context)] if self.context else []
            block.build([found, found, *given] if self.gated else found)
            found = (*lead, self.filters)
        for convolution in self.head:
            convolution.build(found)
            found = (*lead, self.head_filters)
        self.built = True

    # The whole image at once.

    def embed(self, values: tf.Tensor) -> tf.Tensor:
        """Integers [..., C] -> what the first layer sees, [..., C * (embedding or 1)]."""
        if self.table is None:
            return 2.0 * tf.cast(values, tf.float32) / (self.levels - 1.0) - 1.0
        found = tf.gather(tf.convert_to_tensor(self.table), values)
        lead = tf.shape(values)[:-1]
        found = tf.reshape(found, tf.concat([lead, [values.shape[-1] * self.embedding]], axis=0))
        return tf.ensure_shape(found, [*values.shape[:-1], values.shape[-1] * self.embedding])

    def call(self, inputs: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        """Embedded values [B, H, W, C'], of `embed`, to logits.

        Args:
            inputs: floats.
            condition: [B, context], or a map [B, H, W, context], which every pixel sees alone.

        Returns:
            float32 [B, H, W, C, levels], or of two levels the logits of 1, [B, H, W, C].
        """
        condition = self._as_map(condition)
        given = [] if condition is None else [condition]
        if self.gated:
            v = h = inputs
            for block in self.blocks:
                v, h = block([v, h, *given])
        else:
            h = inputs
            for block in self.blocks:
                h = block(h)
        for convolution in self.head:
            h = convolution(tf.nn.relu(h))
        return self._by_value(tf.cast(h, tf.float32))

    def _by_value(self, logits: tf.Tensor) -> tf.Tensor:
        if self.levels == 2:
            return logits
        *lead, channels = logits.shape
        shape = tf.concat([tf.shape(logits)[:-1], [channels // self.levels, self.levels]], axis=0)
        found = tf.reshape(logits, shape)
        return tf.ensure_shape(found, [*lead, channels // self.levels, self.levels])

    def _as_map(self, condition: tf.Tensor | None) -> tf.Tensor | None:
        """A vector [B, D] as a map [B, 1, 1, D], alike for all pixels."""
        found = 0 if condition is None else condition.shape[-1]
        if found != self.context:
            raise ValueError(
                f"{self.name} takes a condition of {self.context} numbers, 0 being none. "
                f"Received: {found}"
            )
        if condition is None or condition.shape.rank == 4:
            return condition
        return condition[:, tf.newaxis, tf.newaxis]

    def to_values(self, images: tf.Tensor) -> tf.Tensor:
        """Images in [0, 1] of `levels` levels -> integers."""
        return tf.cast(tf.round(tf.cast(images, tf.float32) * (self.levels - 1.0)), tf.int32)

    def to_images(self, values: tf.Tensor) -> tf.Tensor:
        """Integers -> float32 in [0, 1]."""
        return tf.cast(values, tf.float32) / (self.levels - 1.0)

    def log_prob(self, values: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        """log p(x), summed over all values: integers [B, H, W, C] -> float32 [B], in nats."""
        logits = self(self.embed(values), condition)
        if self.levels == 2:
            return distributions.bernoulli(logits).log_prob(tf.cast(values, tf.float32))
        terms = tf.nn.sparse_softmax_cross_entropy_with_logits(values, logits)
        return -tf.reduce_sum(terms, axis=[1, 2, 3])

    # One value after the other.

    def draw(
        self, num: int | tf.Tensor, seed: tf.Tensor, condition: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Draws x, int32 [num, H, W, C].

        Args:
            num: how many.
            seed: int32 [2]; the same seed gives the same x.
            condition: as for `call`, of `num` examples.
        """
        return self._draw(tf.convert_to_tensor(num, tf.int32), seed, self._as_map(condition))

    def draw_plainly(
        self, num: int | tf.Tensor, seed: tf.Tensor, condition: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The same x, by a pass of the whole network for each value: what `draw` is held to."""
        num = tf.convert_to_tensor(num, tf.int32)
        return self._draw_plainly(num, seed, self._as_map(condition))

    def _noise(self, num: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """One uniform number for each value, a row for each place: [H * W * C, num]."""
        return stateless.uniform([math.prod(self.shape), num], seed)

    def _value(self, logits: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """The inverse of the distribution function: logits [B, outputs], [B] -> int32 [B]."""
        if self.levels == 2:
            return tf.cast(uniform < tf.sigmoid(logits[:, 0]), tf.int32)
        below = tf.cumsum(tf.nn.softmax(logits), axis=-1)[:, :-1] <= uniform[:, tf.newaxis]
        return tf.reduce_sum(tf.cast(below, tf.int32), axis=-1)

    def _drawn_plainly(
        self, num: tf.Tensor, seed: tf.Tensor, condition: tf.Tensor | None
    ) -> tf.Tensor:
        uniform, total = self._noise(num, seed), math.prod(self.shape)

        def one(place: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            values = tf.reshape(tf.transpose(rows), [num, *self.shape])
            logits = self(self.embed(values), condition)
            here = tf.reshape(logits, [num, total, self.outputs])[:, place]
            value = self._value(here, uniform[place])
            return place + 1, tf.tensor_scatter_nd_update(rows, [[place]], [value])

        start = (tf.constant(0), tf.zeros([total, num], tf.int32))
        rows = tf.while_loop(lambda place, _: place < total, one, start)[1]
        return tf.reshape(tf.transpose(rows), [num, *self.shape])

    def _drawn(self, num: tf.Tensor, seed: tf.Tensor, condition: tf.Tensor | None) -> tf.Tensor:
        height, width, channels = self.shape
        uniform = tf.reshape(self._noise(num, seed), [height, width, channels, num])
        steps = [_steps(block, condition) for block in self.blocks]
        head = self._head()

        def one_row(i: tf.Tensor, last: tf.Tensor, caches: list, found: tf.TensorArray) -> tuple:
            newest = _below_the_top(self.embed(last), i)
            seen, kept = [], []
            for step, cache in zip(steps, caches, strict=True):
                entered = step.enter(newest)
                if step.delayed:
                    entered = _below_the_top(entered, i)
                rows = tf.concat([cache, entered[:, tf.newaxis]], axis=1)
                kept.append(rows[:, 1:])
                above, newest = step.row(rows, newest, i)
                seen.append(above)
            by_pixel = tf.transpose(tf.concat(seen, axis=-1), [1, 0, 2])  # [W, B, all of seen]
            row = self._drawn_row(by_pixel, uniform[i], steps, head)
            return i + 1, row, kept, found.write(i, row)

        start = (
            tf.constant(0),
            tf.zeros([num, width, channels], tf.int32),
            [tf.zeros([num, step.rows - 1, width, step.inputs]) for step in steps],
            tf.TensorArray(tf.int32, height, element_shape=[None, width, channels]),
        )
        rows = tf.while_loop(lambda i, *_: i < height, one_row, start)[3].stack()
        return tf.transpose(rows, [1, 0, 2, 3])

    def _drawn_row(
        self,
        by_pixel: tf.Tensor,
        uniform: tf.Tensor,
        steps: Sequence["_Steps"],
        head: Callable[[tf.Tensor, int], tf.Tensor],
    ) -> tf.Tensor:
        """One row of x, int32 [B, W, C], from what the layers saw above it and [W, C, B] noise."""
        _, width, channels = self.shape
        num = tf.shape(by_pixel)[1]

        def one_pixel(j: tf.Tensor, lefts: list, found: tf.TensorArray) -> tuple:
            seen = tf.split(by_pixel[j], [step.seen for step in steps], axis=-1)
            parts = [tf.zeros([num, self.inputs_per_value])] * channels
            values: list[tf.Tensor] = []
            windows: list[tf.Tensor] = []
            for channel in range(channels):
                h, windows = tf.concat(parts, axis=-1), []
                for step, left, above in zip(steps, lefts, seen, strict=True):
                    windows.append(tf.concat([left, step.enter(h)], axis=-1))
                    h = step.pixel(windows[-1], above, h)
                values.append(self._value(head(h, channel), uniform[j, channel]))
                parts[channel] = self.embed(values[-1][:, tf.newaxis])
            windows[0] = tf.concat([lefts[0], *parts], axis=-1)
            # What a layer makes of the last channel depends on the others alone: all is known.
            kept = [window[:, step.inputs :] for step, window in zip(steps, windows, strict=True)]
            return j + 1, kept, found.write(j, tf.stack(values, axis=-1))

        start = (
            tf.constant(0),
            [tf.zeros([num, step.left * step.inputs]) for step in steps],
            tf.TensorArray(tf.int32, width, element_shape=[None, channels]),
        )
        row = tf.while_loop(lambda j, *_: j < width, one_pixel, start)[2].stack()
        return tf.transpose(row, [1, 0, 2])

    def _head(self) -> Callable[[tf.Tensor, int], tf.Tensor]:
        """The head for one pixel: [B, filters], a channel -> [B, outputs]."""
        (first, first_bias), (last, last_bias) = (
            (_float(layer.masked_kernel())[0, 0], _float(layer.bias)) for layer in self.head
        )

        def head(h: tf.Tensor, channel: int) -> tf.Tensor:
            hidden = tf.nn.relu(tf.matmul(tf.nn.relu(h), first) + first_bias)
            here = slice(channel * self.outputs, (channel + 1) * self.outputs)
            return tf.matmul(hidden, last[:, here]) + last_bias[here]

        return head

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """[B, H, W, C'] -> [B, H, W, C] or [B, H, W, C, levels]."""
        by_value = () if self.levels == 2 else (self.levels,)
        return (input_shape[0], *self.shape, *by_value)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "shape": list(self.shape),
            "levels": self.levels,
            "gated": self.gated,
            "layers": self.num_layers,
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "first_kernel_size": self.first_kernel_size,
            "head_filters": self.head_filters,
            "context": self.context,
            "embedding": self.embedding,
            "seed": self.seed,
        }


@dataclasses.dataclass(frozen=True)
class _Steps:
    """A layer taken by rows and pixels, in float32, its weights read once.

    At row i a layer is handed the newest row of its input that is known: of v, which knows the rows
    above alone, row i, and without a vertical stack row i - 1. What it needs of rows and pixels
    again is kept as `enter` makes it.

    Attributes:
        rows: how many rows it sees, the newest included.
        left: how many pixels it sees on the left.
        inputs: channels of what is kept.
        seen: channels of what `row` gives for `pixel`.
        delayed: whether the newest row at row i is i - 1.
        enter: input [..., C] -> what is kept of it [..., inputs].
        row: (kept [B, rows, W, inputs], newest row [B, W, C], i) -> what every pixel of row i has
            from above [B, W, seen], and the newest row of the output [B, W, C'].
        pixel: (kept [B, (left + 1) * inputs], that from above [B, seen], input [B, C]) ->
            output [B, C'].
    """

    rows: int
    left: int
    inputs: int
    seen: int
    delayed: bool
    enter: Callable[[tf.Tensor], tf.Tensor]
    row: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    pixel: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


@functools.singledispatch
def _steps(layer: Any, condition: tf.Tensor | None) -> _Steps:
    raise TypeError(f"no steps of {type(layer).__name__}")


@_steps.register
def _(layer: GatedPixelCNNLayer, condition: tf.Tensor | None) -> _Steps:
    vertical, bias = _float(layer.vertical_kernel), _float(layer.vertical_bias)
    down, (left, left_bias), (out, out_bias) = (
        _float(layer.down.kernel), _last_row(layer.left), _last_row(layer.out)
    )  # fmt: skip
    given = None if condition is None else [_float(g) for g in layer.condition(condition)]

    def row(kept: tf.Tensor, newest: tf.Tensor, i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_vertical, of_horizontal = bias, left_bias
        if given is not None:
            at = tf.minimum(i, tf.shape(given[0])[1] - 1)  # a vector has one row for all
            of_vertical, of_horizontal = bias + given[0][:, at], left_bias + given[1][:, at]
        linear = _to_a_row(kept, vertical) + of_vertical
        return tf.matmul(linear, down) + of_horizontal, layer.gate(linear)

    def pixel(kept: tf.Tensor, above: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
        new = tf.matmul(layer.gate(tf.matmul(kept, left) + above), out) + out_bias
        return new if layer.mask == "A" else h + new

    rows, inputs = vertical.shape[0], vertical.shape[2]
    left_pixels = layer.kernel_size // 2
    return _Steps(rows, left_pixels, inputs, 2 * layer.filters, False, _as_it_is, row, pixel)


@_steps.register
def _(layer: MaskedConv2D, condition: tf.Tensor | None) -> _Steps:
    kernel, bias, left = _float(layer.masked_kernel()), _float(layer.bias), _last_row(layer)[0]
    rows, inputs = kernel.shape[0], kernel.shape[2]

    def row(kept: tf.Tensor, newest: tf.Tensor, i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        finished = _to_a_row(kept, kernel) + bias
        if rows == 1:
            return tf.zeros_like(finished) + bias, finished
        return _to_a_row(kept[:, 1:], kernel[:-1]) + bias, finished

    def pixel(kept: tf.Tensor, above: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
        return tf.matmul(kept, left) + above

    left_pixels = layer.kernel_size[1] // 2
    return _Steps(rows, left_pixels, inputs, layer.filters, True, _as_it_is, row, pixel)


@_steps.register
def _(layer: PixelResidual, condition: tf.Tensor | None) -> _Steps:
    first, middle, last = layer.convolutions
    (narrow, narrow_bias), (wide, wide_bias) = _last_row(first), _last_row(last)
    inner = _steps(middle, None)

    def squeeze(h: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(tf.matmul(tf.nn.relu(h), narrow) + narrow_bias)

    def stretch(h: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.nn.relu(h), wide) + wide_bias

    def row(kept: tf.Tensor, newest: tf.Tensor, i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        above, finished = inner.row(kept, newest, i)
        return above, newest + stretch(finished)

    def pixel(kept: tf.Tensor, above: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
        return h + stretch(inner.pixel(kept, above, h))

    return dataclasses.replace(inner, enter=squeeze, row=row, pixel=pixel)


def _as_it_is(x: tf.Tensor) -> tf.Tensor:
    return x


def _below_the_top(x: tf.Tensor, i: tf.Tensor) -> tf.Tensor:
    """x, or zeros where it is row i - 1 and there is none."""
    return x * tf.cast(i > 0, tf.float32)


def _to_a_row(kept: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[B, R, W, C] by a kernel [R, n, C, F] -> [B, W, F], padded with zeros on both sides."""
    half = kernel.shape[1] // 2
    padded = tf.pad(kept, [[0, 0], [0, 0], [half, half], [0, 0]])
    return tf.nn.conv2d(padded, kernel, 1, "VALID")[:, 0]


def _last_row(layer: MaskedConv2D) -> tuple[tf.Tensor, tf.Tensor]:
    """What a layer makes of pixels on the left and this one side by side: matrix and bias."""
    kernel = _float(layer.masked_kernel())[-1, : layer.kernel_size[1] // 2 + 1]
    return tf.reshape(kernel, [-1, layer.filters]), _float(layer.bias)


def _float(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(value), tf.float32)


def _glorot(seed: int) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed)
