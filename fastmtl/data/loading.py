"""The front door: one call that loads whatever data set a string names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastmtl.data import synthetic
from fastmtl.data.arff import load_arff
from fastmtl.data.arrow import holds_lists, is_arrow_directory, load_arrow
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.fields import require_file
from fastmtl.data.hdf5 import load_hdf5
from fastmtl.data.npy import load_npy
from fastmtl.data.npz import load_npz
from fastmtl.data.placement import refuse_stream
from fastmtl.data.specs import parse_options
from fastmtl.data.table import load_table

_SYNTHETIC: dict[str, Callable[..., MultiTaskData]] = {
    "disaster": synthetic.disaster,
    "disaster-multimodal": synthetic.disaster_multimodal,
    "crisis": synthetic.crisis,
}
# Of the arrays in these files rows can be read.
_BY_ROW: dict[str, Callable[..., MultiTaskData]] = {
    ".npz": load_npz,
    ".h5": load_hdf5,
    ".hdf5": load_hdf5,
}
_PREFIX = "synthetic:"
Modalities = str | Sequence[str] | Mapping[str, slice | Sequence[int]]


def load(
    spec: str | Path,
    *,
    seed: int = 0,
    test: str | Path | None = None,
    xml: str | Path | None = None,
    modalities: Modalities | None = None,
    for_training: bool = True,
    memory: str = "load",
) -> MultiTaskData:
    """Load a data set from a file, or draw a synthetic one.

    Args:
        spec: a path that ends in .npz, .h5, .hdf5, .csv, .parquet or .arff, a directory of .npy
            files or one that Hugging Face `datasets` saved, or `synthetic:disaster`,
            `synthetic:disaster-multimodal` or `synthetic:crisis`, with the options of these
            functions after a question mark: `synthetic:disaster?clips=200&seed=3`.
        seed: draws the split of data that has none.
        test: a second file of the same kind, whose samples are the test split.
        xml: for an .arff, the list of labels. Without it X.xml is taken, and X-train.arff finds
            X-test.arff and X.xml beside it.
        modalities: those to keep ("text,audio", or a list), or columns to cut into modalities
            ("expression=0:79,phylogeny=79:103", or a mapping from names to slices).
        for_training: as for `MultiTaskData.from_arrays`.
        memory: "load" reads all features; "stream" leaves them in the file, of which rows are read
            when they are used (`StoredFeatures`), for .h5, directories, and .npz that are not
            compressed; "auto" streams what would take more than a quarter of the available
            memory.

    Raises:
        DataError: for a file or set that cannot be used, and nothing else.

    Examples:
        >>> load("synthetic:disaster?clips=100&frames=5&features=8")
        MultiTaskData('synthetic:disaster', {'x': (5, 8)}, 7 tasks, 60 train, 20 val, 20 test)
    """
    data = _load(spec, seed, test, xml, for_training, memory)
    if modalities is None:
        return data
    if isinstance(modalities, str):
        modalities = _parse_modalities(modalities)
    return data.with_modalities(modalities)


def _load(
    spec: str | Path,
    seed: int,
    test: str | Path | None,
    xml: str | Path | None,
    for_training: bool,
    memory: str,
) -> MultiTaskData:
    if isinstance(spec, str) and spec.startswith(_PREFIX):
        for option, value in (("test", test), ("xml", xml)):
            if value is not None:
                raise DataError.at(spec, option, "none for a synthetic set", str(value))
        refuse_stream(spec, memory, "a synthetic set")
        return _load_synthetic(spec, seed)
    path = Path(spec)
    suffix = path.suffix.lower()
    if suffix == ".arff":
        refuse_stream(str(path), memory, "an .arff file")
        return _load_mulan(path, seed, test, xml, for_training)
    if xml is not None:
        raise DataError.at(str(path), "xml", f"none for a {suffix} file", str(xml))
    if suffix in (".csv", ".parquet") and not path.is_dir():
        refuse_stream(str(path), memory, "a table")
        lists = suffix == ".parquet" and holds_lists(path)
        read = load_arrow if lists else load_table
        return read(path, test=test, seed=seed, for_training=for_training)
    if is_arrow_directory(path):
        return load_arrow(path, test=test, seed=seed, for_training=for_training, memory=memory)
    if load_file := load_npy if path.is_dir() else _BY_ROW.get(suffix):
        return load_file(path, test=test, seed=seed, for_training=for_training, memory=memory)
    expected = (
        "a name in .npz, .h5, .hdf5, .csv, .parquet or .arff, a directory of .npy or of datasets, "
        "or synthetic:NAME"
    )
    raise DataError.at(str(path), "file", expected, f"the ending {suffix!r}" if suffix else "none")


def _load_mulan(
    path: Path, seed: int, test: str | Path | None, xml: str | Path | None, for_training: bool
) -> MultiTaskData:
    stem = path.stem.removesuffix("-train").removesuffix("-test")
    if test is None and path.stem.endswith("-train"):
        beside = path.with_name(f"{stem}-test.arff")
        test = beside if beside.exists() else None
    if xml is None:
        usual = [path.with_suffix(".xml"), path.with_name(f"{stem}.xml")]
        there = [each for each in usual if each.exists()]
        if not there:
            require_file(path)
            names = " or ".join(dict.fromkeys(each.name for each in usual))
            expected = f"the list of labels in {names} beside it, or named by xml (--xml FILE)"
            raise DataError.at(str(path), "xml", expected, "none")
        xml = there[0]
    return load_arff(path, xml, test, seed=seed, for_training=for_training)


def _load_synthetic(spec: str, seed: int) -> MultiTaskData:
    name, _, query = spec.removeprefix(_PREFIX).partition("?")
    if name not in _SYNTHETIC:
        raise DataError.at(spec, "name", f"one of {', '.join(_SYNTHETIC)}", repr(name))
    draw = _SYNTHETIC[name]
    kinds = {
        option: int if "int" in str(parameter.annotation) else float
        for option, parameter in inspect.signature(draw).parameters.items()
        if option not in ("positives", "split_seed")
    }
    options = parse_options(spec, query, kinds)
    return draw(**options, split_seed=seed)


def _parse_modalities(text: str) -> Sequence[str] | Mapping[str, slice]:
    items = [item.strip() for item in text.split(",")]
    if not any("=" in item for item in items):
        return items
    columns: dict[str, slice] = {}
    for item in items:
        name, _, span = (part.strip() for part in item.partition("="))
        start, _, stop = span.partition(":")
        if not name or name in columns or not (start.isdecimal() and stop.isdecimal()):
            expected = "distinct names ('text,audio') or columns ('text=0:79,audio=79:103')"
            raise DataError.at("modalities", "option", expected, repr(item))
        columns[name] = slice(int(start), int(stop))
    return columns
