"""The README of a model: what it is, how good it is and how it is used, as Markdown."""

import math

from transferscope.report.terminal.transfer import headed, shown, worst
from transferscope.results.transfer import Transfer
from transferscope.runtime.metrics import CLASSIFICATION, MULTI_LABEL, REGRESSION, metrics_of
from transferscope.runtime.numbers import short_number

_MOST_CLASSES = 100
"""Classes that the table lists; of more those with the lowest recall."""


PICTURES = {
    "confusion.png": "Confusion matrix",
    "labels.png": "Average precision of each label",
    "numbers.png": "Predicted and true numbers",
}
"""Files beside a README, with what each shows."""


def picture_of(transfer: Transfer) -> str:
    """Return the name of the file of its picture."""
    return {CLASSIFICATION: "confusion.png", MULTI_LABEL: "labels.png", REGRESSION: "numbers.png"}[transfer.task]


def readme(transfer: Transfer) -> str:
    """Return the README of a model."""
    sections = [_what(transfer), _how_good(transfer), _use(transfer), _cost(transfer), _versions(transfer)]
    return "\n\n".join(sections) + "\n"


def _what(transfer: Transfer) -> str:
    classes = ", ".join(map(_escaped, transfer.classes[:20])) + ("" if len(transfer.classes) <= 20 else ", …")
    start = "trained from scratch" if transfer.protocol == "scratch" else f"made from `{transfer.source}`"
    tells = {
        CLASSIFICATION: f"tells {len(transfer.classes)} classes apart ({classes})",
        MULTI_LABEL: f"says which of {len(transfer.classes)} labels an image has ({classes})",
        REGRESSION: f"predicts {classes}",
    }
    return (
        f"# A model for {_escaped(transfer.target.name)}\n\n"
        f"It {tells[transfer.task]}, and was {start}: {transfer.how}. It was "
        f"trained on {transfer.trained_on} images by transferscope."
    )


def _how_good(transfer: Transfer) -> str:
    low, high = transfer.interval
    rows = [
        f"| | {transfer.metric.title} | 80 % interval | images |",
        "|---|---|---|---|",
        f"| measured | {transfer.reached:.3f} | {low:.3f} to {high:.3f} | {transfer.measured_on} |",
    ]
    if (expected := transfer.expected) is not None:
        lower, upper = expected.interval
        what = "" if transfer.metric_expected is transfer.metric else f", {transfer.metric_expected.title}"
        rows.insert(2, f"| expected by the ranking{what} | {expected.accuracy:.3f} | {lower:.3f} to {upper:.3f} | |")
    table, what = worst(transfer, _MOST_CLASSES)
    cut = f"\n\nThe {what}; card.json has all." if what else ""
    by_class = [f"| {' | '.join(headed(str(name)) for name in table.columns)} |", f"|{'---|' * len(table.columns)}"]
    by_class += [f"| {' | '.join(_escaped(shown(value)) for value in row)} |" for row in table.itertuples(index=False)]
    others = f"Balanced accuracy {transfer.balanced_accuracy:.3f}."
    if transfer.outcome is not None:
        figures = [(metric, transfer.outcome.figures[metric.column]) for metric in metrics_of(transfer.task)[1:]]
        others = " ".join(f"{metric.heading} {value:.3f}." for metric, value in figures)
    picture = picture_of(transfer)
    return (
        "\n".join(
            [
                "## How good it is\n",
                *rows,
                f"\n{_escaped(transfer.verdict)} {others}\n",
                f"Measured on: {_escaped(transfer.held_out)}. These images were not trained on, and the model that is "
                "delivered is the one that was measured. On images of another kind it may be worse."
                + f" One number was fitted to them, the temperature {transfer.temperature:.3g} that turns scores into "
                "probabilities; it changes no prediction." * (transfer.task != REGRESSION) + "\n",
                f"![{PICTURES[picture]}]({picture})\n",
                *by_class,
            ]
        )
        + cut
    )


def _use(transfer: Transfer) -> str:
    files = [name for name in transfer.hashes if name.startswith("code/")]
    trust, argument = (" --trust-code", ", trust_code=True") if files else ("", "")
    text = (
        "## How to use it\n\n```bash\n"
        f"transferscope predict .{trust} images/ -o predictions.csv\n```\n\n```python\nimport transferscope as ts\n\n"
        f'model = ts.load_transfer("."{argument})\n'
        'model.predict("images/").table\n```'
    )
    if files:
        text += (
            f"\n\nIts architecture is built by code that lies in this folder ({', '.join(files)}) and only runs where "
            "that is allowed. Look at it first."
        )
    return text


def _cost(transfer: Transfer) -> str:
    seconds = ", ".join(f"{phase} {short_number(spent)} s" for phase, spent in transfer.seconds.items())
    total = short_number(sum(transfer.seconds.values()))
    kwh, co2 = (short_number(value) for value in (transfer.kwh, transfer.kgco2e))
    energy = f"{kwh} kWh and {co2} kg CO2e" if kwh else "energy not known"
    params = "unknown" if math.isnan(transfer.params) else f"{transfer.params:,.0f}"
    return (
        f"## What it cost\n\n{total} s ({seconds}), {energy}. {_escaped(transfer.energy)}\n\n"
        f"Parameters of the model: {params}."
    )


def _versions(transfer: Transfer) -> str:
    made = transfer.provenance
    lines = ["## Where it comes from\n", f"- images: SHA-256 `{transfer.target.hash}`"]
    if made is not None:
        lines += [f"- {_escaped(name)}: SHA-256 `{fingerprint}`" for name, fingerprint in made.sources.items()]
        lines.append(f"- versions: {', '.join(f'{name} {version}' for name, version in made.versions.items())}")
    lines += [f"- {name}: SHA-256 `{digest}`" for name, digest in transfer.hashes.items()]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Keep names from being read as Markdown."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|" else letter for letter in text)
