"""Why a checkpoint does not fit a network, in words: what differs, the nearest names, the likely prefix."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from transferscope.errors import SourceError
from transferscope.networks.choosing import SHOWN
from transferscope.networks.expected import COUNTER, Expected
from transferscope.networks.matching import Match, Naming, matches

# Names in which near ones are looked for; more would take seconds.
_SEARCHED = 400


# How libraries number the parts that they save large networks in.
_PART = re.compile(r"-\d+-of-(\d+)\.")

# What transformers calls the attention of its blocks in files; no other library does.
_OF_TRANSFORMERS = re.compile(
    r"attention\.attention\.query\.|attention\.self\.query\.|vision_model\.encoder\.layers\.\d+\.self_attn\.q_proj\."
)


def misfit(expected: Expected, file: Mapping[str, Tensor], path: Path, library: str) -> SourceError:
    """Return the error that says how a file under its nearest naming differs from what a library's network asks for."""
    ranked = matches(expected, file)[:20] or [Match(Naming(""), expected, file)]
    best = max(ranked, key=lambda match: (len(match.taken) - len(match.differing), len(match.taken)))
    unexpected = best.unused if best.deeper or best.missing else []  # beside a network that fits anything may lie
    prefix = best.naming.prefix
    under = f" under {prefix!r}" if prefix else ""
    lists = [
        _listed("differ", [_difference(best, name) for name in best.differing]),
        _listed("are missing from the file", [f"{name}: {_kind(expected.tensors[name])}" for name in best.missing]),
        _listed("are not in the network", [f"{key.removeprefix(prefix)}: {_kind(file[key])}" for key in unexpected]),
        _listed("share one tensor in the network and have different ones in the file", best.torn),
    ]
    if best.missing and best.unused:
        lists.append(_pairs(best.missing, [key.removeprefix(prefix) for key in best.unused]))
    text = "; ".join(filter(None, lists))
    counted = len([name for name in best.taken if not name.endswith(COUNTER)])
    if best.missing:
        text, under = f"{text}; {counted} of its names are the network's{under}", ""
    advice = _advice(best, path)
    if library != "transformers" and best.missing and any(map(_OF_TRANSFORMERS.search, file)):
        advice = "its names are those of transformers: use that loader, with the folder of its config.json as model"
    network = f"the network of {len(expected.tensors)} tensors"
    return SourceError(f"checkpoint {path} does not fit {network}{under}: {text}; {advice}")


def _advice(best: Match, path: Path) -> str:
    if best.missing and (part := _PART.search(path.name)) and int(part[1]) > 1:
        return f"by its name it is one of {int(part[1])} parts: join their tensors in one file"
    if best.missing or best.deeper:
        if best.missing and best.naming.prefix:
            return "check that it holds the weights of this model, and if of several name one as checkpoint_key"
        return "check that it holds the weights of this model"
    if classes := _class_count(best):
        return (
            f"build it with a classifier of {classes} outputs (timm, torchvision: kwargs: {{num_classes: {classes}}})"
        )
    if best.torn and not best.differing:
        return "check that it holds the weights of this model"
    return "check that model and kwargs are those it was saved from"


def _class_count(best: Match) -> int | None:
    """Return the file's number of classes, if only that differs, in every tensor of the classifier alike."""
    pairs = [(best.taken[name], best.expected.tensors[name]) for name in best.differing]
    counts = {(len(there), len(here)) for there, here in pairs if there.ndim and here.ndim}
    alike = all(there.shape[1:] == here.shape[1:] for there, here in pairs)
    return counts.pop()[0] if alike and len(counts) == 1 and set(best.differing) <= best.expected.classifier else None


def _pairs(network: Sequence[str], file: Sequence[str]) -> str:
    """Put beside names of the network those of the file that look most like them."""
    found = []
    for name in network[:SHOWN]:
        near = difflib.get_close_matches(name, file[:_SEARCHED], n=1, cutoff=0)
        found += [f"{name} ~ {near[0]}"] if near else []
    return f"nearest names (network ~ file): {', '.join(found)}"


def _difference(match: Match, name: str) -> str:
    return f"{name}: network {_kind(match.expected.tensors[name])}, file {_kind(match.taken[name])}"


def _listed(what: str, lines: Sequence[str]) -> str:
    more = f", and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return f"{len(lines)} {what} ({', '.join(lines[:SHOWN])}{more})" if lines else ""


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
