"""Flags from dataclasses: types, help, strictness, suggestions, flagfiles, round trips."""

import dataclasses
import importlib
import pathlib
import pkgutil
from typing import Literal

import pytest
from absl import flags

import tfgen
from tfgen import commands, hparams, listing, train
from tfgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Example(hparams.HParams):
    """One field of every kind."""

    whole: int = 3  # A whole number.
    real: float = 0.5  # A real number.
    text: str = "a"  # Some text.
    yes: bool = True  # A switch.
    choice: Literal["one", "two"] = "one"  # One of two.
    # Numbers,
    # on two lines.
    sizes: tuple[int, ...] = (1, 2)
    maybe: int | None = None  # A number or none.
    perhaps: tuple[float, ...] | None = (0.5,)  # Numbers or none.
    label: str | None = None  # Text or none.

    POSITIVE = ("whole", "sizes", "maybe")


@dataclasses.dataclass(frozen=True)
class Nothing:
    """No options."""


@pytest.fixture
def example(monkeypatch):
    """Parses flags of a system that is `Example`."""
    module = type("module", (), {"HParams": Example})
    monkeypatch.setattr(hparams, "load_system", lambda name: module)

    def parse(*args):
        return hparams.parse(["program", "--system=toy.example", *map(str, args)], Nothing)[1]

    return parse


@pytest.fixture
def file(tmp_path):
    """Writes a flagfile, returns the flag that names it."""

    def write(name, *lines):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return f"--flagfile={tmp_path / name}"

    return write


def all_systems():
    return {name: hparams.load_system(name).HParams for name in hparams.systems()}


def all_options():
    """The dataclass of options of every command."""
    found = {}
    for module in pkgutil.iter_modules(tfgen.__path__):
        path = pathlib.Path(tfgen.__path__[0]) / f"{module.name}.py"
        if path.is_file() and "class Options" in path.read_text():
            found[module.name] = importlib.import_module(f"tfgen.{module.name}").Options
    return found


# Values.


@pytest.mark.parametrize(
    ("arg", "name", "value"),
    [
        ("--whole=7", "whole", 7),
        ("--real=2", "real", 2.0),
        ("--real=1e-3", "real", 1e-3),
        ("--text=x y", "text", "x y"),
        ("--text=", "text", ""),
        ("--yes=false", "yes", False),
        ("--noyes", "yes", False),
        ("--yes", "yes", True),
        ("--choice=two", "choice", "two"),
        ("--sizes=5", "sizes", (5,)),
        ("--sizes=5, 6,7", "sizes", (5, 6, 7)),
        ("--maybe=4", "maybe", 4),
        ("--maybe=none", "maybe", None),
        ("--maybe=", "maybe", None),
        ("--perhaps=0.1,1", "perhaps", (0.1, 1.0)),
        ("--perhaps=none", "perhaps", None),
        ("--label=some", "label", "some"),
        ("--label=none", "label", None),
        ("--clip_norm=2", "clip_norm", 2.0),
    ],
)
def test_a_value(example, arg, name, value):
    found = getattr(example(arg), name)
    assert found == value
    assert type(found) is type(value)


def test_defaults(example):
    assert example() == Example()


