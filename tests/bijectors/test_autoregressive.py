"""MAF and IAF: inverses, log-dets against the Jacobian, order, densities, precision, files."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfgen import distributions
from tfgen.bijectors.autoregressive import InverseAutoregressive, MaskedAutoregressive
from tfgen.bijectors.batch_normalization import FlowBatchNormalization
from tfgen.bijectors.flow import AutoregressiveFlow
from tfgen.training import strategies


def random_flow(dimensions: int, scale: float = 0.3, **arguments) -> AutoregressiveFlow:
    """A flow whose weights are far from the beginning's, so that it does something."""
    flow = AutoregressiveFlow(dimensions, **{"blocks": 2, "hidden_units": (16, 16), **arguments})
    for index, variable in enumerate(flow.trainable_variables):
        variable.assign(variable + scale * tf.random.stateless_normal(variable.shape, [index, 5]))
    return flow


def points(count: int, dimensions: int, seed: int = 0) -> tf.Tensor:
    return tf.random.stateless_normal([count, dimensions], [seed, 1])


def jacobians(function, x: tf.Tensor) -> np.ndarray:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.batch_jacobian(y, x).numpy()


CASES = [
    {"kind": "masked"},
    {"kind": "masked", "batch_norm": True},
    {"kind": "inverse"},
    {"kind": "inverse", "blocks": 3},
]


@pytest.mark.parametrize("arguments", CASES)
def test_inverse_of_forward_is_the_identity(arguments) -> None:
    flow, u = random_flow(5, **arguments), points(7, 5)
    bijector = flow.bijector()
    x = tf.identity(bijector.forward(u))  # the identity hides it from the bijectors' caches
    np.testing.assert_allclose(flow.bijector().inverse(x), u, atol=1e-4)  # float32, 5 steps deep


@pytest.mark.parametrize("arguments", CASES)
def test_log_det_is_that_of_the_jacobian(arguments) -> None:
    flow, x = random_flow(5, **arguments), points(6, 5)
    forward, inverse = flow.bijector(), flow.bijector()
    expected = np.linalg.slogdet(jacobians(forward.forward, x))[1]
    np.testing.assert_allclose(forward.forward_log_det_jacobian(x, 1), expected, atol=1e-4)
    expected = np.linalg.slogdet(jacobians(inverse.inverse, x))[1]
    np.testing.assert_allclose(
        inverse.inverse_log_det_jacobian(x, 1) + np.zeros(6), expected, atol=1e-4
    )


@pytest.mark.parametrize("kind", ["masked", "inverse"])
def test_one_block_is_triangular_and_the_next_the_other_way_round(kind) -> None:
    flow, x = random_flow(4, blocks=2, kind=kind), points(3, 4)
    block = MaskedAutoregressive if kind == "masked" else InverseAutoregressive
    for network, upwards in zip(flow.networks, (True, False), strict=True):
        bijector = block(network)
        found = jacobians(bijector.inverse if kind == "masked" else bijector.forward, x)
        np.testing.assert_array_equal(
            found != 0, np.broadcast_to(np.tri(4) if upwards else np.tri(4).T, [3, 4, 4]) != 0
        )


@pytest.mark.parametrize("order", ["same", "random"])
@pytest.mark.parametrize("kind", ["masked", "inverse"])
def test_blocks_are_triangular_in_the_order_by_flag(kind, order) -> None:
    flow, x = random_flow(5, blocks=3, kind=kind, order=order, seed=4), points(20, 5)
    block = MaskedAutoregressive if kind == "masked" else InverseAutoregressive
    orders = []
    for network in flow.networks:
        bijector = block(network)
        found = jacobians(bijector.inverse if kind == "masked" else bijector.forward, x)
        found = (found != 0).any(axis=0)  # units may be dead at a point
        ranks = found.sum(axis=1) - 1  # how many others each dimension depends on
        assert sorted(ranks) == list(range(5))
        np.testing.assert_array_equal(found, ranks[:, None] >= ranks[None])
        orders.append(tuple(ranks))
    assert len(set(orders)) == (1 if order == "same" else 3)
    assert (orders[0] == tuple(range(5))) is (order == "same")
    np.testing.assert_allclose(flow.bijector().forward(flow.bijector().inverse(x)), x, atol=1e-4)
    assert AutoregressiveFlow.from_config(flow.get_config()).order == order
    with pytest.raises(ValueError, match="order must be one of .* Received: 'sorted'"):
        AutoregressiveFlow(5, order="sorted")


