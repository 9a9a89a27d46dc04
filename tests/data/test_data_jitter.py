"""Images resized, cropped and flipped: by chance in training, never in order."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from tests.data.streams import take, whole
from tfgen import data
from tfgen.data import images, source
from tfgen.errors import UserError
from tfgen.jitter import Jitter


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Thirty 9x7 (wide x high) pictures of noise."""
    path = tmp_path_factory.mktemp("noise")
    for number in range(30):
        pixels = np.random.default_rng(number).integers(0, 256, (7, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{number:02}.png")
    return path


def load(root, jitter, **arguments):
    return data.load(f"folder:{root}", image_range="uint8", jitter=jitter, **arguments)


def windows(image, height, width):
    """(bytes of each crop, flipped or not) -> (top, left, flipped)."""
    return {
        crop[:, ::step].tobytes(): (top, left, step == -1)
        for top in range(image.shape[0] - height + 1)
        for left in range(image.shape[1] - width + 1)
        for crop in [image[top : top + height, left : left + width]]
        for step in (1, -1)
    }


@pytest.mark.parametrize("limit", [source.MEMORY_LIMIT_BYTES, 0])
def test_training_crops_are_parts_of_the_image_anywhere(root, limit, monkeypatch):
    monkeypatch.setattr(source, "MEMORY_LIMIT_BYTES", limit)
    stored = whole(load(root, None), "train")["image"]
    loaded = load(root, Jitter(crop=(4, 6), flip=True))
    assert loaded.spec.image_shape == (4, 6, 3)
    known = {}
    for image in stored:
        known |= windows(image, 4, 6)
    places = [known[image.tobytes()] for image in take(loaded, 160, batch_size=10)["image"]]
    counts = np.zeros((4, 4, 2))
    for top, left, flipped in places:
        counts[top, left, int(flipped)] += 1
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_no_flip_without_the_flag(root):
    stored = {image.tobytes() for image in whole(load(root, None), "train")["image"]}
    cropped = take(load(root, Jitter(crop=(7, 9))), 4, batch_size=20)["image"]
    assert {image.tobytes() for image in cropped} <= stored
    flipped = take(load(root, Jitter(flip=True)), 4, batch_size=20)["image"]
    share = np.mean([image.tobytes() in stored for image in flipped])
    assert 0.2 < share < 0.8  # of 80
    assert {min(i.tobytes(), i[:, ::-1].tobytes()) for i in flipped} <= {
        min(i.tobytes(), i[:, ::-1].tobytes()) for i in whole(load(root, None), "train")["image"]
    }


def test_training_images_are_resized_whole(root):
    loaded = load(root, Jitter(resize=(12, 10), crop=(12, 10)))
    files = [images.read_pixels(str(file), (12, 10), 3) for file in sorted(root.iterdir())]
    expected = Image.open(root / "00.png").resize((10, 12), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(files[0], np.asarray(expected))
    known = {image.tobytes() for image in files}
    found = take(loaded, 2, batch_size=20)["image"]
    assert found.shape == (40, 12, 10, 3)
    assert {image.tobytes() for image in found} <= known


def test_held_out_images_are_resized_whole_to_the_crop(root):
    jitter = Jitter(resize=(12, 10), crop=(6, 8), flip=True)
    loaded = load(root, jitter)
    for at, split in ((jitter.crop, "validation"), (jitter.crop, "test")):
        known = {images.read_pixels(str(f), at, 3).tobytes() for f in sorted(root.iterdir())}
        found = whole(loaded, split)["image"]
        assert {image.tobytes() for image in found} <= known
        assert len(found) >= 1
    # The training split in order: the centre of 12x10 images.
    resized = [images.read_pixels(str(f), (12, 10), 3) for f in sorted(root.iterdir())]
    known = {image[3:9, 1:9].tobytes() for image in resized}
    assert {image.tobytes() for image in whole(loaded, "train")["image"]} <= known
    only = load(root, Jitter(resize=(5, 6)))
    assert whole(only, "test")["image"].shape[1:] == (5, 6, 3)


def test_crop_alone_takes_the_middle_of_what_is_held_out(root):
    """In the scale of training, whose images are not resized."""
    loaded = load(root, Jitter(crop=(5, 5)))
    known = set()
    for file in root.iterdir():
        pixels = images.read_pixels(str(file), None, 3)
        top, left = (pixels.shape[0] - 5) // 2, (pixels.shape[1] - 5) // 2
        known.add(pixels[top : top + 5, left : left + 5].tobytes())
    assert {image.tobytes() for image in whole(loaded, "test")["image"]} <= known


def test_crops_are_of_seed_and_position(root):
    loaded = load(root, Jitter(resize=(10, 10), crop=(6, 6), flip=True))
    unbroken = take(loaded, 12, batch_size=4)["image"]
    np.testing.assert_array_equal(take(loaded, 5, batch_size=4, start_step=7)["image"],
                                  unbroken[28:])  # fmt: skip
    np.testing.assert_array_equal(take(loaded, 24, batch_size=2, replicas=2)["image"], unbroken)
    parts = [take(loaded, 12, batch_size=2, worker=w, workers=2)["image"] for w in (0, 1)]
    together = np.stack([p.reshape(12, 2, 6, 6, 3) for p in parts], 1).reshape(unbroken.shape)
    np.testing.assert_array_equal(together, unbroken)
    other = next(loaded.train(4, seed=4).as_numpy_iterator())["image"]
    assert not np.array_equal(other, unbroken[:4])


def test_masks_go_with_their_image(data_dir):
    needs = ("image", "mask")
    loaded = data.load("layered_digits", data_dir=data_dir, image_range="uint8", needs=needs,
                       jitter=Jitter(crop=(12, 12), flip=True))  # fmt: skip
    assert loaded.spec.shapes["mask"] == (12, 12, 1)
    plain = data.load("layered_digits", data_dir=data_dir, image_range="uint8", needs=needs)
    # The same seed draws the same layers.
    full, cut = (take(of, 2, batch_size=50) for of in (plain, loaded))
    for image, mask, part, part_mask in zip(
        full["image"], full["mask"], cut["image"], cut["mask"], strict=True
    ):
        top, left, flipped = windows(image, 12, 12)[part.tobytes()]
        expected = mask[top : top + 12, left : left + 12]
        np.testing.assert_array_equal(part_mask, expected[:, ::-1] if flipped else expected)


def test_resized_maps_are_not_mixed(data_dir):
    loaded = data.load("layered_digits", data_dir=data_dir, needs=("image", "mask"),
                       jitter=Jitter(resize=(24, 20)))  # fmt: skip
    batch = whole(loaded, "test")
    assert batch["image"].shape[1:] == batch["mask"].shape[1:] == (24, 20, 1)
    assert set(np.unique(batch["mask"])) == {0.0, 1.0}


def test_tfds_sets_are_resized_as_they_are_read(toy_dir):
    loaded = data.load("toy_sizes", data_dir=toy_dir, image_range="uint8",
                       jitter=Jitter(resize=(9, 7), crop=(8, 6)))  # fmt: skip
    assert loaded.spec.image_shape == (8, 6, 3)
    seen = np.concatenate(
        [whole(loaded, split)["image"] for split in ("train", "validation", "test")]
    )
    assert sorted(seen[:, 0, 0, 0]) == list(range(50))
    assert take(loaded, 1, batch_size=4)["image"].shape == (4, 8, 6, 3)


def test_image_size_then_crop(toy_dir):
    loaded = data.load("toy_sizes", data_dir=toy_dir, image_size=8, jitter=Jitter(crop=(6, 6)))
    assert whole(loaded, "test")["image"].shape == (1, 6, 6, 3)
    assert take(loaded, 1, batch_size=4)["image"].shape == (4, 6, 6, 3)


def test_impossible_jitter(root, toy_dir):
    messages = {
        "--crop=8,8 (height, width) is larger than the images 'image' of data set 'folder:.*', "
        "which are 7,9; give a smaller --crop or a larger --resize.": (
            {"jitter": Jitter(crop=(8, 8))}
        ),
        "--crop=4,11 (height, width) is larger than the images 'image' of data set 'folder:.*', "
        "which are resized to 10,10; give a smaller --crop or a larger --resize.": (
            {"jitter": Jitter(resize=(10, 10), crop=(4, 11))}
        ),
        "Images are resized by --image_size or by --resize, not by both. Received: "
        "--image_size=5 --resize=6,7": {"image_size": 5, "jitter": Jitter(resize=(6, 7))},
    }
    for message, arguments in messages.items():
        escaped = message.replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(data.DataError, match=f"^{escaped}$"):
            data.load(f"folder:{root}", **arguments)
    with pytest.raises(data.DataError, match="data set 'ring8' has none, it has point, label.$"):
        data.load("ring8", needs=("point",), jitter=Jitter(flip=True))
    with pytest.raises(UserError, match="^--crop must be a height and a width of at least 1. "
                       "Received: 3,0$"):  # fmt: skip
        Jitter(crop=(3, 0))
    with pytest.raises(UserError, match="^--resize must be .* Received: 3$"):
        Jitter(resize=(3,))


def test_naming_a_jitter_loads_no_tensorflow():
    code = "import sys, tfgen.jitter, tfgen.hparams; print('tensorflow' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                           check=True, env=environment)  # fmt: skip
    assert found.stdout.strip() == "False"
