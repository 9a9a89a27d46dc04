"""The README says what the code says."""

from tfgen import hparams
from tools import readme


def test_the_table_of_systems_is_the_present_one():
    text = readme.README.read_text(encoding="utf-8")
    assert readme.written(text) == text, "run: python -m tools.readme"
    for name in hparams.systems():
        assert f"| `{name}` |" in text
