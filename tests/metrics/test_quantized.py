"""Measures of discrete codes of a model whose codes and prior are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tfgen.metrics import quantized, samples
from tfgen.metrics.measure import Measure, Settings


class Images:
    """Images whose only pixel says their code."""

    def batches(self, split: str, size: int, seed: int, limit: int | None):
        assert (split, limit) == ("test", None)
        image = np.repeat([0, 0, 0, 0, 1, 1, 2, 2], 100).astype(np.float32)[:, None, None, None]
        return tf.data.Dataset.from_tensor_slices({"image": image}).batch(size)


MODEL = SimpleNamespace(
    num_codes=5,
    encode=lambda image: tf.cast(image[..., 0], tf.int32),
    code_log_prob=lambda indices: tf.where(indices[:, 0, 0] == 0, np.log(0.5), np.log(0.25)),
    sample_uniformly=lambda num, seed: ("uniform", num, seed),
)


def test_use_perplexity_and_bits() -> None:
    found = quantized.codebook(MODEL, Images(), Settings())
    assert found["codes_used"].value == 3
    assert found["codes_used"].note == "of 5, 800 test images"
    assert found["perplexity"].value == pytest.approx(2**1.5)
    assert found["code_bits"].value == pytest.approx(1.5)
    assert found["code_bits"].note == "of an image's codes; 2.32193 uniformly"


def test_uniform_samples_are_what_is_compared(monkeypatch) -> None:
    def fid(model, data, settings):
        assert model.sample(7, 1) == ("uniform", 7, 1)
        return {"fid_x": Measure(3.0, None, "", "")}

    monkeypatch.setattr(samples, "fid", fid)
    found = quantized.uniform_fid(MODEL, Images(), Settings())
    assert {name: m.value for name, m in found.items()} == {"uniform_fid_x": 3.0}
