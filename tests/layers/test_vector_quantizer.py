"""Vector quantisation: nearest codes, gradients, averages, restarts, in somebody's own model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.vector_quantizer import VectorQuantizer
from tfgen.training import strategies

FORMS = pytest.mark.parametrize("decay", [0.9, None])


def make(dimensions: int = 3, **arguments) -> VectorQuantizer:
    layer = VectorQuantizer(**{"num_codes": 7, **arguments})
    layer.build((None, dimensions))
    return layer


def vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def search(z: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return ((z[..., np.newaxis, :].astype(np.float64) - codes) ** 2).sum(-1).argmin(-1)


@FORMS
def test_indices_are_those_of_a_search(decay: float | None) -> None:
    layer, z = make(decay=decay), vectors(5, 4, 6, 3)
    codes = layer.codebook.numpy()
    expected = search(z, codes)
    assert len(np.unique(expected)) > 3
    found = layer.nearest(z)
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_array_equal(layer.indices(z), expected)
    np.testing.assert_array_equal(layer.embed(expected), codes[expected])
    np.testing.assert_allclose(layer(z), codes[expected], atol=1e-6)
    share = np.bincount(expected.ravel(), minlength=7) / expected.size
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    assert float(found.perplexity) == pytest.approx(np.exp(entropy), rel=1e-5)


def test_perplexity_goes_from_one_to_all() -> None:
    layer = make(dimensions=2, num_codes=4)
    corners = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]])
    layer.sums.assign(corners)
    assert float(layer.nearest(corners + 0.1).perplexity) == pytest.approx(4.0)
    assert float(layer.nearest(corners[:1].repeat(5, 0)).perplexity) == pytest.approx(1.0)


@FORMS
def test_gradients_are_the_paper_s(decay: float | None) -> None:
    layer, z = make(decay=decay), tf.constant(vectors(8, 3))
    weights = vectors(8, 3, seed=1)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        found = layer.nearest(z)
        value = tf.reduce_sum(weights * found.codes)
    codes = layer.codebook.numpy()[search(z.numpy(), layer.codebook.numpy())]
    np.testing.assert_allclose(tape.gradient(value, z), weights)
    np.testing.assert_allclose(
        tape.gradient(found.commitment, z), 2 * (z.numpy() - codes) / z.numpy().size, rtol=1e-4
    )
    assert tape.gradient(found.codebook, z) is None
    if decay is None:
        table = layer.trainable_variables[0].value
        gradient = tf.convert_to_tensor(tape.gradient(found.codebook, table)).numpy()
        expected = np.zeros_like(gradient)
        np.add.at(expected, found.indices.numpy(), 2 * (codes - z.numpy()) / z.numpy().size)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)
        assert tape.gradient(found.commitment, table) is None
        assert tape.gradient(value, table) is None
    else:
        assert not layer.trainable_variables
        assert float(found.codebook) == 0


def test_averages_follow_the_vectors_in_training_alone() -> None:
    layer, z = make(decay=0.9), vectors(50, 3)
    start, sums = layer.codebook.numpy(), layer.sums.numpy().astype(np.float64)
    layer(z)
    np.testing.assert_array_equal(layer.codebook, start)
    counts = np.ones(7)
    for _ in range(3):
        taken = search(z, layer.codebook.numpy())
        layer(z, training=True)
        ones = np.eye(7)[taken]
        counts, sums = 0.9 * counts + 0.1 * ones.sum(0), 0.9 * sums + 0.1 * ones.T @ z
        np.testing.assert_allclose(layer.codebook, sums / counts[:, np.newaxis], rtol=1e-4)
    for _ in range(300):
        layer(z, training=True)
    taken = search(z, layer.codebook.numpy())
    for code in np.unique(taken):  # k-means, when nothing moves any more
        np.testing.assert_allclose(layer.codebook[code], z[taken == code].mean(0), atol=1e-4)


def test_a_code_that_nothing_takes_keeps_its_place() -> None:
    layer, z = make(decay=0.5, dimensions=1, num_codes=2), np.zeros((4, 1), np.float32)
    layer.sums.assign([[0.1], [9.0]])
    for _ in range(300):  # 2^-300 is 0 in float32
        layer(z, training=True)
    assert layer.codebook.numpy()[1] == pytest.approx(9.0, rel=1e-4)


def test_dead_codes_become_vectors_of_the_batch() -> None:
    used = {}
    for threshold in (0.0, 0.5):
        layer = make(dimensions=2, num_codes=16, decay=0.9, restart_below=threshold, seed=4)
        layer.sums.assign(100.0 + vectors(16, 2))  # far from all vectors
        for step in range(60):
            layer(vectors(64, 2, seed=step), training=True)
        indices = layer.indices(vectors(500, 2, seed=99)).numpy()
        used[threshold] = len(np.unique(indices))
    assert used[0.0] <= 3
    assert used[0.5] == 16


def test_restarts_are_of_the_seed() -> None:
    found = []
    for seed in (4, 4, 5):
        layer = make(num_codes=16, restart_below=2.0, seed=4)
        layer.seed = seed
        for step in range(3):
            layer(vectors(20, 3, seed=step), training=True)
        found.append(layer.codebook.numpy())
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 0.1


@FORMS
def test_replicas_share_their_averages(decay: float | None) -> None:
    z, books = vectors(8, 3), []
    for count in (1, 2):
        kind = "none" if count == 1 else "mirrored"
        strategy = strategies.make(kind, devices=count)
        with strategy.scope():
            layer = make(num_codes=5, decay=decay, restart_below=1.0 if decay else 0.0)

        @tf.function
        def step(rows, layer=layer):
            layer(rows, training=True)

        for _ in range(3):
            parts = strategy.experimental_distribute_values_from_function(
                lambda context, n=8 // count: tf.constant(
                    z[context.replica_id_in_sync_group * n :][:n]
                )
            )
            strategy.run(step, args=(parts,))
        values = layer.sums.value if decay else layer.table.value
        copies = [v.numpy() for v in strategy.experimental_local_results(values)]
        np.testing.assert_array_equal(copies[0], copies[-1])
        books.append(layer.codebook.numpy())
    alive = ~np.isclose(*books).all(1)
    # Restarted codes are of the first replica's vectors, which are others in another number.
    rows = {row.tobytes() for row in z}
    assert all(book.tobytes() in rows for book in books[1][alive])


@FORMS
def test_in_a_plain_keras_model_saved_and_reloaded(tmp_path, decay: float | None) -> None:
    model = keras.Sequential([
        keras.Input((4,)), keras.layers.Dense(6), keras.layers.Reshape((2, 3)),
        VectorQuantizer(8, decay=decay, name="codes"), keras.layers.Flatten(),
        keras.layers.Dense(4),
    ])  # fmt: skip
    x = vectors(200, 4)

    def error() -> float:
        return float(np.mean((model.predict(x, verbose=0) - x) ** 2))

    model.compile(keras.optimizers.Adam(0.02), "mse")
    before = error()
    model.fit(x, x, epochs=30, verbose=0)
    assert error() < 0.7 * before
    assert model.evaluate(x, x, verbose=0) > 1.05 * error()  # the quantiser's part is in the loss
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin.predict(x, verbose=0), model.predict(x, verbose=0))


@FORMS
def test_compiled_by_xla(decay: float | None) -> None:
    layers = [make(decay=decay, restart_below=0.5 if decay else 0.0) for _ in range(2)]
    call = tf.function(lambda z: layers[1](z, training=True), jit_compile=True)
    for step in range(3):
        z = tf.constant(vectors(20, 3, seed=step))
        np.testing.assert_allclose(call(z), layers[0](z, training=True), atol=1e-5)
    np.testing.assert_allclose(layers[1].codebook, layers[0].codebook, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_codes_are_float32_inside_a_call_in_mixed_precision(decay) -> None:
    layer = make(dtype="mixed_bfloat16", decay=decay)

    class Other(keras.layers.Layer):
        def call(self, inputs):
            return layer.codebook

    np.testing.assert_array_equal(Other(dtype="mixed_bfloat16")(tf.zeros([1])), layer.codebook)


def test_distances_are_float32_in_mixed_precision() -> None:
    layer = make(dtype="mixed_bfloat16", num_codes=50)
    z = vectors(100, 3)
    np.testing.assert_array_equal(layer.indices(z), search(z, layer.codebook.numpy()))
    assert layer(z).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_codes": 1}, "num_codes must be 2 or more. Received: num_codes=1"),
        ({"commitment": -1.0}, "commitment must be 0 or more. Received: commitment=-1.0"),
        ({"decay": 1.0}, "decay must be between 0 and 1. Received: decay=1.0"),
        ({"restart_below": 1.0, "decay": None}, "0 without decay. Received: restart_below=1.0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)
    with pytest.raises(ValueError, match="the last axis must be known"):
        VectorQuantizer(4).build((None, None))


def test_codes_far_from_0_are_told_apart() -> None:
    layer = VectorQuantizer(64, decay=None)
    random = np.random.default_rng(0)
    codes, z = (np.float32(1e4 + random.normal(size=(n, 8))) for n in (64, 1000))
    layer.build(z.shape)
    layer.table.assign(codes)
    wide = np.square(np.float64(z)[:, None] - np.float64(codes)).sum(-1)
    np.testing.assert_array_equal(layer.indices(z), wide.argmin(1))
