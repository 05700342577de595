"""An image folder as raw labelled samples: which images, of which class, in which split."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from transferscope.data.foreign import Foreign
from transferscope.data.notes import listed
from transferscope.data.reading import Reading
from transferscope.data.samples import SUFFIXES, Samples, from_files
from transferscope.errors import InputError
from transferscope.runtime.marker import is_marked
from transferscope.runtime.progress import Report, silent
from transferscope.runtime.regular import irregular

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
"""Folder names (in lower case) that stand for a split of the data, where all folders beside them do too."""

_LAYOUT = "it must hold one sub-folder of images per class"

_DEEPEST = 100
"""Folders within each other; more are a mistake, or meant to break what walks them."""

_Parts = tuple[str, ...]  # a path below the target folder


def from_folder(root: Path, report: Report = silent, reading: Reading | None = None) -> Samples:
    """Find and read the images of a folder; see :func:`transferscope.data.target.load_target`."""
    if not root.exists():
        raise InputError(f"target folder {root} does not exist; give a folder with one sub-folder of images per class")
    if not root.is_dir():
        unpack = "; unpack it and give the folder" if root.suffix.lower() == ".zip" else f"; {_LAYOUT}"
        raise InputError(f"target {root} is a file, not a folder{unpack}")
    folders: list[_Parts] = []
    files: list[_Parts] = []
    foreign = Foreign(root)
    for parts, is_folder in _walk(root, (), [root.resolve()], foreign):
        (folders if is_folder else files).append(parts)
    images = [parts for parts in files if Path(parts[-1]).suffix.lower() in SUFFIXES]
    if not images:
        raise InputError(_without_images(root, folders, files))
    splits = _split_folders(images)
    # An empty test beside a train that is a split is no class.
    splits |= {
        parts for parts in folders if parts[-1].lower() in SPLITS and any(split[:-1] == parts[:-1] for split in splits)
    }
    places = [_split_and_class(parts[:-1], splits) for parts in images]
    inside = [index for index, (_, name) in enumerate(places) if name is not None]
    if not inside:
        raise InputError(
            f"target folder {root} has {len(images)} images, but none in a class folder: {_LAYOUT}, "
            "and the classes are the folders' names"
        )
    notes = _unsplit(root, [images[index] for index in inside], [places[index][0] for index in inside])
    if notes:
        places = [(None, name) for _, name in places]
    samples = from_files(
        [root.joinpath(*images[index]) for index in inside],
        ["/".join(images[index]) for index in inside],
        [str(places[index][1]) for index in inside],
        [places[index][0] for index in inside],
        report,
        reading,
    )
    holding = {parts[:depth] for parts in images for depth in range(1, len(parts))}
    empty = [parts for parts in folders if parts not in holding]
    announced = {name for parts in empty if (name := _split_and_class(parts, splits)[1]) is not None}
    samples.empty = sorted(announced - set(samples.labels))
    loose = [parts for parts, (_, name) in zip(images, places, strict=True) if name is None]
    image_set = set(images)
    others = [parts for parts in files if parts not in image_set and _split_and_class(parts[:-1], splits)[1]]
    if loose:
        samples.notes.append(
            f"{len(loose)} image files of {root} lie in no class folder and are ignored, such as "
            f"{'/'.join(loose[0])}; move them into a folder named after their class to use them"
        )
    if others:
        samples.notes.append(
            f"{len(others)} files in the class folders of {root} are no images by their extension and are "
            f"ignored, such as {'/'.join(others[0])}"
        )
    notes += [*_beside_splits(root, images, splits), *_alike_inside(root, images, splits)]
    samples.notes += [*foreign.notes(), *notes]
    samples.one_class_hint = _one_class_hint(root, [images[index] for index in inside])
    return samples


def _walk(folder: Path, above: _Parts, roots: list[Path], foreign: Foreign) -> Iterator[tuple[_Parts, bool]]:
    """Yield (path below the root, is it a folder) in sorted order, without what is foreign, which is counted.

    `roots` are the real folders being walked: the target and each linked folder. A link that leads into one
    of them, or to a folder around one, would show images twice or never end; it is skipped.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"folder {folder} cannot be read: {error.strerror or error}") from error
    for entry in entries:
        parts = (*above, entry.name)
        if foreign.takes(entry):
            continue
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            if entry.is_symlink():
                real = Path(entry.path).resolve()
                if any(real.is_relative_to(root) or root.is_relative_to(real) for root in roots):
                    continue
                roots.append(real)
            if is_marked(entry.path):
                foreign.results.append("/".join(parts))
                continue
            if len(parts) > _DEEPEST:
                raise InputError(
                    f"target folder {roots[0]} holds folders more than {_DEEPEST} deep, such as "
                    f"{'/'.join(parts[:3])}/…; move them away, or give another folder"
                )
            yield parts, True
            yield from _walk(Path(entry.path), parts, roots, foreign)
        elif irregular(entry.path):  # reading it may never end
            foreign.irregular += 1
        else:
            yield parts, False


