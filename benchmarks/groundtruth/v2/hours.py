"""Hours spent: hours.csv, a line for each piece of work with its wall-clock time on the machine as it was."""

import csv
import time
from pathlib import Path

import pandas as pd

FILE = Path(__file__).resolve().parent / "hours.csv"


def note(stream: str, device: str, seconds: float) -> None:
    """Add a piece of work that has just ended."""
    new = not FILE.exists()
    with FILE.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["stream", "device", "ended", "seconds"])
        writer.writerow([stream, device, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), f"{seconds:.0f}"])


def spent() -> pd.Series:
    """Return the hours of each stream."""
    if not FILE.exists():
        return pd.Series(dtype=float)
    return pd.read_csv(FILE).groupby("stream")["seconds"].sum() / 3600
