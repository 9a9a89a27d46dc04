"""DRAW: a VAE that looks at an image in glimpses and draws it on a canvas, stroke by stroke.

At each of T glimpses, c_0 and the first states of both LSTMs being learned:

    r_t = read(x, x - mean of p(x|c_{t-1}), h^dec_{t-1})
    h^enc_t = LSTM^enc(h^enc_{t-1}, [r_t, h^dec_{t-1}]);   z_t ~ q(z_t|h^enc_t), a diagonal Gaussian
    h^dec_t = LSTM^dec(h^dec_{t-1}, z_t);                  c_t = c_{t-1} + write(h^dec_t)

Objective, maximised (sum over event dimensions, mean over the batch):

    ELBO(x) = E_q[log p(x|c_T) - sum_t KL(q(z_t|x, z_1..t-1) || p(z_t))]

where q is the product of the glimpses', whose KL to N(0, I) is taken in closed form given the
earlier draws. With `importance_weighted` it is, of k drawings of each image,

    L_k(x) = E[log (1/k) sum_m p(x|c_T,m) prod_t p(z_t,m) / q(z_t,m|x, z_1..t-1,m)]

To the base, `vae.py`, z = (z_1, ..., z_T) is one stochastic layer: c_T is a function of z, so all
of a VAE's bounds, evaluations and pictures are this one's too.

With attention `read` and `write` act through windows of Gaussian filters that h^dec places
(`layers/gaussian_attention.py`); without it they are all of the image and a matrix.

Reference: K. Gregor, I. Danihelka, A. Graves, D. J. Rezende, D. Wierstra. DRAW: A Recurrent Neural
Network For Image Generation. ICML 2015: eq. 3-8 (network), 9-12 (loss), 17-18 (no attention),
19-29 (attention), table 3 (sizes).

Differs from the paper:
  * c_0 starts as the logit of the mean image, as the output's bias does in every VAE here.
  * The likelihood may also be a Gaussian or of discretised logistics, the prior a flow.
  * The flagfiles have 5 to 10 glimpses and 10 latents at each, and the weight of the KL rises over
    the first 1000 steps: else the latents can die before the windows have found what to look at.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfgen import distributions, stateless
from tfgen.data import DataSpec
from tfgen.errors import UserError
from tfgen.layers.gaussian_attention import GaussianRead, GaussianWrite
from tfgen.models.vae import _slots, vae

State = list[tf.Tensor]  # Of an LSTM: h and its cell, [N, units] each.


@dataclasses.dataclass(frozen=True)
class HParams(vae.HParams):
    """Flags of a DRAW; the paper's sizes on MNIST."""

    glimpses: int = 64  # Times that the image is read and the canvas written.
    attention: bool = True  # Read and write through windows; else the whole image.
    read_size: int = 2  # Side of the window that is read, in filters.
    write_size: int = 5  # Side of the window that is written, in filters.
    latent_dims: tuple[int, ...] = (100,)  # Latents of each glimpse, one number.
    hidden_units: tuple[int, ...] = (256,)  # Units of both LSTMs, one number.

    POSITIVE = ("glimpses", "read_size", "write_size")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.latent_dims) > 1:
            raise ValueError(
                "vae.draw has the same LSTMs at each glimpse: one number in --latent_dims and one "
                f"in --hidden_units. Received: --latent_dims={self.latent_dims} "
                f"--hidden_units={self.hidden_units}"
            )
        if self.posterior != "gaussian":
            raise ValueError(
                "vae.draw has Gaussian posteriors: use --system=vae.vae for others. "
                f"Received: --posterior={self.posterior}"
            )
        if self.likelihood == "pixelcnn":
            raise ValueError(
                "vae.draw looks at the error of its canvas, a mean of pixels: a PixelCNN has none. "
                "Received: --likelihood=pixelcnn"
            )


@keras.saving.register_keras_serializable("tfgen")
class LearnedStart(keras.layers.Layer):
    """A learned vector, the same for all examples, e.g. where a recurrence starts."""

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.bias = self.add_weight(shape=(units,), initializer="zeros", name="bias")
        self.built = True

    def call(self, like: tf.Tensor) -> tf.Tensor:
        """[B, ...] -> [B, units]."""
        batch = tf.shape(like)[0] if like.shape[0] is None else like.shape[0]
        return tf.tile(tf.convert_to_tensor(self.bias)[tf.newaxis], [batch, 1])

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {**super().get_config(), "units": self.units}


