"""Real and generated images side by side, and what can be measured of the two."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfgen.data import Data
from tfgen.metrics import (
    classifier,
    distances,
    features,
    fidelity,
    images,
    mixtures,
    ms_ssim,
    neighbours,
)
from tfgen.metrics.measure import Measure, Settings

KEPT_BYTES = 2**28  # Images of each side that are kept for what is measured in pixels.
_PAIRS = 1000
_PER_CLASS = 10  # Images of a class that a part of an inception score wants.
_PROJECTIONS = 256


@dataclasses.dataclass(frozen=True)
class Side:
    """Real or generated images.

    Attributes:
        count: N, how many there are.
        images: uint8 [n, H, W, C], the first n of them, N unless they would be above `KEPT_BYTES`.
        features: float32 [N, d]; [0, 0] if none were asked for.
        logits: float32 [N, K], or None.
        labels: int [N], or None.
    """

    count: int
    images: np.ndarray
    features: np.ndarray
    logits: np.ndarray | None
    labels: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Both sides, and what the measures of them are called after.

    Attributes:
        real: examples of the data.
        fake: the model's.
        name: of the features, e.g. "mnist_classifier".
        note: how many there are of which.
        seed: int, source of the noise of the measures themselves.
        stacked: whether images are three digits.
        num_classes: of the data, or None.
    """

    real: Side
    fake: Side
    name: str
    note: str
    seed: int
    stacked: bool
    num_classes: int | None

    def fid(self) -> dict[str, Measure]:
        """FID."""
        value = fidelity.fid(self.real.features, self.fake.features)
        return {f"fid_{self.name}": Measure(value, None, "squared", self.note)}

    def kid(self) -> dict[str, Measure]:
        """KID, with the deviation over its subsets."""
        size = min(1000, self.real.count, self.fake.count)
        whole = size == self.real.count == self.fake.count  # as each subset would be
        value, deviation = fidelity.kid(
            self.real.features, self.fake.features, subsets=1 if whole else 100, seed=self.seed
        )
        note = f"of all {size}" if whole else f"± is the deviation over 100 subsets of {size}"
        error = None if whole else deviation
        return {f"kid_{self.name}": Measure(value, error, "squared MMD", note)}

    def precision_recall(self) -> dict[str, Measure]:
        """Precision and recall, k = 3."""
        found = neighbours.precision_recall(self.real.features, self.fake.features)
        return self._both(("precision", "share"), ("recall", "share"), values=found, how="k = 3")

    def density_coverage(self) -> dict[str, Measure]:
        """Density and coverage, k = 5."""
        found = neighbours.density_coverage(self.real.features, self.fake.features)
        return self._both(("density", "ratio"), ("coverage", "share"), values=found, how="k = 5")

    def _both(
        self, *names: tuple[str, str], values: tuple[float, float], how: str
    ) -> dict[str, Measure]:
        return {
            f"{name}_{self.name}": Measure(value, None, unit, f"{how}, {self.note}")
            for (name, unit), value in zip(names, values, strict=True)
        }

    def inception_score(self) -> dict[str, Measure]:
        """Inception and MODE score, and the accuracy of the classifier they are by."""
        logits = self._logits(self.fake)
        splits = min(10, self.fake.count)
        value, deviation = fidelity.inception_score(logits, splits)
        classes = logits.shape[1]
        # Whatever the labels' frequencies, the score is the same; one more each, so none is 0.
        labels = self._logits(self.real).argmax(axis=1)
        frequencies = np.bincount(labels, minlength=classes) + 1.0
        note = f"of {classes} classes; ± is the deviation over {splits} parts"
        if self.fake.count < _PER_CLASS * classes * splits:
            note += f" of {self.fake.count // splits}, too few for so many classes: too low"
        found = {
            f"inception_score_{self.name}": Measure(value, deviation, "classes", note),
            f"mode_score_{self.name}": Measure(
                fidelity.mode_score(logits, frequencies / frequencies.sum()),
                None,
                "classes",
                f"of {classes} classes; equals the inception score of one part",
            ),
        }
        return {**found, **self._accuracy(labels, classes)}

    def _accuracy(self, predicted: np.ndarray, classes: int) -> dict[str, Measure]:
        """How many real images the classifier gets right, if it has the data's classes."""
        if self.real.labels is None or classes != self.num_classes:
            return {}
        correct = predicted == self.real.labels
        return {f"accuracy_{self.name}": Measure.mean(correct, "share", f"{len(correct)} real")}

    def class_coverage(self) -> dict[str, Measure]:
        """Classes that generated images have, and how evenly; modes, for stacked digits."""
        logits = self._logits(self.fake)
        found = mixtures.of_labels(logits.argmax(axis=1), logits.shape[1])
        what = ("modes_covered", "mode_reverse_kl", "modes")
        if not self.stacked:
            what = ("classes_covered", "class_reverse_kl", "classes")
        note = f"of {logits.shape[1]}, {self.fake.count} generated, by {self.name}"
        return {
            what[0]: Measure(found.modes, None, what[2], note),
            what[1]: Measure(found.reverse_kl, None, "nats", f"KL({what[2]} || uniform)"),
        }

    def _logits(self, side: Side) -> np.ndarray:
        if side.logits is None:
            raise ValueError(f"classes need features with logits. Received: features {self.name!r}")
        return side.logits

    @property
    def has_classes(self) -> bool:
        """Whether there are logits."""
        return self.fake.logits is not None

    def sliced_wasserstein(self) -> dict[str, Measure]:
        """Sliced W_1 of pixels in [0, 1]."""
        real, fake = self.real.images, self.fake.images
        value = distances.sliced_wasserstein(real, fake, _PROJECTIONS, self.seed) / 255
        note = f"{_PROJECTIONS} directions, {len(fake)} generated, {len(real)} real"
        return {"sliced_wasserstein": Measure(value, None, "grey, 0 to 1", note)}

    def ms_ssim(self) -> dict[str, Measure]:
        """Mean MS-SSIM of random pairs of generated images, and of real ones."""
        scales, window = ms_ssim.scales(*self.fake.images.shape[1:3])
        found = {}
        for name, side in (("ms_ssim", self.fake), ("ms_ssim_real", self.real)):
            values = ms_ssim.of_random_pairs(side.images, _PAIRS, self.seed)
            note = f"{len(values)} random pairs, {len(scales)} scales, window {window}"
            found[name] = Measure.mean(values, "similarity", note)
        return found


