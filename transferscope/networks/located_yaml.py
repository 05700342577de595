"""A YAML file → its content, the line of each of its keys, and the keys that come twice."""

from pathlib import Path
from typing import Any

import yaml

from transferscope.errors import InputError
from transferscope.runtime.lookup import missing_file

Location = tuple[str | int, ...]
"""Keys and indices that lead from the whole of a file to a place in it."""
Lines = dict[Location, int]
Problem = tuple[Location, str]


def read_yaml(path: Path, what: str, expected: str) -> tuple[Any, Lines, list[Problem]]:
    """Read a YAML file: its content, the line of each of its keys, and the keys that come twice.

    Parameters
    ----------
    path
        The file: one document in UTF-8, without tags that make Python objects.
    what, expected
        What the file is, and what an empty one lacks; for messages.

    Returns
    -------
    content
        Made of mappings, lists, text, numbers and the like.
    lines
        Where each key or item begins, counted from 1.
    problems
        The keys that come twice. In the content the last of two counts.

    Raises
    ------
    InputError
        The file is missing, cannot be read, is empty or is not valid YAML; with the line where there is one.
    """
    if not path.is_file():
        raise InputError(f"{what} {path}: {missing_file(path)}")
    lines: Lines = {}
    problems: list[Problem] = []
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8-sig"))
        node = loader.get_single_node()
        if node is not None:
            # Before construction, which merges `<<` keys into the nodes and lets the last of two keys win.
            _walk(node, (), lines, problems, set())
            return loader.construct_document(node), lines, problems
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        text = "; ".join(filter(None, (error.problem, error.context)))
        raise InputError(f"{path}:{line}: not valid YAML: {text}; correct it") from error
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # control characters; bytes that are not UTF-8; 31 February
        raise InputError(f"{what} {path} is not valid YAML in UTF-8: {error}; correct it") from error
    raise InputError(f"{what} {path} is empty: expected {expected}")


def line_of(where: Location, lines: Lines) -> int:
    """Return the line of a key or of the closest thing around it that has one; 0 when there is no file."""
    while where and where not in lines:
        where = where[:-1]
    return lines.get(where, 0)


def _walk(node: yaml.Node, where: Location, lines: Lines, problems: list[Problem], seen: set[int]) -> None:
    """Note each key's line and the keys that come twice; an aliased node is visited where it comes first."""
    if id(node) in seen:
        return
    seen.add(id(node))
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*where, index] = item.start_mark.line + 1
            _walk(item, (*where, index), lines, problems, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*where, str(key.value))
            if here in lines:
                problems.append((here, f"comes twice, first in line {lines[here]}: remove one"))
            lines[here] = key.start_mark.line + 1
            _walk(value, here, lines, problems, seen)
