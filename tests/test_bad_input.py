"""What a user can get wrong: one clear line, exit status not 0, no traceback."""

import errno
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.training import runs
from tfgen import commands, data, errors, evaluate, export, run, sample, train
from tfgen.training import checkpoint

TINY = ("--system=vae.vae", "--latent_dims=2", "--hidden_units=4", "--epochs=0.3")
GAN = ["--system=gan.gan", "--networks=dcgan", "--filters=4"]


@pytest.fixture
def fails(tmp_path, digits_dir, capsys):
    """Runs `tfgen.train`, which must end in one line that matches; returns the line."""

    def check(match, *flags, status=1):
        here = [f"--data_dir={digits_dir}"] if not any("--data_dir" in f for f in flags) else []
        if not any("--run_dir" in f for f in flags):
            here.append(f"--run_dir={tmp_path / 'run'}")
        capsys.readouterr()
        assert commands.execute(train.main, ["train", *here, *flags]) == status
        error = capsys.readouterr().err
        lines = [x for x in error.splitlines() if not x.startswith(("WARNING", "Generating", "I0"))]
        assert len(lines) == 1, error
        (line,) = lines
        assert line.startswith("FATAL: ")
        assert "Traceback" not in error
        assert re.search(match, line), line
        return line

    return check


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--system=vae.vea"], r"unknown system: --system=vae\.vea\. Did you mean: vae\.vae\?"),
        (["--k=5"], "--system is missing"),
        ([*TINY, "--latent_dim=3"], r"'latent_dim'\. Did you mean: latent_dims"),
        ([*TINY, "--likelihood=bernouli"], r"Did you mean: bernoulli\?"),
        ([*TINY, "--strategy=mirored"], r"Did you mean: mirrored\?"),
        ([*TINY, "--strategy=tpu"], "--strategy=tpu found no TPU"),
        ([*TINY, "--strategy=multiworker"], "TF_CONFIG"),
        ([*TINY, "--k=0"], r"--k must be more than 0\. Received: --k=0"),
        ([*TINY, "--batch_size=0"], "--batch_size must be more than 0"),
        ([*TINY, "--epochs=0"], "--epochs must be more than 0"),
        ([*TINY, "--batch_size=5000"], "batch of 5000 does not fit the 1397 training examples"),
        ([*TINY, "--log_every_steps=0"], "--log_every_steps must be more than 0"),
        ([*TINY, "--early_stopping_epochs=0"], "--early_stopping_epochs must be more than 0"),
        ([*GAN, "--early_stopping_epochs=3"], "GAN has no validation loss that tells when to stop"),
        (["--system=vae.cvae", "--early_stopping_epochs=3"], "CVAE learns in stages"),
        ([*TINY, "--validate_every_steps=-1"], "--validate_every_steps must be 0 or more"),
        ([*TINY, "--latent_dims=3,2"], "one number for each stochastic layer"),
        (["--system=vae.iwae", "--analytic_kl"], "--analytic_kl has no meaning"),
        ([*TINY, "--data=digit"], r"Unknown data set 'digit': did you mean 'digits'\?"),
        ([*TINY, "--data=ring8"], r"'ring8' has no key 'image'.*data sets known to have.*digits"),
        ([*TINY, "--data=folder:/none"], "/none"),
        ([*TINY, "--data=mnist"], r"not prepared in .*tfds\.load\('mnist'.*--data=digits, which"),
        ([*TINY, "--data=mnist", "--data_dir=/none"], "'/none' does not exist"),
        ([*TINY, "--stop_at_step=0"], "--stop_at_step must be more than 0"),
        ([*GAN, "--data=ring8", "--networks=mlp", "--image_size=32"], "--image_size is for images"),
        (
            [*TINY, "--data=layered_digits", "--binarize=fixed"],
            "'fixed' is of digits before they lie on their background.*'layered_digits'",
        ),
        ([*TINY, "--image_size=0"], "--image_size must be more than 0"),
        (["--flagfile=configs/iwae_digit.cfg"], r"Did you mean: iwae_digits\.cfg\?"),
        (["--flagfile=/none/iwae.cfg"], "There is no folder /none"),
        ([*TINY, "--run_dir=/proc/run"], "cannot write /proc/run: "),
        ([*TINY, "--run_dir=/dev/full/run"], "cannot write /dev/full/run.*: a file is in the way"),
        ([*TINY, "stray"], "unexpected argument: 'stray'"),
        ([*GAN, "--discriminator_steps=0"], "--discriminator_steps must be more than 0"),
        ([*GAN, "--penalty_weight=-1"], "--penalty_weight must be 0 or more"),
        (["--system=vae.attribute", "--data=digits"], r"no key 'attributes'.*layered_digits"),
        (["--system=gan.unrolled", "--unrolled_steps=-1"], "--unrolled_steps must be 0 or more"),
        ([*GAN, "--minibatch_kernels=4", "--batch_size=1"], "--batch_size must be"),
        ([*GAN, "--feature_matching_layer=conv_9"], r"layers \['.*'\]\. Received: 'conv_9'"),
        ([*GAN, "--adversarial_weight=0"], "the generator has nothing to learn by"),
        (
            ["--system=gan.infogan", "--adversarial_weight=0", "--info_to_generator=false"],
            "nothing to learn by",
        ),
        (
            ["--system=gan.ebgan", "--adversarial_weight=0", "--repelling_weight=0"],
            "nothing to learn by",
        ),
        (
            ["--system=gan.mdgan", "--adversarial_weight=0", "--form=plain"],
            "nothing to learn by",
        ),
        (
            ["--system=vae.vae_gan", "--adversarial_weight=0", "--form=gan"],
            "nothing to learn by",
        ),
        (
            [
                "--flagfile=configs/cyclegan_digits.cfg",
                "--adversarial_weight=0",
                "--cycle_weight=0",
                "--identity_weight=0",
            ],
            "generators have nothing to learn by",
        ),
        (
            ["--system=gan.improved", "--feature_matching_layer=none"],
            "nothing to learn by.*--feature_matching_layer=none",
        ),
        (
            ["--system=vae.gumbel", "--estimator=score", "--free_bits=1"],
            "score function's gradient has no free bits",
        ),
        (
            ["--system=vae.gumbel", "--estimator=score", "--straight_through"],
            "one-hots already.* Received: --straight_through",
        ),
        ([*GAN, "--norm=virtual", "--reference_size=2000"], "at most the 1397 training examples"),
        ([*GAN, "--hidden_units="], "--hidden_units must have at least one number"),
        (["--system=gan.ebgan", "--discriminator_units="], "--discriminator_units must have"),
        ([*GAN, "--data=ring8"], "set --networks=mlp. Received: --networks=dcgan"),
        (["--system=gan.wgan", "--discriminator_steps=-1"], "--discriminator_steps=-1"),
        (
            ["--system=vae.iaf", "--flow_hidden_units=20"],
            "--flow_hidden_units must be at least 50 .* Received: --flow_hidden_units=20",
        ),
        (
            ["--system=vae.af_prior", "--latent_dims=1"],
            "2 latents or more.* set --latent_dims. Received: --latent_dims=1",
        ),
        (["--system=flow.maf", "--hidden_units=20"], "at least 63 for 64 dimensions"),
        ([*GAN, "--image_size=9"], r"sides are .* 8, 10, 12, .*Received: 9x9\. Set --image_size"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_one_line(fails, flags, match, monkeypatch, tmp_path):
    monkeypatch.chdir(runs.ROOT)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    fails(match, *flags)
    assert not (tmp_path / "run" / "checkpoints").exists()  # nothing was begun


def test_a_flagfile_that_includes_itself(fails, tmp_path):
    path = tmp_path / "circle.cfg"
    path.write_text(f"--system=vae.vae\n--flagfile={path}\n")
    fails(r"flagfile includes itself: .*circle\.cfg -> .*circle\.cfg", f"--flagfile={path}")


def test_images_of_several_sizes(fails, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, side in enumerate([8, 9] * 30):
        picture = np.full((side, side, 3), i, np.uint8)
        Image.fromarray(picture).save(folder / f"{i}.png")
    fails("--image_size", *TINY, "--binarize=none", f"--data=folder:{folder}")


def test_a_run_directory_of_other_flags(fails, tmp_path, digits_dir):
    path = tmp_path / "run"
    flags = (*TINY, f"--data_dir={digits_dir}")
    assert runs.train_here(path, *flags, "--k=2") == 0
    before = sorted(p.name for p in path.rglob("*"))
    line = fails("belongs to a run with other flags", *flags, "--k=3", "--seed=1")
    for shown in ("--k=2 (there)", "--k=3 (now)", "--seed=0 (there)", "--seed=1 (now)"):
        assert shown in line
    assert "--epochs" not in line
    assert sorted(p.name for p in path.rglob("*")) == before


def test_other_data_than_the_run_began_with(fails, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 256, (24, 8, 8), np.uint8)
    for i in range(20):
        Image.fromarray(image[i]).save(folder / f"{i:02d}.png")
    flags = (*TINY, "--batch_size=4", "--binarize=none", f"--data=folder:{folder}")
    assert runs.train_here(tmp_path / "run", *flags) == 0
    before = (tmp_path / "run" / "data.json").read_text()
    for i in range(20, 24):
        Image.fromarray(image[i]).save(folder / f"{i:02d}.png")
    fails(r"train_size \d+ \(there\), \d+ \(now\).* restore the data", *flags)
    assert (tmp_path / "run" / "data.json").read_text() == before


def test_a_run_that_never_began_takes_other_flags(fails, tmp_path, digits_dir):
    path = tmp_path / "run"
    flags = ("--system=gan.improved", "--steps=1", "--batch_size=8", "--generator_units=8")
    fails("500", *flags, "--labels_per_class=500")
    assert not list((path / "checkpoints").iterdir())
    with run.RunDir(path).lock():
        fails("in use by another process", *flags, "--labels_per_class=2")
    assert "--labels_per_class=500" in (path / "flags.cfg").read_text()
    assert runs.train_here(path, *flags, "--labels_per_class=2", f"--data_dir={digits_dir}") == 0
    assert "--labels_per_class=2" in (path / "flags.cfg").read_text()


def test_a_run_of_an_earlier_version_goes_on_with_later_flags_at_their_defaults(tmp_path):
    run_dir = run.RunDir(tmp_path / "run")
    run_dir.create("--k=2\n")
    (run_dir.checkpoints / "step_1.npz").touch()
    run_dir.create("--k=2\n--since=1\n", defaults="--k=50\n--since=1\n")
    with pytest.raises(run.UserError, match=r"other flags: --since=2 \(now\)"):
        run_dir.create("--k=2\n--since=2\n", defaults="--k=50\n--since=1\n")
    with pytest.raises(run.UserError, match=r"--k=2 \(there\), --k=50 \(now\)"):
        run_dir.create("--k=50\n--since=1\n", defaults="--k=50\n--since=1\n")


def test_a_run_directory_in_use(fails, tmp_path):
    run_dir = run.RunDir(tmp_path / "run")
    flagfile = tmp_path / "flags.cfg"
    flagfile.write_text("\n".join(TINY))
    run_dir.path.mkdir()
    with run_dir.lock():
        fails("is in use by another process", f"--flagfile={flagfile}")


def test_a_run_directory_that_is_a_file(fails, tmp_path):
    (tmp_path / "file").write_text("")
    fails("cannot write .*file.*: a file is in the way", *TINY, f"--run_dir={tmp_path}/file")
    fails("cannot write .*: a file is in the way", *TINY, f"--run_dir={tmp_path}/file/run")


def test_a_full_disk(fails, tmp_path, monkeypatch):
    def half(file, **arrays):
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", half)
    fails("cannot write .*: no space left on the disk", *TINY)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "cause"),
    [(errno.EPERM, "no permission to write"), (errno.EFBIG, "the file would be larger than is al")],
)
def test_other_causes_of_a_failed_write(fails, monkeypatch, number, cause):
    def fail(file, **arrays):
        raise OSError(number, "")

    monkeypatch.setattr(np, "savez", fail)
    fails(f"cannot write .*: {cause}", *TINY)


