"""`unpaired:A,B`: images of two domains, `a` and `b`, of which no two belong together.

Reference: J.-Y. Zhu, T. Park, P. Isola, A. Efros. Unpaired Image-to-Image Translation using
Cycle-Consistent Adversarial Networks. ICCV 2017. Its data sets have folders trainA, trainB, testA
and testB, and so they may lie here.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from tfgen.data import draws
from tfgen.data.crops import Sizes
from tfgen.data.files import FOLDERS, Bad, image_names, split_folders, top
from tfgen.data.folder import named_source
from tfgen.data.pipeline import Finish, Plan, Rows, Split, tuned
from tfgen.data.source import Key, Source
from tfgen.data.spec import SPLITS, DataError

DOMAINS = ("A", "B")


def unpaired(a: Source, b: Source) -> Source:
    """Two data sets with `image` as `a` and `b`; `label_a` and `label_b` where both have labels.

    An epoch is one of the larger domain. Labels need as many classes in both.
    """
    labelled = all("label" in source.keys for source in (a, b)) and a.num_classes == b.num_classes
    keys = {"a": a.keys["image"], "b": b.keys["image"]}
    if labelled:
        keys |= {"label_a": Key((), "int32"), "label_b": Key((), "int32")}
    return Source(
        keys=keys,
        num_classes=a.num_classes if labelled else None,
        sizes={split: max(a.sizes[split], b.sizes[split]) for split in SPLITS},
        open=lambda split: Unpaired(a.open(split), b.open(split)),
        apart=True,
        own_sizes={"a": a.sizes, "b": b.sizes},
    )


def domain_folder(path: str, domain: str, sizes: Sizes, on_bad_image: str) -> Source:
    """The images of one domain below `path`: of the folders trainA, testA, ... for domain "A".

    Args:
        path: the folder that has those folders; validation, where there is no folder valA or
            validationA, and test are taken out of trainA.
        domain: "A" or "B".
        sizes: what images are resized to; None if all images are of one size.
        on_bad_image: "skip" with a warning, or "fail".
    """
    called = f"unpaired:{path}"
    bad = Bad(path, on_bad_image)
    folders = {folder + domain: split for folder, split in FOLDERS.items()}
    names = [name for name in image_names(path, called) if top(name) in folders]
    if not any(top(name) == f"train{domain}" for name in names):
        raise DataError(
            f"{called} holds no images in train{domain}; it needs folders trainA and trainB, or "
            "name two folders or data sets: unpaired:A,B."
        )
    called = f"{called}, domain {domain},"
    divide = lambda good: split_folders(good, folders, called)  # noqa: E731
    return named_source(path, called, names, sizes, divide, lambda names: {}, bad)


def is_two_domains(builder: Any) -> bool:
    """Whether a TFDS builder has splits trainA and trainB, as those of `cycle_gan` have."""
    return {f"train{domain}" for domain in DOMAINS} <= set(builder.info.splits)


def check_sizes(name: str, source: Source) -> None:
    """Raises a DataError unless the images of both domains are of one size."""
    (top_a, left_a, _), (top_b, left_b, _) = source.keys["a"].shape, source.keys["b"].shape
    if (top_a, left_a) != (top_b, left_b):
        raise DataError(
            f"The domains of data set {name!r} differ in size: images of a are {left_a}x{top_a}, "
            f"of b {left_b}x{top_b}; give one size with --image_size or --resize."
        )


@dataclasses.dataclass(frozen=True)
class Unpaired:
    """One split of each domain, side by side.

    In training each domain has an order of its own: in its own epochs, which are shorter where it
    is smaller, it stands in a permutation given by (seed, domain, epoch). What is left over of an
    epoch after whole global batches is dropped. In order, index i is row i of the larger domain
    with row i modulo its size of the smaller.

    Attributes:
        a: rows with `image`, and `label` if it is wanted.
        b: the same of the other domain.
    """

    a: Split
    b: Split

    @property
    def size(self) -> int:
        """See `Split`."""
        return max(self.a.size, self.b.size)

    def train(self, plan: Plan, finish: Finish) -> tf.data.Dataset:
        """See `Split`.

        Raises:
            DataError: if a global batch does not fit one of the domains.
        """

        def stream(domain: str, split: Split) -> tf.data.Dataset:
            if plan.global_batch > split.size:
                raise DataError(
                    f"A global batch of {plan.global_batch} does not fit the {split.size} "
                    f"training examples of domain {domain}; give a batch size of at most "
                    f"{split.size}."
                )
            seed = draws.stream_key(plan.seed, f"domain/{domain}")
            return split.train(
                dataclasses.replace(plan, size=split.size, seed=seed), _renamed(domain)
            )

        both = tf.data.Dataset.zip((stream("a", self.a), stream("b", self.b)))
        both = both.enumerate(start=plan.start_step * plan.replicas)
        return tuned(
            both.map(lambda element, rows: finish(rows[0] | rows[1], plan.locate(element)[2]))
        )

    def ordered(self, batch_size: int, size: int, finish: Finish) -> tf.data.Dataset:
        """See `Split`."""

        def stream(domain: str, split: Split) -> tf.data.Dataset:
            if split.size >= size:
                return split.ordered(batch_size, size, _renamed(domain))
            again = split.ordered(split.size, split.size, _renamed(domain)).unbatch().repeat()
            whole = size % batch_size == 0
            return again.take(size).batch(batch_size, drop_remainder=whole)

        both = tf.data.Dataset.zip((stream("a", self.a), stream("b", self.b))).enumerate()
        return tuned(
            both.map(lambda element, rows: finish(rows[0] | rows[1], element * batch_size))
        )


def _renamed(domain: str) -> Finish:
    """Rows under the keys of a domain."""
    names = {"image": domain, "label": f"label_{domain}"}

    def rename(rows: Rows, position: tf.Tensor) -> Rows:
        del position
        return {new: rows[old] for old, new in names.items() if old in rows}

    return rename
