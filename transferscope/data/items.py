"""An item of a dataset or a batch of a loader: a tuple that begins with the image, or a dict with well-known keys."""

from collections.abc import Mapping
from typing import Any

from transferscope.errors import InputError, near

IMAGES = ("image", "img", "pixel_values")
LABELS = ("label", "labels", "target", "targets", "class")
"""What datasets of other libraries call them."""


def image_of(item: Any, where: str, named: str | None = None) -> Any:
    """Return the image of an item, or the images of a batch: of a tuple the first, of a dict that under a known key.

    `named` is the key where the caller says it.

    Raises
    ------
    InputError
        Of the known keys there is none, or more than one.
    """
    if isinstance(item, Mapping):
        return item[_key(item, IMAGES, "an image", where, named)]
    return item[0] if isinstance(item, tuple | list) else item


def pair_of(item: Any, where: str, image: str | None = None, label: str | None = None) -> tuple[Any, Any]:
    """Return image and label of an item; what follows them in a tuple, or is called otherwise in a dict, is left out.

    `image` and `label` are the keys where the caller says them. In a tuple, `label` is a key of the second, where that
    is a dict itself.

    Raises
    ------
    InputError
        It is neither a tuple of two at least nor a dict, or of the known keys there is none, or more than one.
    """
    if isinstance(item, Mapping):
        return image_of(item, where, image), item[_key(item, LABELS, "a label", where, label)]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError(f"{where} must be a pair (image, label) or a dict of these, but is a {type(item).__name__}")
    if isinstance(item[1], Mapping):
        return item[0], item[1][_key(item[1], LABELS, "a label", f"the second of {where}", label)]
    return item[0], item[1]


def _key(item: Mapping[Any, Any], known: tuple[str, ...], what: str, where: str, named: str | None = None) -> str:
    if named is not None:
        if named not in item:
            hint = near(named, map(str, item)) or f"; it has {', '.join(map(repr, item))}"
            raise InputError(f"{where} has no {named!r}{hint}")
        return named
    found = [key for key in known if key in item]
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"{' and '.join(map(repr, found))} could each be {what}; leave one out or name the other"
    else:
        problem = f"none of them names {what}; rename one to {known[0]!r}"
    raise InputError(f"{where} is a dict with {', '.join(map(repr, item))}: {problem}")