def test_a_name_too_long(fails, tmp_path):
    fails("cannot write .*: the name is too long", *TINY, f"--run_dir={tmp_path}/{'x' * 300}")


def test_a_folder_in_the_way_of_a_file(fails, tmp_path):
    (tmp_path / "run" / "flags.cfg").mkdir(parents=True)
    fails("cannot (write|read) .*", *TINY)


def test_no_space_for_tensorboard(tmp_path, digits_dir):
    """A limit on the size of files, above all that is written before the events."""
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); "
        "from tfgen import commands, train; sys.exit(commands.execute(train.main, sys.argv))"
    )
    often = ("--epochs=1000", "--log_every_steps=1", "--checkpoint_every_steps=1000000")
    flags = (*TINY, *often, f"--run_dir={tmp_path}/run", f"--data_dir={digits_dir}")
    process = subprocess.run(
        [sys.executable, "-c", limited, *flags], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 1, process.stderr
    assert "Traceback" not in process.stderr
    last = process.stderr.strip().splitlines()[-1]
    assert re.match(r"FATAL: cannot write .*(events|metrics)", last), process.stderr


def test_all_checkpoints_damaged(fails, tmp_path, digits_dir):
    assert runs.train_here(tmp_path / "run", *TINY, f"--data_dir={digits_dir}") == 0
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"PK")
    fails("all 1 checkpoints in .* are damaged; remove them", *TINY)


