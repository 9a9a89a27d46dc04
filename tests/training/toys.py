"""The smallest models that exercise the training base."""

import keras
import numpy as np
import tensorflow as tf

from tfgen.training.model import GenerativeModel


def dense(units: int, inputs: int, name: str, seed: int = 0) -> keras.Sequential:
    init = keras.initializers.GlorotUniform(seed=seed)
    layers = [keras.Input((inputs,)), keras.layers.Dense(units, kernel_initializer=init)]
    return keras.Sequential(layers, name=name)


class Line(GenerativeModel):
    """One player: least squares, y = w x + b. Logs its loss, noise and number of examples."""

    needs = ("x", "y")

    def __init__(self, inputs: int = 3, **kwargs):
        super().__init__(**kwargs)
        self.line = dense(1, inputs, "line")
        self.built = True

    def loss_of(self, batch, training):
        outputs = tf.cast(self.line(batch["x"], training=training), tf.float32)
        return tf.reduce_mean((outputs[:, 0] - batch["y"]) ** 2)

    def logs(self, loss, batch):
        return {
            "loss": loss,
            "noise": tf.random.stateless_uniform([], self.noise_seed()),
            "mean_y": tf.reduce_mean(batch["y"]),
        }

    def train_step(self, batch):
        with tf.GradientTape() as tape:
            loss = self.loss_of(batch, training=True)
        self.minimize("model", loss, tape)
        return self.logs(loss, batch)

    def test_step(self, batch):
        return self.logs(self.loss_of(batch, training=False), batch)


class Tug(GenerativeModel):
    """Two players on one loss: `low` makes (low(x) - high(x))^2 small, `high` makes it large."""

    needs = ("x",)

    def __init__(self, moves=("low", "high"), **kwargs):
        super().__init__(**kwargs)
        self.low, self.high = dense(2, 3, "low", seed=1), dense(2, 3, "high", seed=2)
        self.moves = moves
        self.built = True

    def players(self):
        return {"low": self.low.trainable_variables, "high": self.high.trainable_variables}

    def train_step(self, batch):
        logs = {}
        for player, sign in (("low", 1.0), ("high", -1.0)):
            with tf.GradientTape() as tape:
                distance = self.low(batch["x"], training=True) - self.high(
                    batch["x"], training=True
                )
                logs[player] = sign * tf.reduce_mean(tf.cast(distance, tf.float32) ** 2)
            if player in self.moves:
                self.minimize(player, logs[player], tape)
        return logs

    def test_step(self, batch):
        distance = self.low(batch["x"], training=False) - self.high(batch["x"], training=False)
        return {"low": tf.reduce_mean(distance**2)}


class Waiting(Tug):
    """`Tug` whose `low` moves at even steps alone."""

    def minimize(self, player, loss, tape, when=None):
        when = self.current_step % 2 == 0 if player == "low" else when
        super().minimize(player, loss, tape, when)


def line_data(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 3)).astype(np.float32)
    return {"x": x, "y": (x @ [1.0, -2.0, 0.5] + 3).astype(np.float32)}


def batches(data: dict[str, np.ndarray], size: int, repeat: bool = False) -> tf.data.Dataset:
    dataset = tf.data.Dataset.from_tensor_slices(data)
    return (dataset.repeat() if repeat else dataset).batch(size)


def values(variables) -> list[np.ndarray]:
    return [np.array(v.numpy()) for v in variables]
