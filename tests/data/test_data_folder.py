"""Folders of images: odd files, bad files, splits, labels."""

import logging
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tfgen import data
from tfgen.data import folder, images, source

RED = (200, 30, 40)


@pytest.fixture
def root(tmp_path):
    """Twelve 6x4 (wide x high) JPEG-free pictures, each of one colour, its number times 10."""
    for number in range(12):
        Image.new("RGB", (6, 4), (number * 10, 0, 0)).save(tmp_path / f"{number:02}.png")
    return tmp_path


def everything(loaded, split="train"):
    size = {"train": loaded.spec.train_size, "test": loaded.spec.test_size}.get(
        split, loaded.spec.validation_size
    )
    return next(loaded.batches(split, size).as_numpy_iterator())


def load(root, **arguments):
    return data.load(f"folder:{root}", image_range="uint8", **arguments)


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_splits_are_disjoint_complete_and_fixed(root):
    loaded = load(root)
    spec = loaded.spec
    assert spec.shapes == {"image": (4, 6, 3)}
    assert spec.num_classes is None
    found = {s: everything(loaded, s)["image"][:, 0, 0, 0] for s in ("train", "validation", "test")}
    assert sorted(np.concatenate(list(found.values()))) == [10 * n for n in range(12)]
    assert min(map(len, found.values())) >= 1
    again = everything(load(root))["image"][:, 0, 0, 0]
    np.testing.assert_array_equal(again, found["train"])


def test_split_shares_and_stability():
    names = [f"{n}.png" for n in range(2000)]
    parts = folder.split_names(names)
    assert sorted(name for part in parts.values() for name in part) == sorted(names)
    for split in ("validation", "test"):  # 5% within 4 standard errors
        assert abs(len(parts[split]) - 100) < 4 * np.sqrt(2000 * 0.05 * 0.95)
    # Other files come and go: each stays where it is.
    fewer = folder.split_names(names[:1500])
    for split, part in fewer.items():
        assert set(part) <= set(parts[split])
    for count in range(3, 40):
        assert min(map(len, folder.split_names(names[:count]).values())) >= 1


def test_labels_from_sub_folders(tmp_path):
    for number, top in enumerate(("cats", "dogs/big", "dogs/small")):
        (tmp_path / top).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (2, 2), 50 * number + i).save(tmp_path / top / f"{i}.png")
    (tmp_path / ".hidden").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / ".hidden" / "0.png")
    (tmp_path / "notes.txt").write_text("no image")
    loaded = load(tmp_path, needs=("image", "label"))
    assert loaded.spec.num_classes == 2
    assert loaded.spec.image_shape == (2, 2, 1)
    batch = everything(loaded)
    np.testing.assert_array_equal(batch["label"], batch["image"][:, 0, 0, 0] >= 50)
    # One loose image beside them: no classes.
    Image.new("L", (2, 2)).save(tmp_path / "loose.png")
    assert load(tmp_path).spec.num_classes is None


def _grey(root, *grey_of_file):
    for number, name in enumerate(grey_of_file):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), number).save(root / f"{name}.png")


@pytest.mark.parametrize("others", [("test",), ("val", "test"), ("validation", "test"), ()])
def test_folders_of_splits_are_splits(tmp_path, others):
    files = [f"{top}/{kind}/{i}" for top in ("train", *others) for kind in "ab" for i in range(3)]
    _grey(tmp_path, *files)
    loaded = load(tmp_path, needs=("image", "label"))
    assert loaded.spec.num_classes == 2
    splits = {"val": "validation"}
    for split in ("train", "validation", "test"):
        batch = everything(loaded, split)
        for grey, label in zip(batch["image"][:, 0, 0, 0], batch["label"], strict=True):
            top, kind, _ = files[int(grey)].split("/")
            assert label == "ab".index(kind)
            top = splits.get(top, top)
            assert top == split or (
                top == "train" and split not in {splits.get(o, o) for o in others}
            )


def test_a_class_called_train_is_a_class(tmp_path):
    _grey(tmp_path, *(f"{top}/{i}" for top in ("bus", "train") for i in range(4)))
    loaded = load(tmp_path, needs=("image", "label"))
    assert loaded.spec.num_classes == 2
    batch = everything(loaded)
    np.testing.assert_array_equal(batch["label"], batch["image"][:, 0, 0, 0] >= 4)


