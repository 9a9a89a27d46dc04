"""Hyperparameters as frozen dataclasses, and their flags.

A system's `HParams` is a frozen dataclass whose fields are typed, have the paper's default and
carry one trailing comment each::

    @dataclasses.dataclass(frozen=True)
    class HParams(hparams.HParams):
        k: int = 50  # Importance samples per image; 1 is the VAE.

The comment is the help of the flag `--k`. A command reads `--system` first, imports that system's
module by its dotted name, defines its flags on a fresh `absl` `FlagValues` (nothing is global)
and then parses strictly: an unknown flag is an error with a suggestion.
"""

import ast
import dataclasses
import difflib
import functools
import importlib
import inspect
import io
import math
import os
import pkgutil
import tokenize
import types
import typing
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from absl import flags

from tfgen.errors import UserError

if TYPE_CHECKING:
    from tfgen.jitter import Jitter


@dataclasses.dataclass(frozen=True)
class HParams:
    """What every system has. Everything here decides the trained weights.

    A system's own `HParams` derives from this class, may set other defaults and adds its fields.
    """

    data: str = "digits"  # Data set: digits, ring8, a TFDS name, folder:PATH, ...
    # Side in pixels that images are resized to, or the digits of images that are made of digits;
    # None keeps them.
    image_size: int | None = None
    batch_size: int = 100  # Examples a step over all replicas (the global batch).
    epochs: float = 100.0  # Passes over the training split; may be a fraction.
    steps: int | None = None  # Training steps; none: as many as the epochs make.
    # Epochs without a lower validation loss after which training ends, at its best weights.
    early_stopping_epochs: int | None = None
    seed: int = 0  # Everything random comes from it.
    learning_rate: float = 1e-3  # Peak step size of the optimiser.
    # Step size over the run: constant; stages (3^i epochs each, IWAE); linear decay; drops by 10.
    schedule: Literal["constant", "stages", "linear", "piecewise"] = "constant"
    schedule_stages: int = 8  # Stages of --schedule=stages; stage i lasts 3^i parts of the run.
    # Where --schedule=piecewise divides the step size by 10, as parts of the run.
    schedule_drops: tuple[float, ...] = (0.5, 0.75)
    decay_from: float = 0.5  # Part of the run after which --schedule=linear falls to 0.
    warmup_steps: int = 0  # Steps over which the step size rises from 0; 0 is off.
    clip_norm: float | None = None  # Global norm that gradients are clipped to; None is off.
    ema_decay: float | None = None  # Decay of the weights' moving average, e.g. 0.999; None is off.
    # Keras dtype policy of the networks.
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit: bool = False  # Compile the step by XLA (one replica only).
    steps_per_execution: int = 10  # Steps that run in the graph between two looks at the clock.

    # Value checks by field name: (test, what would be right).
    POSITIVE: ClassVar[tuple[str, ...]] = (
        "image_size", "batch_size", "epochs", "steps", "early_stopping_epochs", "learning_rate",
        "schedule_stages", "clip_norm", "steps_per_execution",
    )  # fmt: skip
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ("warmup_steps", "seed")
    NOT_EMPTY: ClassVar[tuple[str, ...]] = ()  # Lists of numbers.

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if isinstance(getattr(self, field.name), float):
                self.check(field.name, math.isfinite, "a finite number")
            if typing.get_origin(field.type) is Literal:
                allowed = typing.get_args(field.type)
                right = f"one of {', '.join(map(to_text, allowed))}"
                self.check(field.name, allowed.__contains__, right)
        for cls in reversed(type(self).__mro__):
            for name in vars(cls).get("POSITIVE", ()):
                self.check(name, lambda v: v > 0, "more than 0")
            for name in vars(cls).get("NOT_NEGATIVE", ()):
                self.check(name, lambda v: v >= 0, "0 or more")
            for name in vars(cls).get("NOT_EMPTY", ()):
                if not getattr(self, name):
                    raise ValueError(f"--{name} must have at least one number. Received: --{name}=")
        self.check("seed", lambda v: v < 2**63, "below 2^63")
        self.check("ema_decay", lambda v: 0 < v < 1, "between 0 and 1")
        self.check("decay_from", lambda v: 0 <= v < 1, "at least 0 and below 1")
        self.check(
            "schedule_drops",
            lambda v: list(v) == sorted(v) and all(0 < p < 1 for p in v),
            "rising parts of the run between 0 and 1",
        )

    def check(self, name: str, ok: typing.Callable[[Any], bool], right: str) -> None:
        """Raises `ValueError` in one line unless the field is None or `ok(value)`."""
        value = getattr(self, name)
        if value is None:
            return
        values = value if isinstance(value, tuple) and name != "schedule_drops" else (value,)
        if not all(ok(v) for v in values):
            raise ValueError(f"--{name} must be {right}. Received: --{name}={to_text(value)}")

    def total_steps(self, train_size: int) -> int:
        """Training steps of the whole run, at least 1; an epoch drops its last short batch."""
        if self.steps is not None:
            return self.steps
        batches = self.epochs * (train_size // self.batch_size)
        return max(1, round(batches / self.batches_per_step))

    def compile_options(self) -> dict[str, Any]:
        """Arguments of `GenerativeModel.compile` but for the optimisers."""
        return {
            "seed": self.seed,
            "clip_norm": self.clip_norm,
            "ema_decay": self.ema_decay,
            "jit_compile": self.jit,
            "steps_per_execution": self.steps_per_execution,
        }

    @property
    def batches_per_step(self) -> int:
        """Batches that a training step takes, its extra steps included."""
        return 1

    @property
    def needs(self) -> tuple[str, ...]:
        """Batch keys that the system uses; the data set must have them."""
        return ("image",)

    @property
    def image_range(self) -> str:
        """The range in which the system wants images: see `tfgen.data.load`."""
        return "unit"

    @property
    def binarization(self) -> str:
        """How grey values become {0, 1} where `image_range` is "binary"."""
        return "dynamic"

    @property
    def jitter(self) -> "Jitter | None":
        """How images are resized, cropped and flipped; None: as they are."""
        return None


def systems() -> list[str]:
    """Dotted names of all systems, found by walking `tfgen.models` without importing any."""
    import tfgen.models

    found = []
    for family in pkgutil.iter_modules(tfgen.models.__path__):
        folder = os.path.join(tfgen.models.__path__[0], family.name)
        found += [f"{family.name}.{m.name}" for m in pkgutil.iter_modules([folder])]
    return sorted(name for name in found if not name.split(".")[1].startswith("_"))


def load_system(name: str) -> types.ModuleType:
    """Imports the module of a system, e.g. "vae.iwae" -> `tfgen.models.vae.iwae`.

    Raises:
        UserError: if there is no such system; the message has the nearest name.
    """
    known = systems()
    if name not in known:
        raise UserError(
            f"unknown system: --system={name}.{nearest(name, known)} "
            f"All systems: {', '.join(known)}"
        )
    return importlib.import_module(f"tfgen.models.{name}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The words that suggest the nearest known name; the empty string if none is near."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean: {match[0]}?" if match else ""


@functools.cache
def field_help(cls: type) -> dict[str, str]:
    """Help of each field: the comment behind it or above it, of the class that sets it last."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            texts.update(_comments(base))
    return texts


def _comments(cls: type) -> dict[str, str]:
    source = inspect.cleandoc("\n" + inspect.getsource(cls))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    helps = {}
    for node in typing.cast(ast.ClassDef, ast.parse(source).body[0]).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = node.lineno - 1
            while above in comments and source.splitlines()[above - 1].strip().startswith("#"):
                above -= 1
            block = [comments[line] for line in range(above + 1, node.lineno)]
            helps[node.target.id] = comments.get(typing.cast(int, node.end_lineno), " ".join(block))
    return {name: text for name, text in helps.items() if text}


def define(cls: type, values: flags.FlagValues, *, heading: str) -> None:
    """Defines one flag for each field of a dataclass.

    Args:
        cls: a dataclass whose fields are bool, int, float, str, `Literal` of strings, a tuple of
            numbers, or any of these with `| None`.
        values: the flags are added to it; a flag that is already there is left alone.
        heading: the heading under which `--help` lists them.
    """
    hints = typing.get_type_hints(cls)
    helps = field_help(cls)
    for field in dataclasses.fields(cls):
        if field.name in values:
            continue
        flag: flags.Flag
        if hints[field.name] is bool:
            flag = flags.BooleanFlag(field.name, bool(field.default), helps[field.name])
        else:
            hint = _without_none(hints[field.name])
            parser = _parser(hint)
            default = None if field.default is None else to_text(field.default)
            flag = flags.Flag(
                parser, _Serializer(), field.name, default, _help(hint, helps[field.name])
            )
        flags.DEFINE_flag(flag, values, module_name=heading)


def _help(hint_and_optional: tuple[Any, bool], text: str) -> str:
    """The help of a flag, with the values that it takes in front where they are few."""
    hint, _ = hint_and_optional
    return (
        f"<{'|'.join(typing.get_args(hint))}>: {text}"
        if typing.get_origin(hint) is Literal
        else text
    )


class _OptionalParser(flags.ArgumentParser):
    """Reads "none" or the empty string as None, the rest by the parser of the type."""

    def __init__(self, inner: flags.ArgumentParser):
        self.inner = inner
        self.syntactic_help = inner.syntactic_help

    def parse(self, argument: Any) -> Any:
        return None if argument in ("", "none", "None") else self.inner.parse(argument)

    def flag_type(self) -> str:
        return self.inner.flag_type()


class _TupleParser(flags.ArgumentParser):
    """Reads "200,200" as a tuple of numbers."""

    def __init__(self, item: flags.ArgumentParser):
        self.item = item
        self.syntactic_help = "comma separated numbers"

    def parse(self, argument: Any) -> tuple:
        if isinstance(argument, tuple):
            return argument
        return tuple(self.item.parse(part.strip()) for part in str(argument).split(",") if part)

    def flag_type(self) -> str:
        return f"list of {self.item.flag_type()}"


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = [a for a in typing.get_args(hint) if a is not type(None)]
        return inner, True
    return hint, False


def _parser(hint_and_optional: tuple[Any, bool]) -> Any:
    hint, optional = hint_and_optional
    parser: Any
    if typing.get_origin(hint) is Literal:
        parser = flags.EnumParser(list(typing.get_args(hint)))
    elif typing.get_origin(hint) is tuple:
        parser = _TupleParser(_parser((typing.get_args(hint)[0], False)))
    else:
        parser = {
            int: flags.IntegerParser(),
            float: flags.FloatParser(),
            str: flags.ArgumentParser(),
            bool: flags.BooleanParser(),
        }[hint]
    return _OptionalParser(parser) if optional else parser


class _Serializer(flags.ArgumentSerializer):
    def serialize(self, value: Any) -> str:
        return to_text(value)


def to_text(value: Any) -> str:
    """A value as it stands in a flagfile."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(to_text(v) for v in value)
    return repr(value) if isinstance(value, float) else str(value)


def from_flags(cls: type, values: flags.FlagValues) -> Any:
    """The dataclass with the values of its flags; a `ValueError` becomes a `UserError`."""
    try:
        return cls(**{f.name: values[f.name].value for f in dataclasses.fields(cls)})
    except ValueError as error:
        raise UserError(str(error)) from error


def to_flagfile(system: str, hparams: HParams) -> str:
    """The resolved flags as the text of a flagfile that gives the same run again."""
    lines = [f"--system={system}"]
    for field in dataclasses.fields(hparams):
        lines.append(f"--{field.name}={to_text(getattr(hparams, field.name))}")
    return "\n".join(lines) + "\n"


def check_flagfiles(argv: Sequence[str], including: tuple[str, ...] = ()) -> list[str]:
    """Paths of the flagfiles that the arguments name, in order, without those nested in them.

    Raises:
        UserError: if one does not exist or includes itself (absl would only warn).
    """
    found = []
    for at, arg in enumerate(argv):
        name, equals, path = arg.strip().lstrip("-").partition("=")
        if name != "flagfile" or not arg.strip().startswith("-"):
            continue
        if not equals:
            path = argv[at + 1] if at + 1 < len(argv) else ""
        path = os.path.expanduser(path.strip())
        if not os.path.isfile(path):
            within = f" (named in {including[-1]})" if including else ""
            raise UserError(f"flagfile not found: --flagfile={path}{within}.{_near_files(path)}")
        if os.path.realpath(path) in including:
            raise UserError(f"flagfile includes itself: {' -> '.join([*including, path])}")
        found.append(path)
        try:
            with open(path, encoding="utf-8") as file:
                lines = file.readlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"flagfile cannot be read as text: --flagfile={path}: {error}"
            ) from error
        check_flagfiles(lines, (*including, os.path.realpath(path)))
    return found


def _near_files(path: str) -> str:
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        return f" There is no folder {folder}."
    names = sorted(n for n in os.listdir(folder) if n.endswith(".cfg"))
    return nearest(os.path.basename(path), names)


def parse(argv: Sequence[str], options: type) -> tuple[str, HParams, Any]:
    """Reads the command line of a command that builds a system.

    Args:
        argv: arguments with the program's name first.
        options: dataclass of the command's own options (paths and the like), which do not
            influence the trained weights.

    Returns:
        The system's dotted name, its `HParams`, and the command's options.

    Raises:
        UserError: for anything that is wrong, in one line.
    """
    name = named_system(argv, options)
    if not name:
        raise UserError("--system is missing: name one, or a --flagfile that does. See --list")
    cls = load_system(name).HParams
    values = _system_flags(options)
    define(cls, values, heading=f"hyperparameters of {name}")
    _read(argv, values)
    return name, from_flags(cls, values), from_flags(options, values)


def named_system(argv: Sequence[str], options: type) -> str | None:
    """The system that the arguments name, whatever else they hold; see `parse`.

    Raises:
        UserError: for a flagfile that cannot be read.
    """
    check_flagfiles(argv[1:])
    return _read(argv, _system_flags(options), strict=False)["system"].value


def parse_options(argv: Sequence[str], options: type) -> Any:
    """Reads the command line of a command that needs no system: the dataclass of its options.

    Raises:
        UserError: for anything that is wrong, in one line.
    """
    check_flagfiles(argv[1:])
    values = flags.FlagValues()
    define(options, values, heading="options of this command")
    return from_flags(options, _read(argv, values))


def _system_flags(options: type) -> flags.FlagValues:
    values = flags.FlagValues()
    define(options, values, heading="options of this command")
    flag = flags.Flag(
        flags.ArgumentParser(), _Serializer(), "system", None, "Dotted name of the system."
    )
    flags.DEFINE_flag(flag, values, module_name="options of this command")
    return values


def _read(argv: Sequence[str], values: flags.FlagValues, strict: bool = True) -> flags.FlagValues:
    try:
        rest = values(list(argv), known_only=not strict)[1:]
    except flags.Error as error:
        raise UserError(_one_line(error)) from error
    if strict and rest:
        raise UserError(f"unexpected argument: {rest[0]!r}. Flags are written --name=value")
    return values


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, flags.IllegalFlagValueError) and "should be one of" in text:
        value = text.split("=", 1)[1].split(":")[0].strip()
        choices = text.rsplit("<", 1)[1].rstrip(">").split("|")
        text += "." + nearest(value, choices)
    return text


def asks(arg: str, *names: str) -> bool:
    """Whether an argument is one of these flags and true, e.g. --help or --help=true."""
    name, _, value = arg.lstrip("-").partition("=")
    return arg.startswith("-") and name in names and value.lower() in ("", "1", "t", "true")


def help_text(argv: Sequence[str], options: type, doc: str | None) -> str:
    """The text of `--help`: what the command does and its flags, a system's if one is named."""
    asked = [arg for arg in argv if not asks(arg, "help", "helpfull")]
    values = _system_flags(options)
    name = named_system(asked, options)
    if name:
        define(load_system(name).HParams, values, heading=f"hyperparameters of {name}")
    groups = sorted(values.flags_by_module_dict(), reverse=True)
    return "\n".join([(doc or "").strip(), *[values.module_help(group) for group in groups]])


def options_help(options: type, doc: str | None) -> str:
    """The text of `--help` of a command that needs no system."""
    values = flags.FlagValues()
    define(options, values, heading="options of this command")
    return "\n".join([(doc or "").strip(), values.module_help("options of this command")])
