"""A YAML file → its content, the line of each of its keys, and the keys that come twice."""

import reprlib
from pathlib import Path
from typing import Any

import yaml

from transferscope.errors import InputError
from transferscope.runtime.lookup import missing_file
from transferscope.runtime.regular import is_regular, read_regular

_LOADERS: tuple[Any, ...] = (getattr(yaml, "CSafeLoader", yaml.SafeLoader), yaml.SafeLoader)
"""What reads YAML without making Python objects: libyaml, ten times as fast; and what knows more and says it better."""

_SMALL = 200_000
"""Characters that the second may look at."""
_BYTES = 8 * 2**20
_NODES = 30_000
"""Keys and values, those that an alias stands for counted each time; some thousand sources."""
_DEEPEST = 40
_TEXT, _NUMBER = 5000, 300
"""Most characters."""

Location = tuple[str | int, ...]
"""Keys and indices that lead from the whole of a file to a place in it."""
Lines = dict[Location, int]
Problem = tuple[Location, str]


def read_yaml(path: Path, what: str, expected: str) -> tuple[Any, Lines, list[Problem]]:
    """Read a YAML file: its content, the line of each of its keys, and the keys that come twice.

    Parameters
    ----------
    path
        The file: one document in UTF-8, without tags that make Python objects, within the bounds above: a stranger's
        file of a few bytes can ask for all the memory and time there is.
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
    if not is_regular(path):
        raise InputError(f"{what} {path}: {missing_file(path)}")
    lines: Lines = {}
    problems: list[Problem] = []
    try:
        text = read_regular(path, _BYTES).decode("utf-8-sig")
        loader, node = _composed(text)
        if node is not None:
            _expanded_size(node, {})
            _check_scalars(loader, node, set())
            # Before construction, which merges `<<` keys into the nodes and lets the last of two keys win.
            _walk(node, (), lines, problems, set())
            return loader.construct_document(node), lines, problems
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        said = "; ".join(filter(None, (error.problem, error.context)))
        raise InputError(f"{path}:{line}: not valid YAML: {said}; correct it") from error
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror}") from error
    except Exception as error:  # control characters; bytes that are not UTF-8; tags on what they do not fit
        said = str(error) if isinstance(error, yaml.YAMLError | ValueError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{what} {path} is not valid YAML in UTF-8: {said[:300]}; correct it") from error
    raise InputError(f"{what} {path} is empty: expected {expected}")


def shown(value: Any) -> str:
    """Return what came, for a message: at most 80 characters of it."""
    if isinstance(value, str):
        value = value[:100]
    text = _SHORT.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxlevel = 20
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 110


def line_of(where: Location, lines: Lines) -> int:
    """Return the line of a key or of the closest thing around it that has one; 0 when there is no file."""
    while where and where not in lines:
        where = where[:-1]
    return lines.get(where, 0)


class _TooMuchError(yaml.MarkedYAMLError):
    """A file goes beyond a bound."""


def _composed(text: str) -> tuple[Any, yaml.Node | None]:
    """Return a loader and the node that it has made of a file."""
    fast, thorough = _LOADERS
    try:
        _check_events(text, fast)
        loader = fast(text)
        return loader, loader.get_single_node()
    except _TooMuchError:
        raise
    except yaml.YAMLError:
        if len(text) > _SMALL:
            raise
    _check_events(text, thorough)
    loader = thorough(text)
    return loader, loader.get_single_node()


def _check_events(text: str, kind: Any) -> None:
    """Count and measure what is in a file before anything is made of it."""
    depth = count = 0
    for event in yaml.parse(text, Loader=kind):
        count += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise _too_much(event, f"nested more than {_DEEPEST} deep")
        if count > _NODES:
            raise _too_much(event, f"more than {_NODES} keys and values")


def _expanded_size(node: yaml.Node, sizes: dict[int, int | None]) -> int:
    """Return how many keys and values a node stands for; `sizes` are those of the ones that are known."""
    if id(node) in sizes:
        if (known := sizes[id(node)]) is None:
            raise _too_much(node, "an alias that holds itself")
        return known
    sizes[id(node)] = None
    size = 1
    for child in _children(node):
        size += _expanded_size(child, sizes)
        if size > _NODES:
            raise _too_much(child, f"aliases that stand for more than {_NODES} keys and values")
    sizes[id(node)] = size
    return size


_KINDS = {"null", "bool", "int", "float", "binary", "timestamp"}


def _check_scalars(loader: Any, node: yaml.Node, seen: set[int]) -> None:
    """Find texts and numbers that are too long, and values that their tags do not fit."""
    if id(node) in seen:
        return
    seen.add(id(node))
    for child in _children(node):
        _check_scalars(loader, child, seen)
    if not isinstance(node, yaml.ScalarNode):
        return
    length, kind = len(node.value), node.tag.rpartition(":")[2]
    if length > (_NUMBER if kind in ("int", "float") else _TEXT):
        most = f"more than the {_TEXT} of a text or {_NUMBER} of a number"
        raise _too_much(node, f"{node.value[:20] + '…'!r} has {length} characters, {most}")
    if kind not in _KINDS:
        return
    try:
        loader.construct_object(node)
    except yaml.YAMLError:
        raise
    except Exception as error:
        said = f" ({error})" if isinstance(error, ValueError) else ""
        raise _too_much(node, f"{shown(node.value)} is no {kind}{said}") from error


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _too_much(place: Any, problem: str) -> yaml.MarkedYAMLError:
    return _TooMuchError(problem=problem, problem_mark=place.start_mark)


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
