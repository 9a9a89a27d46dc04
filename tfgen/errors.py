"""What the commands show as a single line instead of a traceback."""

import contextlib
import re
from collections.abc import Iterator


class UserError(Exception):
    """One clear line for what a user got wrong: what it was, what was received, what is right."""


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Makes a `ValueError` that tfgen itself raises inside a `UserError`.

    One from another package is a defect of tfgen and not of the input: it keeps its traceback.
    """
    try:
        yield
    except ValueError as error:
        innermost = error.__traceback__
        while innermost and innermost.tb_next:
            innermost = innermost.tb_next
        module = innermost.tb_frame.f_globals.get("__name__", "") if innermost else ""
        if not module.startswith("tfgen."):
            raise
        raise UserError(str(error)) from error


def one_line_of(error: BaseException) -> str:
    """The first line of another library's error, without TensorFlow's names of graph nodes."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return re.sub(r"\{\{.*?\}\}|\[Op:.*", "", line).strip()