def test_folders_of_splits_without_classes(tmp_path):
    _grey(tmp_path, *(f"train/{i}" for i in range(5)), *(f"test/{i}" for i in range(3)))
    loaded = load(tmp_path)
    assert loaded.spec.num_classes is None
    assert loaded.spec.test_size == 3
    assert set(everything(loaded, "test")["image"][:, 0, 0, 0]) == {5, 6, 7}


def test_links_to_folders_are_followed_once(tmp_path):
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    for number, top in enumerate(("cats", "dogs")):
        (elsewhere / top).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (2, 2), 50 * number + i).save(elsewhere / top / f"{i}.png")
    here.mkdir()
    (here / "cats").symlink_to(elsewhere / "cats")
    (here / "dogs").symlink_to(elsewhere / "dogs")
    (here / "dogs_again").symlink_to(elsewhere / "dogs")
    (elsewhere / "dogs" / "round").symlink_to(here)  # a circle
    spec = load(here, needs=("image", "label")).spec
    assert spec.num_classes == 2
    assert spec.train_size + spec.validation_size + spec.test_size == 8


def one_image(tmp_path, name, save, **arguments):
    """Pixels of the file that `save(path)` writes, read next to three plain RGB images."""
    path = os.path.join(tmp_path, name)
    save(path)
    header = images.read_header(path)
    return header, images.read_pixels(path, arguments.get("size"), arguments.get("channels", 3))


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    header, found = one_image(tmp_path, "a.jpg", image.save)
    assert not header.grey
    np.testing.assert_allclose(found.mean((0, 1)), (255, 0, 0), atol=3)  # JPEG rounds


def test_sixteen_bit_grey_is_scaled(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    header, found = one_image(tmp_path, "a.png", Image.fromarray(values).save, channels=1)
    assert header.grey
    np.testing.assert_array_equal(found[0, :, 0], [0, 1, 128, 255])
    _, found = one_image(tmp_path, "a.tif", Image.fromarray(values).save, channels=1)
    np.testing.assert_array_equal(found[0, :, 0], [0, 1, 128, 255])


def test_float_pixels_are_bad(tmp_path):
    image = Image.fromarray(np.zeros((2, 2), np.float32))
    with pytest.raises(images.BadImageError, match=r"^pixels of mode 'F' beyond 16 bits$"):
        one_image(tmp_path, "a.tif", image.save)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (*RED, 255), RED),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (0, 0), (255, 255, 255)),
    ],
)
def test_alpha_is_laid_on_white(tmp_path, mode, colour, expected):
    header, found = one_image(tmp_path, "a.png", Image.new(mode, (3, 3), colour).save)
    assert header.grey is (mode == "LA")
    np.testing.assert_array_equal(found[1, 1], expected)


def test_palettes(tmp_path):
    image = Image.new("P", (3, 3), 1)
    image.putpalette([0, 0, 0, *RED])
    header, found = one_image(tmp_path, "a.png", image.save)
    assert not header.grey
    np.testing.assert_array_equal(found[1, 1], RED)
    # One of its colours transparent.
    _, found = one_image(tmp_path, "b.png", lambda path: image.save(path, transparency=1))
    np.testing.assert_array_equal(found[1, 1], (255, 255, 255))


def test_one_bit_and_gif(tmp_path):
    header, found = one_image(tmp_path, "a.png", Image.new("1", (3, 2), 1).save, channels=1)
    assert header.grey
    np.testing.assert_array_equal(found, np.full((2, 3, 1), 255))
    frames = [Image.new("RGB", (3, 2), colour) for colour in (RED, (0, 0, 255))]
    save = lambda path: frames[0].save(path, save_all=True, append_images=frames[1:])  # noqa: E731
    _, found = one_image(tmp_path, "a.gif", save)
    np.testing.assert_array_equal(found[0, 0], RED)  # the first frame


def test_exif_orientation(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 255  # top left as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    header, found = one_image(
        tmp_path, "a.png", lambda path: Image.fromarray(pixels).save(path, exif=exif)
    )
    assert (header.height, header.width) == (3, 2)
    np.testing.assert_array_equal(found, np.rot90(pixels, -1))
    assert found[0, 1, 0] == 255


