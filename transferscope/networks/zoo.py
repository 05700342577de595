"""zoo.yaml ↔ validated entries: which pretrained networks there are to choose from.

Nothing is built or downloaded here. Every problem of a file is reported in one pass, each with its line.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from transferscope.errors import SUGGESTED, InputError, near
from transferscope.networks.consistency import PATHS, contradictions, is_random, repeated_names, wrong_order
from transferscope.networks.located_yaml import Lines, Location, Problem, line_of, read_yaml, shown
from transferscope.networks.lookup import EXTRAS, local_path, missing_function, unknown_model
from transferscope.runtime.lookup import missing_file, missing_folder
from transferscope.runtime.regular import expanded, is_folder, is_regular

if TYPE_CHECKING:
    import pandas as pd

Loader = Literal["timm", "torchvision", "transformers", "open_clip", "python"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
SCRATCH = "scratch"
COMPACT, OWN = "compact", "own"
"""What `reference` can be beside a source, which therefore has another name."""


_LISTED = 100
"""Problems that a message lists."""


def _usable_name(name: str) -> str:
    if not name.isprintable() or name in {".", "..", SCRATCH, COMPACT, OWN}:
        raise ValueError("this name is reserved or not printable")
    return name


def _one_of(vocabulary: Any) -> str:
    return f"one of {', '.join(get_args(vocabulary))}"


# The descriptions are also what an error message says was expected.
_Text = Annotated[str, Field(strict=True, min_length=1)]
_FileName = Annotated[str, Field(strict=True, max_length=100, pattern=r"^[^\s/\\]([^/\\]*[^\s/\\])?$")]
_Side = Annotated[int, Field(strict=True, gt=0, le=4096)]
_Pixels = Annotated[
    _Side | tuple[_Side, _Side] | None,
    Field(description="a whole number of pixels from 1 to 4096, or a list of two (height, width), without quotes"),
]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Positive = Annotated[_Number, Field(gt=0)]
_Vector = Annotated[tuple[_Number, ...], Field(min_length=1, max_length=1000)]
_Scales = Annotated[tuple[_Positive, ...], Field(min_length=1, max_length=1000)]


_CHANNELS = "one for each channel (red, green, blue), or one for all"


class TransformOptions(BaseModel):
    """How images are prepared; each key that is left out comes from the library's defaults.

    But a `size` without a `resize` uses as much of the image as it can, whatever the library would cut away.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: _Pixels = None
    resize: _Pixels = None
    mean: _Vector | None = Field(default=None, description=f"a list of numbers, {_CHANNELS}")
    std: _Scales | None = Field(default=None, description=f"a list of numbers above 0, {_CHANNELS}")
    interpolation: Interpolation | None = Field(default=None, description=_one_of(Interpolation))