class Recurrent(keras.Model):
    """What both networks of a DRAW have: sizes, an LSTM and its learned start.

    Args:
        shape: (height, width, channels) of what is read, or of what is written.
        glimpses: how many.
        latents: of each glimpse.
        units: of each network's LSTM.
        window: side of the window of Gaussian filters; None is all of the shape.
        seed: int, of the initial weights.
        **kwargs: of `keras.Model`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        glimpses: int,
        latents: int,
        units: int,
        window: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        height, width, channels = shape
        self.shape = (height, width, channels)
        self.glimpses, self.latents, self.units = glimpses, latents, units
        self.window, self.seed = window, seed
        self.starts = [LearnedStart(units, dtype=self.dtype_policy) for _ in range(2)]

    def _lstm(self, inputs: int) -> keras.layers.LSTMCell:
        cell = keras.layers.LSTMCell(
            self.units,
            kernel_initializer=self._glorot(0),
            recurrent_initializer=keras.initializers.Orthogonal(seed=self.seed * 1000 + 1),
            dtype=self.dtype_policy,
        )
        cell.build((None, inputs))
        return cell

    def _glorot(self, number: int) -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(seed=self.seed * 1000 + number)

    def start(self, like: tf.Tensor) -> State:
        """The LSTM's state before the first glimpse, for [N, ...]."""
        return [start(like) for start in self.starts]

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            "shape": self.shape,
            "glimpses": self.glimpses,
            "latents": self.latents,
            "units": self.units,
            "window": self.window,
            "seed": self.seed,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }


@keras.saving.register_keras_serializable("tfgen")
class GlimpseEncoder(Recurrent):
    """q(z_t|x, z_1..t-1), a glimpse at a time; arguments as of `Recurrent`.

    For example with a window of 2 MNIST images and their errors are read as [B, 2, 2, 2], which
    with 256 numbers of the decoder go through the LSTM and give [B, 200].

    Attributes:
        input_shape: of images.
        output_shape: of the means and log sigmas of all glimpses.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        height, width, channels = self.shape
        self.input_shape = (None, *self.shape)
        self.output_shape = (None, 2 * self.glimpses * self.latents)
        self.read = None
        if self.window is not None:
            self.read = GaussianRead(self.window, self._glorot(2), dtype=self.dtype_policy)
            self.read.build((None, height, width, 2 * channels), (None, self.units))
            height = width = self.window
        self.seen = height * width * 2 * channels  # the image and its error
        self.cell = self._lstm(self.seen + self.units)
        self.moments = keras.layers.Dense(
            2 * self.latents, kernel_initializer=self._glorot(3), dtype=self.dtype_policy
        )
        self.moments.build((None, self.units))
        self.built = True

    def glimpse(
        self, image: tf.Tensor, error: tf.Tensor, hidden: tf.Tensor, state: State, training: bool
    ) -> tuple[tf.Tensor, State]:
        """One glimpse at images [N, H, W, C], given their error on the canvas and h^dec [N, units].

        Returns:
            float32 [N, 2 latents], means and log sigmas of q(z_t|.); the LSTM's state.
        """
        seen = tf.concat([image, error], axis=-1)
        if self.read is not None:
            seen = self.read(seen, hidden)
        seen = tf.cast(tf.reshape(seen, [-1, self.seen]), hidden.dtype)
        output, state = self.cell(tf.concat([seen, hidden], axis=-1), state, training=training)
        return tf.cast(self.moments(output), tf.float32), state


@keras.saving.register_keras_serializable("tfgen")
class CanvasDecoder(Recurrent):
    """c_T of z = (z_1, ..., z_T), a stroke at a time; arguments as of `Recurrent`.

    For example 10 glimpses of 100 latents are z [B, 1000] and make canvases [B, 28, 28, 1], the
    parameters of p(x|z).

    Attributes:
        input_shape: of z.
        output_shape: of canvases.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        pixels = math.prod(self.shape)
        self.input_shape = (None, self.glimpses * self.latents)
        self.output_shape = (None, *self.shape)
        self.cell = self._lstm(self.latents)
        options: dict[str, Any] = {
            "kernel_initializer": self._glorot(2),
            "dtype": self.dtype_policy,
        }
        self.write = (
            keras.layers.Dense(pixels, **options)
            if self.window is None
            else GaussianWrite(self.window, self.shape, **options)
        )
        self.write.build((None, self.units))
        # The last of the weights: it is the output's bias, which `VAE.adapt` sets.
        self.first_canvas = LearnedStart(pixels, dtype="float32")
        self.built = True

    def blank(self, like: tf.Tensor) -> tf.Tensor:
        """c_0 for [N, ...]: float32 [N, H, W, C]."""
        return tf.reshape(self.first_canvas(like), [-1, *self.shape])

    def stroke(
        self, latent: tf.Tensor, state: State, canvas: tf.Tensor, training: bool
    ) -> tuple[State, tf.Tensor]:
        """One stroke, from z_t [N, latents]: the LSTM's state and the canvas after it."""
        output, state = self.cell(latent, state, training=training)
        written = tf.reshape(self.write(output), [-1, *self.shape])
        return state, canvas + tf.cast(written, canvas.dtype)

    def call(self, latent: tf.Tensor, training: bool = False) -> tf.Tensor:
        """z [B, T latents] -> c_T, float32 [B, H, W, C]."""
        return self.canvases(latent, training)[-1]

    def canvases(self, latent: tf.Tensor, training: bool = False) -> tf.Tensor:
        """z [B, T latents] -> c_1, ..., c_T, float32 [T, B, H, W, C]."""
        steps = tf.reshape(tf.cast(latent, tf.float32), [-1, self.glimpses, self.latents])

        def body(t: tf.Tensor, state: State, canvas: tf.Tensor, drawn: tf.TensorArray) -> tuple:
            state, canvas = self.stroke(steps[:, t], state, canvas, training)
            return t + 1, state, canvas, drawn.write(t, canvas)

        start = self.start(steps), self.blank(steps), tf.TensorArray(tf.float32, self.glimpses)
        return _loop(self.glimpses, body, start)[-1].stack()


