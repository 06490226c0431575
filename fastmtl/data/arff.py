"""Mulan multi-label sets: an `.arff` table, and an `.xml` list of which columns are labels."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from fastmtl.data.arff_table import Attribute, Table, read_table
from fastmtl.data.checks import repeated
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.fields import Fields, require_file
from fastmtl.data.joining import append_test


def load_arff(
    arff: str | Path,
    xml: str | Path,
    test: str | Path | None = None,
    *,
    seed: int = 0,
    for_training: bool = True,
) -> MultiTaskData:
    """Load a Mulan set: a table, and a list of which of its columns are labels.

    Labels keep the order of their columns; each is 0, 1, or `?` for missing. Features are numeric
    or nominal: a nominal one is one column, of its categories where they are numerals and of their
    positions in the declaration otherwise. Dense and sparse rows, quoted names, and `%` comments
    are read.

    Args:
        arff: the table.
        xml: names the columns that are labels, wherever they stand.
        test: a second table of the same columns. Its samples are the test split, and 20% of the
            first's are drawn for validation; without it the split is 60/20/20.
        seed: as for `MultiTaskData.from_arrays`.
        for_training: as for `MultiTaskData.from_arrays`.

    Raises:
        DataError: for files that cannot be used.

    Examples:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     arff, xml = pathlib.Path(folder, "toy.arff"), pathlib.Path(folder, "toy.xml")
        ...     _ = xml.write_text("<labels><label name='sea'/></labels>")
        ...     _ = arff.write_text("@relation toy\\n@attribute blue real\\n@attribute sea {0,1}\\n"
        ...                         "@data\\n" + "0.9,1\\n0.2,0\\n" * 5)
        ...     load_arff(arff, xml)
        MultiTaskData('toy', {'x': (1,)}, 1 tasks, 6 train, 2 val, 2 test)
    """
    table = read_table(arff)
    labels = read_label_names(xml)
    fields = _to_fields(table, labels, str(arff), str(xml))
    if test is not None:
        other = _aligned(read_table(test, table.attributes), table.attributes, test, arff)
        fields = append_test(fields, _to_fields(other, labels, str(test), str(xml)))
    name = Path(arff).stem.removesuffix("-train").removesuffix("-test")
    return fields.finish(seed, for_training, name)


def read_label_names(xml: str | Path) -> list[str]:
    """Names of the labels in a Mulan `.xml`, at whatever depth of the hierarchy."""
    path = require_file(xml)
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError.at(str(path), "labels", "an XML file", f"a broken one ({error})") from None
    found = [e for e in root.iter() if isinstance(e.tag, str) and e.tag.split("}")[-1] == "label"]
    names = [element.get("name") for element in found]
    if not names or None in names:
        got = "none" if not names else "one without a name"
        raise DataError.at(str(path), "labels", 'elements <label name="...">', got)
    out = [name for name in names if name is not None]
    if (twice := repeated(out)) is not None:
        raise DataError.at(str(path), "labels", "distinct names", f"{twice!r} more than once")
    return out


def _to_fields(table: Table, labels: list[str], arff: str, xml: str) -> Fields:
    names = [a.name for a in table.attributes]
    wanted = set(labels)
    if absent := sorted(wanted - set(names)):
        expected = f"attributes of {arff}"
        raise DataError.at(xml, "labels", expected, f"{absent[0]!r}, which is none of them")
    is_label = np.array([name in wanted for name in names])
    if is_label.all():
        raise DataError.at(
            arff, "@attribute", f"features beside the labels of {xml}", "labels only"
        )
    x = table.values[:, ~is_label]
    missing = np.isnan(x)
    if missing.any():
        row, column = np.argwhere(missing)[0].tolist()
        name = [n for n, label in zip(names, is_label, strict=True) if not label][column]
        got = f"{int(missing.sum())} missing (?), the first in line {table.lines[row]}"
        raise DataError.at(arff, name, "features without gaps", got)
    label_names = [n for n, label in zip(names, is_label, strict=True) if label]
    return Fields(arff, x, table.values[:, is_label], label_names=np.array(label_names))


def _aligned(table: Table, like: list[Attribute], test: str | Path, train: str | Path) -> Table:
    """The table with its columns in the order of `like`, which must be the same ones."""
    position = {a.name: i for i, a in enumerate(table.attributes)}
    names = [a.name for a in like]
    if differing := sorted(set(names) ^ set(position)):
        got = f"{differing[0]!r} in one of them only"
        raise DataError.at(str(test), "@attribute", f"the attributes of {train}", got)
    order = [position[name] for name in names]
    return Table(like, table.values[:, order], table.lines)