class Source(BaseModel):
    """One pretrained network and how to get it.

    Relative paths start at the zoo file when `load_zoo` made the entry, else at the working directory. A
    `factory` runs code, so its network is only built with ``trust_code=True``. Without a `checkpoint` the
    weights are the library's own (downloaded), or whatever the factory returns; with `weights` none (or
    timm's own ``kwargs: {pretrained: false}``) they are drawn by the seed. The `initial` weights and the
    `images` of the source say where it comes from; what it computes does not depend on them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[_FileName, AfterValidator(_usable_name)] = Field(
        description="at most 100 printable characters that can be part of a file name: no / or \\, no space "
        f"around them, not {SCRATCH!r}, {COMPACT!r} or {OWN!r} (the networks trained on the target); a number in quotes"
    )
    loader: Loader = Field(description=_one_of(Loader))
    model: _Text | None = Field(
        default=None, description="the name of the architecture, the name of a model on the hub, or its path, as text"
    )
    factory: Annotated[str, Field(strict=True, pattern=r"^.*\.py:[^\W\d]\w*$")] | None = Field(
        default=None, description="file.py:function, the file relative to the zoo file"
    )
    checkpoint: Path | None = Field(default=None, description="a path relative to the zoo file")
    checkpoint_key: _Text | None = Field(
        default=None, description="the keys, joined with dots, under which the network lies in the checkpoint, as text"
    )
    """For a checkpoint of several networks: keys of mappings, or what the names of its tensors begin with."""
    weights: Literal["none"] | None = Field(default=None, description="none, for weights drawn at random")
    initial: Path | None = Field(default=None, description="a path relative to the zoo file")
    """A checkpoint of the weights that the source was trained from; parameter transferability starts there."""
    images: Path | None = Field(default=None, description="the path of a folder, relative to the zoo file")
    """A folder of the images that the source was trained on, as `load_target` takes it; for the domain gap."""
    kwargs: dict[str, JsonValue] = Field(default={}, description="a mapping of names to JSON values")
    transform: TransformOptions = Field(
        default=TransformOptions(), description=f"a mapping with {', '.join(TransformOptions.model_fields)}"
    )
    layers: Literal["auto"] | Annotated[tuple[_Text, ...], Field(min_length=1)] = Field(
        default="auto", description="auto, or a list of at least one layer name or glob"
    )
    accuracy: Annotated[_Number, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="the accuracy on its own task, a number above 0 and at most 1 (0.72 for 72 %), without quotes",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Source":
        if problems := list(contradictions(self.model_dump(exclude_unset=True))):
            raise ValueError("; ".join(f"{'.'.join(map(str, key))} {text}" for key, text in problems))
        return self

    @property
    def is_random(self) -> bool:
        """Whether its weights are drawn at random on purpose; of a factory, whether what it returns is."""
        return is_random(self.loader, self.weights, self.kwargs)

    @property
    def factory_parts(self) -> tuple[Path, str]:
        """The file and the function of `factory`."""
        if self.factory is None:
            raise InputError(f"source {self.name!r} has no factory: its loader is {self.loader}")
        file, _, function = self.factory.rpartition(":")
        return Path(file), function


class Zoo(BaseModel):
    """The source networks of one zoo file, in its order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(strict=True, ge=1, le=1, description="1, the only version there is")
    sources: tuple[Source, ...] = Field(min_length=1, description="a list of at least one source")
    order: Annotated[tuple[_Text, ...], Field(min_length=1)] | None = Field(
        default=None, description="a list of source names, the one that is tried first at the top"
    )
    """A fixed order of preference, to be compared with; those that it leaves out come after it."""
    _path: Path | None = None
    _lines: Lines = {}  # pydantic copies it for each instance

    @model_validator(mode="after")
    def _consistent(self) -> "Zoo":
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"source names must be unique, got {self.names}")
        if problems := list(wrong_order(self.order, self.names)):
            raise ValueError("; ".join(f"order: {text}" for _, text in problems))
        return self

    @property
    def path(self) -> Path | None:
        """The file that the zoo was read from, None when it was made in Python."""
        return self._path

    @property
    def names(self) -> list[str]:
        """The names of the sources, in order."""
        return [source.name for source in self.sources]

    def located(self, where: Location, text: str) -> str:
        """Prefix what is said of a key with its place: ``file:line: sources[1] (name).key: text``."""
        return _located(where, text, self._path, self._lines, self.names)

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[Source]:  # type: ignore[override]  # pydantic's would walk the two fields
        return iter(self.sources)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Source:
        for source in self.sources:
            if source.name == name:
                return source
        raise InputError(f"no source is called {name!r}{near(name, self.names)}; there are {self.names}")