def test_a_loss_that_is_not_finite(fails, tmp_path):
    # The first step is taken at the initial weights, so its loss is finite; the second is not.
    flags = (*TINY, "--epochs=3", "--learning_rate=1e30", "--schedule=constant")
    line = fails(r"became (nan|inf|-inf) at step \d+\. Last good checkpoint: none\.", *flags)
    step = int(re.search(r"at step (\d+)", line)[1])
    assert step == 2
    assert re.search(r"FATAL: (loss|elbo|likelihood|kl) became", line)


def test_the_last_good_checkpoint_is_named(fails, tmp_path):
    # Steps that grow by 3 each time, from small ones to a loss that is not finite.
    line = fails(
        r"at step \d+\. Last good checkpoint: step \d+ in ",
        *TINY,
        "--epochs=3",
        "--likelihood=gaussian",
        "--learning_rate=3e9",
        "--warmup_steps=1000000000",
        "--checkpoint_every_steps=1",
    )
    bad, good = re.search(r"at step (\d+).*: step (\d+) in", line).groups()
    # The newest holds the weights whose loss was not finite; the one before gave a finite one.
    assert checkpoint.all_steps(tmp_path / "run" / "checkpoints")[-1] == int(bad) - 1
    assert int(good) == int(bad) - 2


@pytest.mark.parametrize(
    "flags", [["--system=vae.iwea"], [*TINY, "--data=digits", "--run_dir=/dev/null/run"]]
)
def test_real_processes(flags, digits_dir):
    process = subprocess.run(
        [sys.executable, "-m", "tfgen.train", *flags, f"--data_dir={digits_dir}"],
        cwd=runs.ROOT,
        env={**os.environ, "PYTHONPATH": str(runs.ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith("FATAL: ")
    assert "Traceback" not in process.stderr
    assert pathlib.Path("/dev/null/run").exists() is False


def test_an_evaluation_of_other_data_than_the_training_s(tmp_path, capsys, caplog):
    folder = tmp_path / "images"
    folder.mkdir()

    def write(count: int, side: int) -> None:
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (side, side), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:02d}.png")

    write(20, 8)
    flags = (*TINY, "--batch_size=4", "--binarize=none", f"--data=folder:{folder}")
    assert runs.train_here(tmp_path / "run", *flags) == 0
    call = ["evaluate", f"--run_dir={tmp_path / 'run'}", "--k=2"]
    capsys.readouterr()
    assert commands.execute(evaluate.main, call) == 0
    assert "the data has changed" not in caplog.text
    write(30, 8)
    assert commands.execute(evaluate.main, call) == 0
    assert re.search(r"the data has changed since .*train_size \d+ \(there\)", caplog.text)
    write(30, 16)
    capsys.readouterr()
    assert commands.execute(evaluate.main, call) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("FATAL: the data is not that which the run in ")
    assert "shapes {'image': [8, 8, 1]} (there)" in line
    assert "train_size" not in line


def test_a_home_folder(tmp_path, monkeypatch, digits_dir):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    os.symlink(digits_dir, tmp_path / "tfds")
    assert runs.train_here(pathlib.Path("~/run"), *TINY, "--data_dir=~/tfds", "--steps=1") == 0
    assert not (tmp_path / "~").exists()
    for main, flags in ((sample.main, ["--out=~/out"]), (export.main, ["--out=~/out"])):
        assert commands.execute(main, ["command", "--run_dir=~/run", *flags]) == 0
    assert (tmp_path / "out" / "random-seed0.png").is_file()
    assert (tmp_path / "out" / "model.keras").is_file()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("L", (8, 8), 10 * i).save(tmp_path / name / f"{i}.png")
    for name, key in (
        ("folder:~/a", "image"),
        ("pairs:~/a,~/b", "source"),
        ("unpaired:~/a,~/b", "a"),
    ):
        assert data.load(name, needs=(key,)).spec.train_size >= 4


def test_damage_that_shows_only_while_the_data_is_read(capsys):
    def main(argv) -> int:
        raise tf.errors.DataLossError(None, None, "{{function_node x}} bad record at 7 [Op:I]")

    assert commands.execute(main, []) == 1
    assert capsys.readouterr().err == "FATAL: a file of the data is damaged: bad record at 7\n"
    assert errors.one_line_of(ValueError()) == "ValueError"


def test_a_reader_that_has_enough(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(
        "from tfgen import commands\n"
        "def main(argv):\n"
        "    while True:\n"
        "        print('x' * 1000)\n"
        "raise SystemExit(commands.execute(main, []))\n"
    )
    process = subprocess.run(
        ["bash", "-c", f"{sys.executable} {script} | head -c 10"],
        env={**os.environ, "PYTHONPATH": str(runs.ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (process.stdout, process.stderr) == ("x" * 10, "")
