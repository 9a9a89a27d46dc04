"""CycleGAN: its losses by hand, the pool, exact resume in the decay, replicas with one pool."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.models.translation import cyclegan
from tfgen.training import checkpoint, strategies

SHAPES = {"a": (8, 8, 3), "b": (8, 8, 3)}
SMALL = cyclegan.HParams(
    batch_size=2, patch="16", filters=2, discriminator_filters=2, blocks=1, steps=12,
    decay_from=0.25, pool_size=7, resize=None, crop=None, flip=False,
)  # fmt: skip


def build(shapes=None, **flags):
    shapes = shapes or SHAPES
    kinds = dict.fromkeys(shapes, "float32")
    spec = DataSpec("unpaired", shapes, kinds, "symmetric", None, 20, 5, 5)
    return cyclegan.build(dataclasses.replace(SMALL, **flags), spec)


def rows(step, size=2):
    return {
        key: tf.random.stateless_uniform([size, *shape], [step, index], -1, 1)
        for index, (key, shape) in enumerate(SHAPES.items())
    }


def stream(start=0, size=2):
    def generate():
        for step in range(start, 1000):
            yield rows(step, size)

    kinds = {k: tf.TensorSpec([size, *s]) for k, s in SHAPES.items()}
    return iter(tf.data.Dataset.from_generator(generate, output_signature=kinds))


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_losses_are_those_of_the_docstring(norm) -> None:
    """By whatever statistics: images of one domain know nothing of those of the other."""
    model, data = build(norm=norm), rows(0)
    a, b = data["a"], data["b"]
    total, logs, (fake_a, fake_b) = model.generator_loss(a, b, training=True)

    def training(network):
        return lambda x: network(x, training=True).numpy()

    g, f = training(model.generator_ab), training(model.generator_ba)
    judge_a, judge_b = training(model.discriminator_a), training(model.discriminator_b)
    np.testing.assert_array_equal(fake_b, g(a))
    np.testing.assert_array_equal(fake_a, f(b))
    on_a, on_b = judge_a(f(b)), judge_b(g(a))
    game = np.square(on_a - 1).mean() + np.square(on_b - 1).mean()
    cycle = np.abs(f(g(a)) - a).mean() + np.abs(g(f(b)) - b).mean()
    identity = np.abs(f(a) - a).mean() + np.abs(g(b) - b).mean()
    assert float(total) == pytest.approx(game + 10 * cycle + 5 * identity, rel=1e-4)
    assert float(logs["cycle_a"] + logs["cycle_b"]) == pytest.approx(cycle, rel=1e-4)
    real = judge_a(a)
    loss, _ = model.judge_loss(lambda x: model.judge("a", x), a, fake_a, 0)
    expected = np.square(real - 1).mean() / 2 + np.square(on_a).mean() / 2
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "flags",
    [
        {"cycle_weight": 0.0},
        {"identity_weight": 0.0},
        {"objective": "wasserstein", "penalty": "gradient_penalty", "adversarial_weight": 1.0},
        {"norm": "batch", "discriminator_norm": "none", "pool_size": 0},
    ],
)
def test_other_games_by_flags(flags) -> None:
    model = build(**flags)
    before = [v.numpy() for v in model.trainable_variables]
    for logs in model.run_steps(stream(), 3):
        assert all(np.isfinite(v) for v in logs.values())
        assert ("identity_a" in logs) == (flags.get("identity_weight", 5.0) > 0)
        assert ("penalty" in logs) == ("penalty" in flags)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert not np.array_equal(variable.numpy(), old), variable.path


def images(*values):
    return tf.constant(values, tf.float32)[:, None, None, None]


def test_a_pool_fills_then_hands_out_what_it_was_given() -> None:
    pool = cyclegan.ImagePool(5, (1, 1, 1))
    given, shown_again, fresh = set(), 0, 0
    for step in range(200):
        fake = images(2 * step, 2 * step + 1)
        shown = pool.exchange(fake, tf.constant([0, step])).numpy().ravel()
        kept = pool.images.numpy().ravel()[: int(pool.count)]
        assert int(pool.count) == min(2 * step + 2, 4)  # whole batches alone
        if step < 2:
            np.testing.assert_array_equal(shown, fake.numpy().ravel())
        for value, new in zip(shown, fake.numpy().ravel(), strict=True):
            assert value in given | {new}
            # What is shown for a kept fake leaves the pool, and the fake is in it.
            assert step < 2 or (value == new) != (new in kept)
            shown_again += value != new
            fresh += value == new
        given |= set(fake.numpy().ravel())
        assert len(set(kept)) == len(kept)
    # 396 coins; four standard errors are 40.
    assert shown_again == pytest.approx(198, abs=40)
    assert fresh == 400 - shown_again


def test_a_pool_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="--pool_size must be at least the batch size"):
        build(pool_size=1)
    with pytest.raises(ValueError, match="Received: --pool_size=2 for 3 fakes"):
        cyclegan.ImagePool(2, (1, 1, 1)).exchange(images(1, 2, 3), tf.constant([0, 0]))


def test_a_pool_wants_batches_of_one_size_and_images_of_one_shape() -> None:
    model = build()
    data = tf.data.Dataset.from_tensor_slices(rows(0, 5))
    with pytest.raises(ValueError, match="batch with drop_remainder=True"):
        model.fit(data.batch(2), verbose=0)
    model.fit(data.batch(2, drop_remainder=True), verbose=0)
    with pytest.raises(ValueError, match=r"\(8, 8, 3\), as .* Received: \(12, 8, 3\)"):
        model.pools["a"].exchange(tf.zeros([2, 12, 8, 3]), tf.constant([0, 0]))


def test_resumes_to_the_bit_in_the_decay_with_a_half_full_pool(tmp_path) -> None:
    """The 8 issues of the most used peer: optimisers, step size and pool are all in it."""
    whole, first, second = (build(pool_size=20) for _ in range(3))
    logs = whole.run_steps(stream(), 10)
    first.run_steps(stream(), 5)  # of 12, the line begins at 3
    assert 0 < int(first.pools["a"].count) < 20
    checkpoint.save(tmp_path, first, {}, keep=1)
    checkpoint.restore(tmp_path, second)
    rate = second.optimizers["generator"].learning_rate
    assert float(rate) == pytest.approx(2e-4 * (1 - (5 - 3) / 9), rel=1e-6)
    assert second.run_steps(stream(start=5), 5) == logs[5:]
    ours, theirs = second.state_variables(), whole.state_variables()
    assert "pool/a/images" in ours
    for name, variable in ours.items():
        np.testing.assert_array_equal(variable.numpy(), theirs[name].numpy(), err_msg=name)


def test_two_replicas_share_one_pool_and_move_as_one_device_does() -> None:
    strategy = strategies.make("mirrored", devices=2)
    with strategy.scope():
        both = build(pool_size=4)
    alone = build(pool_size=4)
    data = [rows(step) for step in range(5)]

    def parts(context):
        halves = [{k: v[i : i + 1] for k, v in row.items()} for row in data for i in (0, 1)]
        joined = {k: tf.concat([h[k] for h in halves], 0) for k in SHAPES}
        return tf.data.Dataset.from_tensor_slices(joined).batch(1, drop_remainder=True)

    # Without penalties and dropout no draw is a replica's own.
    with strategy.scope():
        mirrored = both.run_steps(iter(strategy.distribute_datasets_from_function(parts)), 5)
    single = alone.run_steps(stream(), 5)
    for ours, theirs in zip(mirrored, single, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    for ours, theirs in zip(both.trainable_variables, alone.trainable_variables, strict=True):
        # Adam divides gradients near 0 by their size, so that rounding is seen.
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=2e-5, err_msg=ours.path)
    for pool in both.pools.values():
        kept = [np.array(x) for x in strategy.experimental_local_results(pool.images)]
        np.testing.assert_array_equal(*kept)
        assert int(strategy.experimental_local_results(pool.count)[0]) == 4


def test_domains_of_different_channels() -> None:
    shapes = {"a": (8, 8, 1), "b": (8, 8, 3)}
    with pytest.raises(ValueError, match="identity_weight=0. Received: 1 and 3 channels"):
        build(shapes)
    model = build(shapes, identity_weight=0.0)
    assert model.translate(tf.zeros([1, 9, 30, 1])).shape == (1, 9, 30, 3)
    assert model.translate_back(tf.zeros([1, 9, 30, 3])).shape == (1, 9, 30, 1)


def test_training_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="must be at least 8.* Received: 6x8"):
        build({"a": (6, 8, 3), "b": (6, 8, 3)})
