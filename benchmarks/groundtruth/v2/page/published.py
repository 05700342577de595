"""Published tables of measured transfers, which are not part of this repository: read from the real data's tables/.

medmnistplus: ten networks on medical targets, whole training sets, at 224 px; chestmnist left out, which has several
labels an image (sdoerrich97/rethinking-model-prototyping-MedMNISTPlus). robust: four ResNets on twelve targets, the
best of plain and robust sources (microsoft/robust-models-transfer). vit: nine ViTs on nineteen targets under ten heads
on frozen features (lciernik/attentive-layer-fusion).
"""

import os
from pathlib import Path

import pandas as pd

NAMES = {"medmnistplus": "MedMNIST+", "robust": "robust ResNets", "vit": "ViT layers"}
WHOLE_SETS = 10_000
"""Test images that an accuracy is taken to rest on, where a table does not say: it decides logits near 1 alone."""
LAST, ALL, ATTENTIVE = "truncate", "linear, all blocks", "attentive"
"""A linear head on the last layer, and on all blocks, and an attentive one on all blocks."""
HEADS = {
    "CLS last layer": LAST, "CLS+AP layers from all blocks (linear)": ALL,
    "CLS+AP layers from all blocks (attentive)": ATTENTIVE,
}  # fmt: skip
PIXELS = 224
SUMMARY = "perf. gain"
"""How the names of lines end that are not targets."""


def folder() -> Path | None:
    """Return the folder of tables, or None where there is none."""
    real = os.environ.get("TRANSFERSCOPE_REAL")
    return Path(real) / "tables" if real and (Path(real) / "tables").is_dir() else None


def load(where: Path | None) -> dict[str, pd.DataFrame]:
    """Return each table that is there, as target, source, protocol and accuracy (0 to 1), a row each."""
    readers = {"medmnistplus": _medmnist, "robust": _robust, "vit": _vit}
    found = {}
    for name, read in readers.items():
        table = read(where) if where else None
        if table is not None:
            found[name] = table.assign(tested=float(WHOLE_SETS), size=0).reset_index(drop=True)
    return found


def _medmnist(where: Path) -> pd.DataFrame | None:
    path = where / "medmnistplus.csv"
    if not path.exists():
        return None
    table = pd.read_csv(path)
    table = table[(table["px"] == PIXELS) & (table["dataset"] != "chestmnist")]
    return _named(table, "dataset", "model", "acc").replace({"protocol": {"linear": "truncate"}})


def _robust(where: Path) -> pd.DataFrame | None:
    path = where / "robust-models-transfer.csv"
    if not path.exists():
        return None
    return _named(pd.read_csv(path), "target", "network", "accuracy").replace({"protocol": {"linear": "truncate"}})


def _vit(where: Path) -> pd.DataFrame | None:
    paths = sorted((where / "vit-layers").glob("*.csv"))
    parts = []
    for path in paths:
        # Two lines of names (the network, the head), and one of the index, which has no values.
        table = pd.read_csv(path, header=[0, 1], index_col=0, skiprows=[2])
        for network, head in table.columns:
            if head in HEADS:
                own = pd.DataFrame({"accuracy": table[network, head].astype(float) / 100}).dropna()
                own = own[~own.index.str.endswith(SUMMARY)]
                parts.append(own.rename_axis("target").reset_index().assign(source=network, protocol=HEADS[head]))
    return pd.concat(parts) if parts else None


def _named(table: pd.DataFrame, target: str, source: str, accuracy: str) -> pd.DataFrame:
    named = table.rename(columns={target: "target", source: "source", accuracy: "accuracy"})
    return named[["target", "source", "protocol", "accuracy"]].assign(accuracy=named["accuracy"] / 100)
