"""What a discrete code of images costs, how much of its codebook it uses, what its prior is worth.

Each evaluation is a function (model, data, settings) -> dict of `Measure`, named by the models that
it makes sense for.
"""

import math
from typing import Any, Protocol

import numpy as np
import scipy.stats
import tensorflow as tf

from tfgen.data import Data
from tfgen.metrics import samples
from tfgen.metrics.measure import Measure, Settings


class QuantizedModel(Protocol):
    """What a model must answer to be evaluated here."""

    num_codes: int

    def encode(self, image: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C] -> indices of codes, int32 [B, h, w]."""

    def code_log_prob(self, indices: tf.Tensor) -> tf.Tensor:
        """log p(indices) by the prior: [B, h, w] -> [B], in nats."""

    def sample_uniformly(self, num: int, seed: int) -> tf.Tensor:
        """Images of codes that are each drawn alike: [num, H, W, C]."""


def codebook(model: QuantizedModel, data: Data, settings: Settings) -> dict[str, Measure]:
    """Codes in use, their perplexity, and the bits of an image's codes by the prior."""
    encode = tf.function(model.encode, reduce_retracing=True)
    judge = tf.function(model.code_log_prob, reduce_retracing=True)
    indices, log_prob = [], []
    for batch in data.batches(settings.split, 500, seed=settings.seed, limit=settings.limit):
        indices.append(encode(batch["image"]))
        log_prob.append(judge(indices[-1]).numpy())
    found = np.concatenate([i.numpy() for i in indices])
    counts = np.bincount(found.ravel(), minlength=model.num_codes)
    bits = -np.concatenate(log_prob).astype(np.float64) / math.log(2)
    uniform = math.prod(found.shape[1:]) * math.log2(model.num_codes)
    images = f"{len(found)} {settings.split} images"
    return {
        "codes_used": Measure(
            int((counts > 0).sum()), None, "codes", f"of {model.num_codes}, {images}"
        ),
        "perplexity": Measure(
            float(np.exp(scipy.stats.entropy(counts))), None, "codes", f"of all codes of {images}"
        ),
        "code_bits": Measure.mean(bits, "bits", f"of an image's codes; {uniform:g} uniformly"),
    }


class _Uniform:
    """A model whose samples are of codes drawn uniformly."""

    def __init__(self, model: QuantizedModel):
        self.sample = model.sample_uniformly


def uniform_fid(model: Any, data: Data, settings: Settings) -> dict[str, Measure]:
    """FID of samples whose codes are drawn uniformly, beside which the prior's is to be held."""
    found = samples.fid(_Uniform(model), data, settings)
    return {f"uniform_{name}": measure for name, measure in found.items()}
