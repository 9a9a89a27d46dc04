"""One contender of `tools.bench` in a process of its own: reads orders, works, waits.

    python -m tools.bench_worker '{"contender": "tfgen", "k": 1, "images": "PATH.npy"}'

Each line on standard input, {"steps": n}, is answered by one on standard output, {"seconds": s,
...}. Between two orders the process sleeps on the pipe, so that only one contender works at a time.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

BATCH = 100
LATENTS = 50
WIDTH = 200
PIXELS = 784
LEARNING_RATE, EPSILON = 1e-3, 1e-4

Run = Callable[[int], dict[str, Any]]  # steps -> {"seconds": ...} and what else was measured
Maker = Callable[[dict[str, Any]], tuple[Run, dict[str, Any]]]  # order -> run, facts about it


def gemms(k: int) -> list[dict[str, Any]]:
    """Matrix products of one training step: each layer's forward and its two gradients.

    The gradient with respect to the images is not needed, hence absent.
    """
    encoder = [(PIXELS, WIDTH), (WIDTH, WIDTH), (WIDTH, 2 * LATENTS)]
    decoder = [(LATENTS, WIDTH), (WIDTH, WIDTH), (WIDTH, PIXELS)]
    layers = [(BATCH, *sizes) for sizes in encoder] + [(BATCH * k, *sizes) for sizes in decoder]
    found = []
    for index, (rows, inputs, outputs) in enumerate(layers):
        for kind in ("forward", "of_weights", "of_inputs"):
            if kind == "of_inputs" and index == 0:
                continue
            found.append({
                "kind": kind, "rows": rows, "inputs": inputs, "outputs": outputs,
                "flops": 2 * rows * inputs * outputs,
            })  # fmt: skip
    return found


def per_gemm(times: list[Callable[[], None]], rounds: int) -> dict[str, Any]:
    """Seconds of each product, `rounds` times all of them in turn; their sum is "seconds"."""
    spent = [0.0] * len(times)
    for _ in range(rounds):
        for index, work in enumerate(times):
            begun = time.perf_counter()
            work()
            spent[index] += time.perf_counter() - begun
    return {"seconds": sum(spent), "each": [s / rounds for s in spent]}


# tfgen: what `python -m tfgen.train` runs, from the pipeline to the optimiser.


def _data(images: Any) -> Any:
    """The images as a tfgen data set, binarised anew at each use."""
    from tfgen.data import Data, DataSpec
    from tfgen.data.pixels import Pixels
    from tfgen.data.source import Key, Source, table

    keys = {"image": Key(images.shape[1:], "uint8")}
    size = len(images)
    spec = DataSpec(
        name="bench",
        shapes={"image": images.shape[1:]},
        dtypes={"image": "float32"},
        image_range="binary",
        num_classes=None,
        train_size=size,
        validation_size=size,
        test_size=size,
    )
    splits = dict.fromkeys(("train", "validation", "test"), size)
    source = Source(
        keys, None, splits, lambda _: table(keys, size, iter([{"image": images}]), None)
    )
    return Data(spec, source, Pixels("binary", "dynamic"))


def tfgen(
    order: dict[str, Any], *, replicas: int = 1, constant: bool = False, **flags: Any
) -> tuple[Run, dict[str, Any]]:
    """An IWAE by its `build`, trained by its own train function from its own pipeline."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfgen.models.vae import iwae
    from tfgen.training import strategies

    if replicas > 1:
        strategies.logical_cpus(replicas)
    strategy = strategies.make("mirrored" if replicas > 1 else "none")
    hp = iwae.HParams(k=order["k"], batch_size=BATCH, learning_rate=LEARNING_RATE, **flags)
    keras.config.set_dtype_policy(hp.precision)
    data = _data(np.load(order["images"]))
    with strategy.scope():
        model = iwae.build(hp, data.spec)
    model.adapt(data.batches("train", 1000, seed=hp.seed))

    def stream(context: Any = None) -> Any:
        return data.train(BATCH // replicas, seed=hp.seed, replicas=replicas)

    if replicas > 1:
        batches = strategy.distribute_datasets_from_function(stream)
    elif constant:
        first = next(iter(stream()))
        batches = tf.data.Dataset.from_tensors(first).repeat()
    else:
        batches = stream()
    iterator = iter(batches)

    def run(steps: int) -> dict[str, Any]:
        with strategy.scope():
            begun = time.perf_counter()
            for _ in range(steps // hp.steps_per_execution):
                logs = model.run_steps(iterator, hp.steps_per_execution)[-1]
            seconds = time.perf_counter() - begun
        return {"seconds": seconds, "loss": float(logs["loss"])}

    return run, {"tensorflow": tf.__version__, "keras": keras.__version__}


def tfgen_pipeline(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """The training stream alone: shuffling, gathering, binarisation."""
    import numpy as np
    import tensorflow as tf

    iterator = iter(_data(np.load(order["images"])).train(BATCH, seed=0))

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


def gemm_tf(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """The step's matrix products alone, by TensorFlow."""
    import tensorflow as tf

    def product(gemm: dict[str, Any]) -> Callable[[], None]:
        rows, inputs, outputs = gemm["rows"], gemm["inputs"], gemm["outputs"]
        x, w, y = (
            tf.random.normal(shape)
            for shape in ((rows, inputs), (inputs, outputs), (rows, outputs))
        )

        def multiply() -> tf.Tensor:
            if gemm["kind"] == "forward":
                return tf.matmul(x, w)
            if gemm["kind"] == "of_weights":
                return tf.matmul(x, y, transpose_a=True)
            return tf.matmul(y, w, transpose_b=True)

        @tf.function
        def chain() -> tf.Tensor:
            corners: list[tf.Tensor] = []
            for _ in range(_TIMES):  # one after the other, and none may be left out
                with tf.control_dependencies(corners[-1:]):
                    corners.append(multiply()[0, 0])
            return tf.add_n(corners)

        return lambda: chain().numpy()

    products = [product(gemm) for gemm in gemms(order["k"])]
    return lambda steps: _per_step(products, steps), {}


_TIMES = 20  # products in one call, so that the call itself costs nothing


def _per_step(products: list[Callable[[], None]], steps: int) -> dict[str, Any]:
    found = per_gemm(products, max(1, steps // _TIMES))
    return {"seconds": found["seconds"], "each": [s / _TIMES for s in found["each"]]}


# What a Keras user writes first: the guides' custom train_step, `fit` and tf.data's AUTOTUNE.


def keras_plain(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """A `keras.Model` with a custom `train_step`, everything else at Keras' defaults."""
    import math

    import keras
    import numpy as np
    import tensorflow as tf

    k = order["k"]
    images = np.load(order["images"])

    def binarize(grey: tf.Tensor) -> tf.Tensor:
        grey = tf.cast(grey, tf.float32) / 255.0
        return tf.cast(tf.random.uniform(tf.shape(grey)) < grey, tf.float32)

    dataset = (
        tf.data.Dataset.from_tensor_slices(images)
        .shuffle(len(images))
        .repeat()
        .batch(BATCH)
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
                noise = keras.random.normal((k, BATCH, LATENTS), seed=self.seed_generator)
                z = mean + tf.exp(log_std) * noise
                logits = self.decoder(tf.reshape(z, (-1, LATENTS)), training=True)
                logits = tf.reshape(logits, (k, BATCH, PIXELS))
                target = tf.broadcast_to(tf.reshape(x, (1, BATCH, PIXELS)), logits.shape)
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


def _with(maker: Callable[..., Any], **settings: Any) -> Maker:
    return lambda order: maker(order, **settings)


def _torch(name: str, **settings: Any) -> Maker:
    def make(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
        from tools import bench_torch

        return getattr(bench_torch, name)(order, **settings)

    return make


CONTENDERS: dict[str, Maker] = {
    "tfgen": tfgen,
    "tfgen_jit": _with(tfgen, jit=True),
    "tfgen_bf16": _with(tfgen, precision="mixed_bfloat16"),
    "torch": _torch("iwae"),
    "torch_compile": _torch("iwae", compiled=True),
    "torch_bf16": _torch("iwae", bfloat16=True),
    "torch_compile_bf16": _torch("iwae", compiled=True, bfloat16=True),
    "keras": keras_plain,
    "tfgen_2_replicas": _with(tfgen, replicas=2),
    "gemm_tf": gemm_tf,
    "gemm_torch": _torch("gemm"),
    "tfgen_constant": _with(tfgen, constant=True),
    "tfgen_pipeline": tfgen_pipeline,
}


def serve(argv: Sequence[str]) -> int:
    """Answers orders until standard input ends; an error is an answer too."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not lie among the answers
    order = json.loads(argv[1])

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    try:
        run, facts = CONTENDERS[order["contender"]](order)
        answer(facts)
        for line in sys.stdin:
            steps = json.loads(line)["steps"]
            begun = time.process_time()
            found = run(steps)
            found["cpu_ms"] = round(1000.0 * (time.process_time() - begun) / steps, 4)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            answer({**found, "peak_mib": round(peak, 1)})
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
        raise
    return 0


def main(argv: Sequence[str]) -> int:
    """Serves; tfgen's contenders in the environment that tfgen's commands set up."""
    if json.loads(argv[1])["contender"].startswith("tfgen"):
        from tfgen import commands

        return commands.execute(serve, argv)
    return serve(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
