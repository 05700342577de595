"""The target data: a folder, a table, a dataset or arrays become labelled images with a probe set and a hash."""

import logging
import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from transferscope.arrays.strata import allocate
from transferscope.data.columns import Columns
from transferscope.data.given import samples_of
from transferscope.data.images import thumbnails
from transferscope.data.learnt import Learnt, empty_note, learnt_of, notes_of
from transferscope.data.notes import broken_note
from transferscope.data.rasters import Picture
from transferscope.data.reading import Reading
from transferscope.data.samples import READ_BY_ANY_THREAD, Pictures, Samples
from transferscope.errors import InputError, TransferscopeWarning, is_whole
from transferscope.runtime.metrics import CLASSIFICATION, outputs
from transferscope.runtime.progress import Reporter

log = logging.getLogger(__name__)

KEPT_BYTES = 512 * 2**20
"""A probe set keeps decoded images in memory up to this many bytes and decodes the others whenever asked."""

_ROWS, _THUMBNAILS = 20, 8
"""Of how many classes a notebook shows the counts and an image."""


@dataclass(frozen=True, eq=False, repr=False)
class Target:
    """Labelled images. Made by :func:`load_target`; immutable, with read-only arrays.

    Attributes
    ----------
    name : str
        For people; not part of the hash.
    learnt : Learnt
        What is to be learnt, and the strata that draws are made from.
    split : tuple of str or None
        For each image ``"train"``, ``"val"``, ``"test"``, or None where the folder says nothing.
    broken : tuple of (str, str)
        Path (relative to the folder) and reason for each image that was skipped because it cannot be decoded.
    indices : numpy.ndarray
        int64, shape (n_samples,): where each image stands in the target that this one was drawn from. Images of
        ``full`` that are not in ``probe`` (``full.subset(np.setdiff1d(np.arange(len(full)), probe.indices))``) may
        still prove broken when decoded, which a `probe` of them sorts out.
    reading : Reading
        The range of values and the bands that all its images are shown with.
    """

    name: str
    learnt: Learnt
    split: tuple[str | None, ...]
    broken: tuple[tuple[str, str], ...]
    indices: np.ndarray
    _digests: np.ndarray  # (n_samples, 32), the SHA-256 of each image
    _pictures: Pictures
    _places: np.ndarray  # (n_samples,), place of each image in the pictures
    reading: Reading = field(default_factory=Reading)
    _kept: Mapping[int, Picture] = field(default_factory=dict)  # decoded images by place

    def __post_init__(self) -> None:
        for name in ("indices", "_digests", "_places"):
            array = np.array(getattr(self, name))
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def task(self) -> str:
        """What kind of labels they are: "classification", "multi-label" or "regression"."""
        return self.learnt.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what a network puts out, which subsets keep: of classes or labels, sorted, or of numbers."""
        return self.learnt.names

    @property
    def values(self) -> np.ndarray:
        """What is learnt of each image: `labels`; 0 or 1 of each label; or numbers, (n_samples, n_outputs) float64."""
        return self.learnt.values

    @property
    def strata(self) -> np.ndarray:
        """What draws are stratified by, (n_samples,) int64, see `Learnt`."""
        return self.learnt.strata

    @property
    def labels(self) -> np.ndarray:
        """The index into `classes` of each image, (n_samples,) int64.

        Raises
        ------
        InputError
            They are no classes.
        """
        if self.task != CLASSIFICATION:
            raise InputError(
                f"Expected a target whose images have one class each, but the task of {self.name!r} is {self.task}, "
                "for which this has no meaning yet; `rank`, `measure`, `transfer` and `score` take it"
            )
        return self.values

    def __repr__(self) -> str:
        shown = ", ".join(self.classes[:6]) + (", …" if len(self.classes) > 6 else "")
        return f"<Target {self.name!r}: {len(self)} images, {outputs(self.task, len(self.classes))} ({shown})>"

    def _repr_html_(self) -> str:
        from transferscope.runtime.templates import render

        split = np.array(self.split, dtype=object)
        kinds = [kind for kind in ("train", "val", "test", None) if kind in self.split]
        counts = {kind: np.bincount(self.strata[split == kind], minlength=len(self.learnt.groups)) for kind in kinds}
        shown = thumbnails(self.image, self.strata, self.learnt.groups[:_THUMBNAILS])
        return render("target.html", target=self, counts=counts, thumbnails=shown, rows=_ROWS)

    @property
    def n_samples(self) -> int:
        """The number of images."""
        return len(self)

    @property
    def contents(self) -> list[bytes]:
        """SHA-256 of each image, whatever its label: of a file's bytes, of the RGB pixels of arrays and datasets."""
        return [row.tobytes() for row in self._digests]

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over the names and each image's content with its values, in order, wherever they lie."""
        return self.learnt.hash(self._digests)

    @property
    def any_thread(self) -> bool:
        """Whether other threads may read the images, too: not those of a foreign dataset."""
        return isinstance(self._pictures, READ_BY_ANY_THREAD)

    def image(self, index: int) -> Picture:
        """Return one image as 8-bit RGB, in its own size; a new object that the caller may change.

        With bands that are neither one nor three it is an array (height, width, bands) uint8.

        Raises
        ------
        InputError
            There is no such index, or the image turns out to be broken.
        """
        position = operator.index(index)
        if not 0 <= position < len(self):
            raise InputError(f"image index must lie in [0, {len(self)}), but got {index}")
        if (place := int(self._places[position])) in self._kept:
            return self._kept[place].copy()
        try:
            return self._pictures.read(place)
        except (InputError, OSError) as error:
            raise InputError(f"{self._pictures.where(place)} of target {self.name!r} is broken: {error}") from error

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Target":
        """Return the images at these indices, in this order, as a target with a hash of its own.

        Parameters
        ----------
        indices
            Whole numbers in [0, n_samples).

        Raises
        ------
        InputError
            An index is of another kind or outside.
        """
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
            raise InputError(f"indices must be a flat list of whole numbers, but got {chosen.dtype} {chosen.shape}")
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise InputError(f"indices must lie in [0, {len(self)}), but go from {chosen.min()} to {chosen.max()}")
        return replace(
            self,
            learnt=self.learnt.subset(chosen),
            split=tuple(self.split[index] for index in chosen),
            indices=chosen.astype(np.int64),
            _digests=self._digests[chosen],
            _places=self._places[chosen],
        )

    def bare(self) -> "Target":
        """Return the same images without those that are kept decoded, to be sent to another process."""
        return replace(self, _kept={})

    def probe(self, samples: int, seed: int = 0, *, progress: bool = False) -> "Target":
        """Draw a stratified set of images, all of which were decoded and are sound.

        Each class gets its proportional share, and at least two images where it has them. When the target
        has a ``train`` split and others, only training images are drawn. A broken image is replaced by
        another one of its class while there is one. The order is shuffled. The draw depends on `seed` and
        the order of the images alone. Decoded images stay in memory up to `KEPT_BYTES`.

        Parameters
        ----------
        samples
            How many images; all are taken when there are fewer.
        seed
            At least 0.
        progress
            As in :func:`load_target`.

        Returns
        -------
        Target
            Its `indices` say which images of this target it holds; `broken` lists those found broken too.

        Raises
        ------
        InputError
            `samples` does not allow two images of each class, or over 5 % of the decoded images are broken.
        """
        for name, value, least in (("samples", samples, 1), ("seed", seed, 0)):
            if not is_whole(value, least):
                raise InputError(f"{name} must be a whole number of at least {least}, but got {value!r}")
        pool = self.pool()
        strata = self.strata[pool]
        available = np.bincount(strata, minlength=len(self.learnt.groups))
        if samples > len(pool):
            log.info("target %r has %d images to draw from, all are used (%d asked)", self.name, len(pool), samples)
        wanted = allocate(available, min(int(samples), len(pool)), self.learnt.in_words)
        random = np.random.default_rng(seed)
        chosen: list[int] = []
        broken: list[tuple[str, str]] = []
        decoded: dict[int, Picture] = {}
        room = KEPT_BYTES
        with Reporter(progress).bar("decoding images") as report:
            for stratum, count in enumerate(wanted):
                end = len(chosen) + count
                for index in random.permutation(pool[strata == stratum]):
                    if len(chosen) == end:
                        break
                    place = int(self._places[index])
                    try:
                        image = self._kept[place] if place in self._kept else self._pictures.read(place)
                    except (InputError, OSError) as error:
                        broken.append((self._pictures.where(place), str(error)))
                        continue
                    chosen.append(int(index))
                    report(len(chosen), int(wanted.sum()))
                    # Pillow holds RGB in 4 bytes a pixel
                    size = image.nbytes if isinstance(image, np.ndarray) else 4 * image.width * image.height
                    if size <= room:
                        decoded[place] = image
                        room -= size
        if broken:
            note = broken_note(self.name, broken, len(chosen) + len(broken))
            warnings.warn(note, TransferscopeWarning, stacklevel=2)
        drawn = self.subset(random.permutation(np.array(chosen, dtype=np.int64)))
        return replace(drawn, broken=(*self.broken, *broken), _kept=decoded)

    def pool(self) -> np.ndarray:
        """Return the indices that a probe may draw: those of training images if there are others beside."""
        splits = set(self.split)
        if "train" in splits and len(splits) > 1:
            return np.array([index for index, split in enumerate(self.split) if split == "train"])
        return np.arange(len(self))


