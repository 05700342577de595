"""Options that verbs share, how results, warnings and notes reach the terminal, and what was typed there."""

import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from transferscope.cli import completion
from transferscope.cli.messages import console, say, set_up_messages
from transferscope.cli.parsing import parse_count
from transferscope.errors import TransferscopeError
from transferscope.runtime.printable import printable
from transferscope.runtime.regular import expanded

if TYPE_CHECKING:
    from rich.console import Console

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

HOW = {
    "samples", "device", "batch_size", "seed", "trust_code", "reference", "reference_epochs", "reference_budget",
    "jobs", "on", "shard", "precision", "retry_failed", "time_budget", "uncertainty", "mode", "redraws",
    "tasks", "gpus", "cpus", "mem", "time", "partition", "account",
}  # fmt: skip
METRICS = ("accuracy", "balanced-accuracy", "mean-average-precision", "macro-f1", "r2", "spearman")
# Written out: where they come from would import NumPy.
TASKS = ("classification", "multi-label", "regression")
WHERE = {"output", "output_format", "quiet", "verbose"}


class Command(click.Command):
    """A verb whose help shows its options in groups: what is asked, how it is computed, where it goes."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of one group together."""
        groups = {"What is asked": set[str](), "How it is computed": HOW, "Where it goes": WHERE}
        records: dict[str, list[tuple[str, str]]] = {title: [] for title in groups}
        help_option = self.get_help_option(ctx)
        for param in self.get_params(ctx):
            title = next((title for title, names in groups.items() if param.name in names), "What is asked")
            if help_option is not None and param.name == help_option.name:
                title = "Where it goes"
            # Arguments stand in the usage line, and the text of the help speaks of them.
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                records[title].append(record)
        for title, lines in records.items():
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)