def test_iaf_by_hand() -> None:
    numbers = tf.constant([[[0.5, 0.2], [-1.0, -0.3]]])
    z = tf.constant([[2.0, -3.0]])
    raw = numbers[..., 1].numpy()
    gate = 1 / (1 + np.exp(-(raw / (1 + np.abs(raw) / 5) + 1.0)))
    bijector = InverseAutoregressive(lambda _: numbers, gate_bias=1.0)
    expected = gate * z.numpy() + (1 - gate) * numbers[..., 0].numpy()
    np.testing.assert_allclose(bijector.forward(z), expected, rtol=1e-6)
    np.testing.assert_allclose(
        bijector.forward_log_det_jacobian(z, 1), np.log(gate).sum(1), rtol=1e-6
    )


def test_a_context_has_leading_axes_that_broadcast() -> None:
    flow, context = random_flow(3, context=2, kind="inverse"), points(4, 2, seed=3)
    z = tf.random.stateless_normal([5, 4, 3], [0, 7])
    many = flow.bijector(context).forward(z)
    for row in range(5):
        np.testing.assert_allclose(many[row], flow.bijector(context).forward(z[row]), atol=1e-6)
    other = flow.bijector(context + 1.0).forward(z)
    assert (abs(other - many) > 1e-4).numpy().all()