def load_zoo(zoo: "str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | pd.DataFrame | Zoo") -> Zoo:
    """Read and validate a zoo; relative paths become absolute.

    Parameters
    ----------
    zoo
        A YAML file; or what such a file holds; or a list of sources (`Source` or mappings); or a DataFrame with a row
        for each source and a column for each key, where missing cells are keys that are left out; or a `Zoo`, which
        is returned as it is.

    Raises
    ------
    InputError
        The file cannot be read or is not a valid zoo; the message lists every problem with its line. That a
        checkpoint or factory file is missing is not such a problem: see `check_files`.
    """
    if isinstance(zoo, Zoo):
        return zoo
    path, lines, problems = None, Lines(), list[Problem]()
    if isinstance(zoo, str | os.PathLike):
        path = Path(zoo)
        raw, lines, problems = read_yaml(path, "zoo file", "version: 1 and sources:")
    elif isinstance(zoo, Mapping):
        raw = zoo
    else:
        raw = {"version": 1, "sources": zoo if isinstance(zoo, Sequence) else _rows(zoo)}
    problems += _field_problems(raw)
    entries = raw.get("sources") if isinstance(raw, Mapping) else None
    entries = entries if isinstance(entries, list | tuple) else []
    names = [entry.get("name") if isinstance(entry, Mapping) else getattr(entry, "name", None) for entry in entries]
    for index, entry in enumerate(entries):
        if isinstance(entry, Mapping):
            problems += [(("sources", index, *key), text) for key, text in contradictions(entry)]
    problems += repeated_names(names)
    problems += wrong_order(raw.get("order") if isinstance(raw, Mapping) else None, names)
    folder = path.absolute().parent if path else Path.cwd()
    if problems:
        problems += _missing_from(entries, folder)
        problems.sort(key=lambda problem: line_of(problem[0], lines))
        listed = [_located(where, text, path, lines, names) for where, text in problems[:_LISTED]]
        listed += [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise InputError("\n".join([f"{path or 'the zoo'} is not valid (problems: {len(problems)}):", *listed]))
    valid = Zoo.model_validate(raw)
    valid = valid.model_copy(update={"sources": tuple(_anchored(source, folder) for source in valid.sources)})
    valid._path, valid._lines = path, lines
    return valid


def _rows(table: Any) -> Any:
    """Return the rows of a DataFrame as mappings without its missing cells; whatever else it is, as it is."""
    import pandas as pd  # which takes longer to import than a zoo file to check

    if not isinstance(table, pd.DataFrame):
        return table
    return [
        {key: cell for key, cell in row.items() if not (pd.api.types.is_scalar(cell) and pd.isna(cell))}
        for row in table.to_dict("records")
    ]


def check_files(zoo: Zoo) -> list[str]:
    """Return a message, with its line, for each file, folder or library model that is not there; load nothing."""
    problems: list[Problem] = []
    for index, source in enumerate(zoo.sources):
        problems += missing(index, source, suggest=len(problems) < SUGGESTED)
    return [zoo.located(where, text) for where, text in problems]


def missing(index: int, source: Source, *, suggest: bool = True) -> Iterator[Problem]:
    """Find what a valid entry names and what is not there."""
    for key, path in (("checkpoint", source.checkpoint), ("initial", source.initial)):
        if path and not is_regular(path):
            yield ("sources", index, key), missing_file(path)
    if source.images and not is_folder(source.images):
        yield ("sources", index, "images"), missing_folder(source.images, "images")
    if source.factory:
        file, function = source.factory_parts
        problem = missing_function(file, function) if is_regular(file) else missing_file(file)
        if problem:
            yield ("sources", index, "factory"), problem
    if source.model and (problem := unknown_model(source.loader, source.model, suggest=suggest)):
        yield ("sources", index, "model"), problem


def _missing_from(entries: Sequence[Any], folder: Path) -> Iterator[Problem]:
    """Do the same for those entries of an invalid file that are valid themselves."""
    found = 0
    for index, entry in enumerate(entries):
        try:
            source = _anchored(Source.model_validate(entry), folder)
        except (ValidationError, InputError):
            continue
        for problem in missing(index, source, suggest=found < SUGGESTED):
            found += 1
            yield problem


def _anchored(source: Source, folder: Path) -> Source:
    paths = {key: getattr(source, key) for key in PATHS}
    update: dict[str, Any] = {key: folder / expanded(path, key) for key, path in paths.items() if path is not None}
    if source.factory is not None:
        file, function = source.factory_parts
        update["factory"] = f"{folder / expanded(file, 'factory')}:{function}"
    if source.model is not None and source.loader in EXTRAS:
        path = local_path(source.loader, source.model, folder)
        update["model"] = source.model if path is None else str(path)
    return source.model_copy(update=update)


def _field_problems(raw: Any) -> list[Problem]:
    """Find the problems of single keys; the fields' descriptions say what was expected."""
    try:
        Zoo.model_validate(raw)
    except ValidationError as error:
        problems: dict[Location, str] = {}  # a key that fails in several ways is named once
        for item in error.errors(include_url=False, include_input=False):
            where, kind = item["loc"], item["type"]
            if kind in {"extra_forbidden", "invalid_key"} and len(where) in _KEYS:
                problems[where] = _unknown_key(where, suggest=len(problems) < _LISTED)
            elif kind == "value_error" and len(where) in {0, 2}:
                continue  # of the validators of the whole: load_zoo finds the same, each at its own key
            elif not (kind == "too_short" and where == ("sources",) and raw["sources"]):  # if none is valid
                where = where[: 4 if where[2:3] == ("transform",) else 3 if where[:1] == ("sources",) else 1]
                problems[where] = _mismatch(raw, where)
        return list(problems.items())
    return []


# The keys of the mapping that a location of this length lies in.
_KEYS = {1: Zoo.model_fields, 3: Source.model_fields, 4: TransformOptions.model_fields}


def _unknown_key(where: Location, *, suggest: bool) -> str:
    keys = _KEYS[len(where)]
    if len(where) == 3 and where[-1] in _KEYS[4]:
        return "belongs under transform: move it there"
    return f"is not a known key{near(where[-1], keys) if suggest else ''}; keys here are {', '.join(keys)}"


def _mismatch(raw: Any, where: Location) -> str:
    if len(where) in _KEYS:
        expected = _KEYS[len(where)][str(where[-1])].description
    else:  # the zoo itself, or an entry
        expected = f"a mapping with {', '.join(_KEYS[len(where) + 1])}"
    for key in where:
        if isinstance(raw, Mapping) and key not in raw:
            return f"is missing: expected {expected}"
        raw = raw[key]
    return f"expected {expected}; got {'nothing' if raw is None else shown(raw)}"


def _located(where: Location, text: str, path: Path | None, lines: Lines, names: Sequence[Any]) -> str:
    """Prefix a problem with its place: ``file:line: sources[1] (name).key: text``."""
    words = ""
    for depth, key in enumerate(where):
        key = key if isinstance(key, int) or (key.isprintable() and len(key) <= 80) else shown(key)
        words += f"[{key}]" if isinstance(key, int) else f".{key}" if words else str(key)
        name = names[key] if depth == 1 and where[0] == "sources" and isinstance(key, int) else None
        if isinstance(name, str) and name.isprintable():
            words += f" ({name})"
    file = f"{path}:{line_of(where, lines)}: " if path else ""
    return f"{file}{words}{': ' if words else ''}{text}"
