"""What a shell offers after TAB, beside verbs, options and choices, and the script that makes it do so."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from transferscope.errors import InputError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Completion = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]


def folders(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Offer folders."""
    return _places(incomplete, "dir")


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Offer files."""
    return _places(incomplete, "file")


def sources(*more: str, or_files: bool = False) -> Completion:
    """Offer the sources of the zoo that `--sources` names further left, and `more`; else files, where that is asked."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
        matches = _beginning([*more, *_names(ctx.params.get("zoo"))], incomplete)
        return matches or (_places(incomplete, "file") if or_files else [])

    return complete


def names(choices: Callable[[], Iterable[str]]) -> Completion:
    """Offer names of which several may stand in a list with commas."""

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
        before, comma, _ = incomplete.rpartition(",")
        return _beginning([before + comma + name for name in choices()], incomplete)

    return complete


def measures() -> list[str]:
    """Return the names of the measures of similarity."""
    from transferscope.similarity import MEASURES

    return list(MEASURES)


def scores() -> list[str]:
    """Return the names of the transferability scores."""
    from transferscope.transferability import SCORES

    return list(SCORES)


def _places(incomplete: str, kind: str) -> "list[CompletionItem[str]]":
    from click.shell_completion import CompletionItem

    # The shell itself looks what there is.
    return [CompletionItem(incomplete, type=kind)]


def _beginning(words: Iterable[str], incomplete: str) -> "list[CompletionItem[str]]":
    from click.shell_completion import CompletionItem

    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _names(zoo: str | None) -> list[str]:
    """Return the source names of a zoo file, and none of one that cannot be read: whoever runs the verb is told why."""
    if zoo is None:
        return []
    from transferscope.networks.located_yaml import read_yaml

    try:
        entries = read_yaml(Path(os.path.expanduser(zoo)), "", "")[0]["sources"]
        return [str(entry["name"]) for entry in entries]
    except (InputError, TypeError, KeyError):
        return []


def _print_script(ctx: click.Context, _param: click.Parameter, shell: str | None) -> None:
    if shell is None or ctx.resilient_parsing:
        return
    from click.shell_completion import get_completion_class

    completer: Any = get_completion_class(shell)
    name = ctx.command_path
    click.echo(completer(ctx.command, {}, name, f"_{name.upper()}_COMPLETE").source())
    ctx.exit()


option = click.option(
    "--completion", type=click.Choice(["bash", "zsh", "fish"]), is_eager=True, expose_value=False,
    callback=_print_script,
    help="Print the script that makes this shell complete.",
)  # fmt: skip
