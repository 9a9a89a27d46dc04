"""Pairs of images: side by side or in two folders, their splits, and what can be wrong."""

import numpy as np
import pytest
from PIL import Image

from tests.data.streams import assert_seeks_and_shares, take, whole
from tfgen import data
from tfgen.data import source
from tfgen.jitter import Jitter


def load(name, **arguments):
    arguments = {"image_range": "uint8", "needs": ("source", "target")} | arguments
    return data.load(f"pairs:{name}", **arguments)


def noise(number, size=(7, 6)):
    return np.random.default_rng(number).integers(70, 130, (*size, 3), dtype=np.uint8)


def write(folder, numbers, **size):
    """Images of 12x7: noise on the left, and 50 lighter on the right."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        left = noise(number, **size)
        both = np.concatenate([left, left + 50], axis=1)
        Image.fromarray(both).save(folder / f"{number:02}.png")


def numbers(batch, count=60):
    """Which images a batch's sources are."""
    known = {noise(number).tobytes(): number for number in range(count)}
    return [known[image.tobytes()] for image in batch["source"]]


SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("limit", [source.MEMORY_LIMIT_BYTES, 0])
def test_side_by_side(tmp_path, limit, monkeypatch):
    monkeypatch.setattr(source, "MEMORY_LIMIT_BYTES", limit)
    write(tmp_path, range(40))
    loaded = load(tmp_path)
    assert loaded.spec.shapes == {"source": (7, 6, 3), "target": (7, 6, 3)}
    assert loaded.spec.num_classes is None
    found = []
    for split in SPLITS:
        batch = whole(loaded, split)
        np.testing.assert_array_equal(batch["target"], batch["source"] + 50)
        found += numbers(batch)
    assert sorted(found) == list(range(40))
    np.testing.assert_array_equal(numbers(whole(load(tmp_path), "test")),
                                  numbers(whole(loaded, "test")))  # fmt: skip


def test_folders_of_splits(tmp_path):
    write(tmp_path / "train", range(20))
    write(tmp_path / "val", range(20, 24))
    write(tmp_path / "test", range(24, 29))
    loaded = load(tmp_path)
    assert [numbers(whole(loaded, split)) for split in SPLITS] == [
        list(range(20)), list(range(20, 24)), list(range(24, 29))
    ]  # fmt: skip
    (tmp_path / "val").rename(tmp_path / "validation")
    assert numbers(whole(load(tmp_path), "validation")) == list(range(20, 24))


def test_a_missing_split_is_taken_out_of_train(tmp_path):
    write(tmp_path / "train", range(20))
    write(tmp_path / "val", range(20, 24))
    loaded = load(tmp_path)
    assert numbers(whole(loaded, "validation")) == list(range(20, 24))
    train, test = (numbers(whole(loaded, split)) for split in ("train", "test"))
    assert sorted(train + test) == list(range(20))
    assert len(test) >= 1
    # It is the same one when validation is missing too.
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(data.DataError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"pairs:{tmp_path} has a folder for training, so every image belongs in one of its folders "
        "train, val, validation, test; elsewhere lie 'elsewhere/20.png', 'elsewhere/21.png', "
        "'elsewhere/22.png', 'elsewhere/23.png'."
    )
    (tmp_path / "elsewhere").rename(tmp_path / ".hidden")
    again = load(tmp_path)
    assert numbers(whole(again, "test")) == test
    found = [n for split in SPLITS for n in numbers(whole(again, split))]
    assert sorted(found) == list(range(20))


def test_two_folders(tmp_path):
    (tmp_path / "maps" / "x").mkdir(parents=True)
    (tmp_path / "photos" / "x").mkdir(parents=True)
    for number in range(9):
        name = f"x/{number}" if number % 2 else str(number)
        Image.new("L", (5, 4), number).save(tmp_path / "maps" / f"{name}.png")
        Image.new("RGB", (5, 4), (0, 10 * number, 0)).save(tmp_path / "photos" / f"{name}.bmp")
    loaded = load(f"{tmp_path}/maps,{tmp_path}/photos")
    assert loaded.spec.shapes == {"source": (4, 5, 1), "target": (4, 5, 3)}
    found = []
    for split in SPLITS:
        batch = whole(loaded, split)
        np.testing.assert_array_equal(batch["target"][..., 1], 10 * batch["source"][..., 0])
        found += batch["source"][:, 0, 0, 0].tolist()
    assert sorted(found) == list(range(9))


def test_two_folders_with_folders_of_splits(tmp_path):
    for side in ("a", "b"):
        for split, count in (("train", 6), ("test", 2)):
            (tmp_path / side / split).mkdir(parents=True)
            for number in range(count):
                image = Image.new("L", (2, 2), 10 * count + number)
                image.save(tmp_path / side / split / f"{number}.png")
    loaded = load(f"{tmp_path}/a,{tmp_path}/b")
    np.testing.assert_array_equal(whole(loaded, "test")["target"][:, 0, 0, 0], [20, 21])
    assert loaded.spec.train_size + loaded.spec.validation_size == 6


