"""`load`: from a name, as given by `--data`, to batches."""

import dataclasses
import os
from collections.abc import Sequence

import tensorflow as tf

from tfgen.data import (
    crops,
    draws,
    folder,
    mosaic,
    pairs,
    pixels,
    recolored,
    synthetic,
    tasks,
    tfds_sets,
    two_answers,
    unpaired,
)
from tfgen.data.crops import Sizes
from tfgen.data.pipeline import Finish, Plan, Rows, Split
from tfgen.data.source import Source
from tfgen.data.spec import SPLITS, DataError, DataSpec
from tfgen.jitter import Jitter

_LABELS = ("label", "label_a", "label_b")  # given wherever there are any
_STACKED = {"stacked_digits": "digits", "stacked_mnist": "mnist"}
_PLACED = {"placed_digits": ("digits", 32), "placed_mnist": ("mnist", 60)}  # side of the canvas
_LAYERED = {"layered_digits": ("digits", 16), "layered_mnist": ("mnist", 32)}
_RECOLORED = {"recolored_digits": ("digits", 16), "recolored_mnist": ("mnist", 32)}
_SQUARE = ("digits", "mnist", "fashion_mnist", "omniglot", *_STACKED, *_PLACED, *_LAYERED)
_WITH_KEY = {  # data sets known to have a key, for messages
    "image": (*_SQUARE, "folder:PATH"),
    "label": (*_SQUARE, *synthetic.MIXTURES, "folder:PATH with class sub-folders"),
    "point": synthetic.MIXTURES,
    "attributes": (*_LAYERED, "celeb_a", "folder:PATH with attributes.csv"),
    "mask": tuple(_LAYERED),
    **dict.fromkeys(("source", "target"), ("mosaic", "two_answers", "pairs:PATH", "edges:DATA")),
    **dict.fromkeys(("a", "b"), (*_RECOLORED, "unpaired:A,B")),
    "segmentation": ("mosaic",),
}


class Data:
    """A data set, ready to give batches; a split is read when first used, then kept."""

    def __init__(self, spec: DataSpec, source: Source, to_range: pixels.Pixels, seed: int = 0):
        self.spec = spec
        self._source, self._to_range, self._seed = source, to_range, seed
        self._splits: dict[str, Split] = {}

    def steps_per_epoch(self, global_batch_size: int) -> int:
        """Whole steps in an epoch of the training split."""
        if not 1 <= global_batch_size <= self.spec.train_size:
            raise DataError(
                f"A global batch of {global_batch_size} does not fit the {self.spec.train_size} "
                f"training examples of data set {self.spec.name!r}; give a batch size from 1 to "
                f"{self.spec.train_size}."
            )
        return self.spec.train_size // global_batch_size

    def train(
        self,
        batch_size: int,
        *,
        seed: int,
        start_step: int = 0,
        replicas: int = 1,
        worker: int = 0,
        workers: int = 1,
    ) -> tf.data.Dataset:
        """The endless training stream of one worker.

        Step s takes the next batch_size * replicas * workers examples of its epoch's permutation;
        this worker emits its `replicas` batches of step s, then those of step s + 1. What is left
        over of an epoch is dropped. The stream from `start_step` is the unbroken one from there
        on, to the bit. Consecutive batches joined, of all workers in order, are the stream of one
        worker with one replica and the larger batch: the same examples in the same order with the
        same binarisation noise.

        Args:
            batch_size: examples for one replica.
            seed: the order is a function of (seed, epoch), noise of (seed, position in the stream).
            start_step: global step to start at.
            replicas: replicas of this worker.
            worker: index of this worker.
            workers: number of workers.

        Returns:
            Dicts of [batch_size, ...] tensors; keys, dtypes and range as in `spec`.
        """
        plan = Plan(self.spec.train_size, batch_size, seed, start_step, replicas, worker, workers)
        self.steps_per_epoch(plan.global_batch)
        return self._split("train").train(plan, self._finish(seed, "train"))

    def batches(
        self, split: str, batch_size: int, *, seed: int | None = None, limit: int | None = None
    ) -> tf.data.Dataset:
        """Each example of a split once, in fixed order; the last batch may be short.

        Args:
            split: "train", "validation" or "test".
            batch_size: examples in a batch.
            seed: dynamic binarisation is a function of (seed, example index); None: `load`'s seed.
            limit: only the first `limit` examples.

        Returns:
            Dicts of [<= batch_size, ...] tensors; keys, dtypes and range as in `spec`.
        """
        if split not in SPLITS:
            raise DataError(f"Unknown split {split!r}; one of {', '.join(SPLITS)}.")
        for name, value in (("batch_size", batch_size), ("limit", limit)):
            if value is not None and value < 1:
                raise DataError(f"{name} must be at least 1; got {value}.")
        size = self._source.sizes[split]
        size = size if limit is None else min(size, limit)
        seed = self._seed if seed is None else seed
        finish = self._finish(seed, f"ordered/{split}")
        return self._split(split).ordered(min(batch_size, size), size, finish)

    def count(self, split: str, key: str) -> int:
        """How many examples of a split have a value of their own under a key.

        The smaller domain of unpaired data has fewer than the split: its rows come again.
        """
        return self._source.own_sizes.get(key, self._source.sizes)[split]

    def _split(self, split: str) -> Split:
        if split not in self._splits:
            self._splits[split] = self._source.open(split)
        return self._splits[split]

    def _finish(self, seed: int, stream: str) -> Finish:
        """The function from raw rows to a batch: keys of the spec, images in range."""
        noise = {
            name: draws.stream_key(
                seed, f"binarize/{'' if name == 'image' else name + '/'}{stream}"
            )
            for name in self.spec.shapes
            if self._source.keys[name].is_image
        }

        def finish(rows: Rows, position: tf.Tensor) -> Rows:
            batch = {name: rows[name] for name in self.spec.shapes}
            for name, key in noise.items():
                batch[name] = self._to_range(batch[name], key, position)
            return batch

        return finish


