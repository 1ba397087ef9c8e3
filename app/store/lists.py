"""Lists of values as parameters of a statement: joined to one text, which the server splits.

The driver asks of each element of an array whether it is a list itself, which takes longer than all the rest of a
batch's statement. Ids, numbers, days and moments have no line break, and are never empty.
"""

from collections.abc import Callable, Iterable
from typing import Any


def join_list(values: Iterable[Any], shown: Callable[[Any], str] = str) -> str:
    """The values as one parameter; ``shown`` makes a text of one, and None stays null."""
    return "\n".join(["" if value is None else shown(value) for value in values])


def listed(name: str, kind: str) -> str:
    """SQL of the parameter ``name``, which ``join_list`` made, as an array of the type ``kind``."""
    array = f"string_to_array(CAST(:{name} AS text), chr(10), '')"
    return array if kind == "text" else f"CAST({array} AS {kind}[])"