def compare(model: Any, data: Data, settings: Settings, *, by_features: bool = True) -> Comparison:
    """Generates images, reads as many real ones where there are, and computes their features.

    Args:
        model: has `sample(num, seed)`, giving images in the range of the data.
        data: what they are compared with: `settings.split`, without replacement.
        settings: num_samples, limit, seed, split, features, cache_dir.
        by_features: False where only pixels are measured.

    Raises:
        UserError: if there are fewer than 10 images of either kind, a sample is not finite, or the
            features cannot be had.
        ValueError: if the samples do not fit the data.
    """
    num_real, num_fake = images.counts(data, settings)
    extractor = None
    if by_features:
        extractor = features.load(settings.features, data, settings.cache_dir)
    real = _side(images.real_batches(data, settings, num_real), num_real, extractor)
    chunks = images.generated(model, data, settings, num_fake)
    return Comparison(
        real=real,
        fake=_side(({"image": chunk} for chunk in chunks), num_fake, extractor),
        name=extractor.name if extractor else "",
        note=f"{num_fake} generated, {num_real} {settings.split} images",
        seed=settings.seed,
        stacked=classifier.is_stacked(data.spec),
        num_classes=data.spec.num_classes,
    )


def _side(
    batches: Iterable[dict[str, np.ndarray]], count: int, extractor: features.Extractor | None
) -> Side:
    kept: list[np.ndarray] = []
    parts: list[np.ndarray] = [np.zeros((0, 0), np.float32)] if extractor is None else []
    logits: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    room = KEPT_BYTES
    for batch in batches:
        chunk = batch["image"]
        if room > 0:
            kept.append(chunk)
            room -= chunk.nbytes
        if "label" in batch:
            labels.append(batch["label"])
        if extractor is not None:
            found, classes = extractor(chunk)
            parts.append(found)
            if classes is not None:
                logits.append(classes)
    return Side(
        count=count,
        images=np.concatenate(kept),
        features=np.concatenate(parts),
        logits=np.concatenate(logits) if logits else None,
        labels=np.concatenate(labels) if labels else None,
    )