def test_values_apart_from_their_names(example):
    # Reading --system first must not stop at what it does not know.
    parsed = hparams.parse(["program", "--whole", "7", "--system", "toy.example"], Nothing)
    assert parsed[1].whole == 7
    assert example("--whole", "7").whole == 7


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("--whole=x", "--whole=x: .*'x'"),
        ("--whole=1.5", r"--whole=1\.5"),
        ("--whole=none", "--whole=none"),
        ("--yes=maybe", "maybe"),
        ("--choice=too", r"--choice=too: value should be one of <one\|two>\. Did you mean: two\?"),
        ("--sizes=1,x", "--sizes=1,x"),
        ("--whole=0", r"--whole must be more than 0\. Received: --whole=0"),
        ("--sizes=3,-1", r"--sizes must be more than 0\. Received: --sizes=3,-1"),
        ("--maybe=-2", r"--maybe must be more than 0\. Received: --maybe=-2"),
        ("--real=inf", r"--real must be a finite number\. Received: --real=inf"),
        ("--batch_size=0", "--batch_size must be more than 0"),
        ("--epochs=0", "--epochs must be more than 0"),
        ("--epochs=nan", "--epochs must be a finite number"),
        ("--learning_rate=-1", "--learning_rate must be more than 0"),
        ("--steps_per_execution=0", "--steps_per_execution must be more than 0"),
        ("--warmup_steps=-1", "--warmup_steps must be 0 or more"),
        ("--seed=-1", "--seed must be 0 or more"),
        ("--seed=99999999999999999999", r"--seed must be below 2\^63"),
        ("--ema_decay=1", "--ema_decay must be between 0 and 1"),
        ("--decay_from=1", "--decay_from must be at least 0 and below 1"),
        ("--schedule_drops=0.7,0.5", "--schedule_drops must be rising parts"),
        ("--image_size=0", "--image_size must be more than 0"),
        ("--precision=mixed_floot16", r"Did you mean: mixed_float16\?"),
    ],
)
def test_a_wrong_value(example, arg, message):
    with pytest.raises(UserError, match=message):
        example(arg)


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("--schedul=linear", r"Unknown command line flag 'schedul'\. Did you mean: schedule"),
        ("--batchsize=3", r"'batchsize'\. Did you mean: batch_size"),
        ("--noyess", "Unknown command line flag 'noyess'"),
        ("--flgfile=x", "'flgfile'"),
        ("stray", "unexpected argument: 'stray'"),
        ("--whole", "Missing value for flag --whole"),
    ],
)
def test_an_unknown_flag(example, arg, message):
    with pytest.raises(UserError, match=message):
        example(arg)


def test_an_unknown_system():
    with pytest.raises(UserError, match=r"--system=vae\.iwea\. Did you mean: vae\.iwae\?"):
        hparams.parse(["program", "--system=vae.iwea"], Nothing)
    with pytest.raises(UserError, match=r"All systems: .*vae\.vae"):
        hparams.load_system("zzz")
    with pytest.raises(UserError, match="--system is missing"):
        hparams.parse(["program"], Nothing)


# Flagfiles.


def test_later_values_win(example, file):
    small, large = file("small.cfg", "--whole=1"), file("large.cfg", "--whole=100")
    assert example(small).whole == 1
    assert example(small, large).whole == 100
    assert example(small, "--whole=5").whole == 5
    assert example("--whole=5", small).whole == 1
    assert example("--whole=5", "--whole=6").whole == 6


def test_nested_flagfiles_comments_and_blank_lines(example, file):
    inner = file("inner.cfg", "# inner", "--whole=1", "--real=1")
    outer = file("outer.cfg", "", "# --whole=8 is not read", inner, "// nor this", "  --real=2")
    found = example(outer)
    assert (found.whole, found.real) == (1, 2.0)
    assert found == example(outer, file("empty.cfg", ""))


def test_the_system_may_stand_in_a_nested_flagfile(file):
    inner = file("inner.cfg", "--system=vae.vae", "--k=3")
    name, found, _ = hparams.parse(["program", file("outer.cfg", inner, "--k=4")], Nothing)
    assert (name, found.k) == ("vae.vae", 4)


def test_a_flagfile_that_is_not_there(example, file, tmp_path):
    file("iwae_digits.cfg", "--whole=1")
    near = rf"not found: --flagfile={tmp_path}/iwae_digit\.cfg\. Did you mean: iwae_digits\.cfg\?"
    with pytest.raises(UserError, match=near):
        example(f"--flagfile={tmp_path}/iwae_digit.cfg")
    with pytest.raises(UserError, match=r"There is no folder .*/none\."):
        example(f"--flagfile={tmp_path}/none/x.cfg")
    outer = file("outer.cfg", "--flagfile=/none/x.cfg")
    with pytest.raises(UserError, match=r"/none/x\.cfg \(named in .*outer\.cfg\)"):
        example(outer)
    with pytest.raises(UserError, match="flagfile not found"):
        example("--flagfile")


