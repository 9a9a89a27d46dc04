"""Evaluations of translations: numbers of images by hand, models that are known to be right."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfgen import data
from tfgen.data import mosaic, recolored, two_answers
from tfgen.metrics import translation
from tfgen.metrics.measure import Settings

FEW = Settings(limit=60, features="random")


@pytest.fixture(scope="module")
def digits(digits_dir):
    return data.load(
        "recolored_digits", data_dir=digits_dir, needs=("a", "b"), image_range="symmetric"
    )


class Known:
    """Translates by the functions that the domains are made by."""

    def to_b(self, image):
        return 2 * recolored.paint((image + 1) / 2) - 1

    def to_a(self, image):
        return 2 * recolored.unpaint((image + 1) / 2) - 1


class Same:
    """Leaves images as they are."""

    def to_b(self, image):
        return image

    to_a = to_b


class Blind(Known):
    """Gives one picture of B, whatever it is shown; what A is made of stays as it is."""

    def to_b(self, image):
        return tf.repeat(Known.to_b(self, image[:1]), tf.shape(image)[0], axis=0)


def test_differences_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(-1, 1, (3, 16, 12, 1)).astype("float32") for _ in range(2))
    found = translation.differences(x, y, "symmetric")
    gap = (x - y) / 2
    np.testing.assert_allclose(found["error"], np.abs(gap).mean((1, 2, 3)), rtol=1e-5)
    psnr = -10 * np.log10(np.square(gap).mean((1, 2, 3)))
    np.testing.assert_allclose(found["psnr"], psnr, rtol=1e-5)
    same = translation.differences(x, x, "symmetric")
    np.testing.assert_allclose(same["ssim"], 1.0, atol=1e-6)
    np.testing.assert_allclose(same["psnr"], 58.92, atol=0.01)  # not inf: 256 levels tell no more
    assert (found["ssim"] < 0.5).all()


def test_the_true_functions_have_no_error(digits) -> None:
    found = translation.unpaired(Known(), digits, FEW)
    for domain in "ab":
        # 8 bits an image, and `unpaint` of 8 bits.
        assert found[f"cycle_error_{domain}"].value < 0.01
    for way in ("a_to_b", "b_to_a"):
        assert found[f"partner_error_{way}"].value < 0.01
        assert found[f"partner_psnr_{way}"].value > 35
        assert found[f"partner_ssim_{way}"].value > 0.95
        assert found[f"fid_{way}_random"].value < 0.1
        assert f"label_agreement_{way}" not in found  # by features that have no classes
    assert found["identity_error_b"].value > 0.1  # `unpaint` is no identity on A


def test_in_training_nobody_has_a_partner(digits) -> None:
    settings = dataclasses.replace(FEW, split="train")
    found = translation.unpaired(Known(), digits, settings)
    assert "cycle_error_a" in found
    assert not [name for name in found if name.startswith("partner")]


def test_images_of_the_smaller_domain_count_once(tmp_path) -> None:
    """They come again in the larger one's epoch, with which they were in batches."""
    rng = np.random.default_rng(0)
    for folder, count in (("trainA", 40), ("trainB", 40), ("testA", 12), ("testB", 70)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    pairs = data.load(f"unpaired:{tmp_path}", needs=("a", "b"), image_range="symmetric")
    assert [pairs.count("test", key) for key in "ab"] == [12, 70]
    settings = dataclasses.replace(FEW, limit=None)
    found = translation.unpaired(Same(), pairs, settings)
    for way, domain, notes in (
        ("a_to_b", "a", ("12 translated, 70 test images of b", "12 test images")),
        ("b_to_a", "b", ("70 translated, 12 test images of a", "70 test images")),
    ):
        assert found[f"fid_{way}_random"].note == notes[0]
        assert found[f"cycle_error_{domain}"].note == notes[1]


def test_a_blind_translator_is_found_out(digits) -> None:
    known, blind = (translation.unpaired(m, digits, FEW) for m in (Known(), Blind()))
    assert blind["partner_error_a_to_b"].value > 10 * known["partner_error_a_to_b"].value
    assert blind["cycle_error_a"].value > 10 * known["cycle_error_a"].value
    assert blind["fid_a_to_b_random"].value > 10 * known["fid_a_to_b_random"].value
    assert blind["partner_error_b_to_a"].value == known["partner_error_b_to_a"].value


def test_labels_agree_by_a_classifier_of_the_new_domain(digits, monkeypatch) -> None:
    """The classifier that is asked for has seen domain b with b's labels, and no other."""
    asked = []

    def load(kind, domain, cache_dir):
        asked.append((kind, domain.key, domain.spec.name))
        batch = next(iter(domain.batches("test", 60)))
        rows = {x.tobytes(): int(y) for x, y in zip(
            translation.images.to_bytes(batch["image"], "symmetric"), batch["label"], strict=True
        )}  # fmt: skip

        def extract(images):
            classes = [rows.get(x.tobytes(), -1) for x in images]
            return np.zeros((len(images), 2), np.float32), np.eye(11)[classes]

        extract.name = "stub"
        return extract

    monkeypatch.setattr(translation.features, "load", load)
    monkeypatch.setattr(translation.fidelity, "fid", lambda *_: 0.0)
    settings = dataclasses.replace(FEW, features="classifier")
    found = translation.unpaired(Known(), digits, settings)
    assert asked == [
        ("classifier", "b", "recolored_digits_b"), ("classifier", "a", "recolored_digits_a"),
    ]  # fmt: skip
    assert found["label_agreement_a_to_b"].value > 0.9  # what is rounded otherwise is class -1
    blind = translation.unpaired(Blind(), digits, settings)
    assert blind["label_agreement_a_to_b"].value < 0.4


@pytest.mark.parametrize("key", ["a", "b"])
def test_a_domain_has_its_own_images_and_labels(digits, key) -> None:
    ours = next(iter(translation.Domain(digits, key).train(50, seed=1)))
    both = next(iter(digits.train(50, seed=1)))
    np.testing.assert_array_equal(ours["image"], both[key])
    np.testing.assert_array_equal(ours["label"], both[f"label_{key}"])
    assert not np.array_equal(both["label_a"], both["label_b"])  # in training no pair exists


class Paired:
    """Translates sources by a function."""

    def __init__(self, function, key="source"):
        self.function, self.source_key = function, key

    def source(self, batch):
        return batch["source"]

    def target(self, batch):
        return batch["target"]

    def translate(self, image, seed):
        return self.function(image)


def test_two_answers_and_their_mean(digits_dir) -> None:
    pairs = data.load("two_answers", data_dir=digits_dir, needs=("source", "target"),
                      image_range="symmetric")  # fmt: skip

    def answer(choose):
        return lambda x: 2 * choose(two_answers.answers((x + 1) / 2)) - 1

    one = translation.paired(Paired(answer(lambda both: both[:, 0])), pairs, FEW)
    assert one["fid_random"].note == "60 translated, 60 test images of target"
    mean = translation.paired(Paired(answer(lambda both: tf.reduce_mean(both, 1))), pairs, FEW)
    assert one["nearest_answer_error"].value < 1e-6
    assert mean["mean_answer_error"].value < 1e-6
    assert one["mean_answer_error"].value == pytest.approx(mean["nearest_answer_error"].value)
    assert 0.25 < one["error"].value / one["mean_answer_error"].value < 1.75  # half are right


def test_flat_mosaics_are_not_recognised() -> None:
    pairs = data.load("mosaic", needs=("source", "target"), image_range="unit")
    means = tf.constant(mosaic.MEANS, tf.float32)
    palette = tf.constant(mosaic.PALETTE, tf.float32)

    def flat(image):
        gaps = tf.reduce_sum(tf.abs(image[..., tf.newaxis, :] - palette), -1)
        return tf.gather(means, tf.argmin(gaps, -1))

    found = translation.paired(Paired(flat), pairs, FEW)
    assert found["pixel_accuracy"].value < 0.45
    assert found["pixel_accuracy"].unit == "share"
    back = translation.paired(Paired(flat, key="target"), pairs, FEW)
    assert "pixel_accuracy" not in back
