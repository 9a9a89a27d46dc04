"""How good a model's samples are: evaluations (model, data, settings) -> dict of `Measure`.

`fidelity` gives all that makes sense for the data from one set of samples; each of the others
draws its own. All need `model.sample(num, seed)`, which gives images in the range of the data or
points [num, 2]. All noise is a function of `settings.seed`.
"""

from typing import Any

import numpy as np

from tfgen.data import Data
from tfgen.data.synthetic import MIXTURES
from tfgen.errors import UserError
from tfgen.metrics import classifier, distances, images, mixtures
from tfgen.metrics.comparison import compare
from tfgen.metrics.measure import Measure, Settings

Measures = dict[str, Measure]


def fidelity(model: Any, data: Data, settings: Settings) -> Measures:
    """Every measure of images that the features allow; of points, modes and sliced W_1."""
    if "image" not in data.spec.shapes:
        return {**mixture_modes(model, data, settings), **_of_points(model, data, settings)}
    both = compare(model, data, settings)
    found = {**both.fid(), **both.kid(), **both.precision_recall(), **both.density_coverage()}
    if both.has_classes:
        found |= {**both.inception_score(), **both.class_coverage()}
    return {**found, **both.sliced_wasserstein(), **both.ms_ssim()}


def fid(model: Any, data: Data, settings: Settings) -> Measures:
    """FID by `settings.features`."""
    return compare(model, data, settings).fid()


def kid(model: Any, data: Data, settings: Settings) -> Measures:
    """KID by `settings.features`."""
    return compare(model, data, settings).kid()


def precision_recall(model: Any, data: Data, settings: Settings) -> Measures:
    """Precision and recall by `settings.features`."""
    return compare(model, data, settings).precision_recall()


def density_coverage(model: Any, data: Data, settings: Settings) -> Measures:
    """Density and coverage by `settings.features`."""
    return compare(model, data, settings).density_coverage()


def inception_score(model: Any, data: Data, settings: Settings) -> Measures:
    """Inception and MODE score by the logits of `settings.features`."""
    return compare(model, data, settings).inception_score()


def class_coverage(model: Any, data: Data, settings: Settings) -> Measures:
    """Classes covered and KL(classes || uniform), by the logits of `settings.features`."""
    return compare(model, data, settings).class_coverage()


def stacked_modes(model: Any, data: Data, settings: Settings) -> Measures:
    """Of the 1000 modes of stacked digits, how many are covered, and KL(modes || uniform).

    Raises:
        UserError: if the data is not stacked digits.
    """
    if not classifier.is_stacked(data.spec):
        raise UserError(
            "the 1000 modes are those of data stacked_mnist and stacked_digits. "
            f"Received: {data.spec.name!r}"
        )
    return compare(model, data, settings).class_coverage()


def sliced_wasserstein(model: Any, data: Data, settings: Settings) -> Measures:
    """Sliced W_1 of pixels in [0, 1], or of points."""
    if "image" not in data.spec.shapes:
        return _of_points(model, data, settings)
    return compare(model, data, settings, by_features=False).sliced_wasserstein()


def ms_ssim(model: Any, data: Data, settings: Settings) -> Measures:
    """Mean MS-SSIM of random pairs of generated images, beside that of real ones."""
    return compare(model, data, settings, by_features=False).ms_ssim()


def mixture_modes(model: Any, data: Data, settings: Settings) -> Measures:
    """Modes of a mixture in the plane: covered, share of high quality, KL(modes || uniform).

    Raises:
        UserError: if the data is no mixture.
    """
    if data.spec.name not in MIXTURES:
        raise UserError(
            f"the modes are those of data {' and '.join(MIXTURES)}. Received: {data.spec.name!r}"
        )
    return mixtures.measures(_points(model, data, settings)[1], data.spec.name)


def _points(model: Any, data: Data, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Real and generated points, [N, 2] each."""
    num_real, num_fake = images.counts(data, settings)
    real = images.real_batches(data, settings, num_real, key="point")
    return (
        np.concatenate([batch["point"] for batch in real]),
        np.concatenate(list(images.generated(model, data, settings, num_fake))),
    )


def _of_points(model: Any, data: Data, settings: Settings) -> Measures:
    real, fake = _points(model, data, settings)
    value = distances.sliced_wasserstein(real, fake, seed=settings.seed)
    note = f"128 directions, {len(fake)} generated, {len(real)} {settings.split} points"
    return {"sliced_wasserstein": Measure(value, None, "length", note)}
