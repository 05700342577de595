"""Images: ranges of values, bands, broken files, and networks for other images than square ones of three channels."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

import transferscope as ts
from reading.cases import networks
from reading.cases.asking import cached_in, layers, listed, of_timm, rank, zoo
from reading.cases.case import Case, Found, warned
from reading.cases.tiff import write_tiff
from reading.pictures import CLASSES, pattern, write_folder

KIND = "Images"
PER_CLASS = 6


def _written(folder: Path, write: Callable[[Path, np.ndarray], None], suffix: str = ".tif") -> Path:
    """Write faint pictures on a bright field, floats in [0.45, 0.65], by `write`."""
    rng = np.random.default_rng(0)
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(PER_CLASS):
            write(folder / kind / f"{number}{suffix}", 0.45 + 0.2 * pattern(kind, rng))
    return folder


def _looked_at(folder: Path, **options: Any) -> tuple[np.ndarray, list[str]]:
    """Return what arrives of a folder's images, (n, height, width, 3), and what was said of them."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        target = ts.load_target(folder, **options)
        pictures = np.stack([np.asarray(target.image(index)) for index in range(len(target))]).astype(float)
    return pictures, warned(notes)


def _linear(got: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return the slope of the line, one for all images, that maps `right` to `got`, and how far it is off."""
    slope, offset = np.polyfit(right.ravel(), got.ravel(), 1)
    return float(slope), float(np.abs(got - slope * right - offset).max())


def _scaled(low: float, high: float, dtype: Any, silent: bool, folder: Path, **options: Any) -> Found:
    """Values in [low, high]: one line for the whole folder, which keeps at least half of what 8 bits hold."""

    def write(path: Path, values: np.ndarray) -> None:
        exact = low + (high - low) * values
        write_tiff(path, (exact if np.dtype(dtype).kind == "f" else np.round(exact)).astype(dtype))

    truth = _written(
        folder / "png", lambda path, v: Image.fromarray(np.round(255 * v).astype(np.uint8)).save(path), ".png"
    )
    right, _ = _looked_at(truth)
    got, said = _looked_at(_written(folder / "tiff", write), **options)
    slope, off = _linear(got, right)
    kept = f"{len(np.unique(got))} grey levels; {said[0] if said else 'nothing said'}"
    return Found(kept, slope > 0.5 and off <= 1 + slope and (silent or bool(said)))


def _four_bands(extra: int | None, folder: Path, **options: Any) -> Found:
    """Red, green, blue, and near infrared that is dark over water."""

    def write(path: Path, values: np.ndarray) -> None:
        colours = np.round(255 * values[..., None] * [1, 0.9, 0.8])
        write_tiff(path, np.concatenate([colours, np.full_like(colours[..., :1], 25)], 2).astype(np.uint8), extra)

    def first_three(path: Path, values: np.ndarray) -> None:
        Image.fromarray(np.round(255 * values[..., None] * [1, 0.9, 0.8]).astype(np.uint8)).save(path)

    right, _ = _looked_at(_written(folder / "png", first_three, ".png"))
    got, said = _looked_at(_written(folder / "tiff", write, ".tif"), **options)
    if "bands" in options:
        right = np.concatenate([np.full_like(right[..., :1], 25), right[..., :2]], 3)
    elif extra == 2:  # over white, as transparency is shown
        right = np.round(right * (25 / 255) + 255 * (1 - 25 / 255))
    equal = got.shape == right.shape and bool(np.abs(got - right).max() <= 1)
    spread = f"values {got.min():.0f} to {got.max():.0f}; {said[0] if said else 'nothing said'}"
    return Found(spread, equal and (bool(said) or extra == 2 or "bands" in options))


def _broken(folder: Path) -> Found:
    root = write_folder(folder / "target", 18)
    for name in ("across/03", "disc/05"):
        with Image.open(root / f"{name}.png") as image:
            image.save(root / f"{name}.jpg", quality=95)
        (root / f"{name}.png").unlink()
        data = (root / f"{name}.jpg").read_bytes()
        (root / f"{name}.jpg").write_bytes(data[: len(data) * 6 // 10])
    path = _residual(folder)
    answer = rank(folder, path, images_of=root)
    said = [line for line in answer.said if ".jpg" in line]
    named = all(any(name in line for line in said) for name in ("across/03.jpg", "disc/05.jpg"))
    return Found(said[0] if said else "nothing said", "net" in answer.picks and named)


def _residual(folder: Path) -> Path:
    torch.save(networks.residual().state_dict(), folder / "net.pt")
    return zoo(folder, net=of_timm("test_resnet", checkpoint="net.pt", kwargs={"num_classes": networks.CLASSES}))


def _huge(folder: Path) -> Found:
    root = write_folder(folder / "target", 20)
    Image.new("1", (15000, 14000), 1).save(root / "disc" / "scan.png")
    _, said = _looked_at(root)
    count = len(ts.load_target(root))
    return Found(f"{count} images; {said[0] if said else 'nothing said'}", count == 60 and "scan.png" in " ".join(said))


def _remainder(folder: Path) -> Found:
    path = _residual(folder)
    found = []
    for batch in (51, 50):
        with cached_in(folder / str(batch)):
            found.append(rank(folder, path, batch_size=batch).accuracy("net"))
    one, other = found
    if one is None or other is None:
        return Found("not ranked", False)
    return Found(f"expected accuracies {one:.4f} and {other:.4f}", abs(one - other) < 1e-4)


def _one_channel(folder: Path) -> Found:
    torch.manual_seed(0)
    kwargs = {"num_classes": networks.CLASSES, "in_chans": 1}
    torch.save(timm.create_model("test_resnet", **kwargs).state_dict(), folder / "grey.pt")
    path = zoo(folder, grey=of_timm("test_resnet", checkpoint="grey.pt", kwargs=kwargs))
    answer = rank(folder, path)
    if "grey" not in answer.picks:
        return Found(answer.said[-1], False)
    return Found(f"ranked, {len(layers(path, 'grey'))} stages", True)


def _not_square(folder: Path) -> Found:
    torch.save(networks.residual().state_dict(), folder / "net.pt")
    entry = of_timm("test_resnet", [32, 128], checkpoint="net.pt", kwargs={"num_classes": networks.CLASSES})
    path = zoo(folder, plates=entry)
    if (said := listed(path, "plates")).code:
        return Found(f"error: {said.error}", False)
    shapes = [tuple(map(int, stage["shape"].split("×"))) for stage in layers(path, "plates")]
    maps = [shape for shape in shapes if len(shape) == 3]
    right = all(width == 4 * height for _, height, width in maps) and "plates" in rank(folder, path).picks
    return Found(f"ranked, maps of {maps[0][1]} × {maps[0][2]} at first", right)


def _not_square_tokens(folder: Path) -> Found:
    torch.manual_seed(0)
    kwargs = {"num_classes": networks.CLASSES, "img_size": [32, 64]}
    torch.save(timm.create_model("test_vit", **kwargs).state_dict(), folder / "strip.pt")
    entry = {"loader": "timm", "model": "test_vit", "checkpoint": "strip.pt", "kwargs": kwargs}
    path = zoo(folder, strip=entry)
    if (said := listed(path, "strip")).code:
        return Found(f"error: {said.error}", False)
    shape = next(stage["shape"] for stage in layers(path, "strip") if stage["layer"].startswith("blocks"))
    ranked = "strip" in rank(folder, path).picks
    return Found(f"{'' if ranked else 'not '}ranked, {shape} after the first block", shape.startswith("9×") and ranked)


CASES = (
    Case("Greys of 16 bits that use all of them", "as with 8 bits", lambda f: _scaled(0, 65535, np.uint16, True, f)),
    Case(
        "Greys of 12 bits in files of 16",
        "one range for the whole folder, said",
        lambda f: _scaled(0, 4095, np.uint16, False, f),
    ),
    Case("Greys of 10 bits in files of 16", "the same", lambda f: _scaled(0, 1023, np.uint16, False, f)),
    Case(
        "Greys of 12 bits, with `value_range=(0, 4095)`",
        "as with 8 bits",
        lambda f: _scaled(0, 4095, np.uint16, True, f, value_range=(0, 4095)),
    ),
    Case(
        "Hounsfield units of a CT, signed 16 bits",
        "one range for the whole folder, said",
        lambda f: _scaled(-1024, 2000, np.int16, False, f),
    ),
    Case(
        "The same with `value_range=(-1024, 2000)`",
        "as with 8 bits",
        lambda f: _scaled(-1024, 2000, np.int16, True, f, value_range=(-1024, 2000)),
    ),
    Case("Floats from 0 to 1", "as with 8 bits", lambda f: _scaled(0, 1, np.float32, True, f)),
    Case(
        "Floats from 0 to 3000",
        "one range for the whole folder, said",
        lambda f: _scaled(0, 3000, np.float32, False, f),
    ),
    Case(
        "Four bands, of the fourth the file says nothing",
        "the first three, said",
        lambda f: _four_bands(None, f),
    ),
    Case("Four bands, the fourth declared as anything", "the first three, said", lambda f: _four_bands(0, f)),
    Case("Four bands, the fourth declared as transparency", "over white", lambda f: _four_bands(2, f)),
    Case(
        "Four bands, with `bands=(4, 1, 2)`",
        "infrared, red and green",
        lambda f: _four_bands(None, f, bands=(4, 1, 2)),
    ),
    Case("Two JPEGs of 54 that break off in the middle", "ranked, both named", _broken),
    Case("A scan of 210 megapixels among 60 images", "left out and named", _huge),
    Case("51 images in batches of 50", "the answer with one batch", _remainder),
    Case("A network for one channel (`in_chans: 1`)", "ranked", _one_channel),
    Case("A transform of size [32, 128]", "maps four times as wide as high; ranked", _not_square),
    Case("A vision transformer for 32 × 64 pixels (`img_size: [32, 64]`)", "nine tokens; ranked", _not_square_tokens),
)
