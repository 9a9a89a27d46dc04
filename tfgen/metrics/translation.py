"""How well a model translates images: evaluations (model, data, settings) -> dict of `Measure`.

Differences are of grey levels from 0 to 1, whatever range a system works in. PSNR is
10 log10(1 / mean squared difference) in dB, at most the 59 dB that rounding to 256 levels leaves;
SSIM that of Wang et al. 2004 by `tf.image.ssim`, in a window of 11 pixels or the largest odd one
that fits.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

import numpy as np
import tensorflow as tf

from tfgen import seeds
from tfgen.data import Data, DataSpec, recolored, two_answers
from tfgen.metrics import features, fidelity, images, recogniser
from tfgen.metrics.measure import Measure, Settings

_BATCH = 50
_LEAST = 10  # Images for a FID.
_ROUNDING = 1.0 / 255.0**2 / 12.0  # Mean squared error of rounding to 256 levels.
Measures = dict[str, Measure]


class PairedModel(Protocol):
    """What a model must answer to be measured by pairs."""

    source_key: str  # The batch key of what is translated.

    def source(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """The images of a batch that are translated."""

    def target(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """What they should become."""

    def translate(self, image: tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Translations of the same size."""


class UnpairedModel(Protocol):
    """What a model must answer to be measured without pairs."""

    def to_b(self, image: tf.Tensor) -> tf.Tensor:
        """Images of A to images of B."""

    def to_a(self, image: tf.Tensor) -> tf.Tensor:
        """Images of B to images of A."""


def paired(model: PairedModel, data: Data, settings: Settings) -> Measures:
    """Difference, PSNR and SSIM of translations and their targets, and FID.

    Of data made in code also what is known there: of mosaics how many pixels show the class of
    the label map, and of an input with two right answers how far the nearest of them is, and the
    mean of both.
    """
    known = _KNOWN.get(data.spec.name) if model.source_key == "source" else None
    translate = tf.function(model.translate, reduce_retracing=True)
    found: dict[str, list[np.ndarray]] = {}
    fakes, reals = [], []
    batches = _batches(data, settings, "translations")
    for index, batch in enumerate(batches):
        made = translate(model.source(batch), tf.constant(seeds.of_part(settings.seed, index)))
        measured = differences(made, model.target(batch), data.spec.image_range)
        fakes.append(images.to_bytes(made, data.spec.image_range))
        reals.append(images.to_bytes(model.target(batch), data.spec.image_range))
        if known:
            unit = images.to_unit(made, data.spec.image_range)
            measured |= known(images.to_unit(model.source(batch), data.spec.image_range), unit)
        for name, values in measured.items():
            found.setdefault(name, []).append(values)
    target = Domain(data, "target" if model.source_key == "source" else "source")
    of_all, _ = _fid("fid", fakes, reals, target, settings)
    return {**_means(found, f"{{}} {settings.split} pairs"), **of_all}


def _recognised(source: tf.Tensor, made: tf.Tensor) -> dict[str, np.ndarray]:
    plans = recogniser.plan(source.numpy())
    pairs = zip(made.numpy(), plans, strict=True)
    shares = [recogniser.accuracy(m[np.newaxis], p[np.newaxis]) for m, p in pairs]
    return {"pixel_accuracy": np.array(shares)}


def _answered(source: tf.Tensor, made: tf.Tensor) -> dict[str, np.ndarray]:
    both = two_answers.answers(source)
    each = tf.reduce_mean(tf.abs(both - made[:, tf.newaxis]), [2, 3, 4])
    mean = tf.reduce_mean(tf.abs(tf.reduce_mean(both, 1) - made), [1, 2, 3])
    return {"nearest_answer_error": tf.reduce_min(each, 1).numpy(),
            "mean_answer_error": mean.numpy()}  # fmt: skip


_KNOWN = {"mosaic": _recognised, "two_answers": _answered}


def unpaired(model: UnpairedModel, data: Data, settings: Settings) -> Measures:
    """Cycle and identity error, FID, and, where they are known, partners and labels.

    A partner is the true translation of an image: known of data made in code alone. Where there
    are labels, a translation's class is told by a classifier of its new domain: `label_agreement`
    is how often it is the class of the original.
    """
    both = {"a": (model.to_b, model.to_a), "b": (model.to_a, model.to_b)}
    return {
        name: measure
        for domain, (there, back) in both.items()
        for name, measure in _one_way(domain, there, back, data, settings).items()
    }