def test_resize_and_crop(tmp_path):
    pixels = np.zeros((40, 20, 3), np.uint8)
    pixels[12:28] = 200
    _, found = one_image(tmp_path, "a.png", Image.fromarray(pixels).save, size=10)
    assert found.shape == (10, 10, 3)
    np.testing.assert_array_equal(found[4:6], 200)  # 20x10 after scaling, of which rows 5..14
    assert found[0].max() < 60
    _, found = one_image(tmp_path, "b.png", Image.new("RGB", (3, 7), RED).save, size=9)
    np.testing.assert_array_equal(found, np.broadcast_to(RED, (9, 9, 3)))


def test_grey_among_colour_becomes_colour(root):
    Image.new("L", (6, 4), 77).save(root / "grey.png")
    loaded = load(root)
    assert loaded.spec.image_shape == (4, 6, 3)
    pixels = [everything(loaded, s)["image"] for s in ("train", "validation", "test")]
    assert (77, 77, 77) in {tuple(image[0, 0].tolist()) for image in np.concatenate(pixels)}


def zero_bytes(path):
    open(path, "w").close()


def html(path):
    with open(path, "w") as file:
        file.write("<html><body>404 Not Found</body></html>" * 20)


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    os.truncate(path, os.path.getsize(path) // 2)


def bomb(path, width=40_000, height=40_000):
    """A PNG of a few bytes that says it is gigantic."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
        file.write(chunk(b"IEND", b""))


BAD = {
    "empty.jpg": (zero_bytes, "the file is empty"),
    "page.jpg": (html, "not an image that Pillow can read"),
    "cut.jpg": (truncated, r"truncated or damaged \(.*\)"),
    "cut.png": (truncated, r"truncated or damaged \(.*\)"),
    "bomb.png": (bomb, "more than 64 megapixels"),
    "large.png": (lambda p: bomb(p, 10_000, 10_000), "10000x10000 pixels, more than 64 megapixels"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("image_size", [None, 4])
def test_bad_images(root, name, image_size, caplog):
    write, reason = BAD[name]
    write(os.fspath(root / name))
    limit = Image.MAX_IMAGE_PIXELS
    with caplog.at_level(logging.WARNING):
        loaded = load(root, image_size=image_size)
    spec = loaded.spec
    assert spec.train_size + spec.validation_size + spec.test_size == 12
    warned, count = warnings_of(caplog)
    assert count == f"Skipped 1 of 13 images in {root}."
    assert warned.endswith("; skipped.")
    with pytest.raises(data.DataError, match=f"^Bad image '.*{name}': {reason}; mend or remove it, "
                       "or give --on_bad_image=skip.$"):  # fmt: skip
        load(root, image_size=image_size, on_bad_image="fail")
    assert warned.startswith(f"Bad image '{root / name}': ")
    assert Image.MAX_IMAGE_PIXELS == limit


def test_several_bad_images_are_each_named(root, caplog):
    for name, (write, _) in BAD.items():
        write(os.fspath(root / name))
    with caplog.at_level(logging.WARNING):
        load(root)
    *each, count = warnings_of(caplog)
    assert sorted(os.path.basename(line.split("'")[1]) for line in each) == sorted(BAD)
    assert count == f"Skipped 6 of 18 images in {root}."


def test_folder_errors(tmp_path, root):
    with pytest.raises(data.DataError, match=r"^folder:/no/such/place is not a folder.$"):
        data.load("folder:/no/such/place")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "readme.txt").write_text("")
    with pytest.raises(
        data.DataError, match=r"^folder:.*/empty holds no images \(\.png \.jpg .*\).$"
    ):
        load(empty)
    for number in range(2):
        Image.new("L", (2, 2)).save(empty / f"{number}.png")
    zero_bytes(empty / "bad.png")
    message = (
        "^folder:.*/empty holds 2 readable images of 3; training, validation and test need at "
        "least 3.$"
    )
    with pytest.raises(data.DataError, match=message):
        load(empty)
    for number in range(2):
        zero_bytes(empty / f"{number}.png")
    with pytest.raises(data.DataError, match="holds 0 readable images of 3"):
        load(empty)
    Image.new("RGB", (7, 4)).save(root / "03b.png")
    message = (
        "^Images in folder:.* differ in size: '03b.png' is 7x4, '00.png' 6x4; give one with "
        "--image_size.$"
    )
    with pytest.raises(data.DataError, match=message):
        load(root)
    assert load(root, image_size=4).spec.image_shape == (4, 4, 3)
    with pytest.raises(data.DataError, match=r"^Unknown --on_bad_image 'ask'; one of skip, fail.$"):
        load(root, on_bad_image="ask")
    message = (
        "^Data set 'folder:.*' has no key 'label', it has image; data sets known to have 'label'"
    )
    with pytest.raises(data.DataError, match=message):
        load(root, image_size=4, needs=("image", "label"))


def with_attributes(root, *lines):
    (root / "attributes.csv").write_text("\n".join(lines), encoding="utf-8")
    return load(root, needs=("image", "attributes"))


def test_attributes_are_those_of_their_image(root):
    rows = [f"{number:02}.png,{number},{-number / 2}" for number in reversed(range(12))]
    loaded = with_attributes(root, "image,redness,minus_half", *rows)
    assert loaded.spec.shapes["attributes"] == (2,)
    for split in ("train", "validation", "test"):
        batch = everything(loaded, split)
        number = batch["image"][:, 0, 0, 0] / 10
        np.testing.assert_array_equal(batch["attributes"], np.stack([number, -number / 2], 1))
    batch = next(loaded.train(4, seed=1).as_numpy_iterator())
    np.testing.assert_array_equal(batch["attributes"][:, 0], batch["image"][:, 0, 0, 0] / 10)


def test_attributes_of_sub_folders_and_beyond_memory(tmp_path, monkeypatch):
    rows = []
    for top in ("a", "b"):
        (tmp_path / top).mkdir()
        for number in range(6):
            Image.new("L", (2, 2), 9 * number).save(tmp_path / top / f"{number}.png")
            rows.append(f"{top}/{number}.png,{number}")
    monkeypatch.setattr(source, "MEMORY_LIMIT_BYTES", 0)
    batch = everything(with_attributes(tmp_path, "image,number", *rows))
    np.testing.assert_array_equal(batch["attributes"][:, 0], batch["image"][:, 0, 0, 0] / 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "'00.png' has no row; it needs one row of 2 numbers"),
        (lambda rows: [*rows, "12.png,1,2"], "'12.png' is no image; "),
        (lambda rows: [*rows, rows[3]], "'03.png' has two rows; "),
        (lambda rows: [*rows[:11], "11.png,1"], "'11.png' has 1 values; "),
        (lambda rows: [*rows[:11], "11.png,1,yes"], "'11.png' has 'yes', which is no number; "),
        (lambda rows: [*rows[:11], "11.png,1,nan"], "'11.png' has 'nan', which is no number; "),
        (
            lambda rows: ["x.png,1,2", "00.png,1", *rows[8:]],
            "'x.png' is no image, '00.png' has 1 values, '01.png' has no row, '02.png' has no row, "
            "'03.png' has no row, and 4 more; ",
        ),
    ],
)
def test_attributes_that_do_not_match(root, change, message):
    rows = change([f"{number:02}.png,1,0" for number in range(12)])
    start = r"^'.*attributes.csv' does not match the images beside it: "
    with pytest.raises(data.DataError, match=start + message):
        with_attributes(root, "image,Smiling,Bald", *rows)
    assert load(root).spec.train_size  # who does not ask for them is not stopped


@pytest.mark.parametrize("header", ["", "image", "image,Bald,Bald"])
def test_attributes_without_names(root, header):
    with pytest.raises(data.DataError, match=f"the attributes' names, each once; got '{header}'"):
        with_attributes(root, header)


def test_no_attributes(root):
    message = "has no key 'attributes', it has image; .*celeb_a, folder:PATH with attributes.csv"
    with pytest.raises(data.DataError, match=message):
        load(root, needs=("image", "attributes"))


@pytest.mark.parametrize("binarization", ["fixed", "dynamic"])
def test_a_folder_beyond_memory_gives_the_same(tmp_path, binarization, monkeypatch):
    for top in ("a", "b"):
        (tmp_path / top).mkdir()
        for number in range(20):
            noise = np.random.default_rng(number).integers(0, 256, (5, 5), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / top / f"{number}.png")
    zero_bytes(tmp_path / "a" / "bad.png")
    arguments = {"image_range": "binary", "binarization": binarization}

    def both():
        loaded = data.load(f"folder:{tmp_path}", **arguments)
        stream = loaded.train(4, seed=1).take(12)
        return [*stream.as_numpy_iterator(), everything(loaded, "test")]

    table = both()
    monkeypatch.setattr(source, "MEMORY_LIMIT_BYTES", 0)
    for batch, other in zip(both(), table, strict=True):
        np.testing.assert_array_equal(batch["image"], other["image"])
        np.testing.assert_array_equal(batch["label"], other["label"])
