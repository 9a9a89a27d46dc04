"""`tfgen.sample --images=FOLDER` of a model that translates: every file, its name, its size."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import tiny_run
from tfgen import export, run, sample, seeds, translations
from tfgen.metrics import images as metric_images

FLAGS = (
    "--system=translation.cyclegan", "--data=recolored_digits", "--batch_size=2", "--patch=16",
    "--flagfile=configs/common/translation_small.cfg", "--filters=2", "--discriminator_filters=2",
    "--blocks=1", "--steps=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, digits_dir):
    from tfgen import train

    path = tmp_path_factory.mktemp("translator") / "run"
    argv = ["", *FLAGS, f"--run_dir={path}", f"--data_dir={digits_dir}"]
    assert train.main(argv) == 0
    return run.RunDir(path)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, size, mode in (
        ("a.png", (20, 16), "RGB"), ("b.jpg", (9, 31), "RGB"), ("sub/c.png", (8, 8), "L"),
    ):  # fmt: skip
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG no image")
    return tmp_path / "in"


@pytest.mark.parametrize("way", ["translate", "translate_back"])
def test_a_folder_keeps_names_and_sizes_and_survives_a_corrupt_file(
    run_dir, folder, tmp_path, capsys, caplog, way
) -> None:
    flags = {"run_dir": run_dir.path, "images": folder, "out": tmp_path / "out"}
    assert tiny_run.call(sample.main, **flags, translation=way) == 0
    out = tmp_path / "out" / f"{way}-seed0"
    written = sorted(str(p.relative_to(out)) for p in out.rglob("*.png"))
    assert written == ["a.png", "b.png", "sub/c.png"]
    assert capsys.readouterr().out.strip() == f"{out}: 3 images, 1 skipped"
    assert "broken.png" in caplog.text
    for name in ("a.png", "sub/c.png"):
        with Image.open(folder / name) as source, Image.open(out / name) as made:
            assert made.size == source.size
    # The pixels are the model's.
    model = tiny_run.load(run_dir)
    with Image.open(folder / "a.png") as image, Image.open(out / "a.png") as made:
        pixels = np.asarray(image, np.float32)[np.newaxis] / 127.5 - 1
        expected = metric_images.to_bytes(getattr(model, way)(pixels), "symmetric")[0]
        assert np.abs(np.asarray(made, int) - expected).max() <= 1


def test_what_is_wrong_is_one_line(run_dir, folder, tmp_path, capsys) -> None:
    empty, bad = tmp_path / "empty", tmp_path / "bad"
    empty.mkdir()
    bad.mkdir()
    (bad / "x.png").write_bytes(b"nothing")
    for flags, says in (
        ({"images": folder, "translation": "back"}, "--translation must be one of translate, tr"),
        ({"images": empty}, f"--images={empty} holds no images"),
        ({"images": bad}, f"none of the 1 images in --images={bad} can be read"),
        ({"translation": "translate"}, "--translation is for a model that translates"),
    ):
        out = tmp_path / "out"
        assert tiny_run.call(sample.main, run_dir=run_dir.path, out=out, **flags) == 1
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith(f"FATAL: {says}"), line
        assert not list(out.rglob("*.png"))


def test_an_export_takes_any_size(run_dir, tmp_path) -> None:
    assert tiny_run.call(export.main, run_dir=run_dir.path, out=tmp_path) == 0
    endpoints = tf.saved_model.load(tmp_path / "1").signatures
    model = tiny_run.load(run_dir)
    for name in ("translate", "translate_back"):
        for size in ((16, 16), (9, 31), (40, 12)):
            image = tf.random.stateless_uniform([2, *size, 3], [0, 1], -1, 1)
            made = endpoints[name](image=image)["image"]
            # Another graph than that of the model in Python: rounding of float32.
            np.testing.assert_allclose(made, getattr(model, name)(image), atol=1e-4)


class _Numbered:
    """Paints images grey by their seed and their place in the batch; remembers the batches."""

    def __init__(self):
        self.shapes = []

    def signatures(self):
        return {"translate": (None, {"image": tf.TensorSpec([None, None, None, 3])})}

    def translations(self):
        def translate(image, seed):
            self.shapes.append(tuple(image.shape))
            place = tf.reshape(tf.range(float(len(image))), [-1, 1, 1, 1]) / 10
            return 0.0 * image + tf.cast(seed, tf.float32) / 2**31 - place

        return {"translate": translate}


@pytest.fixture
def eagerly(monkeypatch):
    monkeypatch.setattr(tf, "function", lambda f, **_: f)


def test_neighbours_of_one_size_go_together(tmp_path, monkeypatch, eagerly) -> None:
    files = {"a": (8, 6), "b": (8, 6), "d": (8, 6), "e": (8, 6), "f": (5, 8), "g": (8, 6)}
    for name, size in files.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"nothing")
    monkeypatch.setattr(translations, "_BATCH_VALUES", 3 * 8 * 6 * 3)
    model = _Numbered()
    translations.save(model, tmp_path, None, 20, tmp_path)
    assert model.shapes == [(3, 6, 8, 3), (1, 6, 8, 3), (1, 8, 5, 3), (1, 6, 8, 3)]
    for name, part, place in (("a", 0, 0), ("b", 0, 1), ("d", 0, 2), ("e", 1, 0), ("g", 3, 0)):
        grey = np.float32(seeds.of_part(20, part) / 2**31 - place / 10)
        with Image.open(tmp_path / "translate-seed20" / f"{name}.png") as image:
            assert np.asarray(image)[0, 0, 0] == metric_images.to_bytes(grey, "symmetric"), name


def test_an_image_above_the_limit_goes_alone(tmp_path, monkeypatch, eagerly) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(translations, "_BATCH_VALUES", 10)
    model = _Numbered()
    translations.save(model, tmp_path, None, 0, tmp_path)
    assert model.shapes == [(1, 8, 8, 3), (1, 8, 8, 3)]


def test_files_that_would_become_one_keep_their_suffix() -> None:
    files = ["a.gif", "a.jpg", "b.jpg", "c/a.jpg"]
    assert translations.png_names(files) == {
        "a.gif": "a.gif.png", "a.jpg": "a.jpg.png", "b.jpg": "b.png", "c/a.jpg": "c/a.png",
    }  # fmt: skip
    clash = ["cat.gif", "cat.jpg", "cat.jpg.png"]
    assert sorted(translations.png_names(clash).values()) == [f"{file}.png" for file in clash]