def _one_way(
    domain: str, there: Callable, back: Callable, data: Data, settings: Settings
) -> Measures:
    """Everything about translating the images of one domain."""
    other = "b" if domain == "a" else "a"
    way = f"{domain}_to_{other}"
    there, back = (tf.function(f, reduce_retracing=True) for f in (there, back))
    known = settings.split != "train" and recolored.has_partners(data.spec.name)
    same = data.spec.shapes["a"] == data.spec.shapes["b"]
    found: dict[str, list[np.ndarray]] = {}
    made, real, labels = [], [], []
    counts = {key: data.count(settings.split, key) for key in (domain, other)}
    for index, batch in enumerate(_batches(data, settings, way)):
        # Each domain's images once, where the smaller one's come again.
        image, partner = (
            batch[key][: max(0, counts[key] - index * _BATCH)] for key in (domain, other)
        )
        real.append(images.to_bytes(partner, data.spec.image_range))
        if not len(image):
            continue
        translation = there(image)
        pairs = {f"cycle_error_{domain}": (back(translation), image)}
        if same:
            pairs[f"identity_error_{domain}"] = (back(image), image)
        for name, (x, y) in pairs.items():
            error = differences(x, y, data.spec.image_range)["error"]
            found.setdefault(name, []).append(error)
        if known:
            for name, values in differences(translation, partner, data.spec.image_range).items():
                found.setdefault(f"partner_{name}_{way}", []).append(values)
        made.append(images.to_bytes(translation, data.spec.image_range))
        if f"label_{domain}" in batch:
            labels.append(batch[f"label_{domain}"][: len(image)].numpy())
    measures = _means(found, f"{{}} {settings.split} images")
    of_all, logits = _fid(f"fid_{way}", made, real, Domain(data, other), settings)
    measures |= of_all
    if labels and logits is not None:
        agree = logits.argmax(axis=1) == np.concatenate(labels)
        measures[f"label_agreement_{way}"] = Measure.mean(
            agree, "share", f"{len(agree)} translated, by a classifier of {other}"
        )
    return measures


def _fid(
    name: str,
    made: list[np.ndarray],
    real: list[np.ndarray],
    domain: "Domain",
    settings: Settings,
) -> tuple[Measures, np.ndarray | None]:
    """FID of translations and images of their new domain, and the classifier's logits if it is one.

    None of too few images. Features that need labels are random ones where there are none, and say
    so in their name.
    """
    fakes, reals = np.concatenate(made), np.concatenate(real)
    if min(len(fakes), len(reals)) < _LEAST:
        return {}, None
    kind = settings.features
    if kind == "classifier" and "label" not in domain.spec.shapes:
        kind = "random"
    extractor = features.load(kind, cast(Data, domain), settings.cache_dir)
    (of_fakes, logits), (of_reals, _) = extractor(fakes), extractor(reals)
    note = f"{len(fakes)} translated, {len(reals)} {settings.split} images of {domain.key}"
    measure = Measure(fidelity.fid(of_reals, of_fakes), None, "squared", note)
    return {f"{name}_{extractor.name}": measure}, logits if kind == "classifier" else None


def differences(x: tf.Tensor, y: tf.Tensor, image_range: str) -> dict[str, np.ndarray]:
    """Mean absolute difference, PSNR in dB and SSIM of each pair of images: three arrays [B].

    Args:
        x: [B, H, W, C] in a range of `DataSpec.image_range`.
        y: of the same shape and range.
        image_range: the range.
    """
    x, y = images.to_unit(x, image_range), images.to_unit(y, image_range)
    side = min(x.shape[1:3])
    window = min(11, side if side % 2 else side - 1)
    square = tf.reduce_mean(tf.math.squared_difference(x, y), [1, 2, 3])
    return {
        "error": tf.reduce_mean(tf.abs(x - y), [1, 2, 3]).numpy(),
        "psnr": -10.0 * np.log10(np.maximum(square.numpy(), _ROUNDING)),
        "ssim": tf.image.ssim(x, y, 1.0, filter_size=window).numpy(),
    }


@dataclasses.dataclass(frozen=True)
class Domain:
    """One domain of unpaired data as a data set of images, e.g. for a classifier.

    Attributes:
        data: with keys a and b.
        key: which of them.
    """

    data: Data
    key: str

    @property
    def spec(self) -> DataSpec:
        """Of the domain's images and, where there are any, labels."""
        spec = self.data.spec
        kept = {f"{self.key}": "image", f"label_{self.key}": "label"}
        return dataclasses.replace(
            spec,
            name=f"{spec.name}_{self.key}",
            shapes={new: spec.shapes[old] for old, new in kept.items() if old in spec.shapes},
            dtypes={new: spec.dtypes[old] for old, new in kept.items() if old in spec.dtypes},
        )

    def train(self, batch_size: int, **arguments: Any) -> tf.data.Dataset:
        """See `Data.train`."""
        return self.data.train(batch_size, **arguments).map(self._own)

    def batches(self, split: str, batch_size: int, **arguments: Any) -> tf.data.Dataset:
        """See `Data.batches`."""
        return self.data.batches(split, batch_size, **arguments).map(self._own)

    def _own(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        found = {"image": batch[self.key]}
        label = f"label_{self.key}"
        return {**found, "label": batch[label]} if label in batch else found


def _batches(data: Data, settings: Settings, label: str) -> Iterable[dict[str, tf.Tensor]]:
    batches = data.batches(settings.split, _BATCH, seed=settings.seed, limit=settings.limit)
    return settings.progress(batches, label)


_UNITS = {"psnr": "dB", "ssim": "similarity", "accuracy": "share"}


def _means(found: dict[str, list[np.ndarray]], note: str) -> Measures:
    measures = {}
    for name, parts in found.items():
        values = np.concatenate(parts)
        unit = next((u for key, u in _UNITS.items() if key in name), "grey, 0 to 1")
        measures[name] = Measure.mean(values, unit, note.format(len(values)))
    return measures