class Numbers(click.ParamType):
    """Numbers with commas between them, as many as the example has, or with `any_count` one at least."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float], example: str, *, any_count: bool = False) -> None:
        self._kind, self._example, self._any_count = kind, example, any_count

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of numbers."""
        if not isinstance(value, str):
            return value
        try:
            numbers = tuple(self._kind(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if not numbers or not (self._any_count or len(numbers) == self._example.count(",") + 1):
            self.fail(f"expected numbers with commas like {self._example}, but got {value!r}", param, ctx)
        return numbers


class Finite(click.FloatRange):
    """A number in a range, for which NaN passes otherwise, and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a float."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a number, but got {value!r}", param, ctx)
        return number


def columns(value: str | None) -> tuple[str, ...] | None:
    """Return names with commas between them as a tuple; None where there are none."""
    names = tuple(name.strip() for name in (value or "").split(",") if name.strip())
    return names or None


def whole(least: int) -> click.IntRange:
    """Return the type of a whole number that is not so large that it is a mistake."""
    return click.IntRange(least, 10**9)


images = click.option(
    "--images", metavar="COLUMN",
    help="Column of a table that names the image files. By default one that is called path, image, filename …",
)  # fmt: skip
labels = click.option(
    "--labels", metavar="COLUMN[,COLUMN...]", callback=lambda _context, _option, value: columns(value),
    help="Column of a table that has the labels, or several. By default one that is called label, class, target …",
)  # fmt: skip
task = click.option(
    "--task", type=click.Choice(TASKS),
    help="What the labels are: a class; several labels an image, in columns of 0 and 1 or in one of lists (a|b); or "
    "numbers. By default several columns, and lists, are several labels.",
)  # fmt: skip
value_range = click.option(
    "--value-range", type=Numbers(float, "0,4095"), metavar="LOW,HIGH",
    help="Values that become black and white, in images of more than 8 bits a value, with a sign or floating-point: "
    "0,4095 for 12 bits, -1000,400 for a window of CT. By default all images together tell.",
)  # fmt: skip
bands = click.option(
    "--bands", type=Numbers(int, "3,2,1", any_count=True), metavar="N[,N...]",
    help="Bands of the images to show, counted from 1, three for red, green and blue: 4,3,2 shows near infrared in "
    "red. By default the first three.",
)  # fmt: skip
target = click.option(
    "--target", required=True, metavar="FOLDER|TABLE", shell_complete=completion.files,
    help="Labelled images: a folder with a sub-folder for each class, a .csv or .parquet table of paths and labels, or "
    ".tar shards.",
)  # fmt: skip
device = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N", help="Where networks run."
)
batch_size = click.option(
    "-b", "--batch-size", type=whole(1), default=64, show_default=True, metavar="N",
    help="Images in one forward pass.",
)  # fmt: skip
samples = click.option(
    "--samples", type=whole(1), default=1000, show_default=True, metavar="N",
    help="Images of the target to look at, drawn class by class.",
)  # fmt: skip
seed = click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, metavar="N",
    help="Same seed, same answer.",
)  # fmt: skip
output_format = click.option(
    "--format", "output_format", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True,
    help="What goes to stdout.",
)  # fmt: skip
trust_code = click.option(
    "--trust-code",
    is_flag=True,
    help="Run the Python factories that the zoo names, and code that models on a hub bring along. Look at it first.",
)
sources = click.option(
    "--sources",
    "zoo",
    required=True,
    metavar="ZOO.yaml",
    shell_complete=completion.files,
    help="The candidate networks.",
)
reference = click.option(
    "--reference", default="compact", show_default=True, metavar="compact|own|SOURCE|CHECKPOINT",
    shell_complete=completion.sources("compact", "own", or_files=True),
    help="Network trained from scratch on the target to compare with: a compact residual network, each source's own "
    "architecture, a source of the zoo, or a checkpoint of the compact network.",
)  # fmt: skip
reference_epochs = click.option(
    "--reference-epochs", type=whole(1), metavar="N",
    help="Epochs that the reference is trained for, just so many. By default 40 or, with few images, as many as make "
    "300 optimiser steps.",
)  # fmt: skip
reference_budget = click.option(
    "--reference-budget", type=Finite(min=0, min_open=True), default=600.0, show_default=True,
    metavar="SECONDS", help="Time limit of training the reference.",
)  # fmt: skip
country = click.option(
    "--country", default="world", show_default=True, metavar="ISO3|world",
    help="Country whose electricity gives the CO2, such as DEU.",
)  # fmt: skip
pilots = click.option(
    "--pilots", default="0", show_default=True, metavar="N|auto",
    callback=lambda _context, _option, value: parse_count(value),
    help="Really run at most N transfers before the answer, first the one that is expected to help most for its time, "
    "or as many as --pilot-budget allows. They end when one answer is best with a probability of 0.9, and are kept.",
)  # fmt: skip
pilot_budget = click.option(
    "--pilot-budget", type=Finite(), metavar="SECONDS",
    help="Time that pilots may take together: by default 120 with --pilots auto, without limit with a number. What "
    "fits into it depends on the machine.",
)  # fmt: skip
evidence = click.option(
    "--evidence", multiple=True, metavar="RUNS.csv", shell_complete=completion.files,
    help="What `transferscope measure` has measured of this target before. May be given several times.",
)  # fmt: skip
calibration = click.option(
    "--calibration", metavar="FILE", shell_complete=completion.files,
    help="Calibration of expected accuracies, fitted by `transferscope.calibrate` to your own measured transfers. By "
    "default the one that comes with this version.",
)  # fmt: skip
on = click.option(
    "--on", metavar="ENGINE",
    help="Where the work is carried out: processes:N of this machine, dask:tcp://HOST:PORT or dask:local, slurm or "
    "slurm:partition=NAME,gpus=1,time=60. By default in this process.",
)  # fmt: skip
shard = click.option(
    "--shard", metavar="I/N",
    help="Which of N processes this is that were started with the same command on one cache, and so where it begins. "
    "Each leaves alone what another is at work on, and ends with the whole answer. By default what SLURM or RANK and "
    "WORLD_SIZE say.",
)  # fmt: skip
metric = click.option(
    "--metric", type=click.Choice(METRICS),
    help="What is ranked by and expected: accuracy, the share of images that is right, or balanced-accuracy, the mean "
    "of that over classes; of several labels an image mean-average-precision or macro-f1; of numbers r2 or spearman. "
    "By default the first that suits the labels.",
)  # fmt: skip
judged_by = click.option(
    "--metric", type=click.Choice(METRICS),
    help="What the best is by. By default accuracy; mean average precision of several labels; R² of numbers.",
)  # fmt: skip
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress, notes or warnings on stderr.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Debug notes and timings on stderr, more of the result.")


def together(*decorators: Decorator) -> Decorator:
    """Apply several option decorators, the first one outermost."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


reading = together(images, labels, task, value_range, bands)
"""Of what the target holds, and how its images become numbers."""
running = together(device, batch_size, seed, trust_code)
"""Of verbs that run networks."""
expecting = together(metric, pilots, pilot_budget, evidence, calibration)
"""Of verbs that say what accuracy to expect."""
printing = together(output_format, quiet, verbose)
"""Of verbs that answer on stdout."""


def samples_per_class(default: str) -> Decorator:
    """Return the option that says how many images of each class to train on."""
    return click.option(
        "--samples-per-class", default=default, show_default=True, metavar="N[,N...]",
        help="Training images of each class; `all` takes what there is. Larger draws contain the smaller.",
    )  # fmt: skip


def seeds(default: int) -> Decorator:
    """Return the option that says how many draws of each size there are."""
    return click.option(
        "--seeds", type=whole(1), default=default, show_default=True, metavar="N",
        help="Draws for each size.",
    )  # fmt: skip


def output(folder: str, help: str) -> Decorator:
    """Return the option that says where files go, by default into `folder`."""
    return click.option(
        "-o", "--output", default=folder, show_default=True, metavar="DIR", shell_complete=completion.folders,
        callback=_at_home, help=help,
    )  # fmt: skip


def _at_home(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """Expand a ~, which the shell leaves as it is in -o=~/results."""
    return str(expanded(value, "-o")) if value else value  # which the verb refuses


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """Send to stderr whatever is written to stdout inside: downloads and factories print, and results must not mix."""
    sys.stdout.flush()
    stdout_copy = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(stdout_copy, 1)
        os.close(stdout_copy)


def command_line(ctx: click.Context) -> str:
    """Return the command as it was typed, without what was left to the defaults."""
    words = ctx.command_path.split()
    for param in ctx.command.params:
        name = str(param.name)
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        option = [max(param.opts, key=len)] if isinstance(param, click.Option) else []
        if isinstance(param, click.Option) and param.is_flag:
            words += option
        else:
            for each in value if param.multiple else [value]:
                words += [*option, _typed(each)]
    return shlex.join(words)


def _typed(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return ",".join(each if isinstance(each, str) else f"{each:.15g}" for each in value)


@dataclass(frozen=True)
class Sink:
    """Where the result of a verb goes, and how much is said on the way."""

    output: str
    output_format: str
    quiet: bool
    verbose: bool

    @classmethod
    def of(cls, asked: dict[str, Any]) -> "Sink":
        """Take these options out of what was asked, leave `progress` in their place, and set up messages."""
        sink = cls(*(asked.pop(field.name) for field in fields(cls)))
        asked["progress"] = not sink.quiet
        set_up_messages(sink.quiet, sink.verbose)
        return sink

    def prepare(self) -> None:
        """Make the folder: before the work starts, not after it."""
        from transferscope.results.files import prepare_folder

        prepare_folder(self.output)

    def deliver(self, result: Any, show: Callable[[Any, "Console"], None], written: tuple[str, ...] = ()) -> None:
        """Put the files of a result into the folder, then the result on stdout as it was asked for, and say so.

        Of the files, `written` are there already. A folder that fills up or changes costs the files alone.
        """
        from transferscope.results import saving
        from transferscope.runtime.progress import Reporter
        from transferscope.runtime.store import Store

        try:
            with Reporter(not self.quiet).bar("drawing and writing"), saving.kept_views(Store()):
                names = [*written, *(path.name for path in result.save(self.output))]
        except TransferscopeError:
            self.show(result, show)
            raise
        self.show(result, show)
        if not self.quiet:
            # Apart from the table on a terminal, where both are seen.
            say("\n" * (self.output_format == "table") + _where(self.output, names))

    def show(self, result: Any, show: Callable[[Any, "Console"], None]) -> None:
        """Put a result on stdout as it was asked for, a table by `show`."""
        if self.output and getattr(sys.stdout, "missing", False):  # who closed it wants files alone
            return
        if self.output_format == "json":
            sys.stdout.write(result.to_json())
        elif self.output_format == "csv":
            sys.stdout.write(printable(result.to_csv()))
        else:
            show(result, console())
        sys.stdout.flush()


def trained_reference(asked: dict[str, Any]) -> None:
    """Turn the options of how the reference is trained into its recipe."""
    from transferscope.protocols.scratch import reference_recipe

    asked["recipe"] = reference_recipe(asked.pop("reference_epochs"), asked.pop("reference_budget"))


def _where(folder: str | os.PathLike[str], names: list[str]) -> str:
    """Say in a line what went where; of pictures how many."""
    pictures = sum(name.endswith(".png") for name in names)
    listed = [name for name in names if not name.endswith(".png")]
    if pictures:
        listed.append(f"{pictures} picture{'s' * (pictures > 1)}")
    text = f"Wrote {len(names)} file{'s' * (len(names) > 1)} to {folder}: {', '.join(listed)}."
    if "report.html" in names:
        text += f"\nOpen {os.path.join(folder, 'report.html')} in a browser."
    return text
