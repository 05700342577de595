"""Run one transfer and deliver its model: choose, prepare, train, measure, write."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from sklearn.metrics import confusion_matrix

from transferscope.data.value_range import Range
from transferscope.errors import InputError
from transferscope.networks.zoo import Zoo
from transferscope.protocols.delivery.export import FORMATS
from transferscope.protocols.delivery.export import export as exported
from transferscope.protocols.delivery.network import DeliveredNetwork
from transferscope.protocols.delivery.temperature import fit_temperature
from transferscope.results.outcome import Outcome
from transferscope.results.ranking import Ranking
from transferscope.results.summary import TargetSummary
from transferscope.results.transfer import Transfer, read_card
from transferscope.runtime.footprint import Footprint
from transferscope.runtime.metrics import CLASSIFICATION, REGRESSION
from transferscope.runtime.parameter_count import all_parameters
from transferscope.runtime.power import WORLD
from transferscope.runtime.progress import Reporter
from transferscope.runtime.provenance import Provenance, versions
from transferscope.verbs.measure.rows import Row
from transferscope.verbs.transfer import evidence as evidence_files
from transferscope.verbs.transfer.choice import choose
from transferscope.verbs.transfer.job import Job
from transferscope.verbs.transfer.model_files import RECIPE, WEIGHTS, load_model, sha256, write_model
from transferscope.verbs.transfer.request import OUTPUT, TransferRequest

logger = logging.getLogger("transferscope")

_TRIED = 3
"""Images that an exported file is tried with."""


def transfer(
    target: Any,
    zoo: Zoo | str | Path | Mapping[str, Any] | Sequence[Any],
    output: str | Path = OUTPUT,
    *,
    ranking: str | Path | Ranking | None = None,
    row: int | str = 1,
    source: str | None = None,
    depth: int | None = None,
    protocol: str | None = None,
    evidence: str | Path | None = None,
    export: Sequence[str] = (),
    country: str = WORLD,
    device: str = "auto",
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    trust_code: bool = False,
    images: str | None = None,
    labels: str | Sequence[str] | None = None,
    task: str | None = None,
    value_range: Range | None = None,
    bands: Sequence[int] | None = None,
) -> Transfer:
    """Run one transfer and deliver its model in a folder, from which `load_transfer` makes predictions.

    Which transfer is said by a row of a ranking, or by source, depth and protocol. It is trained by the recipe of
    `measure` on all training images, and measured on images apart, which it never sees: the target's own ``test`` split
    (or ``val`` without one), else a quarter of each class, drawn by the seed, 2000 at most. The model that was measured
    is the one that is delivered. Training that was interrupted goes on; the same call on a folder that holds this model
    trains nothing.

    Parameters
    ----------
    target : path, Target, torchvision dataset or (images, labels)
        What `load_target` takes.
    zoo : Zoo, path, mapping or sequence
        What `load_zoo` takes.
    output : path
        Folder of the model, new or empty.
    ranking : path or Ranking
        What `rank` answered, or the folder that it was saved in.
    row : int or str
        Of the ranking: the rank, or the name of a source.
    source : str
        Without a ranking: its name in the zoo; or "scratch", for the compact network without a source.
    depth : int
        Stages that are kept, or frozen for "defrost"; negative ones count from the end, -1 keeping all. Not needed for
        "fne", "surgical" and "scratch", which have no choice.
    protocol : str
        One of `run.PROTOCOLS`.
    evidence : path
        Folder to which the measured result is added, for the `evidence` of later rankings; made if need be. The folder
        of the model holds it too.
    export : sequence of str
        "onnx" and "torchscript": files that run without this package, checked against the network to 1e-4.
    country, device, batch_size, seed, progress, trust_code, images, labels, task, value_range, bands
        As in `measure`.

    Raises
    ------
    InputError
        When an argument, the target or the zoo is not as expected, or the folder holds something else.
    DeviceError
        When the device does not exist.
    SourceError
        When the source cannot be adapted so, training diverges, or an export fails; nothing is written then.
    """
    return answer(TransferRequest(**locals()))  # each argument is a field


def answer(request: TransferRequest) -> Transfer:
    """Answer what `transfer` is asked."""
    reporter, folder = Reporter(request.progress), Path(request.output)
    earlier = _earlier(folder)
    into = None if request.evidence is None else evidence_files.evidence_folder(request.evidence)
    target = request.load(request.target)
    job = Job.prepare(request, target, choose(request, target), reporter)
    if into is not None:
        evidence_files.check_evidence(into, job.settings)
    if earlier is not None and earlier.identity != job.identity:
        raise InputError(
            f"Expected `output` to be a new or empty folder, but {folder} holds the model of another transfer (of "
            f"{earlier.source}, {earlier.protocol}, to {earlier.target.name}); choose another one with -o"
        )
    if earlier is not None:
        logger.info("%s holds this model already; nothing is trained.", folder)
        done, row = _exported(request, job, earlier), evidence_files.row_of(folder)
    else:
        model, footprint = job.carry_out(reporter)
        done, row = _delivered(request, job, model, footprint, reporter)
    if into is not None:
        evidence_files.append(into, row, job.settings)
    return done


def _earlier(folder: Path) -> Transfer | None:
    """Return the transfer whose model lies in a folder already; raise InputError when there is something else."""
    if (folder / RECIPE).is_file():
        return read_card(folder)
    there = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if there or (folder.exists() and not folder.is_dir()):
        raise InputError(
            f"Expected `output` to be a new or empty folder, or one that holds a model, but {folder} "
            f"{f'holds other files, such as {sorted(there)[0]}' if there else 'is a file'}; choose another one with -o"
        )
    return None


def _delivered(
    request: TransferRequest, job: Job, model: DeliveredNetwork, footprint: Footprint, reporter: Reporter
) -> tuple[Transfer, Row]:
    """Measure what is delivered and write it; return the result and its row of evidence."""
    setup, device = job.executor.setup, job.executor.device
    truth, classes, task = job.target.values[setup.test], job.target.classes, job.target.task
    model.to(device)
    with reporter.bar("measuring") as report:
        images = job.executor.bank(job.run.source)
        images.add(setup.test)
        logits = _logits(model, images.batches(setup.test, setup.batch_size, report))
    if task != REGRESSION:
        model.temperature.fill_(fit_temperature(logits, truth))
    model.cpu()
    files = {WEIGHTS: safetensors.torch.save(model.arrays), RECIPE: job.with_head_of(model).to_json().encode()}
    files |= job.files
    with reporter.bar("exporting"):
        files |= {FORMATS[name]: exported(model, name, _tried(job)) for name in request.export}
    predicted = logits.argmax(1) if task == CLASSIFICATION else logits
    of_classes = task == CLASSIFICATION
    row = job.executor.row(job.run, predicted, footprint)
    result = Transfer(
        target=TargetSummary(job.target.name, job.target.n_samples, len(classes), job.target.hash),
        classes=classes,
        source=job.run.source,
        protocol=job.run.protocol,
        depth=job.run.depth,
        depths=job.run.depths,
        layer=job.run.layer,
        trained_on=int(row["samples"]),
        held_out=job.held_out,
        confusion=confusion_matrix(truth, predicted, labels=range(len(classes))) if of_classes else None,
        balanced_accuracy=float(row["balanced_accuracy"]) if of_classes else math.nan,
        outcome=None if of_classes else Outcome(task, classes, truth, predicted.astype(np.float64)),
        temperature=float(model.temperature),
        seconds=row["phases"],
        kwh=float(row["kwh"]),
        kgco2e=float(row["kgco2e"]),
        energy=job.executor.meter.describe(),
        params=all_parameters(model),
        identity=job.identity,
        expected=job.choice.expected,
        hashes={name: sha256(data) for name, data in files.items()},
        provenance=Provenance(request.settings(), job.settings.sources, versions()),
        folder=Path(request.output),
    )
    with reporter.bar("writing"):
        write_model(Path(request.output), {**files, **evidence_files.as_files(row, job.settings), **result.files()})
    return result, row


def _exported(request: TransferRequest, job: Job, earlier: Transfer) -> Transfer:
    """Export a model that is there already to what it was not exported to before."""
    missing = [name for name in request.export if not (earlier.folder / FORMATS[name]).is_file()]
    if not missing:
        return earlier
    _, model = load_model(earlier.folder, trust_code=job.executor.setup.trust_code)
    files = {FORMATS[name]: exported(model, name, _tried(job)) for name in missing}
    result = replace(earlier, hashes={**earlier.hashes, **{name: sha256(data) for name, data in files.items()}})
    write_model(earlier.folder, {**files, **result.files()})
    return result


def _tried(job: Job) -> torch.Tensor:
    """Return the images that an exported file is tried with."""
    images, chosen = job.executor.bank(job.run.source), np.resize(job.executor.setup.test, _TRIED)
    images.add(chosen)
    return images.images(chosen)


def _logits(model: DeliveredNetwork, batches: Iterable[torch.Tensor]) -> np.ndarray:
    """Return the logits of images, (n_samples, n_classes) float32."""
    device = model.temperature.device
    with torch.inference_mode():
        return torch.cat([model(batch.to(device)).cpu() for batch in batches]).numpy()