def test_a_flagfile_that_includes_itself(example, file, tmp_path):
    with pytest.raises(UserError, match=r"includes itself: .*/me\.cfg -> .*/me\.cfg"):
        example(file("me.cfg", f"--flagfile={tmp_path}/me.cfg"))
    file("a.cfg", f"--flagfile={tmp_path}/b.cfg")
    with pytest.raises(UserError, match=r"includes itself: .*a\.cfg -> .*b\.cfg -> .*a\.cfg"):
        example(file("b.cfg", f"--flagfile={tmp_path}/a.cfg").replace("b.cfg", "a.cfg"))


def test_one_flagfile_twice_is_no_circle(example, file):
    shared = file("shared.cfg", "--whole=4")
    assert example(file("a.cfg", shared), file("b.cfg", shared)).whole == 4


def test_a_flagfile_that_is_no_text(example, tmp_path):
    (tmp_path / "picture.cfg").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match="cannot be read as text"):
        example(f"--flagfile={tmp_path}/picture.cfg")


def test_an_unknown_flag_in_a_flagfile(example, file):
    with pytest.raises(UserError, match=r"'gp_wieght'"):
        example(file("typo.cfg", "--gp_wieght=5"))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"whole": 9, "real": 1e-7, "text": "folder:/a b", "yes": False, "choice": "two"},
        {"sizes": (7,), "maybe": 8, "perhaps": None, "label": "x", "clip_norm": 0.1},
        {"learning_rate": 0.1 + 0.2, "schedule_drops": (0.1, 1 / 3)},
    ],
)
def test_round_trip_of_a_flagfile(example, file, changed):
    before = Example(**changed)
    text = hparams.to_flagfile("toy.example", before)
    assert text.startswith("--system=toy.example\n")
    assert example(file("flags.cfg", text)) == before


@pytest.mark.parametrize("name", hparams.systems())
def test_round_trip_of_every_system(name, file):
    cls = hparams.load_system(name).HParams
    before = cls(seed=7, ema_decay=0.99, batch_size=3)
    flagfile = file("flags.cfg", hparams.to_flagfile(name, before))
    assert hparams.parse(["program", flagfile], Nothing)[:2] == (name, before)
    assert hparams.parse(["program", flagfile], train.Options)[:2] == (name, before)


# Help.


@pytest.mark.parametrize("name", hparams.systems())
def test_every_field_of_a_system_has_help(name):
    cls = hparams.load_system(name).HParams
    helps = {f.name: hparams.field_help(cls).get(f.name, "") for f in dataclasses.fields(cls)}
    assert not [name for name, text in helps.items() if not text.endswith(".")]


@pytest.mark.parametrize("command", sorted(all_options()))
def test_every_option_of_a_command_has_help(command):
    cls = all_options()[command]
    helps = {f.name: hparams.field_help(cls).get(f.name, "") for f in dataclasses.fields(cls)}
    assert not [name for name, text in helps.items() if not text.endswith(".")]


@pytest.mark.parametrize("name", hparams.systems())
def test_options_and_hyperparameters_share_no_name(name):
    names = {f.name for f in dataclasses.fields(hparams.load_system(name).HParams)}
    for options in all_options().values():
        shared = names & {f.name for f in dataclasses.fields(options)}
        assert options is not train.Options or not shared


def test_help_comes_from_comments():
    texts = hparams.field_help(Example)
    assert texts["whole"] == "A whole number."
    assert texts["sizes"] == "Numbers, on two lines."
    assert texts["seed"] == "Everything random comes from it."


