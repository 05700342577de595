"""Folders and files that other programs leave among images: known by name, left out and counted."""

import logging
import os
from collections import Counter
from pathlib import Path

from transferscope.data.notes import listed
from transferscope.data.samples import SUFFIXES

log = logging.getLogger(__name__)

_HIDDEN = "hidden files"

# In lower case; whatever begins with a dot is hidden.
_NAMES = {
    # thumbnails, bins and snapshots of network storage
    "@eadir", "@tmp", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", ".@__thumb",
    # what systems keep on every volume, and archives that were made there
    "$recycle.bin", "system volume information", "lost+found", "__macosx",
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
    # caches of what reads images
    "__pycache__", ".ipynb_checkpoints",
}  # fmt: skip


class Foreign:
    """What lies below a folder without belonging to its images.

    Parameters
    ----------
    root : Path
        The folder, for the note.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: Counter[str] = Counter()
        self._images = 0
        self.results: list[str] = []
        """Folders of results below it."""
        self.irregular = 0
        """Pipes, devices and sockets."""

    def takes(self, entry: "os.DirEntry[str]") -> bool:
        """Whether an entry is foreign; it is counted then, with every file below it."""
        known = entry.name.lower() in _NAMES
        if not known and not entry.name.startswith("."):
            return False
        # Resource forks of macOS have the names of the files they belong to.
        kind = "._*" if entry.name.startswith("._") else entry.name if known else _HIDDEN
        names = [entry.name]
        if entry.is_dir(follow_symlinks=False):
            names = [name for _, _, inside in os.walk(entry.path) for name in inside]
        self._files[kind] += len(names)
        self._images += sum(Path(name).suffix.lower() in SUFFIXES for name in names)
        return True

    def notes(self) -> list[str]:
        """Return what to warn of: that images are left out; other files are for the log alone."""
        if self.irregular:
            log.info("Pipes, devices and sockets of %s are left out: %d", self._root, self.irregular)
        if not self.results:
            return self._of_others()
        why = "is left out, for it holds" if len(self.results) == 1 else "are left out, for they hold"
        text = f"{listed(self.results)} of {self._root} {why} results of transferscope, no images"
        return [text, *self._of_others()]

    def _of_others(self) -> list[str]:
        total = self._files.total()
        if not total:
            return []
        kinds = ", ".join(f"{count} of {kind}" for kind, count in self._files.most_common())
        text = (
            f"{total} files that other programs left in {self._root} are left out, {self._images} of them by their "
            f"extension images: {kinds}"
        )
        if self._images:
            return [text]
        log.info("%s", text)
        return []