def test_a_pair_shares_crop_and_flip(tmp_path):
    write(tmp_path, range(40))
    loaded = load(tmp_path, jitter=Jitter(resize=(9, 9), crop=(6, 5), flip=True))
    assert loaded.spec.shapes == {"source": (6, 5, 3), "target": (6, 5, 3)}
    batch = take(loaded, 3, batch_size=20)
    # To rounding, and far from 0 and 255, where what Lanczos overshoots would be cut off.
    np.testing.assert_allclose(batch["target"], batch["source"] + 50.0, atol=1)
    assert np.std(batch["source"]) > 5
    held_out = whole(loaded, "test")
    assert held_out["source"].shape[1:] == (6, 5, 3)


def test_resume_and_shares(tmp_path):
    write(tmp_path, range(40))
    loaded = load(tmp_path, jitter=Jitter(resize=(9, 9), crop=(6, 5), flip=True))
    assert_seeks_and_shares(loaded, batch_size=4, steps=20, start=13)


def test_pairs_come_in_range(tmp_path):
    write(tmp_path, range(5))
    stored, loaded = load(tmp_path), load(tmp_path, image_range="symmetric")
    assert loaded.spec.dtypes == {"source": "float32", "target": "float32"}
    for key, value in whole(loaded, "train").items():
        np.testing.assert_allclose(value, whole(stored, "train")[key] / 127.5 - 1, atol=1e-6)


def message_of(name, **arguments):
    with pytest.raises(data.DataError) as caught:
        load(name, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_errors_of_images_side_by_side(tmp_path):
    assert message_of("/no/where") == "pairs:/no/where is not a folder."
    assert message_of("a,b,c") == (
        "pairs: takes one folder of images side by side, or two folders with a comma between "
        "them. Received: pairs:a,b,c"
    )
    (tmp_path / "empty").mkdir()
    assert message_of(tmp_path / "empty").startswith(f"pairs:{tmp_path}/empty holds no images (")
    write(tmp_path / "all", range(2))
    assert message_of(tmp_path / "all") == (
        f"pairs:{tmp_path}/all holds 2 readable pairs of 2; training, validation and test need at "
        "least 3."
    )
    write(tmp_path / "all", range(2, 9))
    write(tmp_path / "all", [9], size=(7, 8))
    assert message_of(tmp_path / "all") == (
        f"Pairs in pairs:{tmp_path}/all differ in size: '09.png' is 8x7, '00.png' 6x7; give one "
        "size with --image_size or --resize."
    )
    assert load(tmp_path / "all", image_size=5).spec.shapes["source"] == (5, 5, 3)
    Image.new("L", (13, 7)).save(tmp_path / "all" / "odd.png")
    assert message_of(tmp_path / "all", image_size=5) == (
        f"'{tmp_path}/all/odd.png' is 13x7; the width must be even, as the left half is the source "
        "and the right half the target."
    )


def test_errors_of_two_folders(tmp_path):
    for side, count in (("a", 8), ("b", 14)):
        (tmp_path / side).mkdir()
        for number in range(count):
            Image.new("L", (4, 4)).save(tmp_path / side / f"{number:02}.png")
    name = f"{tmp_path}/a,{tmp_path}/b"
    assert message_of(name) == (
        f"pairs:{name} has images without a partner of the same name in the other folder: "
        + ", ".join(f"'{tmp_path}/b/{number:02}.png'" for number in range(8, 13))
        + ", and 1 more."
    )
    for number in range(8, 14):
        (tmp_path / "b" / f"{number:02}.png").unlink()
    assert load(name).spec.train_size == 6
    Image.new("L", (5, 4)).save(tmp_path / "b" / "03.png")
    for image_size in (None, 4):
        assert message_of(name, image_size=image_size) == (
            f"The images of a pair must be of one size; '{tmp_path}/a/03.png' is 4x4, "
            f"'{tmp_path}/b/03.png' 5x4."
        )
    Image.new("L", (4, 4)).save(tmp_path / "b" / "03.jpg")
    assert message_of(name) == (
        f"Images of pairs go by their names without suffix; '{tmp_path}/b' holds both '03.jpg' and "
        "'03.png'."
    )


def test_bad_pairs_are_skipped(tmp_path):
    write(tmp_path, range(12))
    (tmp_path / "05.png").write_bytes(b"")
    with open(tmp_path / "07.png", "r+b") as file:
        file.truncate(60)
    loaded = load(tmp_path)
    found = [n for split in SPLITS for n in numbers(whole(loaded, split))]
    assert sorted(found) == [0, 1, 2, 3, 4, 6, 8, 9, 10, 11]
    assert message_of(tmp_path, on_bad_image="fail") == (
        f"Bad image '{tmp_path}/05.png': the file is empty; mend or remove it, or give "
        "--on_bad_image=skip."
    )
