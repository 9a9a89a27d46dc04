"""Tables of all systems: what `--list` prints, and the README's."""

import ast
import dataclasses
import importlib.util
import pathlib
import re

from tfgen import hparams


@dataclasses.dataclass(frozen=True)
class _NoOptions:
    """A config holds hyperparameters only."""


def table(configs: pathlib.Path = pathlib.Path("configs")) -> str:
    """One block of lines for each system, in the order of their names.

    Args:
        configs: the folder of the flagfiles.
    """
    by_system = configs_by_system(configs)
    return "\n".join(
        "\n".join(
            (
                name,
                f"  paper    {paper(name)}",
                f"  needs    {', '.join(hparams.load_system(name).HParams().needs)}",
                f"  configs  {', '.join(map(str, by_system.get(name, []))) or 'none here'}",
            )
        )
        for name in hparams.systems()
    )


def configs_by_system(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The flagfiles of a folder by the system they name."""
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted(folder.glob("*.cfg")):
        name = hparams.named_system(["", f"--flagfile={path}"], _NoOptions)
        if name:
            found.setdefault(name, []).append(path)
    return found


def markdown() -> str:
    """All systems as a table in Markdown: name, idea, paper."""
    lines = ["| system | idea | paper |", "| --- | --- | --- |"]
    for name in hparams.systems():
        idea = _docstring(name).partition("\n\n")[0].replace("\n", " ").rstrip(".")
        lines.append(f"| `{name}` | {idea} | {paper(name)} |")
    return "\n".join(lines) + "\n"


def _docstring(system: str) -> str:
    spec = importlib.util.find_spec(f"tfgen.models.{system}")
    if spec is None or spec.origin is None:
        return ""
    source = pathlib.Path(spec.origin).read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def paper(system: str) -> str:
    """Authors, title, place and year from "Reference:" in the system's docstring."""
    _, _, after = _docstring(system).partition("Reference:")
    paragraph = " ".join(after.split("\n\n")[0].split())
    whole = re.match(r".*?\b(19|20)\d\d\b", paragraph)
    return whole[0] if whole else paragraph
