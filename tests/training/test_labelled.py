"""Which examples of a semi-supervised model are labelled, and how they are drawn."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.data import DataError
from tfgen.training import labelled

CLASSES, PER_CLASS = 3, 2


def examples(count: int = 24) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    image = random.uniform(0, 1, (count, 4, 4, 1)).astype(np.float32)
    return {"image": image, "label": np.int32(random.permutation(count) % CLASSES)}


def ready(batch_size: int = 7) -> tuple[keras.Model, labelled.LabelledExamples]:
    model = keras.Model()
    few = labelled.LabelledExamples(model, CLASSES, PER_CLASS, (4, 4, 1))
    few.adapt(tf.data.Dataset.from_tensor_slices(examples()).batch(batch_size), seed=0)
    return model, few


def test_the_choice_is_a_function_of_the_seed_and_the_data() -> None:
    labels = examples()["label"]
    chosen = labelled.choose(labels, CLASSES, PER_CLASS, 0)
    np.testing.assert_array_equal(labelled.choose(labels, CLASSES, PER_CLASS, 0), chosen)
    assert set(chosen) != set(labelled.choose(labels, CLASSES, PER_CLASS, 1))
    # Fewer labels a class are a part of more.
    more = labelled.choose(labels, CLASSES, 4, 0).reshape(CLASSES, 4)
    np.testing.assert_array_equal(more[:, :PER_CLASS].ravel(), chosen)
    for size in (7, 24):  # however the batches are cut
        few = ready(size)[1]
        np.testing.assert_array_equal(few.images.numpy(), examples()["image"][chosen])
        np.testing.assert_array_equal(few.labels.numpy(), [0, 0, 1, 1, 2, 2])
        np.testing.assert_array_equal(labels[chosen], few.labels.numpy())


def test_a_class_with_too_few_examples_is_named() -> None:
    with pytest.raises(DataError, match="at most 1, the training examples of class 2. Received"):
        labelled.choose(np.array([0, 0, 1, 1, 2]), 3, 2, 0)
    with pytest.raises(ValueError, match="labels_per_class must be 1 or more. Received: 0"):
        labelled.LabelledExamples(keras.Model(), 3, 0, (4, 4, 1))


def test_they_are_weights_of_the_model_and_not_trained() -> None:
    model, few = ready()
    assert {id(v) for v in model.non_trainable_variables} == {id(few.images), id(few.labels)}


def test_draws_are_without_replacement_and_keep_images_with_labels() -> None:
    _, few = ready()
    label_of = {i.tobytes(): int(y) for i, y in zip(few.images.numpy(), few.labels.numpy())}  # noqa: B905
    seen = set()
    for seed in range(20):
        images, labels = few.draw(4, tf.constant([seed, 0]))
        keys = [image.tobytes() for image in images.numpy()]
        assert len(set(keys)) == 4
        assert [label_of[key] for key in keys] == labels.numpy().tolist()
        seen |= set(keys)
    assert len(seen) == CLASSES * PER_CLASS
    images, _ = few.draw(100, tf.constant([0, 0]))
    assert len(images) == CLASSES * PER_CLASS  # all, if they are fewer
