"""Mulan's .arff and .xml: dense, sparse, quoted, damaged, and the real sets."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fastmtl.data import DataError, load, load_arff

HEADER = """% a comment
@RELATION 'toy set: -C 2'

@attribute first numeric
@ATTRIBUTE sea {0,1}   % a label in the middle
@attribute 'odd name, with % and \\' quote' REAL
@attribute "sky" {0, 1}
@attribute colour {red, 'dark blue', green}
@attribute size {10, 2.5}
@data
"""
XML = """<?xml version="1.0" encoding="utf-8"?>
<labels xmlns="http://mulan.sourceforge.net/labels">
<label name="sky"><label name="sea"></label></label>
</labels>"""
ROWS = ["1.5,0,-2e-1,1,red,10", "3,1,0,0,'dark blue',2.5", "-1,0,.5,1,green,10"]
X = np.array([[1.5, -0.2, 0, 10], [3, 0, 1, 2.5], [-1, 0.5, 2, 10]], dtype=np.float32)
Y = np.array([[0, 1], [1, 0], [0, 1]], dtype=np.float32)


def write(folder: Path, rows: list[str], header: str = HEADER, xml: str = XML) -> tuple[Path, Path]:
    (folder / "toy.arff").write_text(header + "\n".join(rows), encoding="utf-8")
    (folder / "toy.xml").write_text(xml, encoding="utf-8")
    return folder / "toy.arff", folder / "toy.xml"


def check(folder: Path, rows: list[str]) -> None:
    data = load_arff(*write(folder, rows), for_training=False)
    assert np.array_equal(data.features()["x"].numpy(), X)
    assert np.array_equal(data.y.numpy(), Y)
    assert data.label_names == ["sea", "sky"]
    assert data.name == "toy"


def refuses(folder: Path, rows: list[str], message: str, header: str = HEADER) -> None:
    arff, xml = write(folder, rows, header)
    with pytest.raises(DataError, match=message) as caught:
        load_arff(arff, xml, for_training=False)
    assert str(caught.value).startswith(str(arff))
    assert "\n" not in str(caught.value)


def test_dense(tmp_path: Path) -> None:
    check(tmp_path, ROWS)


def test_sparse(tmp_path: Path) -> None:
    rows = [
        "{0 1.5, 2 -2e-1,3 1}",
        "{0 3,1 1, 4 'dark blue', 5 2.5}",
        "{ 5 10,4 green, 3 1, 2 .5, 0 -1 }",
    ]
    check(tmp_path, rows)


def test_comments_blank_lines_and_spaces(tmp_path: Path) -> None:
    rows = [
        "% nothing",
        "",
        " 1.5 , 0,\t-2e-1, 1, red ,10 ",
        ROWS[1] + " % note, with 'quote",
        ROWS[2],
        "",
    ]
    check(tmp_path, rows)


def test_whitespace_may_separate(tmp_path: Path) -> None:
    check(tmp_path, [ROWS[0].replace(",", "\t"), ROWS[1], ROWS[2].replace(",", "  ")])


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    arff, xml = write(tmp_path, ROWS)
    arff.write_bytes(b"\xef\xbb\xbf" + arff.read_bytes().replace(b"\n", b"\r\n"))
    assert np.array_equal(load_arff(arff, xml, for_training=False).y.numpy(), Y)


def test_latin_1(tmp_path: Path) -> None:
    header = "@relation r\n@attribute f real\n@attribute bücher {0,1}\n@data\n"
    arff, xml = write(tmp_path, [], header, "<labels><label name='bücher'/></labels>")
    arff.write_bytes((header + "1,0\n2,1").encode("latin-1"))
    assert load_arff(arff, xml, for_training=False).label_names == ["bücher"]


def test_sparse_default_of_a_nominal_is_its_first_category(tmp_path: Path) -> None:
    header = "@relation r\n@attribute f real\n@attribute sea {1,0}\n@data\n"
    arff, xml = write(tmp_path, ["{0 1}", "{1 0}"], header, "<labels><label name='sea'/></labels>")
    data = load_arff(arff, xml, for_training=False)
    assert data.y.flatten().tolist() == [1, 0]
    assert data.features()["x"].flatten().tolist() == [1, 0]


def test_question_mark_is_a_missing_label(tmp_path: Path) -> None:
    rows = [ROWS[0], "3,?,0,0,red,2.5", "{1 ?, 3 ?}"]
    data = load_arff(*write(tmp_path, rows), for_training=False)
    assert data.y.isnan().tolist() == [[False, False], [True, False], [True, True]]


def test_missing_feature_is_refused(tmp_path: Path) -> None:
    rows = [ROWS[0], "?,0,?,1,red,10", ROWS[2]]
    refuses(tmp_path, rows, "first: expected features without gaps, got 2 missing .*in line 12")
    refuses(tmp_path, ["0,0,0,1,?,10"], "colour: expected features without gaps, got 1 missing")


def test_infinite_feature_is_refused(tmp_path: Path) -> None:
    refuses(tmp_path, [ROWS[0].replace("1.5", "1e99")], "x: expected finite numbers")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("3,1,0,0", "@data: expected 6 values in a row, got 4 in line 12"),
        ("3,1,0,0,red,10,1", "expected 6 values in a row, got 7"),
        ("3,1,zero,0,red,10", "odd name, .*: expected a number, got 'zero' in line 12"),
        ("3,1,,0,red,10", "expected a number, got '' in line 12"),
        ("3,2,0,0,red,10", "sea: expected one of its categories, got 2 in line 12"),
        ("3,1,0,yes,red,10", "sky: expected one of its categories, got 'yes'"),
        ("3,1,0,0,pink,10", "colour: expected one of its categories, got 'pink'"),
        ("3,1,0,0,1,10", "colour: expected one of its categories, got '1'"),
        ("3,1,0,0,red,11", "size: expected one of its categories, got 11"),
        ("{0 3, 1 1", "expected a sparse row that ends in }, got line 12"),
        ("{0 3, 6 1}", "expected distinct columns from 0 to 5 in a sparse row, got 6 in line 12"),
        ("{0 3, 0 1}", "distinct columns .* got a repeated one in line 12"),
        ("{0 3, 1}", "expected 'column value' pairs in a sparse row, got '0 3, 1' in line 12"),
        ("{-1 3}", "expected 'column value' pairs"),
        ("{4 'red}", "colour: expected one of its categories"),
        ("{4 'dark blue}", "expected 'column value' pairs"),
        ("{1 5}", "sea: expected one of its categories, got 5"),
        ("{0 x}", "first: expected a number, got 'x'"),
    ],
)
def test_bad_rows(tmp_path: Path, row: str, message: str) -> None:
    refuses(tmp_path, [ROWS[0], row], message)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("@relation r\n@attribute a numeric\n", "@data: expected a data section, got a file that"),
        ("@relation r\n@data\n", "header: expected attributes before @data"),
        ("@attribute a string\n@data\n", "@attribute: expected numeric or {nominal}, got 'string'"),
        ("@attribute a {0,1\n@data\n", "@attribute: expected numeric or {nominal}, got '{0,1'"),
        ("@attribute a real\n@attribute a real\n@data\n", "distinct names, got 'a' more than once"),
        ("1,2,3\n", "header: expected @relation, @attribute or @data, got '1,2,3' in line 1"),
        ("@attribute a real\n@data\n", "@data: expected at least one row, got none"),
        ("@attribute sea {0,1}\n@attribute sky {0,1}\n@data\n1,1", "expected features beside"),
        (
            "@attribute sea real\n@attribute sky real\n@attribute f real\n@data\n1.5,1,1",
            "y: .*got 1.5",
        ),
    ],
)
def test_bad_headers(tmp_path: Path, header: str, message: str) -> None:
    refuses(tmp_path, [], message, header)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<labels><label name='sea'/><label name='sun'/></labels>", "labels: .*'sun', which is"),
        ("<labels><label name='sea'/><label name='sea'/></labels>", "distinct names, got 'sea'"),
        ("<labels></labels>", "expected elements <label"),
        ("<labels><label/></labels>", "got one without a name"),
        ("<labels><label name='sea'", "labels: expected an XML file, got a broken one"),
    ],
)
def test_bad_xml(tmp_path: Path, xml: str, message: str) -> None:
    arff, path = write(tmp_path, ROWS, xml=xml)
    with pytest.raises(DataError, match=message) as caught:
        load_arff(arff, path)
    assert str(caught.value).startswith(str(path))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    arff, xml = write(tmp_path, ROWS)
    for args in ((tmp_path, xml), (arff, tmp_path), (arff, xml, tmp_path)):
        with pytest.raises(DataError, match="expected a file, got a directory"):
            load_arff(*args)
    with pytest.raises(DataError, match=r"gone.xml: file: expected an existing file"):
        load_arff(arff, tmp_path / "gone.xml")


def test_test_file_in_another_column_order(tmp_path: Path) -> None:
    rows = ROWS * 4
    arff, xml = write(tmp_path, rows)
    swapped = """@attribute colour {green, red}
