"""Reads the YAML files of users. It refuses a key that occurs twice, and reads 1:30 as the text that it is.

It also refuses aliases that would make a small file huge, before anything is made of them.

PyYAML follows YAML 1.1, in which 1:30 is the number 90, and takes the last of two keys without a word.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml


class RepeatedKeyError(ValueError):
    """A key that occurs twice in one mapping.

    Parameters
    ----------
    key : object
        The key.
    first, second : int
        The lines that hold it, from 1.
    """

    def __init__(self, key: object, first: int, second: int) -> None:
        super().__init__(key, first, second)
        self.key, self.first, self.second = key, first, second

    def __str__(self) -> str:
        where = f"in line {self.first}" if self.first == self.second else f"in lines {self.first} and {self.second}"
        return f"has the key {str(self.key)!r} twice, {where}"


MOST_BYTES = 1 << 20
"""Largest size of a YAML file."""

MOST_NODES = 100_000
"""Largest number of values and keys in a file, each counted as often as aliases name it."""

MOST_LETTERS = 1 << 23
"""Largest length of all values and keys, counted in the same way."""


MOST_BITS = 1 << 12
"""Largest number of bits of a whole number; Python refuses to write out one of 4,300 digits."""

_MISFITS = (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
)  # what PyYAML raises on `!!int ""`


class TooLargeError(ValueError):
    """Aliases (*NAME) or merges (<<) make much more of a file than it holds."""

    def __str__(self) -> str:
        return (
            f"has aliases (*NAME) that expand to more than {MOST_NODES:,} values or {MOST_LETTERS >> 20} MiB. "
            "Write the values out, or fewer of them"
        )


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without numbers to the base of 60, and with a bound on what aliases expand to."""

    def get_single_node(self) -> yaml.Node | None:
        """Return the root of the document, after its size was checked. An alias is the node that it names."""
        root: yaml.Node | None = super().get_single_node()
        if root is not None:
            _measure(root, {})
        return root

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node; refuse one that does not fit its tag, and a number that cannot be written out."""
        try:
            found = super().construct_object(node, deep)
        except _MISFITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a value is not what its tag {node.tag} says", node.start_mark
            ) from None
        if isinstance(found, int) and found.bit_length() > MOST_BITS:
            raise yaml.constructor.ConstructorError(None, None, "a number is too large", node.start_mark)
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping; refuse a repeated key. Keys that a merge (<<) brings in may be repeated."""
        lines: dict[Any, int] = {}
        pairs: list[tuple[yaml.Node, yaml.Node]] = getattr(node, "unmerged", None) or node.value
        for key_node, _ in pairs:
            key = "<<" if key_node.tag == "tag:yaml.org,2002:merge" else self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if isinstance(key, Hashable):
                if key in lines:
                    raise RepeatedKeyError(key, lines[key], line)
                lines[key] = line
        return super().construct_mapping(node, deep=deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what << names into a mapping, and remember the mapping as it was written."""
        if not hasattr(node, "unmerged"):
            node.unmerged = list(node.value)  # type: ignore[attr-defined]
        super().flatten_mapping(node)


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return the number of nodes below a node and the length of their texts, with aliases expanded.

    Parameters
    ----------
    node : yaml.Node
        A node of the graph.
    known : dict
        By the identity of a node, what was found; None while it is measured, so that a circle is noticed.

    Raises
    ------
    TooLargeError
        If it is too much, or without end.
    """
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise TooLargeError
        return found
    known[id(node)] = None
    nodes, letters = 1, 0
    if isinstance(node, yaml.ScalarNode):
        letters = len(node.value)
    else:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [each for pair in node.value for each in pair]
        for part in parts:
            more, longer = _measure(part, known)
            nodes, letters = nodes + more, letters + longer
            if nodes > MOST_NODES or letters > MOST_LETTERS:
                raise TooLargeError
    known[id(node)] = nodes, letters
    return nodes, letters


def _without_sexagesimals() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return PyYAML's resolvers of plain words, with those of numbers that refuse a colon."""
    number = re.compile(r"[^:]*\Z")
    kept = {}
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items():
        kept[first] = [
            (tag, re.compile(f"(?={number.pattern})(?:{regexp.pattern})", regexp.flags) if _is_number(tag) else regexp)
            for tag, regexp in resolvers
        ]
    return kept


def _is_number(tag: str) -> bool:
    return tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


_Loader.yaml_implicit_resolvers = _without_sexagesimals()


def parse_yaml(text: str) -> Any:
    """Return what a YAML text holds.

    Parameters
    ----------
    text : str
        The text of a file.

    Raises
    ------
    RepeatedKeyError
        If a key occurs twice in one mapping.
    TooLargeError
        If aliases expand to too much.
    yaml.YAMLError, ValueError, RecursionError
        If it is not valid YAML.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
