"""What `--version` prints, and with `-v` the other versions that the report of a fault needs to say."""

import platform
from collections.abc import Callable
from typing import Any

import click

from transferscope.runtime.version import __version__

PACKAGES = (
    "torch", "torchvision", "timm", "safetensors", "numpy", "scipy", "scikit-learn", "pandas", "xarray", "h5netcdf",
    "h5py", "pillow", "matplotlib", "pydantic", "click", "codecarbon", "transformers", "open_clip_torch", "cupy",
)  # fmt: skip


def option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--version`, and the `-v` that makes it longer."""
    for add in (
        # Eager, so that it is known wherever it stands.
        click.option(
            "-v", "--verbose", is_flag=True, is_eager=True,
            help="With --version: those of Python, packages and GPU too, for the report of a fault.",
        ),
        click.option(
            "--version", is_flag=True, expose_value=False, callback=_print_versions, help="Print the version."
        ),
    ):  # fmt: skip
        command = add(command)
    return command


def _print_versions(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if not asked or ctx.resilient_parsing:
        return
    click.echo(f"transferscope, version {__version__}")
    if ctx.params["verbose"]:
        rows = _rows()
        width = max(map(len, rows))
        for name, value in rows.items():
            click.echo(f"{name:{width}}  {value}")
    ctx.exit()


def _rows() -> dict[str, str]:
    from transferscope.runtime.provenance import versions

    installed = versions(PACKAGES)
    rows = {"python": installed["python"], "platform": platform.platform()}
    rows |= {name: installed.get(name, "not installed") for name in PACKAGES}
    try:
        import torch

        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        rows["CUDA"] = torch.version.cuda or "torch is built without"
        rows["GPU"] = ", ".join(names) or "torch sees none"
    except Exception as error:  # an installation that does not work is what reports are about
        rows["GPU"] = f"not known, for torch says: {type(error).__name__}: {' '.join(str(error).split())}"
    return rows