def names() -> list[str]:
    """The data sets that need no prepared files; those of mnist need prepared mnist."""
    return [
        "digits",
        *synthetic.MIXTURES,
        *_STACKED,
        *_PLACED,
        *_LAYERED,
        *_RECOLORED,
        "mosaic",
        "two_answers",
    ]


def load(
    name: str,
    *,
    data_dir: str | None = None,
    image_range: str = "unit",
    binarization: str = "dynamic",
    image_size: int | None = None,
    needs: Sequence[str] = ("image",),
    on_bad_image: str = "skip",
    seed: int = 0,
    jitter: Jitter | None = None,
) -> Data:
    """Opens a data set.

    Args:
        name: `digits`, `ring8`, `grid25`, `stacked_digits`, `stacked_mnist`, `placed_digits` (8x8
            anywhere on 32x32), `placed_mnist` (28x28 on 60x60), `layered_digits` (8x8 on stripes of
            16x16), `layered_mnist` (28x28 on 32x32), any TFDS name that is prepared under
            `data_dir` (`mnist`, `celeb_a`, ...), or `folder:PATH`. Pairs: `mosaic`, `two_answers`,
            `pairs:PATH`, `pairs:A,B`, and of any images `colorize:DATA`, `edges:DATA`,
            `super_resolution:DATA` and `inpaint:DATA`. Two domains: `recolored_digits`,
            `recolored_mnist`, `unpaired:PATH`, `unpaired:A,B` and TFDS' `cycle_gan/*`.
        data_dir: TFDS' directory; None for TFDS' own default.
        image_range: "unit" [0, 1], "symmetric" [-1, 1], "binary" {0, 1} or "uint8" 0..255.
        binarization: for "binary": "dynamic", "fixed" or "threshold"; see `pixels.Pixels`.
        image_size: the shorter side is resized to it, then the centre square is cropped; None to
            leave images as they are (omniglot: 28). Of images that are composed of digits, the
            digits' side.
        needs: batch keys to give; `label` is given besides wherever there is one.
        on_bad_image: for folders: "skip" (with a warning) or "fail".
        seed: of the binarisation noise in `Data.batches` where that is given none; the training
            stream has its own.
        jitter: how images are resized, cropped and flipped, by chance in training; see
            `tfgen.jitter`. Shapes in the spec are those after it.

    Raises:
        DataError: in one line, what is wrong and what would be right.
    """
    to_range = pixels.Pixels(image_range, binarization)
    if image_size is not None and image_size < 1:
        raise DataError(f"--image_size must be at least 1; got {image_size}.")
    data_dir = None if data_dir is None else os.path.expanduser(data_dir)
    how = _How(
        data_dir, Sizes.of(image_size, jitter), tuple(needs), on_bad_image, to_range.fixed, jitter
    )
    source = how.source(name)
    for key in needs:
        if key not in source.keys:
            have = _WITH_KEY.get(key)
            raise DataError(
                f"Data set {name!r} has no key {key!r}, it has {', '.join(source.keys)}; data sets "
                f"known to have {key!r}: {', '.join(have) if have else 'none'}."
            )
    keys = {key: k for key, k in source.keys.items() if key in needs or key in _LABELS}
    if image_size is not None and not any(k.is_image for k in source.keys.values()):
        raise DataError(
            f"--image_size is for images; data set {name!r} has none. "
            f"Received: --image_size={image_size}"
        )
    if to_range.fixed and name in _LAYERED:
        raise DataError(
            "Binarization 'fixed' is of digits before they lie on their background. Received: "
            f"{name!r}; take 'dynamic' or 'threshold'."
        )
    if to_range.fixed and any(k.is_image and key != "image" for key, k in keys.items()):
        raise DataError(
            "Binarization 'fixed' is for data sets whose images are under 'image'. Received: "
            f"{name!r}; take 'dynamic' or 'threshold'."
        )
    spec = DataSpec(
        name=name,
        shapes={key: k.shape for key, k in keys.items()},
        dtypes={key: to_range.dtype if k.is_image else k.dtype for key, k in keys.items()},
        image_range=image_range,
        num_classes=source.num_classes,
        train_size=source.sizes["train"],
        validation_size=source.sizes["validation"],
        test_size=source.sizes["test"],
    )
    return Data(spec, source, to_range, seed)


