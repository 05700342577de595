"""What a folder of results holds for people."""

from transferscope.runtime import marker


def visible(folder):
    """Return the names of what is in a folder, but for the mark that each folder of results has."""
    return {path.name for path in folder.iterdir()} - {marker.NAME}