@keras.saving.register_keras_serializable("tfgen")
class DRAW(vae.VAE):
    """A VAE that draws in strokes.

    Args:
        encoder: a `GlimpseEncoder`.
        decoder: a `CanvasDecoder` of as many glimpses, latents and units.
        **kwargs: further arguments of `VAE`; posteriors are Gaussian.

    Raises:
        ValueError: if encoder and decoder do not fit, or the posterior is another.
    """

    # The mutual information asks for q(z|x_m) at the draws of each other image x_n: q(z_t|x, z_<t)
    # depends on the draws before, so that takes all glimpses for each pair of images.
    evaluations = tuple(e for e in vae.VAE.evaluations if e != "latents.mutual_information")

    def __init__(self, encoder: Any, decoder: Any, **kwargs: Any):
        super().__init__(encoder, decoder, **kwargs)
        wanted = [(n.glimpses, n.latents, n.units) for n in (self.encoder, self.decoder)]
        if wanted[0] != wanted[1]:
            raise ValueError(
                "encoder and decoder must have the same glimpses, latents and units. "
                f"Received: {wanted[0]} and {wanted[1]}"
            )
        if not isinstance(self.posteriors[0], _slots.GaussianPosterior):
            raise ValueError(
                "the posteriors of a DRAW are Gaussian. "
                f"Received: {type(self.posteriors[0]).__name__}"
            )

    @property
    def encoder(self) -> GlimpseEncoder:
        """The only encoder."""
        return self.encoders[0]

    @property
    def decoder(self) -> CanvasDecoder:
        """The only decoder."""
        return self.decoders[0]

    def posterior(self, layer: int, below: tf.Tensor, training: bool = False) -> tfd.Distribution:
        """There is none before a draw: q(z_t|x) is given z_1, ..., z_{t-1}; see `infer`."""
        raise NotImplementedError("the posterior of a DRAW is found as it is drawn: see `infer`")

    def infer(
        self, image: tf.Tensor, k: int, seed: tf.Tensor, training: bool = False
    ) -> vae.Inference:
        """Draws k samples of the latents of all glimpses from q(z|x); see `VAE`.

        The only posterior, over z [k, B, T latents], is that of each z_t given the draws before it.
        """
        return self._look(image, k, lambda shape: stateless.normal(shape, seed), training)

    def _look(
        self,
        image: tf.Tensor,
        k: int,
        noise_of: Callable[[list[Any]], tf.Tensor],
        training: bool = False,
    ) -> vae.Inference:
        """k times all glimpses at images [B, H, W, C], z_t being mean + sigma noise."""
        glimpses, batch = self.decoder.glimpses, tf.shape(image)[0]
        images = tf.tile(tf.cast(image, tf.float32), [k, 1, 1, 1])
        noise = noise_of([glimpses, k * batch, self.decoder.latents])

        def body(
            t: tf.Tensor, looking: State, drawing: State, canvas: tf.Tensor, found: tf.TensorArray
        ) -> tuple:
            error = images - self._likelihood(canvas).mean()
            outputs, looking = self.encoder.glimpse(images, error, drawing[0], looking, training)
            mean, log_std = tf.split(outputs, 2, axis=-1)
            z = mean + tf.exp(log_std) * noise[t]
            drawing, canvas = self.decoder.stroke(z, drawing, canvas, training)
            found = found.write(t, tf.stack([z, mean, log_std]))
            return t + 1, looking, drawing, canvas, found

        found = tf.TensorArray(tf.float32, glimpses)
        states = self.encoder.start(images), self.decoder.start(images)
        start = (*states, self.decoder.blank(images), found)
        *_, canvas, found = _loop(glimpses, body, start)
        numbers = tf.transpose(found.stack(), [1, 2, 0, 3])  # [3, k B, T, d]
        z, mean, log_std = tf.unstack(tf.reshape(numbers, [3, k, batch, *self.latent_dims]))
        posterior = distributions.DiagonalGaussian(mean, log_std)
        observation = self._likelihood(tf.reshape(canvas, [k, batch, *self.decoder.shape]))
        return vae.Inference([z], [posterior], [posterior.log_prob(z)], observation)

    def _likelihood(self, canvas: tf.Tensor) -> tfd.Distribution:
        return self.likelihood.distribution(canvas)

    def posterior_means(self, image: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        """Means of the q of all glimpses, each given one sample of those before: [B, T latents]."""
        return [self.infer(image, 1, seed).posteriors[0].mean()[0]]

    def encode(self, image: tf.Tensor) -> tf.Tensor:
        """z by the means of each q: images [B, H, W, C] -> [B, T latents]."""
        return self._look(image, 1, tf.zeros).latents[0][0]

    def canvases(self, latent: tf.Tensor) -> tf.Tensor:
        """Means of p(x|c_t) after each stroke: z [B, T latents] -> [T, B, H, W, C] in [0, 1]."""
        return self._likelihood(self.decoder.canvases(latent)).mean()

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """As of `VAE`, and "canvases": a sample in each row, its strokes from left to right."""
        frames = self.animations(batch, seed)["drawing"]
        shown = np.linspace(0, len(frames) - 1, min(len(frames), 10)).round().astype(int)
        grid = frames[shown][:, :, 0].swapaxes(0, 1)
        return {**super().pictures(batch, seed), "canvases": grid}

    def animations(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """A "drawing": canvases of 64 samples after each stroke, [T, 8, 8, H, W, C] in [0, 1]."""
        z = self.prior.distribution().sample(64, seed=[seed, 0])
        frames = self.canvases(z)
        return {"drawing": tf.reshape(frames, [-1, 8, 8, *self.image_shape]).numpy()}


def _loop(steps: int, body: Callable, start: Sequence[Any]) -> Sequence[Any]:
    """`body(t, *state) -> (t + 1, *state)` for t = 0..steps-1 from `start`; the last state.

    One graph for all steps, with a maximum that XLA needs for the gradient.
    """
    condition = lambda t, *state: t < steps  # noqa: E731
    return tf.while_loop(condition, body, (0, *start), maximum_iterations=steps)[1:]


def build(hparams: HParams, data_spec: DataSpec) -> DRAW:
    """The paper's networks for images of the data's shape, compiled and ready to train.

    Raises:
        UserError: if a window is larger than the images.
    """
    height, width, channels = data_spec.image_shape
    if hparams.attention:
        for flag in ("read_size", "write_size"):
            if getattr(hparams, flag) > min(height, width):
                raise UserError(
                    f"--{flag} must be from 1 to the side of the images, {width}x{height}. "
                    f"Received: --{flag}={getattr(hparams, flag)}"
                )
    (latents,), (units,) = hparams.latent_dims, hparams.hidden_units
    sizes = hparams.glimpses, latents, units
    windows = (hparams.read_size, hparams.write_size) if hparams.attention else (None, None)
    numbers = _slots.pixel_numbers(hparams, channels)
    seed = hparams.seed
    of_all = dataclasses.replace(hparams, latent_dims=(hparams.glimpses * latents,))
    model = DRAW(
        GlimpseEncoder((height, width, channels), *sizes, windows[0], seed, name="encoder"),
        CanvasDecoder((height, width, numbers), *sizes, windows[1], seed + 100, name="decoder"),
        k=hparams.k,
        importance_weighted=hparams.importance_weighted,
        likelihood=hparams.likelihood,
        analytic_kl=hparams.analytic_kl,
        prior=_slots.prior(of_all),
        free_bits=hparams.free_bits,
        kl_weight=hparams.kl_weight,
        kl_warmup_steps=hparams.kl_warmup_steps,
    )
    total_steps = hparams.total_steps(data_spec.train_size)
    model.compile(vae.optimizer(hparams, total_steps), **hparams.compile_options())
    return model
