"""Data sets prepared by TensorFlow Datasets: found on disk, never downloaded."""

import difflib
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfgen.data import crops, pixels
from tfgen.data.crops import Sizes
from tfgen.data.images import Size
from tfgen.data.pipeline import Rows, Split, Stream, tuned
from tfgen.data.source import Key, Source, fits_memory, table
from tfgen.data.spec import SPLITS, DataError
from tfgen.errors import one_line_of

# Validation examples held out at the end of TFDS' train split, where the field has a custom.
_VALIDATION_SIZES = {"mnist": 400, "fashion_mnist": 400}
_HELD_OUT_FRACTION = 0.02
_LOAD_BATCH = 512


def find_builder(name: str, data_dir: str | None, known: list[str]) -> Any:
    """The TFDS builder of data that is prepared on disk.

    Args:
        name: e.g. "mnist" or "cycle_gan/horse2zebra".
        data_dir: TFDS' `data_dir`; None for TFDS' own default.
        known: further valid names, to suggest one for a misspelt name.
    """
    import tensorflow_datasets as tfds
    from google.protobuf import json_format
    from tensorflow_datasets.core import read_only_builder

    if data_dir is not None and not os.path.isdir(data_dir):
        raise DataError(f"--data_dir {data_dir!r} does not exist or is not a directory.")
    try:
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError):
        pass  # not there, or no name at all: say which
    except json_format.ParseError as error:
        raise DataError(
            f"The description of data set {name!r} in {data_dir or 'the default --data_dir'!r} "
            f"cannot be read: {one_line_of(error)}"
        ) from error
    listed = tfds.list_builders()
    base = name.split(":")[0].split("/")[0]
    if base not in listed:
        near = difflib.get_close_matches(base, [*known, *listed], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "there is no such folder or TFDS name."
        raise DataError(
            f"Unknown data set {name!r}: {hint} Known without files: {', '.join(known)}; "
            "further any TFDS name, folder:PATH, pairs:PATH or unpaired:A,B."
        )
    where = data_dir or os.fspath(tfds.core.constants.DATA_DIR)
    raise DataError(
        f"Data set {name!r} is not prepared in {where!r}. Prepare it once, with a network: "
        f'python -c "import tensorflow_datasets as tfds; tfds.load({name!r}, data_dir={where!r})"; '
        "or use --data=digits, which needs no download."
    )


def tfds_source(
    name: str,
    builder: Any,
    needs: tuple[str, ...],
    sizes: Sizes,
    fixed: bool,
    domain: str = "",
) -> Source:
    """A prepared TFDS data set as a source.

    Top-level features of a fixed numeric shape are taken under their own names; a dict of boolean
    features called `attributes` becomes float32 {0, 1} [B, A], sorted by name.

    Args:
        name: the data set's name, for messages.
        builder: from `find_builder`.
        needs: the keys that will be used; others are not read, but for `label`.
        sizes: what images are resized to; None to leave them.
        fixed: whether images are binarised once and for ever.
        domain: what the names of its splits end with, e.g. "A" of "trainA".
    """
    features = builder.info.features
    omniglot = builder.name == "omniglot"
    all_keys = _keys(name, features, sizes.train, omniglot, sized="image" in needs)
    wanted = {key for key in all_keys if key in needs or key == "label"}
    slices, counts = _splits(name, builder, domain)

    def open_split(split: str) -> Split:
        size = sizes.split(split)
        keys = {key: crops.sized(k, size) if key == "image" else k
                for key, k in all_keys.items() if key in wanted}  # fmt: skip
        stream = Stream(
            counts[split],
            _encoded(builder, slices[split], keys),
            _decoder(features, keys, size, omniglot, split if fixed else None),
        )
        if not fits_memory(keys, counts[split]):
            return stream
        rows = stream.ordered(_LOAD_BATCH, stream.size, lambda rows, _: rows)
        try:
            return table(keys, stream.size, rows.as_numpy_iterator(), fixed=None)
        except (tf.errors.OpError, ValueError) as error:
            raise DataError(
                f"The files of data set {name!r} in {builder.data_dir!r} are damaged: "
                f"{one_line_of(error)}"
            ) from error

    label = features["label"] if "label" in wanted else None
    return Source(
        # All keys, so that a missing one is told from one that was not asked for.
        keys=all_keys,
        num_classes=getattr(label, "num_classes", None),
        sizes=counts,
        open=open_split,
    )


def _splits(name: str, builder: Any, domain: str = "") -> tuple[dict[str, str], dict[str, int]]:
    """TFDS slice and size for each of our splits.

    Validation is TFDS' own, else the end of train; without a test split that is the end of train
    too, before which validation then ends. The test split is never part of another.
    """
    sizes = {
        split.removesuffix(domain): info.num_examples
        for split, info in builder.info.splits.items()
        if split.endswith(domain)
    }
    if "train" not in sizes:
        raise DataError(
            f"Data set {name!r} has no split 'train{domain}'; it has "
            f"{', '.join(sorted(builder.info.splits))}."
        )
    held_out = _VALIDATION_SIZES.get(builder.name, max(1, int(_HELD_OUT_FRACTION * sizes["train"])))
    end = sizes["train"]
    slices, counts = {}, {}
    for split in ("test", "validation"):
        if split in sizes:
            slices[split], counts[split] = split + domain, sizes[split]
        else:
            slices[split] = f"train{domain}[{end - held_out}:{end}]"
            counts[split] = held_out
            end -= held_out
    slices["train"], counts["train"] = f"train{domain}[:{end}]", end
    if end < 1:
        raise DataError(f"Data set {name!r} is too small to split: {sizes['train']} examples.")
    return {split: slices[split] for split in SPLITS}, {split: counts[split] for split in SPLITS}


def _keys(name: str, features: Any, size: Size, omniglot: bool, sized: bool) -> dict[str, Key]:
    """The raw keys that the data set can give."""
    keys = {}
    for key, feature in features.items():
        shape = feature.shape
        if key == "image":
            if omniglot:
                shape = (28, 28, 1)
            elif size is None and None in shape and sized:
                raise DataError(
                    f"The images of data set {name!r} differ in size (shape {shape}); give one "
                    "with --image_size."
                )
            keys[key] = crops.sized(Key(shape, "uint8"), size)
        elif key == "attributes" and isinstance(shape, dict):
            keys[key] = Key((len(shape),), "float32")
        elif isinstance(shape, tuple) and None not in shape:
            dtype = tf.as_dtype(feature.dtype)
            if dtype.is_floating or dtype.is_integer or dtype.is_bool:
                keys[key] = Key(shape, "float32" if dtype.is_floating else "int32")
    return keys


def _encoded(builder: Any, split: str, keys: dict[str, Key]) -> tf.data.Dataset:
    """The examples of one TFDS slice in the order of the files, images still encoded."""
    import tensorflow_datasets as tfds

    skip = {"image": tfds.decode.SkipDecoding()} if "image" in keys else None
    features = builder.info.features
    wanted = {key: dict.fromkeys(features[key], True) if key == "attributes" else True
              for key in keys}  # fmt: skip
    dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(wanted, decoders=skip),
        read_config=tfds.ReadConfig(
            interleave_cycle_length=1,
            num_parallel_calls_for_decode=1,
            num_parallel_calls_for_interleave_files=1,
            try_autocache=False,
        ),
    )
    return tuned(dataset)


def _decoder(
    features: Any, keys: dict[str, Key], size: Size, omniglot: bool, fixed: str | None
) -> Callable[[Rows, tf.Tensor], Rows]:
    """The function that makes a raw row of an encoded example and its index."""

    def decode(example: Rows, index: tf.Tensor) -> Rows:
        row = {}
        for key, spec in keys.items():
            value = example[key]
            if key == "image":
                value = features["image"].decode_example(value)
                if omniglot:  # ink is 0 in all three channels there: turn to grey, ink 255
                    value = 255 - value[..., :1]
                    value = pixels.resize(value, size or 28, method="area")
                elif size is not None:
                    value = pixels.resize(value, size)
                if fixed is not None:
                    value = pixels.binarize_fixed(value[tf.newaxis], fixed, index)[0]
            elif isinstance(value, dict):
                value = tf.stack([tf.cast(value[a], tf.float32) for a in sorted(value)])
            row[key] = tf.ensure_shape(tf.cast(value, spec.dtype), spec.shape)
        return row

    return decode
