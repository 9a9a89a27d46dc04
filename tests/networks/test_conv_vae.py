"""Convolutional encoder and decoder with further vectors: shapes, seeds, saving, bad sides."""

import keras
import numpy as np
import pytest

from tfgen.networks.conv_vae import decoder, encoder


def test_shapes_level_by_level() -> None:
    network = encoder((16, 24, 3), [5, 2], (4, 6, 8), 10, 7)
    maps = [tuple(x.output.shape[1:]) for x in network.layers if "pooling" in x.name]
    assert maps == [(8, 12, 4), (4, 6, 6), (2, 3, 8)]
    assert network.output_shape == (None, 14)
    assert [tuple(x.shape[1:]) for x in network.inputs] == [(16, 24, 3), (5,), (2,)]
    network = decoder([7, 5], (16, 24, 3), (4, 6, 8), 10)
    maps = [tuple(x.output.shape[1:]) for x in network.layers if "conv2d" in x.name]
    assert maps == [(4, 6, 8), (8, 12, 6), (16, 24, 4), (16, 24, 3)]
    kernels = [x.kernel_size for x in network.layers if "conv2d" in x.name]
    assert kernels == [(3, 3), (5, 5), (5, 5), (5, 5)]


def test_vectors_count() -> None:
    image, vector = np.ones((2, 8, 8, 1), np.float32), np.ones((2, 3), np.float32)
    network = encoder((8, 8, 1), [3], (4,), 5, 2)
    one, other = (network([image, vector * scale]).numpy() for scale in (1, 2))
    assert not np.allclose(one, other)
    alone = decoder([3], (8, 8, 1), (4,), 5)
    assert not np.allclose(alone(vector), alone(2 * vector))


def test_weights_are_of_the_seed() -> None:
    one, again, other = (decoder([3], (8, 8, 1), (4,), 5, seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(one.weights, again.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        assert "kernel" not in a.path or not np.array_equal(a.numpy(), c.numpy())
    kernels = [w.numpy() for w in one.weights if "kernel" in w.path]
    assert len({kernel.std() for kernel in kernels}) == len(kernels)


def test_inside_a_keras_model(tmp_path) -> None:
    image, vector = keras.Input((8, 8, 1)), keras.Input((3,))
    code = encoder((8, 8, 1), [3], (4,), 5, 2)([image, vector])
    rebuilt = decoder([4, 3], (8, 8, 1), (4,), 5)([code, vector])
    model = keras.Model([image, vector], rebuilt)
    given = [np.ones((2, 8, 8, 1), np.float32), np.ones((2, 3), np.float32)]
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin(given), model(given))


@pytest.mark.parametrize(("side", "filters"), [(10, (4, 4)), (8, ()), (8, (4, 4, 4, 4))], ids=str)
def test_wrong_sides_are_named(side: int, filters: tuple[int, ...]) -> None:
    for make in (
        lambda: encoder((8, side, 1), [3], filters, 5, 2),
        lambda: decoder([3], (side, 8, 1), filters, 5),
    ):
        with pytest.raises(ValueError, match=r"divide by 2 for each of the filters.*Received: im"):
            make()
