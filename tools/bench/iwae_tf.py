"""The IWAE by tfgen, and by what a Keras user writes first."""

import math
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgen.models.vae import iwae
from tfgen.training import strategies
from tools.bench import training
from tools.bench.work import EPSILON, IWAE_BATCH, LATENTS, LEARNING_RATE, PIXELS, WIDTH, Run


def tfgen(
    order: dict[str, Any], *, replicas: int = 1, constant: bool = False, **flags: Any
) -> tuple[Run, dict[str, Any]]:
    """An IWAE by its `build`, trained by its own train function from its own pipeline."""
    if replicas > 1:
        strategies.logical_cpus(replicas)
    strategy = strategies.make("mirrored" if replicas > 1 else "none")
    hp = iwae.HParams(k=order["k"], batch_size=IWAE_BATCH, learning_rate=LEARNING_RATE, **flags)
    keras.config.set_dtype_policy(hp.precision)
    data = training.dataset(np.load(order["images"]), "binary")
    with strategy.scope():
        model = iwae.build(hp, data.spec)
    model.adapt(data.batches("train", 1000, seed=hp.seed))

    def stream(context: Any = None) -> Any:
        return data.train(IWAE_BATCH // replicas, seed=hp.seed, replicas=replicas)

    if replicas > 1:
        batches = strategy.distribute_datasets_from_function(stream)
    elif constant:
        first = next(iter(stream()))
        batches = tf.data.Dataset.from_tensors(first).repeat()
    else:
        batches = stream()
    return training.runner(model, iter(batches), hp, "loss"), training.VERSIONS


def tfgen_pipeline(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """The training stream alone: shuffling, gathering, binarisation."""
    data = training.dataset(np.load(order["images"]), "binary")
    iterator = iter(data.train(IWAE_BATCH, seed=0))

    @tf.function
    def pull(steps: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for _ in tf.range(steps):
            total += next(iterator)["image"][0, 0, 0, 0]
        return total

    def run(steps: int) -> dict[str, Any]:
        begun = time.perf_counter()
        pull(tf.constant(steps)).numpy()
        return {"seconds": time.perf_counter() - begun}

    return run, {}


# The guides' custom train_step, `fit` and tf.data's AUTOTUNE.


def keras_plain(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """A `keras.Model` with a custom `train_step`, everything else at Keras' defaults."""
    k = order["k"]
    images = np.load(order["images"])

    def binarize(grey: tf.Tensor) -> tf.Tensor:
        grey = tf.cast(grey, tf.float32) / 255.0
        return tf.cast(tf.random.uniform(tf.shape(grey)) < grey, tf.float32)

    dataset = (
        tf.data.Dataset.from_tensor_slices(images)
        .shuffle(len(images))
        .repeat()
        .batch(IWAE_BATCH)
        .map(binarize, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    tanh = {"units": WIDTH, "activation": "tanh"}
    encoder = keras.Sequential([
        keras.Input(images.shape[1:]), keras.layers.Flatten(), keras.layers.Dense(**tanh),
        keras.layers.Dense(**tanh), keras.layers.Dense(2 * LATENTS),
    ])  # fmt: skip
    decoder = keras.Sequential([
        keras.Input((LATENTS,)), keras.layers.Dense(**tanh), keras.layers.Dense(**tanh),
        keras.layers.Dense(PIXELS),
    ])  # fmt: skip

    class PlainIWAE(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = encoder, decoder
            self.seed_generator = keras.random.SeedGenerator(0)
            self.loss_tracker = keras.metrics.Mean(name="loss")

        @property
        def metrics(self) -> list[Any]:
            return [self.loss_tracker]

        def train_step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            with tf.GradientTape() as tape:
                mean, log_std = tf.split(self.encoder(x, training=True), 2, axis=-1)
                noise = keras.random.normal((k, IWAE_BATCH, LATENTS), seed=self.seed_generator)
                z = mean + tf.exp(log_std) * noise
                logits = self.decoder(tf.reshape(z, (-1, LATENTS)), training=True)
                logits = tf.reshape(logits, (k, IWAE_BATCH, PIXELS))
                target = tf.broadcast_to(tf.reshape(x, (1, IWAE_BATCH, PIXELS)), logits.shape)
                log_likelihood = -tf.reduce_sum(
                    tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logits), axis=-1
                )
                log_prior = -0.5 * tf.reduce_sum(z**2, axis=-1)
                log_posterior = -tf.reduce_sum(0.5 * noise**2 + log_std, axis=-1)
                log_weights = log_likelihood + log_prior - log_posterior
                loss = -tf.reduce_mean(tf.reduce_logsumexp(log_weights, axis=0) - math.log(k))
            gradients = tape.gradient(loss, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            self.loss_tracker.update_state(loss)
            return {"loss": self.loss_tracker.result()}

    model = PlainIWAE()
    model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON))
    left_out = 5  # the pipeline starts anew in each `fit`; only its steady state is timed

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            if batch == left_out - 1:
                self.begun = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            self.seconds = time.perf_counter() - self.begun
            self.loss = float((logs or {})["loss"])

    def run(steps: int) -> dict[str, Any]:
        clock = Clock()
        model.fit(dataset, steps_per_epoch=steps + left_out, verbose=0, callbacks=[clock])
        return {"seconds": clock.seconds, "loss": clock.loss}

    return run, {"keras": keras.__version__, "compiled_by_xla": bool(model.jit_compile)}
