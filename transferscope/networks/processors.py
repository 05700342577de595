"""What an image processor of transformers does, in the terms of a transform: sizes, filter, mean and std."""

from typing import Any

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""By Pillow's numbers."""
_NOT_CROPPED = 384
"""From this size on ConvNeXt's processor takes an image as it is; smaller ones it resizes further and cuts out."""
_ROUNDING = 1e-6


def processor_options(processor: Any) -> dict[str, Any]:
    """Return size, resize, mean, std and interpolation, as far as a processor says them.

    One that squeezes images into a square is read as one that cuts out their centre.

    Parameters
    ----------
    processor
        Of transformers, of any of its backends.
    """
    return _sizes(processor) | _normalisation(processor)


def _sizes(processor: Any) -> dict[str, Any]:
    size, crop = (_sides(getattr(processor, key, None)) for key in ("size", "crop_size"))
    resizes, crops = (getattr(processor, key, False) for key in ("do_resize", "do_center_crop"))
    options = {"resize": size if resizes else None, "size": crop if crops else size if resizes else None}
    share = getattr(processor, "crop_pct", None)
    if share and isinstance(size, int) and size < _NOT_CROPPED:  # ConvNeXt's, which resizes further and cuts out
        options = {"resize": int(size / share), "size": size}
    resample = getattr(processor, "resample", None)
    if resample is not None:
        options["interpolation"] = _FILTERS.get(int(getattr(resample, "value", resample)))
    return {key: value for key, value in options.items() if value is not None}


def _sides(size: Any) -> Any:
    """Return a side, or height and width, of what processors write as a number or a mapping."""
    if size is None or isinstance(size, int):
        return size
    said = {key: size[key] for key in ("shortest_edge", "height", "width") if key in size and size[key] is not None}
    if "shortest_edge" in said:
        return int(said["shortest_edge"])
    if {"height", "width"} <= said.keys():
        height, width = int(said["height"]), int(said["width"])
        return height if height == width else (height, width)
    return None


def _normalisation(processor: Any) -> dict[str, tuple[float, ...]]:
    """Return the mean and std of intensities from 0 to 1 that do what a processor does with those from 0 to 255."""
    mean, std = (getattr(processor, key, None) for key in ("image_mean", "image_std"))
    if not getattr(processor, "do_normalize", False) or mean is None or std is None:
        mean, std = [0.0], [1.0]
    factor = processor.rescale_factor if getattr(processor, "do_rescale", False) else 1.0
    offset = 1.0 if getattr(processor, "rescale_offset", False) else 0.0
    # (factor · value - offset - mean) / std, with value = 255 · intensity
    scale = 1.0 if abs(255 * factor - 1) < _ROUNDING else 255 * factor
    mean, std = ([each] if isinstance(each, int | float) else each for each in (mean, std))
    return {"mean": tuple((each + offset) / scale for each in mean), "std": tuple(each / scale for each in std)}
