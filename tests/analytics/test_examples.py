"""The examples in the docstrings of analytics say what the code says."""

import doctest
import importlib
import pkgutil

import pytest

from app import analytics


@pytest.mark.parametrize("name", sorted(module.name for module in pkgutil.iter_modules(analytics.__path__)))
def test_the_examples_of_a_module_hold(name: str) -> None:
    module = importlib.import_module(f"{analytics.__name__}.{name}")
    # The examples use NumPy as the modules do.
    found = doctest.testmod(module, extraglobs={"np": importlib.import_module("numpy")})
    assert found.failed == 0
