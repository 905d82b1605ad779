"""Parses a condition with DuckDB's own parser into a tree, and refuses what uses more than the values of its row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from fairdedup.errors import UserError, first_line
from fairdedup.storage.condition_process import LESS, connect

EXAMPLE = "write one as in --where \"width >= 256 AND language = 'en'\""
MOST_LETTERS = 20_000
"""Largest length of a condition."""

_WORD = re.compile("[a-z_][a-z0-9_]*")
_CHANGING_WORDS = {"select", "current_timestamp", "current_date", "current_time", "localtime", "localtimestamp"}
"""Words in the definition of a macro that read the clock, or tables."""

Node = dict[str, Any]
"""A node of the tree that DuckDB returns as JSON."""


def parse_condition(text: str) -> list[Node]:
    """Parse a condition into the tree of one expression.

    Parameters
    ----------
    text : str
        The condition, as the user wrote it.

    Raises
    ------
    UserError
        If it is not exactly one expression, or uses more than the values of its row.
    """
    if len(text) > MOST_LETTERS:
        raise UserError(f"--where has {len(text):,} letters, and at most {MOST_LETTERS:,} are read: {LESS}")
    if not text.strip():
        raise UserError(f"--where is empty: {EXAMPLE}")
    with connect() as connection:
        tree = _statement(connection, text)
        plain = _statement(connection, "true")
    expressions: list[Node] = tree.pop("select_list")
    if tree != {name: part for name, part in plain.items() if name != "select_list"} or len(expressions) != 1:
        raise UserError(f"--where {text!r} is more than one condition: {EXAMPLE}")
    for node in _nodes_of(text, expressions):
        if node["class"] in ("SUBQUERY", "WINDOW", "PARAMETER", "STAR", "POSITIONAL_REFERENCE"):
            raise UserError(f"--where {text!r} uses more than its own row ({node['class'].lower()}): {EXAMPLE}")
        arguments = node.get("arguments") or node.get("children") or []  # DuckDB 2 and 1
        check_function(text, node.get("function_name"), len(arguments))
    return expressions


def check_function(text: str, name: str | None, arguments: int) -> None:
    """Refuse a call of a function by its name, None for no call, if its value changes between calls."""
    check_deterministic(text, name)
    if name == "age" and arguments == 1:
        raise UserError(f"--where {text!r} calls age of one time, which depends on the clock: give it two times")


def check_deterministic(text: str, name: str | None) -> None:
    """Refuse the name of a function whose value changes between calls."""
    if name in _list_nondeterministic():
        raise UserError(f"--where {text!r} calls {name}, whose value changes between calls: remove it")


@cache
def _list_nondeterministic() -> frozenset[str]:
    """Return the functions whose value is not always the same for the same row.

    DuckDB lists some that read the clock as constant, so all functions without parameters count as well.
    """
    query = """
        SELECT function_name FROM duckdb_functions() WHERE function_type = 'scalar' AND function_name <> 'pi'
        GROUP BY function_name
        HAVING bool_or(stability <> 'CONSISTENT') OR (max(len(parameters)) = 0 AND bool_and(varargs IS NULL))
    """
    macros = "SELECT function_name, lower(macro_definition) FROM duckdb_functions() WHERE function_type = 'macro'"
    with connect() as connection:
        listed = {name for (name,) in connection.execute(query).fetchall()}
        defined = [(name, set(_WORD.findall(text or ""))) for name, text in connection.execute(macros).fetchall()]
    listed |= {"current_setting"}  # DuckDB before 2.0 lists it as constant
    number = 0
    while len(listed) > number:  # a macro may call another one
        number = len(listed)
        listed |= {name for name, words in defined if words & (listed | _CHANGING_WORDS)}
    return frozenset(listed)


def names_outside_lambdas(tree: Any, parameters: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the names in a tree that only a column can have: no parameter of a lambda inside of it.

    In `a -> b` the name `a` is a parameter, or a column of JSON; the parser does not say which, so it is left out.
    """
    if isinstance(tree, dict):
        if tree.get("class") == "LAMBDA":
            parameters |= {
                node["column_names"][0].lower() for node in walk_nodes(tree["lhs"]) if "column_names" in node
            }
            tree = tree["expr"]
        if tree.get("class") == "COLUMN_REF" and tree["column_names"][0].lower() not in parameters:
            yield tree["column_names"][0]
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from names_outside_lambdas(part, parameters)


def _statement(connection: Any, text: str) -> Node:
    query = f"SELECT (\n{text}\n)"
    answer = json.loads(connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [query]).fetchone()[0])
    if answer["error"]:
        message = first_line(answer["error_message"])
        raise UserError(f"--where {text!r} is not a condition ({message}): {EXAMPLE}")
    if len(answer["statements"]) != 1 or answer["statements"][0]["node"]["type"] != "SELECT_NODE":
        raise UserError(f"--where {text!r} is more than one condition: {EXAMPLE}")
    node: Node = answer["statements"][0]["node"]
    return node


def _nodes_of(text: str, expressions: list[Node]) -> list[Node]:
    try:
        return list(walk_nodes(expressions))
    except RecursionError:
        raise UserError(f"--where has expressions within expressions, too many to read: {LESS}") from None


def walk_nodes(tree: Any, mark: str = "class") -> Iterator[Node]:
    """Yield the nodes of a tree: what has the key `mark`."""
    if isinstance(tree, dict):
        if mark in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from walk_nodes(part, mark)
