"""Advice on a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transferscope.report.terminal.columns import fitted, print_tables
from transferscope.report.terminal.pilots import ABOUT_PILOTS, pilot_tables
from transferscope.results.advice import NAMES, Advice
from transferscope.runtime.metrics import metric_of
from transferscope.runtime.numbers import short_number


def print_advice(advice: Advice, console: Console) -> None:
    """Print the answer in words, the table, and how to read it."""
    console.print(Text(f"{advice.verdict} {advice.turning}\n", style="bold"))
    print_tables([*_tables(advice, console.width), *pilot_tables(advice.pilots, console.width)], console)
    console.print()
    if advice.hint:
        console.print(Text(advice.hint + "\n"))
    lines = [*how_to_read(advice), *([ABOUT_PILOTS] if advice.pilots else [])]
    lines += [f"Left out: {NAMES.get(failure.source, failure.source)}: {failure.error}" for failure in advice.left_out]
    lines += [f"{failure.source} failed: {failure.error}" for failure in advice.failed]
    console.print(Text("\n".join(lines), style="dim"))


def how_to_read(advice: Advice) -> list[str]:
    """Say what the columns mean, what is advised, and where energy comes from."""
    return [
        f"Advised (*): the quickest way that is expected to come within {advice.tolerance:g} of the most accurate one; "
        "of several that take about as long, the most accurate. "
        f"Accuracy: expected on new images, trained on {advice.samples} images of {advice.target.classes} classes; "
        "seconds, kWh, kg CO2e: of that whole transfer on this machine, from steps that were run here for "
        f"{advice.measured_seconds:.1f} s; trials: fits or trainings to choose settings by, included.",
        advice.energy,
    ]


def _tables(advice: Advice, width: int) -> list[Table]:
    ways = advice.ways
    names = {"way": [f"{'*' if way.protocol == advice.advised else ' '} {way.name}" for way in ways]}
    answer = {
        "protocol": [way.protocol for way in ways],
        "cut after": ["" if way.protocol == "fne" else way.layer for way in ways],
        "depth": [f"{way.depth}/{advice.depths}" if way.depth else "" for way in ways],
        metric_of(advice.metric).title: [f"{way.expected_accuracy:.3f}" for way in ways],
        "80 % interval": [f"{way.interval[0]:.3f}-{way.interval[1]:.3f}" for way in ways],
    }
    cost = {
        "seconds": [short_number(way.seconds) for way in ways],
        "kWh": [short_number(way.kwh) for way in ways],
        "kg CO2e": [short_number(way.kgco2e) for way in ways],
        "trials": [str(way.trials) for way in ways],
    }
    return fitted(names, answer, cost, width=width, names=["cut after"], left=["way", "protocol"])
