"""The one exception that the commands show as a single line instead of a traceback."""


class UserError(Exception):
    """One clear line for what a user got wrong: what it was, what was received, what is right."""
