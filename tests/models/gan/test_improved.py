"""Semi-supervised GAN: its losses by hand, which labels it uses, the start by data."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.layers.gaussian_noise import GaussianNoise
from tfgen.layers.weight_norm_dense import WeightNormDense
from tfgen.metrics import classification
from tfgen.metrics.measure import Settings
from tfgen.models.gan import improved

CLASSES, PER_CLASS = 3, 2


def flags(**others) -> improved.HParams:
    small = {"hidden_units": (8, 6), "generator_units": (5,), "latent_dim": 4, "batch_size": 12}
    return improved.HParams(**{**small, "labels_per_class": PER_CLASS, "steps": 9, **others})


def spec(classes: int | None = CLASSES) -> DataSpec:
    shapes = {"image": (4, 4, 1), "label": ()}
    dtypes = {"image": "float32", "label": "int32"}
    return DataSpec("x", shapes, dtypes, "symmetric", classes, 24, 9, 9)


def examples(count: int = 24) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    image = random.uniform(-1, 1, (count, 4, 4, 1)).astype(np.float32)
    return {"image": image, "label": np.int32(random.permutation(count) % CLASSES)}


def batches(size: int = 7) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(examples()).batch(size)


def ready(**others) -> improved.SemiSupervisedGAN:
    model = improved.build(flags(**others), spec())
    model.adapt(batches())
    return model


def one_batch(size: int = 12) -> dict[str, tf.Tensor]:
    return {k: tf.constant(v[:size]) for k, v in examples().items()}


# The labelled examples.


def test_labelled_examples_are_examples_of_their_classes() -> None:
    model, data = ready(), examples()
    labels = model.labelled.labels.numpy()
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    rows = [int(np.flatnonzero((data["image"] == x).all((1, 2, 3)))[0])
            for x in model.labelled.images.numpy()]  # fmt: skip
    assert len(set(rows)) == 6
    assert data["label"][rows].tolist() == labels.tolist()


def test_labels_of_the_batch_are_not_used() -> None:
    model, batch = ready(), one_batch()
    other = {**batch, "label": (batch["label"] + 1) % CLASSES}
    losses = []
    for some in (batch, other):
        for layer in model.discriminator.layers:
            if isinstance(layer, GaussianNoise):
                layer.calls.assign(0)
        losses.append(float(model.discriminator_loss(some)[0]))
    assert losses[0] == losses[1]


def test_without_adapt_there_is_nothing_to_learn_from() -> None:
    model = improved.build(flags(), spec())
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"call adapt\(\) before fit"):
        model.discriminator_loss(one_batch())


# Losses.


def test_losses_by_hand() -> None:
    model, batch = ready(input_noise=0.0, hidden_noise=0.0), one_batch()
    fake = model.generate(12, 2)
    real, made, labelled = (
        np.float64(model.discriminator(x)) for x in (batch["image"], fake, model.labelled.images)
    )
    z_real, z_fake, z_labelled = (np.exp(x).sum(1) for x in (real, made, labelled))
    picked = np.exp(labelled)[np.arange(6), model.labelled.labels.numpy()]
    expected = (
        -np.mean(np.log(picked / z_labelled))
        - 0.5 * np.mean(np.log(z_real / (z_real + 1)))
        - 0.5 * np.mean(np.log(1 / (z_fake + 1)))
    )
    loss, logs = model.discriminator_loss(batch)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    wrong = np.mean(labelled.argmax(1) != model.labelled.labels.numpy())
    assert float(logs["labelled_error"]) == pytest.approx(wrong)
    plain = improved.build(flags(unsupervised_weight=0.0), spec())
    assert plain.unsupervised_weight == 0.0


def test_k_plus_1_classes_with_the_last_logit_0_are_the_same_game() -> None:
    # -log p(fake | x) over K + 1 logits (l, 0) is -log(1 - D(x)), and -log(1 - p(fake)) is -log D.
    model = ready()
    logits = model.class_logits(one_batch()["image"], training=False)
    with_fake = tf.nn.softmax(tf.pad(logits, [[0, 0], [0, 1]]))
    judged = tf.sigmoid(model.judge(one_batch()["image"], training=False))
    np.testing.assert_allclose(1.0 - with_fake[:, -1], judged[:, 0], rtol=1e-5)


def test_the_generator_matches_the_mean_of_the_last_hidden_layer() -> None:
    model, batch = ready(input_noise=0.0, hidden_noise=0.0), one_batch()
    layer = model.discriminator.get_layer("features")
    body = keras.Model(model.discriminator.inputs, layer.output)
    wanted, got = (np.array(body(x)).mean(0) for x in (batch["image"], model.generate(12, 3)))
    loss, _ = model.generator_loss(batch)
    assert float(loss) == pytest.approx(0.004 * np.sum((wanted - got) ** 2), rel=1e-5)
    both = ready(input_noise=0.0, hidden_noise=0.0, adversarial_weight=2.0)
    total, logs = both.generator_loss(batch)
    expected = 2.0 * logs["generator_loss"] + 0.004 * logs["feature_distance"]
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    without = ready(feature_matching_layer=None, adversarial_weight=1.0)
    assert set(without.generator_loss(batch)[1]) == {"generator_loss"}


def test_only_the_intended_player_moves() -> None:
    model = ready()
    for mover, loss, resting in (
        ("discriminator", model.discriminator_loss, model.generator),
        ("generator", model.generator_loss, model.discriminator),
    ):
        before = [v.numpy() for v in resting.trainable_variables]
        model.move(mover, loss, one_batch())
        for old, new in zip(before, resting.trainable_variables, strict=True):
            np.testing.assert_array_equal(old, new.numpy())


# The start, and the test.


def test_weight_norm_starts_by_the_data() -> None:
    model = ready(input_noise=0.0, hidden_noise=0.0)
    logits = model.class_logits(examples()["image"], training=False)
    np.testing.assert_allclose(np.mean(logits, 0), np.zeros(CLASSES), atol=1e-5)
    np.testing.assert_allclose(np.std(logits, 0), np.ones(CLASSES), atol=1e-4)


def test_widths_noise_and_weights_that_are_trained() -> None:
    model = improved.build(improved.HParams(), spec())
    layers = model.discriminator.layers
    dense = [x for x in layers if isinstance(x, WeightNormDense)]
    assert [x.units for x in dense] == [1000, 500, 250, 250, 250, CLASSES]
    assert [x.train_scale for x in dense] == [False] * 5 + [True]
    noise = [x for x in layers if isinstance(x, GaussianNoise)]
    assert [x.stddev for x in noise] == [0.3] + [0.5] * 5
    assert len({x.seed for x in noise}) == 6


def test_fakes_and_features_begin_on_the_scale_of_the_data() -> None:
    # Directions of mean 0: else all pixels begin saturated, and D's units die of such fakes.
    model = improved.build(improved.HParams(), spec())
    assert abs(np.mean(model.discriminator.get_layer("hidden_1").direction)) < 0.01
    fakes = model.generator(model.draw_latents(50, [0, 1]), training=True).numpy()
    assert abs(fakes.mean()) < 0.5
    assert np.abs(fakes).max() < 0.999


def test_it_learns_classes_from_few_labels() -> None:
    # Three classes, each a bright row, under noise: 2 labels a class and many examples without.
    random = np.random.RandomState(1)
    label = np.int32(np.arange(300) % CLASSES)
    image = 0.3 * random.normal(size=(300, 4, 4, 1))
    image[np.arange(300), label] += 1.0
    data = {"image": np.clip(image - 0.5, -1, 1).astype(np.float32), "label": label}
    model = improved.build(flags(hidden_units=(32, 32), batch_size=30, hidden_noise=0.1), spec())
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(30)
    model.adapt(dataset)
    model.run_steps(iter(dataset.repeat()), 100)
    logs = model.evaluate(dataset, verbose=0, return_dict=True)
    assert logs["error"] < 0.1

    class OneSplit:
        def batches(self, split, size, limit=None):
            return tf.data.Dataset.from_tensor_slices(data).batch(size)

    measure = classification.error(model, OneSplit(), Settings())["classification_error"]
    assert measure.value == pytest.approx(logs["error"], abs=1e-6)
    np.testing.assert_allclose(np.sum(model.classify(data["image"][:5]), 1), np.ones(5), rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels_per_class": 0}, "--labels_per_class must be more than 0"),
        ({"unsupervised_weight": -1.0}, "--unsupervised_weight must be 0 or more"),
        ({"data": "ring8"}, "images with labels, e.g. --data=digits. Received: --data=ring8"),
    ],
)
def test_wrong_flags_are_named(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        improved.HParams(**wrong)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="must have labels. Received: 'x' without classes"):
        improved.build(flags(), spec(classes=None))
    generator, discriminator = improved.networks((4, 4, 1), CLASSES, flags())
    with pytest.raises(ValueError, match="labels_per_class must be 1 or more. Received: 0"):
        improved.SemiSupervisedGAN(generator, discriminator, labels_per_class=0)
    one = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"2 classes or more. Received: output \(1,\)"):
        improved.SemiSupervisedGAN(generator, one)