@dataclasses.dataclass(frozen=True)
class _How:
    """How a data set is opened: what `load` was given."""

    data_dir: str | None
    sizes: Sizes
    needs: tuple[str, ...]
    on_bad_image: str
    fixed: bool
    jitter: Jitter | None

    def source(self, name: str) -> Source:
        """The source that `name` stands for, jittered."""
        kind, _, rest = name.partition(":")
        if kind in tasks.KINDS and rest:
            base = dataclasses.replace(self, needs=("image",), fixed=False).source(rest)
            return tasks.task(kind, rest, base)
        source = crops.jittered(name, self._as_stored(name), self.jitter)
        if source.apart:
            unpaired.check_sizes(name, source)
        return source

    def _as_stored(self, name: str) -> Source:
        """The same before crops and flips."""
        kind, colon, rest = name.partition(":")
        if colon and kind == "folder":
            rest = os.path.expanduser(rest)
            return folder.folder_source(rest, self.needs, self.sizes, self.on_bad_image, self.fixed)
        if name in synthetic.MIXTURES:
            return synthetic.mixture(name)
        if name in _STACKED:
            return synthetic.stacked(self._part(_STACKED[name]))
        if name in _PLACED:
            of, side = _PLACED[name]
            return synthetic.placed(self._part(of), side)
        if name in _LAYERED:
            of, side = _LAYERED[name]
            return synthetic.layered(synthetic.placed(self._part(of), side))
        if name in _RECOLORED:
            of, side = _RECOLORED[name]
            return self._made(recolored.recolored(self._plain(of), side))
        if name == "two_answers":
            return self._made(two_answers.two_answers(self._plain("digits")))
        if name == "mosaic":
            return self._made(mosaic.mosaic())
        if colon and kind == "pairs":
            rest = ",".join(map(os.path.expanduser, rest.split(",")))
            return pairs.pairs_source(rest, self.sizes, self.on_bad_image)
        if colon and kind == "unpaired":
            return self._unpaired(rest)
        if name == "digits":
            from tfgen.data import digits  # registers the TFDS builder, so only when wanted

            builder = digits.builder(self.data_dir)
        else:
            builder = tfds_sets.find_builder(name, self.data_dir, names())
            if unpaired.is_two_domains(builder):
                return unpaired.unpaired(
                    *(
                        tfds_sets.tfds_source(name, builder, ("image",), self.sizes, False, domain)
                        for domain in unpaired.DOMAINS
                    )
                )
        return tfds_sets.tfds_source(name, builder, self.needs, self.sizes, self.fixed)

    def _unpaired(self, path: str) -> Source:
        """Two data sets, or the folders of two domains in one."""
        parts = [os.path.expanduser(part) for part in path.split(",")]
        if len(parts) == 1:
            return unpaired.unpaired(
                *(
                    unpaired.domain_folder(parts[0], domain, self.sizes, self.on_bad_image)
                    for domain in unpaired.DOMAINS
                )
            )
        if len(parts) != 2 or not all(parts):
            raise DataError(
                "unpaired: takes one folder with trainA and trainB, or two folders or data sets "
                f"with a comma between them. Received: unpaired:{path}"
            )
        return unpaired.unpaired(*(self._domain(part) for part in parts))

    def _domain(self, name: str) -> Source:
        """A data set with images, or a folder of them."""
        like_path = name.startswith((os.sep, ".", "~"))
        if name not in names() and (os.path.isdir(name) or like_path):
            name = f"folder:{name}"
        return self._with_image(name)

    def _with_image(self, name: str) -> Source:
        """A data set whose images are used for another."""
        how = dataclasses.replace(self, needs=("image",), fixed=False)
        source = how._as_stored(name)
        if "image" not in source.keys:
            raise DataError(
                f"What pairs or domains are made of needs 'image'; data set {name!r} has "
                f"{', '.join(source.keys)}."
            )
        return source

    def _made(self, source: Source) -> Source:
        """Images made in code at one size, brought to the size that is wished."""
        return crops.resized(source, self.sizes.square)

    def _plain(self, name: str) -> Source:
        """Another data set as it is stored."""
        how = dataclasses.replace(self, sizes=Sizes(), needs=("image",), fixed=False)
        return how._as_stored(name)

    def _part(self, name: str) -> Source:
        """What the images of another data set are made of."""
        how = dataclasses.replace(self, sizes=self.sizes.parts, needs=("image",))
        return how._as_stored(name)
