"""What the autograd graph does not show, and networks that are no function of one image."""

from pathlib import Path

import numpy as np

from reading.cases.asking import all_done, cached_in, layers, listed, made_by, measure, rank, statuses, zoo
from reading.cases.case import Case, Found

KIND = "The graph, and functions of one image"


def _checkpointed(reentrant: bool, folder: Path) -> Found:
    path = zoo(
        folder,
        plain=made_by("checkpointed", reentrant=None),
        other=made_by("checkpointed", reentrant=reentrant),
    )
    right, got = layers(path, "plain"), layers(path, "other")
    params = got[-1]["params"] if got else 0
    return Found(f"{len(got)} stages, {params} parameters", got == right and bool(got))


def _detached(folder: Path) -> Found:
    said = listed(zoo(folder, probe=made_by("detached")), "probe")
    if said.code:
        return Found(f"error: {said.error}", "tower" in said.error)
    stages = layers(folder / "zoo.yaml", "probe")
    return Found(f"{len(stages)} stages, the last is {stages[-1]['layer']}", stages[-1]["layer"].startswith("tower"))


def _detached_ranked(folder: Path) -> Found:
    path = zoo(folder, probe=made_by("detached") | {"layers": ["tower.layer*.*", "tower.global_pool"]})
    answer = rank(folder, path, protocol="finetune")
    if "probe" not in answer.picks:
        return Found(answer.said[-1], any("probe" in line for line in answer.said))
    pick = answer.picks["probe"]
    runs = measure(folder, path, pick.protocol, [pick.depth])
    return Found(f"recommended: {pick.protocol} at {pick.depth}; measured: {statuses(runs)}", all_done(runs))


def _named(factory: str, words: tuple[str, ...], folder: Path) -> Found:
    """Right when one sentence names the source and holds one of these words."""
    answer = rank(folder, zoo(folder, odd=made_by(factory), plain=made_by("convolutional")))
    sentences = [line for line in answer.said if "odd" in line]
    right = any(word.lower() in line.lower() for line in sentences for word in words)
    return Found(sentences[0] if sentences else "ranked, without a word", right)


def _dropping_twice(folder: Path) -> Found:
    path, found = zoo(folder, odd=made_by("dropping")), []
    for batch in (51, 20):
        with cached_in(folder / str(batch)):
            answer = rank(folder, path, batch_size=batch)
        if answer.scores is None:
            return Found(answer.said[-1], False)
        found.append(answer.scores["logme"].sel(source="odd").to_numpy())
    one, other = found
    furthest = np.nanmax(np.abs(one - other))
    return Found(f"LogME differs by {furthest:.2g} at most", furthest < 1e-3)


CASES = (
    Case(
        "Residual blocks under re-entrant gradient checkpointing",
        "the stages and parameters of the same network without",
        lambda folder: _checkpointed(True, folder),
    ),
    Case(
        "Blocks under gradient checkpointing that is not re-entrant",
        "the same",
        lambda folder: _checkpointed(False, folder),
    ),
    Case("A tower that runs under `no_grad` inside `forward`", "its stages, or that it is detached", _detached),
    Case(
        "The same with layers named: what `rank --protocol finetune` recommends",
        "what `measure` can run, or a refusal that names the source",
        _detached_ranked,
    ),
    Case(
        "Functional dropout that is on in evaluation",
        "said, by the name of the source",
        lambda folder: _named("dropping", ("random", "dropout"), folder),
    ),
    Case("The same, ranked twice with batches of two sizes", "the same answer twice", _dropping_twice),
    Case(
        "Batch norms without running statistics",
        "said, with the layer",
        lambda folder: _named("of_the_batch", ("stage1",), folder),
    ),
    Case(
        "A network that gives NaN",
        "said, by the name of the source",
        lambda folder: _named("not_a_number", ("NaN",), folder),
    ),
)
