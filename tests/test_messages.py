"""Errors and warnings speak alike: as Python's own and torch's, without a full stop at their end."""

import ast
from pathlib import Path

import pytest

import transferscope
from transferscope import errors

PACKAGE = Path(transferscope.__file__).parent
SPEAKERS = {name for name, value in vars(errors).items() if isinstance(value, type)} | {
    "ForeignError", "ValueError", "TypeError", "RuntimeError", "OSError", "AttributeError", "click.BadParameter",
    "click.UsageError", "warnings.warn",
}  # fmt: skip


def ends(node):
    """Yield the literals that a message may end with."""
    if isinstance(node, ast.JoinedStr) and node.values:
        yield from ends(node.values[-1])
    elif isinstance(node, ast.IfExp):
        yield from ends(node.body)
        yield from ends(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from ends(value)
    elif isinstance(node, ast.BinOp):
        yield from ends(node.right if isinstance(node.op, ast.Add) else node.left)
    elif isinstance(node, ast.FormattedValue):
        yield from ends(node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def says_error(call):
    """Whether a call prints a text that begins with "error: "."""
    return ast.unparse(call.func) == "click.echo" and ast.unparse(call.args[0]).lstrip("f")[1:].startswith("error: ")


def messages(tree):
    """Yield the line and the last literals of each message of an error or a warning."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and (ast.unparse(node.func) in SPEAKERS or says_error(node)):
            yield node.lineno, list(ends(node.args[0]))
        elif isinstance(node, ast.FunctionDef) and node.name == "describe" and "error" in ast.unparse(node.args):
            for each in ast.walk(node):
                if isinstance(each, ast.Return):
                    yield each.lineno, list(ends(each.value))


def test_no_message_ends_with_a_full_stop():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {end}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, texts in messages(ast.parse(path.read_text(encoding="utf-8")))
        for end in texts
        if end.rstrip().endswith(".")
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("raise InputError('no')", False),
        ("raise InputError('no.')", True),
        ("raise InputError(f'{x} no' f'.')", True),
        ("raise InputError('No. Yes' if x else 'no.')", True),
        ("raise InputError('no' + '.')", True),
        ("warnings.warn(f'got {x}.', stacklevel=2)", True),
        ("raise InputError(f'No. {x}') from error", False),
        ("print('done.')", False),
        ("raise click.UsageError('no.')", True),
        ("click.echo(f'error: {x}.', err=True)", True),
        ("click.echo('error: ' + 'no.')", True),
        ("click.echo(f'Wrote {x}.')", False),
    ],
)
def test_full_stops_are_found(code, ended):
    found = [end for _, texts in messages(ast.parse(code)) for end in texts]
    assert any(end.endswith(".") for end in found) == ended