def load_target(
    source: Any,
    *,
    name: str | None = None,
    images: str | None = None,
    labels: str | Sequence[str] | None = None,
    task: str | None = None,
    value_range: tuple[float, float] | None = None,
    bands: Sequence[int] | None = None,
    progress: bool = False,
) -> Target:
    """Load the images that a network is to be transferred to.

    Parameters
    ----------
    source
        One of

        - a folder with a sub-folder per class, searched recursively in sorted order. Folders called train,
          training, val, valid, validation, dev, test, testing or eval (in any case, at any depth) are splits where
          all folders with images beside them are called so too; the class is the first other folder. So ``train/
          test/`` are splits, and ``bus/ ship/ train/`` three classes; where only some images lie in splits, none count.
          Hidden names and what other programs leave (``@eaDir``, ``__MACOSX``, ``Thumbs.db`` and the like) are left
          out and counted. A linked folder is followed unless its images are found without it;
        - a table: a ``.csv``, ``.tsv`` or ``.parquet`` file (with pyarrow), whose relative paths start at its folder,
          or a DataFrame, whose paths start at the working directory. A row is an image file, or the bytes of one, with
          its label; a column ``split`` has the names of such folders, or is missing. Rows that are there twice count
          once, rows that contradict each other are refused; files that do not exist are named, and refused where they
          are over 5 %. Labels that are whole numbers count as such, others are names;
        - shards of a WebDataset: a ``.tar`` file or a folder of them, with ``0001.jpg`` beside ``0001.cls``, ``.txt``
          or ``.json``; shards that are called train-, val- or test- are splits;
        - a map dataset as torchvision's or Hugging Face's: ``len(dataset)``, and ``dataset[i]`` a tuple that begins
          with an image (PIL, array or tensor, not normalised nor randomly altered) and a label, or a dict with one of
          ``image``, ``img``, ``pixel_values`` and one of ``label``, ``labels``, ``target``, ``targets``, ``class``.
          ``dataset.classes``, or the names of the label in ``dataset.features``, name whole-number labels. Datasets
          like ``ImageFolder`` (with ``samples``) are read from their files, untransformed. A dict of datasets, as a
          ``DatasetDict``, has splits for keys;
        - a pair (images, labels) of NumPy arrays or torch tensors: images (N, H, W), (N, H, W, C) or
          (N, C, H, W) with C in 1 (grey), 3 (RGB), 4 (RGB and alpha), any C with `bands`; bools, whole numbers or
          floats in [0, 1], of any range with `value_range`; labels (N,) whole numbers, bools or strings, or what `task`
          says: (N, n_labels) 0 and 1, or N lists; (N,) or (N, n_numbers) numbers;
        - a `Target`, which is returned.
    name
        For people; default: the name of the folder or file, the dataset's type, ``"table"`` or ``"arrays"``.
    images, labels
        Columns of a table, keys of a dataset's items, or endings or keys in a shard, that hold the images and their
        labels, where their names (``path``, ``image``, ``filename`` …, ``label``, ``class`` …) do not tell.
    task
        ``"classification"``, ``"multi-label"`` (several columns of 0 and 1, or one of lists of labels) or
        ``"regression"`` (one or several columns of numbers). By default several columns, and lists, are multi-label.
    value_range
        (low, high): the values that become black and white, in all images whose values are not 8 bits without a sign;
        what is outside is clipped. By default all these images together tell: of whole numbers from 0 the fewest of 8,
        10, 12, 14 or 16 bits that hold them (or all but 0.1 %, where those need four bits more); of floats in [0, 1]
        that, and in [0, 255] that if they exceed 127; of others, such as signed ones, what leaves out 0.1 % at each
        end. Images of 8 bits stay as they are.
    bands
        Numbers of the bands to show, counted from 1: three for red, green and blue, one for grey, any other number for
        networks that take as many channels. By default the colours, with transparency on white; transparent is what the
        file declares so (or the fourth channel of an array), of other bands the first three are taken.
    progress
        Whether to draw a progress bar on stderr when it is a terminal.

    Returns
    -------
    Target
        Every image was read once, for the hash and a look at its header.

    Raises
    ------
    InputError
        Nothing usable is there: no such folder, no images, one class only, over 5 % broken, arrays or a table of
        another kind, a column that cannot be told or does not suit the task. The message says what to do.

    Warns
    -----
    TransferscopeWarning
        Broken images, other files, empty classes were skipped; a class has one image only; the range of values or the
        bands were chosen by the images.

    Examples
    --------
    >>> images = np.arange(4 * 8 * 8).astype(np.uint8).reshape(4, 8, 8)
    >>> target = load_target((images, np.array(["cat", "cat", "dog", "dog"])))
    >>> len(target), target.classes
    (4, ('cat', 'dog'))
    >>> target.subset([0, 2]).labels.tolist()
    [0, 1]
    """
    reading, asked = Reading(value_range, bands), Columns(images, labels, task)
    if isinstance(source, Target):
        if reading.contradicts(source.reading):
            raise InputError(
                "value_range and bands say how images are read, but those of this target were read already; give "
                "them to the load_target that made it"
            )
        if task not in (None, source.task):
            raise InputError(f"task says what the labels are, but those of this target are of {source.task} already")
        return source if name is None else replace(source, name=name)
    with Reporter(progress).bar("reading images") as report:
        loaded, default = samples_of(source, asked, report, reading)
    target, notes = _build(loaded, name or default)
    for note in notes:
        warnings.warn(note, TransferscopeWarning, stacklevel=2)
    return target


def _build(samples: Samples, name: str) -> tuple[Target, list[str]]:
    """Return the target and what to warn of; raise `InputError` if it is of no use."""
    checked = len(samples.labels) + len(samples.broken)
    if not checked:
        raise InputError(f"target {name!r} has no images")
    notes = [broken_note(name, samples.broken, checked)] if samples.broken else []
    notes += samples.notes
    learnt = learnt_of(samples, name)
    notes += empty_note(samples, name)
    target = Target(
        name=name,
        learnt=learnt,
        split=tuple(samples.split),
        broken=tuple(samples.broken),
        indices=np.arange(len(samples.labels)),
        _digests=np.frombuffer(b"".join(samples.digests), dtype=np.uint8).reshape(-1, 32),
        _pictures=samples.pictures,
        _places=np.arange(len(samples.labels)),
        reading=samples.reading,
    )
    return target, notes + notes_of(learnt, target.name, target.pool())
