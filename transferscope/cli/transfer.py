"""`transferscope transfer`: run one transfer and deliver its model."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from transferscope.cli import completion, options
from transferscope.cli.messages import say
from transferscope.cli.parsing import parse_count

if TYPE_CHECKING:
    from transferscope.results.transfer import Transfer

# Written out: what they come from would import torch.
PROTOCOLS = (
    "nearest_mean", "truncate", "svm", "toptuning", "fne", "reinit", "finetune", "defrost", "surgical", "scratch",
)  # fmt: skip
FORMATS = ("onnx", "torchscript")


@click.command(
    "transfer",
    cls=options.Command,
    short_help="Run one transfer, and deliver a model that predicts.",
    epilog="""\b
Examples:
  transferscope transfer --target data/ --sources zoo.yaml --ranking transferscope-results -o model/
  transferscope transfer --target data/ --sources zoo.yaml --ranking transferscope-results --row 2 -o model/
  transferscope transfer --target data/ --sources zoo.yaml --source mobilenetv2 --depth 12 --protocol reinit -o model/
  transferscope transfer --target data/ --sources zoo.yaml --ranking transferscope-results --export onnx -o model/

\b
On what `transferscope demo -o demo` makes:
  transferscope transfer --target demo/target --sources demo/zoo.yaml --trust-code --ranking demo/results -o model""",
)
@options.target
@options.reading
@options.sources
@click.option(
    "--ranking", metavar="DIR", shell_complete=completion.folders,
    help="The folder that `transferscope rank -o` has written; its best row is taken.",
)  # fmt: skip
@click.option("--row", default="1", metavar="N|SOURCE", help="Another row of the ranking: its rank, or its source.")
@click.option(
    "--source", metavar="NAME", shell_complete=completion.sources("scratch"),
    help="Without a ranking: the source to start from, with --depth and --protocol; `scratch` is the compact network.",
)  # fmt: skip
@click.option(
    "--depth", type=int, metavar="K",
    help="Stages that are kept (frozen, for defrost), see `transferscope layers`; -1 keeps all.",
)  # fmt: skip
@click.option("--protocol", type=click.Choice(PROTOCOLS), help="How it is adapted.")
@click.option(
    "--evidence", metavar="DIR", shell_complete=completion.folders,
    help="Folder to which the measured result is added, for `rank --evidence`; the folder of the model has it in any "
    "case.",
)  # fmt: skip
@click.option(
    "--export", multiple=True, type=click.Choice(FORMATS),
    help="Write the network as a file that runs without transferscope, too. May be given twice.",
)  # fmt: skip
@options.country
@options.running
@options.output("transferscope-model", "Folder of the model, new or empty.")
@options.printing
@click.pass_context
def command(ctx: click.Context, /, **asked: Any) -> None:
    """Run one transfer on all training images, measure it on images apart, and deliver its model in a folder.

    Those are the folder's own test split, else a quarter of each class. Stop it whenever you like: the same command
    goes on where it was.
    """
    sink = options.Sink.of(asked)
    asked["row"] = parse_count(asked["row"])
    from transferscope.report.terminal.transfer import print_transfer
    from transferscope.verbs.transfer.request import TransferRequest
    from transferscope.verbs.transfer.transfer import answer

    with options.stdout_for_results():
        result = answer(TransferRequest(**asked, output=sink.output))
    sink.show(result, print_transfer)
    if not sink.quiet:
        say("\n" * (sink.output_format == "table") + _next(result, asked))


def _next(result: "Transfer", asked: dict[str, Any]) -> str:
    """Say where the model is, and the next commands."""
    trust = " --trust-code" if any(name.startswith("code/") for name in result.hashes) else ""
    lines = [
        f"The model is in {result.folder}; README.md there says what it is. To use it:",
        f"  transferscope predict{trust} {shlex.quote(str(result.folder))} IMAGES -o predictions.csv",
    ]
    if result.is_evidence:
        folder = Path(asked["evidence"] or result.folder)
        words = ["--target", asked["target"], "--sources", asked["zoo"], "--evidence", str(folder)]
        for option, value in (
            ("--images", asked["images"]),
            ("--labels", ",".join(asked["labels"] or ())),
            ("--task", asked["task"]),
        ):
            words += [option, value] if value else []
        trust = " --trust-code" * bool(asked["trust_code"])
        lines += ["A ranking that knows what was measured:", f"  transferscope rank {shlex.join(words)}{trust}"]
    return "\n".join(lines)