@attribute size {10,2.5}
@attribute sky {0,1}
@attribute first numeric
@attribute sea {0,1}
@attribute "odd name, with % and ' quote" numeric
@data
green,10,1,1.5,0,-0.2
{3 3}
"""
    (tmp_path / "other.arff").write_text(swapped)
    data = load_arff(arff, xml, tmp_path / "other.arff")
    test = data.subset("test")
    assert np.allclose(test.features()["x"].numpy(), [[1.5, -0.2, 2, 10], [3, 0, 2, 10]])
    assert test.y.tolist() == [[0, 1], [0, 0]]
    assert [len(data.indices(s)) for s in ("train", "val", "test")] == [10, 2, 2]
    assert torch.equal(data.indices("test"), torch.tensor([12, 13]))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("colour {red", "colour {pink", "expected the categories that 'colour' has .*'pink'"),
        ("first", "primary", "expected the attributes of .*'first' in one of them only"),
    ],
)
def test_test_file_must_match(tmp_path: Path, before: str, after: str, message: str) -> None:
    arff, xml = write(tmp_path, ROWS * 4)
    other = tmp_path / "other.arff"
    other.write_text(arff.read_text().replace(before, after))
    with pytest.raises(DataError, match=message) as caught:
        load_arff(arff, xml, other)
    assert str(caught.value).startswith(str(other))


@pytest.mark.parametrize(
    ("name", "sizes", "features", "tasks"),
    [
        ("scene", (1211, 1196), 294, 6),
        ("yeast", (1500, 917), 103, 14),
        ("birds", (322, 323), 260, 19),
    ],
)
def test_real_sets(
    shared_data: Path, name: str, sizes: tuple[int, int], features: int, tasks: int
) -> None:
    start = time.process_time()
    data = load(shared_data / "mulan" / f"{name}-train.arff")
    assert time.process_time() - start < 2
    train, val, test = (len(data.indices(s)) for s in ("train", "val", "test"))
    assert (train + val, test) == sizes
    assert val == round(0.2 * sizes[0])
    assert data.modalities == {"x": (features,)}
    assert data.num_tasks == tasks
    assert data.name == name
    assert not data.y.isnan().any()
    assert data.warnings == ()


def test_yeast_in_two_modalities(shared_data: Path) -> None:
    path = shared_data / "mulan" / "yeast-train.arff"
    data = load(path, modalities="expression=0:79,phylogeny=79:103")
    assert data.modalities == {"expression": (79,), "phylogeny": (24,)}


def test_many_labels_are_read_in_time(tmp_path: Path) -> None:
    names = [f"l{i}" for i in range(30_000)]
    header = "@relation r\n@attribute f real\n"
    header += "".join(f"@attribute {name} {{0,1}}\n" for name in names) + "@data\n"
    xml = "<labels>" + "".join(f"<label name='{name}'/>" for name in names) + "</labels>"
    start = time.process_time()
    data = load_arff(*write(tmp_path, ["{0 1}", "{1 1}"], header, xml), for_training=False)
    assert data.num_tasks == 30_000
    assert time.process_time() - start < 10