def _split_folders(images: list[_Parts]) -> frozenset[_Parts]:
    """Return the folders that stand for splits: those of which all folders beside them have names of splits too.

    Only folders with images count. So bus, ship and train are three classes, and train and test are splits; of classes
    that are themselves called so, below a split, those beside them tell.
    """
    beside: dict[_Parts, set[str]] = {}
    for parts in images:
        for depth in range(len(parts) - 1):
            beside.setdefault(parts[:depth], set()).add(parts[depth])
    return frozenset(
        (*above, name)
        for above, names in beside.items()
        if all(each.lower() in SPLITS for each in names)
        for name in names
    )


def _split_and_class(folders: _Parts, splits: frozenset[_Parts]) -> tuple[str | None, str | None]:
    """Return the split and the class that the folders above an image name."""
    places = [place for place in range(len(folders)) if folders[: place + 1] in splits]
    if not places:
        return None, _readable(folders[0]) if folders else None
    below = range(places[0] + 1, len(folders))
    # data/train/cat and cat/train both show cats; below train/, a single folder train is what the images show
    rest = [place for part in (below, range(len(folders))) for place in part if place not in places] or list(below)
    return SPLITS[folders[places[0]].lower()], _readable(folders[rest[0]]) if rest else None


def _unsplit(root: Path, images: list[_Parts], split: list[str | None]) -> list[str]:
    """Say so where only some images lie in splits: training images of some classes alone would lose the others."""
    without = [parts for parts, each in zip(images, split, strict=True) if each is None]
    if len(without) in (0, len(images)):
        return []
    within = next(parts for parts, each in zip(images, split, strict=True) if each is not None)
    return [
        f"{len(without)} of {len(images)} images of {root} lie in no split, such as {'/'.join(without[0])}, so that "
        f"those of the others, such as {'/'.join(within)}, do not count; move all images into splits to use them"
    ]


def _alike_inside(root: Path, images: list[_Parts], splits: frozenset[_Parts]) -> list[str]:
    """Say so where all class folders hold folders of the same names, as folds and domains hold those of the classes."""
    inside: dict[str, set[str]] = {}
    for parts in images:
        if len(parts) == 2 or splits:
            return []
        if len(parts) > 2:
            inside.setdefault(parts[0], set()).add(parts[1])
    names = sorted(next(iter(inside.values())))
    if len(inside) < 2 or len(names) < 2 or any(each != set(names) for each in inside.values()):
        return []
    return [
        f"{listed(sorted(inside))} of {root} count as classes, and each of them holds folders of the same names, "
        f"{listed(names)}; if those are the classes, give one of the outer folders, or a table of paths and labels"
    ]


def _beside_splits(root: Path, images: list[_Parts], splits: frozenset[_Parts]) -> list[str]:
    """Say so where what looks like splits are classes, for the folders beside them."""
    top = sorted({parts[0] for parts in images if len(parts) > 1})
    named = [name for name in top if name.lower() in SPLITS and (name,) not in splits]
    if len({SPLITS[name.lower()] for name in named}) < 2:
        return []
    others = [name for name in top if name not in named]
    return [
        f"{', '.join(named)} of {root} count as classes, for beside them stand folders that are no splits, such as "
        f"{others[0]}; move those away if they are splits"
    ]


def _readable(name: str) -> str:
    """Spell a class name alike on every file system, and printable even if its bytes are not UTF-8."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def _without_images(root: Path, folders: list[_Parts], files: list[_Parts]) -> str:
    packed = [parts for parts in files if parts[-1].lower().endswith((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"))]
    if packed:
        return f"target folder {root} has no images, but an archive, {'/'.join(packed[0])}: unpack it first"
    if not files and not folders:
        return f"target folder {root} is empty; {_LAYOUT}"
    kinds = sorted({Path(parts[-1]).suffix.lower() or "no extension" for parts in files})
    contents = f"other files ({', '.join(kinds[:5])})" if files else "empty folders"
    return f"target folder {root} has no images, only {contents}; {_LAYOUT}: {' '.join(sorted(SUFFIXES))}"


def _one_class_hint(root: Path, images: list[_Parts]) -> str:
    """Say which folder to give instead, where the only class folder itself holds several class folders."""
    outer = images[0][0]
    inside = [parts[1:] for parts in images]
    splits = _split_folders(inside)
    inner = {name for parts in inside if (name := _split_and_class(parts[:-1], splits)[1]) is not None}
    if any(parts[0] != outer for parts in images) or len(inner) < 2:
        return ""
    return f"{root / outer} holds {len(inner)} folders with images: give that folder instead"


def image_files(root: Path) -> list[Path]:
    """Return the image files of a folder, at any depth and in sorted order, by their names' endings.

    Hidden names and what other programs leave are left out, as `from_folder` does.

    Raises
    ------
    InputError
        A folder cannot be read.
    """
    found = _walk(root, (), [root.resolve()], Foreign(root))
    return [
        root.joinpath(*parts)
        for parts, is_folder in found
        if not is_folder and Path(parts[-1]).suffix.lower() in SUFFIXES
    ]