@pytest.mark.parametrize("arguments", CASES)
def test_densities_in_the_plane_integrate_to_one(arguments) -> None:
    flow = random_flow(2, scale=0.2, **arguments)
    density = tfd.TransformedDistribution(distributions.StandardGaussian(2), flow.bijector())
    draws = density.sample(2000, seed=[1, 2]).numpy()
    # A box of 8 standard deviations of the draws holds all but nothing of the mass.
    middle, reach = draws.mean(0), 8 * draws.std(0)
    axes = [
        np.linspace(m - r, m + r, 801, dtype=np.float32) for m, r in zip(middle, reach, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    total = np.exp(np.float64(density.log_prob(grid))).sum() * cell
    assert total == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("arguments", CASES)
def test_draws_tell_their_density(arguments) -> None:
    flow = random_flow(3, **arguments)
    density = tfd.TransformedDistribution(distributions.StandardGaussian(3), flow.bijector())
    draws, log_prob = density.experimental_sample_and_log_prob([6], seed=[1, 2])
    again = tfd.TransformedDistribution(distributions.StandardGaussian(3), flow.bijector())
    np.testing.assert_allclose(again.log_prob(tf.identity(draws)), log_prob, atol=1e-3)


@pytest.mark.parametrize("arguments", CASES)
def test_log_prob_is_finite_far_out(arguments) -> None:
    flow = random_flow(3, scale=1.0, **arguments)
    density = tfd.TransformedDistribution(distributions.StandardGaussian(3), flow.bijector())
    for reach in (1e2, 1e4):
        far = reach * tf.constant([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, 1.0, 1.0]])
        assert np.isfinite(density.log_prob(far)).all(), reach


def test_networks_in_bfloat16_have_float32_log_dets() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        flow = AutoregressiveFlow(3, hidden_units=(16,))
    finally:
        keras.config.set_dtype_policy("float32")
    assert flow.networks[0].compute_dtype == "bfloat16"
    bijector = flow.bijector()
    assert bijector.inverse(points(4, 3)).dtype == tf.float32
    assert bijector.inverse_log_det_jacobian(points(4, 3), 1).dtype == tf.float32


def test_other_bijectors_chain_with_it() -> None:
    flow, x = random_flow(2), tf.sigmoid(points(5, 2))
    chained = tfb.Chain([tfb.Sigmoid(), flow.bijector()])
    logits = tfb.Sigmoid().inverse(x)
    np.testing.assert_allclose(chained.inverse(x), flow.bijector().inverse(logits), rtol=1e-6)
    expected = flow.bijector().inverse_log_det_jacobian(logits, 1) + tf.reduce_sum(
        tfb.Sigmoid().inverse_log_det_jacobian(x, 0), -1
    )
    np.testing.assert_allclose(chained.inverse_log_det_jacobian(x, 1), expected, rtol=1e-5)


def test_batch_normalization_by_hand() -> None:
    layer, x = FlowBatchNormalization(2, momentum=0.9, epsilon=0.0), points(50, 2) * 3.0 + 1.0
    layer.gamma.assign([0.5, -0.2])
    layer.beta.assign([1.0, 2.0])
    bijector = layer.bijector(training=True)
    mean, std = x.numpy().mean(0), x.numpy().std(0)
    expected = (x - mean) / std * np.exp([0.5, -0.2]) + [1.0, 2.0]
    np.testing.assert_allclose(bijector.inverse(x), expected, atol=1e-5)
    np.testing.assert_allclose(
        bijector.inverse_log_det_jacobian(x, 1), 0.3 - np.log(std).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(layer.mean, 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.variance, 0.9 + 0.1 * std**2, rtol=1e-5)
    layer.settle(mean, std**2)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_settling_takes_the_statistics_of_the_whole_set_block_by_block() -> None:
    flow, x = random_flow(2, batch_norm=True, blocks=3), points(40, 2) * 2.0
    flow.settle(lambda: [(x[:25], None), (x[25:], None)])
    at_once = flow.bijector(training=True)
    np.testing.assert_allclose(flow.bijector().inverse(x), at_once.inverse(x), atol=1e-4)


def test_settling_leaves_nothing_of_the_set_in_memory() -> None:
    flow, batches = random_flow(2, batch_norm=True, blocks=2), [points(3, 2), points(4, 2)]
    flow.settle(lambda: [(x, None) for x in batches])
    gc.collect()
    gc.disable()  # What waits in cycles for a collection is memory of which Python knows little.
    try:
        before = sum(isinstance(found, tf.Tensor) for found in gc.get_objects())
        seen = [weakref.ref(x) for x in batches]
        flow.settle(lambda: [(x, None) for x in batches])
        batches.clear()
        assert [ref() for ref in seen] == [None, None]
        assert sum(isinstance(found, tf.Tensor) for found in gc.get_objects()) <= before
    finally:
        gc.enable()


def test_saved_and_reloaded_as_a_layer(tmp_path) -> None:
    flow = random_flow(3, batch_norm=True)
    model = keras.Sequential([keras.Input((3,)), flow])
    model.save(tmp_path / "flow.keras")
    twin = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(twin(points(4, 3)), model(points(4, 3)))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kind must be one of .* Received: 'affine'"):
        AutoregressiveFlow(2, kind="affine")
    with pytest.raises(ValueError, match="blocks must be 1 or more. Received: blocks=0"):
        AutoregressiveFlow(2, blocks=0)
    with pytest.raises(ValueError, match="batch_norm is for a masked flow"):
        AutoregressiveFlow(2, kind="inverse", batch_norm=True, hidden_units=(4,))
    with pytest.raises(ValueError, match="has a context of 2 dimensions. Received: context=none"):
        AutoregressiveFlow(2, context=2, hidden_units=(4,)).bijector()


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", ["masked", "inverse"])
def test_a_flow_is_called_in_half_precision(kind, precision) -> None:
    keras.config.set_dtype_policy(precision)
    try:
        flow = AutoregressiveFlow(2, blocks=2, hidden_units=(8,), kind=kind, context=3)
        x = keras.Input((2,), dtype=keras.config.dtype_policy().compute_dtype)
        condition = keras.Input((3,))
        model = keras.Model([x, condition], flow(x, context=condition))
        made = model([np.float16(points(5, 2)), np.zeros((5, 3), np.float32)])
    finally:
        keras.config.set_dtype_policy("float32")
    assert made.dtype == tf.float32
    assert np.isfinite(made).all()


def test_networks_have_the_precision_of_their_flow() -> None:
    flow = AutoregressiveFlow(2, blocks=1, hidden_units=(8,), context=3, dtype="mixed_bfloat16")
    layers = [x for x in flow.networks[0].layers if not isinstance(x, keras.layers.InputLayer)]
    precisions = {x.compute_dtype for x in layers if x.weights}
    assert precisions == {"bfloat16"}
    twin = AutoregressiveFlow.from_config(flow.get_config())
    assert twin.networks[0].get_layer("hidden_1").compute_dtype == "bfloat16"


def test_batch_norm_takes_float64_data() -> None:
    layer, x = FlowBatchNormalization(2, epsilon=0.0), points(50, 2)
    np.testing.assert_array_equal(layer(np.float64(x)), layer(np.float32(np.float64(x))))


def test_batch_norm_of_replicas_far_from_0_is_that_of_one() -> None:
    x = np.float32(1000.0 + 0.1 * np.random.default_rng(0).normal(size=(64, 2)))
    one = FlowBatchNormalization(2)
    expected = one(x, training=True)
    strategy = strategies.make("mirrored", devices=2)
    with strategy.scope():
        layer = FlowBatchNormalization(2)

    def half(context):
        return tf.constant(x)[32 * context.replica_id_in_sync_group :][:32]

    parts = strategy.experimental_distribute_values_from_function(half)
    made = strategy.run(layer, args=(parts,), kwargs={"training": True})
    found = np.concatenate([y.numpy() for y in strategy.experimental_local_results(made)])
    np.testing.assert_allclose(found, expected, atol=2e-2)
    np.testing.assert_allclose(layer.variance, one.variance, rtol=1e-2)
