"""`tfgen.sample`: from a run directory alone, the same images for the same seed."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests import tiny_run
from tfgen import data, run, sample, seeds
from tfgen.errors import UserError
from tfgen.metrics import pictures
from tfgen.models.vae import attribute


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return tiny_run.make(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run_dir):
    return tiny_run.load(run_dir)


def array(path, name="image"):
    arrays = run.read_arrays(path)
    assert list(arrays) == [name]
    return arrays[name]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).reshape(image.height, image.width, -1)


def test_writes_samples_and_all_pictures_of_the_model(run_dir, model, capsys):
    assert tiny_run.call(sample.main, run_dir=run_dir.path, num=10, seed=3) == 0
    expected = {
        name: np.asarray(g) for name, g in model.pictures(run.read_arrays(run_dir.batch), 3).items()
    }
    assert set(expected) == {
        "samples", "reconstructions", "interpolations", "traversals", "latent_grid",
    }  # fmt: skip
    names = {*expected, "random"}
    written = {f"{name}-seed3.{suffix}" for name in names for suffix in ("npz", "png")}
    assert set(os.listdir(run_dir.samples)) == written
    assert set(capsys.readouterr().out.split()) == {str(run_dir.samples / n) for n in written}

    for name, grid in expected.items():
        np.testing.assert_array_equal(array(run_dir.samples / f"{name}-seed3.npz"), grid)
        png = pixels(run_dir.samples / f"{name}-seed3.png")
        np.testing.assert_array_equal(png, pictures.tile(grid))

    samples = array(run_dir.samples / "random-seed3.npz")
    assert samples.shape == (10, 8, 8, 1)
    assert samples.dtype == np.float32
    assert samples.min() >= 0
    assert samples.max() <= 1
    np.testing.assert_array_equal(samples, model.sample(10, 3))
    # A grid of 3 rows of 4, the last two places white; 8x8 images are shown at 4 times their size.
    png = pixels(run_dir.samples / "random-seed3.png")
    assert png.shape == (3 * 32 + 2 * 2, 4 * 32 + 3 * 2, 1)
    sixth = png[34 : 34 + 32 : 4, 34 : 34 + 32 : 4]
    np.testing.assert_array_equal(sixth, np.round(255 * samples[5]).astype(np.uint8))
    assert (png[68:, 68:] == 255).all()


def test_averaged_weights_are_used(run_dir, model):
    arrays = run.read_arrays(run_dir.checkpoints / "step-000000000.npz")
    averages = [arrays[k] for k in sorted(arrays) if k.startswith("average/")]
    live = [arrays[k] for k in sorted(arrays) if k.startswith("model/")]
    assert len(averages) == len(model.trainable_variables)
    for variable, average, weight in zip(model.trainable_variables, averages, live, strict=True):
        np.testing.assert_array_equal(variable.numpy(), average)
        assert weight.shape == average.shape
    assert not np.allclose(live[0], averages[0])


def test_many_samples_are_drawn_in_chunks_of_their_own_seeds(run_dir, model, tmp_path):
    out = tmp_path / "new" / "folder"
    for _ in range(2):
        assert tiny_run.call(sample.main, run_dir=run_dir.path, num=600, seed=7, out=out) == 0
        drawn = array(out / "random-seed7.npz")
        chunks = [
            model.sample(size, seeds.of_part(7, index)) for index, size in enumerate((256, 256, 88))
        ]
        np.testing.assert_array_equal(drawn, np.concatenate(chunks))
    np.testing.assert_array_equal(drawn[:256], model.sample(256, 7))
    assert not np.isclose(drawn[:88], drawn[256:344]).all(axis=(1, 2, 3)).any()
    assert not np.isclose(drawn[:88], drawn[512:]).all(axis=(1, 2, 3)).any()
    assert pixels(out / "random-seed7.png").shape == (16 * 34 - 2, 16 * 34 - 2, 1)
    first, second = (np.concatenate(list(sample.draw(model, 300, seed))) for seed in (7, 8))
    assert not np.isclose(first, second).all(axis=(1, 2, 3)).any()


def test_no_two_chunks_share_a_seed():
    found = {seeds.of_part(seed, index) for seed in range(100) for index in range(2000)}
    assert len(found) == 100 * 2000
    assert all(-(2**31) <= seed < 2**31 for seed in found)
    assert [seeds.of_part(seed, 0) for seed in (0, 1, 2**31 - 1)] == [0, 1, 2**31 - 1]


def test_without_a_batch_there_are_random_samples_alone(tmp_path, capsys):
    run_dir = tiny_run.make(tmp_path)
    run_dir.batch.unlink()
    assert tiny_run.call(sample.main, run_dir=tmp_path, num=1) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"no {run_dir.batch} and no --images: random samples only"
    assert set(os.listdir(run_dir.samples)) == {"random-seed0.npz", "random-seed0.png"}
    assert array(run_dir.samples / "random-seed0.npz").shape == (1, 8, 8, 1)


def test_images_of_the_user(run_dir, model, tmp_path, capsys):
    grey = np.random.default_rng(1).integers(0, 256, (70, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "grey.npz", image=grey)
    folder = tmp_path / "folder"
    folder.mkdir()
    for index, image in enumerate(grey):
        Image.fromarray(image[..., 0]).save(folder / f"{index:03d}.png")
    (folder / "notes.txt").write_text("not an image")
    ready = tiny_run.images(1)
    np.savez(tmp_path / "ready.npz", image=ready)

    def rebuilt(path, seed=0):
        out = tmp_path / "out"
        flags = {"run_dir": run_dir.path, "num": 1, "seed": seed, "images": path, "out": out}
        assert tiny_run.call(sample.main, **flags) == 0
        return array(out / f"reconstructions-seed{seed}.npz")

    from_npz = rebuilt(tmp_path / "grey.npz")
    assert from_npz.shape == (2, 16, 8, 8, 1)
    assert set(np.unique(from_npz[0])) == {0, 1}
    # Binarised by Bernoulli(grey / 255): the mean error of 1024 pixels has a sigma below 1/64.
    assert abs((from_npz[0] - grey[:16] / 255).mean()) < 4 / 64
    assert np.corrcoef(from_npz[0].ravel(), grey[:16].ravel())[0, 1] > 0.4
    np.testing.assert_array_equal(rebuilt(folder), from_npz)
    assert not np.array_equal(rebuilt(folder, seed=1)[0], from_npz[0])

    capsys.readouterr()
    np.testing.assert_array_equal(rebuilt(tmp_path / "ready.npz")[0], ready)
    assert "interpolations: too few images for it" in capsys.readouterr().out


def test_images_are_resized_and_keep_their_range_as_in_training(tmp_path):
    run_dir = tiny_run.make(tmp_path / "run", likelihood="gaussian", image_size=8)
    folder = tmp_path / "folder"
    folder.mkdir()
    Image.fromarray(np.full((12, 16, 3), 51, np.uint8)).save(folder / "a.PNG")
    for images in (folder, tmp_path / "unit.npz"):
        np.savez(tmp_path / "unit.npz", image=np.full((1, 8, 8, 1), 0.2, np.float64))
        assert tiny_run.call(sample.main, run_dir=run_dir.path, num=1, images=images) == 0
        image = array(run_dir.samples / "reconstructions-seed0.npz")[0]
        np.testing.assert_array_equal(image, np.full((1, 8, 8, 1), 0.2, np.float32))


def test_a_batch_is_written_by_training_and_then_the_data_are_not_needed(tmp_path):
    from tfgen import train

    folder = tmp_path / "data"
    folder.mkdir()
    for index, image in enumerate((255 * tiny_run.images(40)).astype(np.uint8)):
        Image.fromarray(image[..., 0]).save(folder / f"{index}.png")
    flags = {"system": "vae.vae", "data": f"folder:{folder}", "batch_size": 10, "epochs": 0.3}
    flags |= {"latent_dims": 3, "hidden_units": 8, "run_dir": tmp_path / "run", "strategy": "none"}
    assert tiny_run.call(train.main, **flags) == 0
    run_dir = run.RunDir(tmp_path / "run")
    batch = run.read_arrays(run_dir.batch)
    assert set(np.unique(batch["image"])) == {0, 1}
    assert batch["image"].shape[1:] == (8, 8, 1)
    assert len(batch["image"]) >= 1
    folder.rename(tmp_path / "gone")
    assert tiny_run.call(sample.main, run_dir=run_dir.path, num=2) == 0
    grid = array(run_dir.samples / "reconstructions-seed0.npz")
    np.testing.assert_array_equal(grid[0], batch["image"][:16])


# What a user can get wrong.


def error_of(capsys, **flags):
    assert tiny_run.call(sample.main, **flags) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("FATAL")]
    assert len(lines) == 1
    return lines[0].removeprefix("FATAL: ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num": 0}, "--num must be more than 0. Received: --num=0"),
        ({"seed": -1}, "--seed must be from 0 to 2^31 - 1. Received: --seed=-1"),
        ({"seed": 2**31}, "--seed must be from 0 to 2^31 - 1. Received: --seed=2147483648"),
        ({"images": "/gone.npz"}, "images not found: --images=/gone.npz"),
        (
            {"images": "README.md"},
            "--images is a folder of images, or an .npz: give the folder that holds the image. "
            "Received: --images=README.md",
        ),
        ({"nmu": 3}, "Unknown command line flag 'nmu'. Did you mean: num ?"),
    ],
)
def test_wrong_flags(run_dir, capsys, flags, message, monkeypatch):
    monkeypatch.chdir(pathlib.Path(__file__).parents[1])
    assert error_of(capsys, run_dir=run_dir.path, **flags) == message


def test_wrong_paths(run_dir, tmp_path, capsys):
    assert error_of(capsys) == "--run_dir is missing: name the directory of a run"
    assert error_of(capsys, run_dir=tmp_path).startswith(f"no run in --run_dir={tmp_path}: ")
    (tmp_path / "file").write_text("")
    message = error_of(capsys, run_dir=run_dir.path, out=tmp_path / "file" / "out")
    assert message.startswith(f"cannot write {tmp_path / 'file'}")
    message = error_of(capsys, run_dir=run_dir.path, out=tmp_path / "file")
    assert message.startswith(f"cannot write {tmp_path / 'file'}: a file is in the way")
    begun = tiny_run.make(tmp_path / "begun")
    (begun.checkpoints / "step-000000000.npz").unlink()
    assert error_of(capsys, run_dir=begun.path).startswith(f"no checkpoint in {begun.checkpoints}")


def test_wrong_images(run_dir, tmp_path, capsys):
    def message(**arrays):
        np.savez(tmp_path / "images.npz", **arrays)
        return error_of(capsys, run_dir=run_dir.path, images=tmp_path / "images.npz")

    where = f"--images={tmp_path / 'images.npz'}"
    assert message(image=np.zeros((2, 9, 8, 1))) == (
        f"'image' in {where} must be numbers [N, 8, 8, 1]. Received: float64 [2, 9, 8, 1]"
    )
    assert message(image=np.zeros((0, 8, 8, 1))).endswith("Received: float64 [0, 8, 8, 1]")
    assert message(image=np.float32(0)).endswith("Received: float32 []")
    assert message(image=np.full((1, 8, 8, 1), "a")).endswith("Received: <U1 [1, 8, 8, 1]")
    assert message(picture=np.zeros((2, 8, 8, 1))) == (
        f"the system needs the batch keys image; {where} has picture"
    )
    wrong = f"'image' in {where} must be uint8 or in the system's range {{0, 1}}. Received: "
    assert message(image=np.full((2, 8, 8, 1), 0.5)) == wrong + "float64 from 0.5 to 0.5"
    assert message(image=np.full((2, 8, 8, 1), np.nan)) == wrong + "float64 from nan to nan"
    assert message(image=np.full((2, 8, 8, 1), 255)) == wrong + "int64 from 255 to 255"
    assert "cannot read" in message(image=np.array([{}], object))
    (tmp_path / "images.npz").write_text("no archive")
    assert error_of(capsys, run_dir=run_dir.path, images=tmp_path / "images.npz").startswith(
        f"cannot read {tmp_path / 'images.npz'} as an .npz of arrays"
    )


def test_wrong_folders_of_images(run_dir, tmp_path, capsys):
    flags = {"run_dir": run_dir.path, "images": tmp_path}
    assert error_of(capsys, **flags).startswith(f"--images={tmp_path} holds no images (.png")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "a.png")
    assert error_of(capsys, **flags) == (
        f"{tmp_path / 'a.png'} must be 8x8, as the images that the system was trained on. "
        "Received: 8x9"
    )
    (tmp_path / "a.png").write_bytes(b"no image")
    assert error_of(capsys, **flags).startswith(f"cannot read {tmp_path / 'a.png'}: ")


def test_a_damaged_batch_is_named(tmp_path, capsys):
    run_dir = tiny_run.make(tmp_path)
    whole = run_dir.batch.read_bytes()
    run_dir.batch.write_bytes(whole[:-30])
    assert error_of(capsys, run_dir=tmp_path).startswith(f"cannot read {run_dir.batch} as an .npz")


def test_wrong_flags_are_answered_without_tensorflow(tmp_path):
    code = (
        "import sys; from tfgen import commands, sample, export;"
        "assert commands.execute(sample.main, ['sample', '--num=0']);"
        f"assert commands.execute(sample.main, ['sample', '--run_dir={tmp_path}']);"
        f"assert commands.execute(export.main, ['export', '--run_dir={tmp_path}']);"
        "assert commands.execute(export.main, ['export', '--help']) == 0;"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert done.stderr.count("FATAL: ") == 3


def test_numbers_beside_the_images_are_finite(tmp_path) -> None:
    arrays = {
        "image": np.zeros((2, 8, 8, 1), np.float32),
        "attributes": np.float32([[0], [np.nan]]),
    }
    np.savez(tmp_path / "x.npz", **arrays)
    spec = data.DataSpec(
        name="x",
        shapes={"image": (8, 8, 1), "attributes": (1,)},
        dtypes=dict.fromkeys(arrays, "float32"),
        image_range="unit",
        num_classes=None,
        train_size=1,
        validation_size=1,
        test_size=1,
    )
    with pytest.raises(UserError, match="'attributes' in .* must be finite. Received: NaN"):
        sample.read_images(tmp_path / "x.npz", spec, attribute.HParams(), tuple(arrays), 0)
