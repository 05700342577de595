"""`transferscope slurm`: a script for sbatch that runs a verb as an array job on one shared folder."""

import shlex
import sys

import click

from transferscope.cli import options
from transferscope.errors import InputError

_VERBS = ("rank", "measure")


@click.command(
    "slurm",
    cls=options.Command,
    short_help="Print a script for sbatch that runs a verb as an array job.",
    context_settings={"ignore_unknown_options": True},
    epilog="""\b
Examples:
  transferscope slurm rank --target data/ --sources zoo.yaml -o results > rank.sbatch; sbatch rank.sbatch
  transferscope slurm --tasks 8 --gpus 1 --time 120 measure --target data/ --sources zoo.yaml | sbatch

\b
On what `transferscope demo -o demo` makes:
  transferscope slurm --tasks 2 rank --target demo/target --sources demo/zoo.yaml --trust-code --shots 8""",
)
@click.option("--tasks", type=options.whole(1), default=4, show_default=True, metavar="N", help="Tasks of the array.")
@click.option("--gpus", type=options.whole(0), default=0, show_default=True, metavar="N", help="GPUs of each.")
@click.option("--cpus", type=options.whole(1), default=4, show_default=True, metavar="N", help="Cores of each.")
@click.option("--mem", default="16G", show_default=True, metavar="SIZE", help="Memory of each.")
@click.option("--time", type=options.whole(1), default=60, show_default=True, metavar="MINUTES", help="Limit of each.")
@click.option("--partition", metavar="NAME", help="Where they run.")
@click.option("--account", metavar="NAME", help="Who pays.")
@click.argument("verb", type=click.Choice(_VERBS))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    tasks: int,
    gpus: int,
    cpus: int,
    mem: str,
    time: int,
    partition: str | None,
    account: str | None,
    verb: str,
    arguments: tuple[str, ...],
) -> None:
    """Print a script for sbatch: tasks that all run the same VERB with ARGUMENTS, share the work and the answer.

    Options of the job stand before the verb. The folder that it is printed in, with the cache in it, has to be one that
    all machines see.
    """
    sys.stdout.write(script(verb, arguments, tasks, gpus, cpus, mem, time, partition, account))


def script(
    verb: str,
    arguments: tuple[str, ...],
    tasks: int,
    gpus: int,
    cpus: int,
    mem: str,
    minutes: int,
    partition: str | None,
    account: str | None,
) -> str:
    """Return the script.

    Raises
    ------
    InputError
        A value would not stand in one line of it.
    """
    asked = {
        "job-name": f"transferscope-{verb}", "array": f"0-{tasks - 1}", "cpus-per-task": cpus, "mem": mem,
        "time": minutes, "gres": f"gpu:{gpus}" if gpus else None, "partition": partition, "account": account,
        "output": "transferscope-%A_%a.log", "open-mode": "append", "requeue": "",
    }  # fmt: skip
    for name, value in asked.items():
        if value is not None and any(not each.isprintable() or each.isspace() for each in str(value)):
            raise InputError(f"Expected `{name}` to be one word, but got {value!r}")
    lines = [
        f"#SBATCH --{name}" + (f"={value}" if value != "" else "") for name, value in asked.items() if value is not None
    ]
    words = shlex.join([sys.executable, "-m", "transferscope", verb, *arguments])
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "",
            "# Every task runs the same command: each begins with sources of its own, leaves alone what another one is",
            "# at work on, and ends with the whole answer. A task that is stopped and queued again goes on.",
            "# The cache has to lie where all machines see it.",
            'export TRANSFERSCOPE_HOME="${TRANSFERSCOPE_HOME:-$SLURM_SUBMIT_DIR/transferscope-cache}"',
            'export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"',
            'cd "$SLURM_SUBMIT_DIR"',
            f"srun {words}",
            "",
        ]
    )
