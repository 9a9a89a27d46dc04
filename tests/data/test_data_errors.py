"""What a user can get wrong: each error is one line that says what would be right."""

import os
import re
import time

import pytest

from tfgen import data
from tfgen.errors import UserError


def message_of(*arguments, **keywords):
    with pytest.raises(data.DataError) as caught:
        data.load(*arguments, **keywords)
    assert isinstance(caught.value, UserError)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "meant"),
    [("minst", "mnist"), ("digit", "digits"), ("ring", "ring8"), ("celeba", "celeb_a")],
)
def test_unknown_name(tmp_path, name, meant):
    assert message_of(name, data_dir=os.fspath(tmp_path)) == (
        f"Unknown data set {name!r}: did you mean {meant!r}? Known without files: digits, ring8, "
        "grid25, stacked_digits, stacked_mnist, placed_digits, placed_mnist, layered_digits, "
        "layered_mnist, recolored_digits, recolored_mnist, mosaic, two_answers; further any TFDS "
        "name, folder:PATH, pairs:PATH or unpaired:A,B."
    )


@pytest.mark.parametrize("name", ["", "qqqqqq", "a b", "pears:/tmp", "x/y/z"])
def test_names_like_nothing(tmp_path, name):
    message = message_of(name, data_dir=os.fspath(tmp_path))
    assert message.startswith(f"Unknown data set {name!r}: ")


@pytest.mark.parametrize("name", ["mnist", "cycle_gan/horse2zebra", "mnist:3.0.1"])
def test_not_prepared(tmp_path, name):
    started = time.monotonic()
    where = os.fspath(tmp_path)
    assert message_of(name, data_dir=where) == (
        f"Data set {name!r} is not prepared in {where!r}. Prepare it once, with a network: "
        f'python -c "import tensorflow_datasets as tfds; tfds.load({name!r}, data_dir={where!r})"; '
        "or use --data=digits, which needs no download."
    )
    assert time.monotonic() - started < 30  # it does not wait for a network
    assert os.listdir(tmp_path) == []


def test_stacked_mnist_not_prepared(tmp_path):
    assert "Data set 'mnist' is not prepared in" in message_of(
        "stacked_mnist", data_dir=os.fspath(tmp_path)
    )


def test_data_dir_missing(tmp_path):
    where = os.fspath(tmp_path / "gone")
    assert message_of("mnist", data_dir=where) == (
        f"--data_dir {where!r} does not exist or is not a directory."
    )


def test_digits_need_a_place_to_write(tmp_path):
    (tmp_path / "file").write_text("")
    where = os.fspath(tmp_path / "file")
    message = message_of("digits", data_dir=where)
    assert message.startswith(f"Cannot prepare data set 'digits' in {where!r}: ")
    assert message.endswith("Give a writable --data_dir.")


def test_missing_keys(data_dir):
    assert message_of("ring8") == (
        "Data set 'ring8' has no key 'image', it has point, label; data sets known to have "
        "'image': digits, mnist, fashion_mnist, omniglot, stacked_digits, stacked_mnist, "
        "placed_digits, placed_mnist, layered_digits, layered_mnist, folder:PATH."
    )
    assert message_of("digits", data_dir=data_dir, needs=("point",)) == (
        "Data set 'digits' has no key 'point', it has image, label; data sets known to have "
        "'point': ring8, grid25."
    )
    assert message_of("digits", data_dir=data_dir, needs=("image", "tokens")).endswith(
        "data sets known to have 'tokens': none."
    )


def test_images_of_several_sizes(toy_dir):
    assert message_of("toy_sizes", data_dir=toy_dir) == (
        "The images of data set 'toy_sizes' differ in size (shape (None, None, 3)); give one with "
        "--image_size."
    )


def test_choices(data_dir):
    assert message_of("digits", data_dir=data_dir, image_range="unti") == (
        "Unknown image range 'unti'; one of unit, symmetric, binary, uint8."
    )
    assert message_of("digits", data_dir=data_dir, binarization="no") == (
        "Unknown binarization 'no'; one of dynamic, fixed, threshold."
    )
    assert message_of("digits", data_dir=data_dir, image_size=0) == (
        "--image_size must be at least 1; got 0."
    )
    digits = data.load("digits", data_dir=data_dir)
    with pytest.raises(
        data.DataError, match=r"^Unknown split 'dev'; one of train, validation, test.$"
    ):
        digits.batches("dev", 10)
    with pytest.raises(data.DataError, match=r"^limit must be at least 1; got 0.$"):
        digits.batches("test", 10, limit=0)


def test_damaged_files(toy_dir, tmp_path):
    import shutil

    shutil.copytree(toy_dir, tmp_path / "copy")
    (record,) = (tmp_path / "copy").glob("toy_numbers/1.0.0/*-test.*")
    os.truncate(record, record.stat().st_size // 2)
    loaded = data.load("toy_numbers", data_dir=os.fspath(tmp_path / "copy"))
    message = "^The files of data set 'toy_numbers' in '.*' are damaged: [^\n]*$"
    with pytest.raises(data.DataError, match=message) as found:
        loaded.batches("test", 4)
    assert "{{" not in str(found.value)
    assert "[Op" not in str(found.value)
    record.unlink()
    with pytest.raises(data.DataError, match=message):
        loaded.batches("test", 4)


def test_names_need_no_files(data_dir):
    assert data.names() == [
        "digits", "ring8", "grid25", "stacked_digits", "stacked_mnist", "placed_digits",
        "placed_mnist", "layered_digits", "layered_mnist", "recolored_digits", "recolored_mnist",
        "mosaic", "two_answers",
    ]  # fmt: skip
    assert all(re.fullmatch(r"\w+", name) for name in data.names())


def test_a_description_that_is_no_json(toy_dir, tmp_path):
    import shutil

    shutil.copytree(toy_dir, tmp_path / "copy")
    (tmp_path / "copy" / "toy_numbers" / "1.0.0" / "dataset_info.json").write_text("{not json")
    message = "^The description of data set 'toy_numbers' in '.*' cannot be read: [^\n]*$"
    with pytest.raises(data.DataError, match=message):
        data.load("toy_numbers", data_dir=os.fspath(tmp_path / "copy"))
