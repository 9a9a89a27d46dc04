"""Evaluations of samples, on models whose faults are known."""

import dataclasses
import functools
import math
import pathlib

import numpy as np
import pytest

from tfgen import data
from tfgen.data import synthetic
from tfgen.errors import UserError
from tfgen.metrics import classifier, comparison, distances, images, samples
from tfgen.metrics.measure import Settings


class Memory:
    """A model that repeats training examples, some or all."""

    def __init__(self, examples: np.ndarray):
        self.examples = examples

    def sample(self, num: int, seed: int) -> np.ndarray:
        chosen = np.random.default_rng(seed).integers(len(self.examples), size=num)
        return self.examples[chosen]


class Shown:
    """A model that shows its examples in order."""

    def __init__(self, examples: np.ndarray):
        self.examples = examples

    def sample(self, num: int, seed: int) -> np.ndarray:
        return self.examples[:num]


@pytest.fixture(scope="module")
def digits(digits_dir: str) -> data.Data:
    return data.load("digits", data_dir=digits_dir, image_range="symmetric")


@pytest.fixture(scope="module")
def train(digits: data.Data) -> dict[str, np.ndarray]:
    (batch,) = digits.batches("train", 1397)
    return {key: value.numpy() for key, value in batch.items()}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, digits: data.Data) -> Settings:
    """With a classifier in the cache that was trained for 200 steps."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "_LEAST_STEPS", 200)
        classifier.load(digits, cache)
    return Settings(num_samples=600, cache_dir=str(cache))


def _values(found: dict) -> dict[str, float]:
    return {name: m.value for name, m in found.items()}


def test_fidelity_of_the_data_itself(
    digits: data.Data, train: dict[str, np.ndarray], settings: Settings
) -> None:
    found = samples.fidelity(Memory(train["image"]), digits, settings)
    m = _values(found)
    assert set(m) == {
        *(
            f"{name}_digits_classifier"
            for name in (
                *("fid", "kid", "precision", "recall", "density", "coverage"),
                *("inception_score", "mode_score", "accuracy"),
            )
        ),
        *("classes_covered", "class_reverse_kl", "sliced_wasserstein", "ms_ssim", "ms_ssim_real"),
    }
    assert all(math.isfinite(value) for value in m.values())
    # Training images are not test images, but near them.
    assert m["precision_digits_classifier"] > 0.7
    assert m["recall_digits_classifier"] > 0.7
    assert m["coverage_digits_classifier"] > 0.7
    assert m["accuracy_digits_classifier"] > 0.95
    assert 7 < m["inception_score_digits_classifier"] <= 10
    assert m["classes_covered"] == 10
    assert m["class_reverse_kl"] < 0.02
    assert m["ms_ssim"] == pytest.approx(m["ms_ssim_real"], abs=0.05)
    assert "600 generated, 300 test images" in found["fid_digits_classifier"].note
    assert found["kid_digits_classifier"].error > 0


def test_each_evaluation_gives_its_part_of_fidelity(
    digits: data.Data, train: dict[str, np.ndarray], settings: Settings
) -> None:
    model = Memory(train["image"][:50])
    settings = dataclasses.replace(settings, limit=60)
    whole = samples.fidelity(model, digits, settings)
    single = {}
    for name in (
        *("fid", "kid", "precision_recall", "density_coverage", "inception_score"),
        *("class_coverage", "sliced_wasserstein", "ms_ssim"),
    ):
        single |= getattr(samples, name)(model, digits, settings)
    assert single == whole


def test_small_samples_are_said_to_be_small(
    digits: data.Data, train: dict[str, np.ndarray], settings: Settings
) -> None:
    few = dataclasses.replace(settings, num_samples=60, limit=60)
    found = samples.fidelity(Memory(train["image"]), digits, few)
    kid, score = found["kid_digits_classifier"], found["inception_score_digits_classifier"]
    assert (kid.error, kid.note) == (None, "of all 60")  # 100 subsets would all be the whole
    assert score.note.endswith("over 10 parts of 6, too few for so many classes: too low")
    assert found["density_digits_classifier"].unit == "ratio"  # may be above 1
    many = dataclasses.replace(settings, num_samples=1000)
    score = samples.inception_score(Memory(train["image"]), digits, many)
    assert score["inception_score_digits_classifier"].note.endswith("deviation over 10 parts")


def test_faults_show(digits: data.Data, train: dict[str, np.ndarray], settings: Settings) -> None:
    image, label = train["image"], train["label"]
    noise = np.random.default_rng(0).uniform(-1, 1, image.shape).astype(np.float32)

    def compared(examples: np.ndarray) -> comparison.Comparison:
        return comparison.compare(Memory(examples), digits, settings)

    good, ones, worse = (compared(examples) for examples in (image, image[label == 1], noise))
    fid, sliced = (
        [next(iter(_values(getattr(c, name)()).values())) for c in (good, ones, worse)]
        for name in ("fid", "sliced_wasserstein")
    )
    assert 10 * fid[0] < min(fid[1:])
    assert 2 * sliced[0] < min(sliced[1:])
    # One class only: precise, but little is recalled.
    precision, recall = _values(ones.precision_recall()).values()
    assert precision > 0.7
    assert recall < 0.3
    assert next(iter(_values(worse.precision_recall()).values())) < 0.3
    classes, reverse_kl = _values(ones.class_coverage()).values()
    assert classes <= 3  # the classifier errs in some
    assert reverse_kl == pytest.approx(math.log(10), abs=0.2)
    assert next(iter(_values(ones.inception_score()).values())) < 1.5
    similar, of_real = _values(ones.ms_ssim()).values()
    assert similar > of_real + 0.1


def test_numbers_are_functions_of_the_seed(
    digits: data.Data, train: dict[str, np.ndarray], settings: Settings
) -> None:
    model = Memory(train["image"])
    random = dataclasses.replace(settings, features="random", seed=3, limit=60)
    first = samples.fidelity(model, digits, random)
    assert first == samples.fidelity(model, digits, random)
    assert first != samples.fidelity(model, digits, dataclasses.replace(random, seed=4))
    assert "fid_random" in first
    assert "inception_score_random" not in first
    assert "60 generated, 60 test images" in first["fid_random"].note


def test_stacked_modes(digits_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stacked = data.load("stacked_digits", data_dir=digits_dir)

    def told(name: str, of: data.Data, cache_dir: str | None) -> object:
        """An extractor that knows: the label is written into the first pixel."""
        assert (name, of, cache_dir) == ("classifier", stacked, None)

        def network(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            code = x[:, 0, 0].astype(int) @ [100, 10, 1]
            return np.zeros((len(x), 2)), np.eye(1000)[code]

        network.name = "told"
        return network

    monkeypatch.setattr(comparison.features, "load", told)
    image = np.zeros((4, 8, 8, 3), np.float32)
    image[:, 0, 0] = np.array([[0, 0, 0], [0, 0, 0], [2, 0, 7], [9, 9, 9]]) / 255
    found = samples.stacked_modes(Memory(image), stacked, Settings(num_samples=1000, seed=1))
    assert found["modes_covered"].value == 3
    # A half and two quarters: log 1000 less 3/2 log 2; 1,000 draws leave 0.02.
    assert found["mode_reverse_kl"].value == pytest.approx(
        math.log(1000) - 1.5 * math.log(2), abs=0.06
    )


def test_points() -> None:
    ring = data.load("ring8", needs=("point",))
    centres = synthetic.centres("ring8")[:5]
    settings = Settings(num_samples=1200)
    found = samples.fidelity(Memory(centres), ring, settings)
    assert found["modes_covered"].value == 5
    assert found["high_quality"].value == 1.0
    assert found["mode_reverse_kl"].value == pytest.approx(math.log(8 / 5), abs=0.02)
    (batch,) = ring.batches("train", 5000, limit=5000)
    good = samples.sliced_wasserstein(Memory(batch["point"].numpy()), ring, settings)
    assert 5 * good["sliced_wasserstein"].value < found["sliced_wasserstein"].value
    assert samples.mixture_modes(Memory(centres), ring, settings).items() <= found.items()


def test_sliced_wasserstein_is_in_units_of_grey(digits: data.Data) -> None:
    (batch,) = digits.batches("test", 300)
    unit = (batch["image"].numpy() + 1) / 2
    settings = Settings(num_samples=300, seed=2)
    same = samples.sliced_wasserstein(Shown(2 * unit - 1), digits, settings)
    assert same["sliced_wasserstein"].value < 1e-12
    white = samples.sliced_wasserstein(Shown(np.ones_like(unit)), digits, settings)
    assert white["sliced_wasserstein"].value == pytest.approx(
        distances.sliced_wasserstein(unit, np.ones_like(unit), 256, seed=2), abs=1e-5
    )


def test_bytes() -> None:
    x = np.array([-1.0, 0.0, 1.0, 2.0])
    assert images.to_bytes(x, "symmetric").tolist() == [0, 128, 255, 255]
    assert images.to_bytes(x, "unit").tolist() == [0, 0, 255, 255]
    every = np.arange(256, dtype=np.uint8)
    assert (images.to_bytes(every, "uint8") == every).all()
    assert (images.to_bytes(2 * (every / np.float32(255)) - 1, "symmetric") == every).all()
    assert (images.to_bytes(images.to_unit(every, "uint8"), "unit") == every).all()


def test_real_images_are_drawn_without_replacement(digits: data.Data) -> None:
    batches = list(images.real_batches(digits, Settings(), 100))
    drawn = np.concatenate([b["image"] for b in batches]).reshape(100, -1)
    (whole,) = images.real_batches(digits, Settings(), 300)
    rows = {row.tobytes() for row in whole["image"].reshape(300, -1)}
    assert len({row.tobytes() for row in drawn}) == 100
    assert {row.tobytes() for row in drawn} <= rows
    assert len(set(whole["label"][:30])) > 5


def test_binary_images_are_drawn_from_probabilities(digits_dir: str) -> None:
    binary = data.load("digits", data_dir=digits_dir, image_range="binary")
    model = Memory(np.full((1, 8, 8, 1), 0.3, np.float32))
    chunks = list(images.generated(model, binary, Settings(), 600))
    drawn = np.concatenate(chunks)
    assert set(np.unique(drawn)) == {0, 255}
    assert drawn.mean() / 255 == pytest.approx(0.3, abs=0.01)  # 38,400 draws: 0.0023
    assert (chunks[0][:100] != chunks[1]).any()


def test_large_images_are_kept_in_part(
    digits: data.Data, train: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "KEPT_BYTES", 64 * 501)
    settings = Settings(num_samples=1300)
    both = comparison.compare(Memory(train["image"]), digits, settings, by_features=False)
    assert (both.fake.count, len(both.fake.images)) == (1300, 1000)
    assert both.real.images.dtype == np.uint8


def test_bad_input_is_named(
    digits: data.Data, train: dict[str, np.ndarray], tmp_path: pathlib.Path
) -> None:
    model = Memory(train["image"])
    random = functools.partial(Settings, features="random")
    with pytest.raises(UserError, match="at least 10 test examples.*Received: 9 and 9"):
        samples.fid(model, digits, random(num_samples=9))
    with pytest.raises(UserError, match="Received: 500 of 500 are not"):
        samples.fid(Memory(train["image"] * np.nan), digits, random())
    with pytest.raises(ValueError, match=r"'digits'. Received: .500, 8, 7, 1."):
        samples.fid(Memory(train["image"][:, :, :7]), digits, random())
    with pytest.raises(ValueError, match="need features with logits. Received: features 'random'"):
        samples.inception_score(model, digits, random(num_samples=20))
    with pytest.raises(UserError, match="stacked_digits. Received: 'digits'"):
        samples.stacked_modes(model, digits, random())
    with pytest.raises(UserError, match="ring8 and grid25. Received: 'digits'"):
        samples.mixture_modes(model, digits, random())
