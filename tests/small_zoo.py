"""A zoo of one small network without weights, in the folder that a test works in."""

import json
from pathlib import Path


def write_zoo():
    """Write zoo.yaml, and the factory that it names; return its path."""
    Path("nets.py").write_text(
        "from transferscope.networks import CompactResNet\ndef build():\n    return CompactResNet(3, width=4)\n"
    )
    source = {"name": "small", "loader": "python", "factory": "nets.py:build", "transform": {"size": 12}}
    Path("zoo.yaml").write_text(json.dumps({"version": 1, "sources": [source]}))
    return "zoo.yaml"
