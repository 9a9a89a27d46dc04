"""Tests, which mirror tfgen/. A package, as some libraries install one of the same name."""
