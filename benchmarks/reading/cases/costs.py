"""What is not counted: recurrent and quantised layers."""

import math
from pathlib import Path

from reading.cases import networks
from reading.cases.asking import layers, made_by, rank, zoo
from reading.cases.case import Case, Found

KIND = "Costs"


def _recurrent(kind: str, folder: Path) -> Found:
    stages = layers(zoo(folder, reader=made_by("reader", kind=kind)), "reader")
    if not stages:
        return Found("no stages", False)
    last = stages[-1]
    stem = [stage for stage in stages if stage["layer"].startswith("stem")][-1]
    flops = None if last["flops"] is None else last["flops"] - stem["flops"]
    params = last["params"] - stem["params"]
    # Activations of the gates are counted by some, and are a few hundredths.
    right = flops is None or math.isclose(flops, networks.recurrent_flops(kind), rel_tol=0.05)
    return Found(
        f"{params} parameters; {'unknown' if flops is None else flops} FLOPs",
        right and params == networks.recurrent_params(kind),
    )


def _quantised(folder: Path) -> Found:
    whole, part = (layers(zoo(folder, net=made_by(name)), "net") for name in ("transformer", "quantised"))
    if not part:
        return Found("no stages", False)
    flops, params = part[-1]["flops"], part[-1]["params"]
    counted = flops is None or flops >= 0.9 * whole[-1]["flops"]
    known = params is None or params >= 0.9 * whole[-1]["params"]
    return Found(
        f"{params} of {whole[-1]['params']} parameters; {'unknown' if flops is None else flops} of "
        f"{whole[-1]['flops']} FLOPs",
        counted and known,
    )


def _quantised_ranked(folder: Path) -> Found:
    path = zoo(folder, int8=made_by("quantised"), float32=made_by("transformer"))
    answer = rank(folder, path, objective="latency")
    if not answer.picks:
        return Found(answer.said[-1], False)
    first = min(answer.picks.values(), key=lambda pick: pick.rank)
    return Found(f"first: {first.source} {first.protocol}", first.source != "int8")


def _quantised_trained(folder: Path) -> Found:
    path = zoo(folder, int8=made_by("quantised"), float32=made_by("transformer"))
    answer = rank(folder, path, protocol="finetune")
    pick = answer.picks.get("int8")
    said = [line for line in answer.said if "int8" in line]
    if pick is not None:
        return Found(f"recommended: {pick.protocol} at {pick.depth}", False)
    return Found(said[0] if said else "left out without a word", bool(said))


CASES = (
    Case(
        "Two LSTM layers after a convolutional stem",
        f"{networks.recurrent_params('lstm')} parameters, {networks.recurrent_flops('lstm')} FLOPs in them, or unknown",
        lambda folder: _recurrent("lstm", folder),
    ),
    Case(
        "The same with GRU layers",
        f"{networks.recurrent_params('gru')} parameters, {networks.recurrent_flops('gru')} FLOPs in them, or unknown",
        lambda folder: _recurrent("gru", folder),
    ),
    Case("A transformer with its linear layers quantised to int8", "counted, or unknown", _quantised),
    Case(
        "The same beside the float network, `--objective latency`",
        "it does not win by what is unknown",
        _quantised_ranked,
    ),
    Case(
        "The same, `--protocol finetune`",
        "left out, with the reason: it cannot be trained",
        _quantised_trained,
    ),
)
