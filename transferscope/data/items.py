"""An item of a dataset or a batch of a loader: a tuple that begins with the image, or a dict with well-known keys."""

from collections.abc import Mapping
from typing import Any

from transferscope.errors import InputError

IMAGES = ("image", "img", "pixel_values")
LABELS = ("label", "labels", "target", "targets", "class")
"""What datasets of other libraries call them."""


def image_of(item: Any, where: str) -> Any:
    """Return the image of an item, or the images of a batch: of a tuple the first, of a dict that under a known key.

    Raises
    ------
    InputError
        Of the known keys there is none, or more than one.
    """
    if isinstance(item, Mapping):
        return item[_key(item, IMAGES, "an image", where)]
    return item[0] if isinstance(item, tuple | list) else item


def pair_of(item: Any, where: str) -> tuple[Any, Any]:
    """Return image and label of an item; what follows them in a tuple, or is called otherwise in a dict, is left out.

    Raises
    ------
    InputError
        It is neither a tuple of two at least nor a dict, or of the known keys there is none, or more than one.
    """
    if isinstance(item, Mapping):
        return image_of(item, where), item[_key(item, LABELS, "a label", where)]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError(f"{where} must be a pair (image, label) or a dict of these, but is a {type(item).__name__}")
    return item[0], item[1]


def _key(item: Mapping[Any, Any], known: tuple[str, ...], what: str, where: str) -> str:
    found = [key for key in known if key in item]
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"{' and '.join(map(repr, found))} could each be {what}; leave one out"
    else:
        problem = f"none of them names {what}; rename one to {known[0]!r}"
    raise InputError(f"{where} is a dict with {', '.join(map(repr, item))}: {problem}")