def test_flag_types_and_defaults():
    values = flags.FlagValues()
    hparams.define(Example, values, heading="h")
    values(["program"])
    assert values["sizes"].default_as_str == "'1,2'"
    assert values["sizes"].flag_type() == "list of int"
    assert values["choice"].parser.enum_values == ["one", "two"]
    assert values["maybe"].value is None


def run_train(capsys, *args):
    status = commands.execute(train.main, ["train", *args])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_help_without_and_with_a_system(capsys):
    status, text, error = run_train(capsys, "--help")
    assert (status, error) == (0, "")
    assert "--run_dir" in text
    assert "--latent_dims" not in text
    status, text, _ = run_train(capsys, "--system=vae.iwae", "--help")
    assert "hyperparameters of vae.iwae:" in text
    for field in dataclasses.fields(hparams.load_system("vae.iwae").HParams):
        assert f"--{field.name}:" in text or f"--[no]{field.name}:" in text
    assert "Importance samples per image" in text
    assert "<float32|mixed_bfloat16|mixed_float16>: Keras dtype policy" in " ".join(text.split())


def test_list(capsys, monkeypatch):
    monkeypatch.chdir(pathlib.Path(__file__).parents[1])
    status, text, error = run_train(capsys, "--list")
    assert (status, error) == (0, "")
    for name in hparams.systems():
        assert f"{name}\n" in text
    assert (
        "Y. Burda, R. Grosse, R. Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016" in text
    )
    assert "needs    image" in text
    assert "configs/iwae_digits.cfg" in text


def test_a_value_called_list_or_help_is_a_value(example):
    assert example("--text", "list").text == "list"
    assert not hparams.asks("list", "list")
    assert hparams.asks("--help=true", "help")
    assert not hparams.asks("--help=false", "help")
    assert hparams.asks("-list", "list")


def test_configs_by_system(tmp_path):
    (tmp_path / "a.cfg").write_text("--system=vae.vae\n--k=3\n")
    (tmp_path / "b.cfg").write_text(f"--flagfile={tmp_path}/a.cfg\n")
    (tmp_path / "c.cfg").write_text("--k=3\n")
    found = listing.configs_by_system(tmp_path)
    assert found == {"vae.vae": [tmp_path / "a.cfg", tmp_path / "b.cfg"]}


def test_dry_run(capsys, tmp_path, digits_dir):
    run_dir = tmp_path / "run"
    status, text, _ = run_train(
        capsys,
        "--system=vae.vae",
        "--latent_dims=2",
        "--hidden_units=8",
        "--ema_decay=0.9",
        f"--run_dir={run_dir}",
        f"--data_dir={digits_dir}",
        "--dry_run",
    )
    assert status == 0
    assert not run_dir.exists()
    assert "--system=vae.vae\n" in text
    assert "--latent_dims=2\n" in text
    # Encoder 64-8-8-4 and decoder 2-8-8-64: 520 + 72 + 36 and 24 + 72 + 576.
    parameters = (
        (64 * 8 + 8) + (8 * 8 + 8) + (8 * 4 + 4) + (2 * 8 + 8) + (8 * 8 + 8) + (8 * 64 + 64)
    )
    assert f"parameters: {parameters:,}, of which {parameters:,} are trained" in text
    assert f"model: {parameters:,} by adam" in text


def test_memory_estimate(digits_dir):
    from tests.training.toys import Tug
    from tfgen.training import memory

    model = Tug()
    model.compile(low="adam", high="sgd", ema_decay=0.9)
    # Two networks of 3 x 2 + 2 float32 values; Adam has two slots, a step size and a counter of 4
    # and 8 bytes at the most, SGD none.
    found = memory.estimate(model)
    assert found["weights"] == found["gradients"] == found["moving averages"] == 2 * 8 * 4
    assert 2 * 8 * 4 < found["optimiser slots"] <= 2 * 8 * 4 + 2 * 12
    assert "low: 8 by adam" in memory.describe(model, hparams.HParams())
