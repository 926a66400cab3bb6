"""`cases.csv` as people and spreadsheets write it."""

from pathlib import Path

import pytest

from autospine.core.errors import DatasetError
from autospine.dataset.case_table import misnamed_tables, read_case_table, unknown_cases

TABLE = "case;modality;site;subject\r\n001;CT;Zürich;P1\r\n002;MR;Bern;P2\r\n"


def read(folder: Path, content: str | bytes) -> tuple[list[list[str]], list[str]]:
    path = folder / "cases.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    rows, faults = read_case_table(path)
    return [[row[c] for c in ("case", "modality", "site", "subject")] for row in rows.values()], faults


@pytest.mark.parametrize(
    "content",
    [
        TABLE,
        TABLE.replace(";", ","),
        TABLE.replace(";", "\t").encode("utf-16"),
        TABLE.replace("\r\n", "\r"),
        "sep=;\r\n" + TABLE,
        '"sep=;"\r\n' + TABLE,
        "\ufeffsep=\t\n" + TABLE.replace(";", "\t"),
        "\n\n" + TABLE,
        TABLE.replace("case;modality;site;subject", "Case ; MODALITY; Site ;\xa0Subject\u200b"),
        TABLE.replace("\r\n", ";;\r\n"),
        TABLE.replace("001", '="001"').replace("P1", " P1\xa0"),
        TABLE + ";;;\r\n",
    ],
)
def test_a_table_is_read_as_spreadsheets_save_it(content: str | bytes, tmp_path: Path):
    assert read(tmp_path, content) == ([["001", "CT", "Zürich", "P1"], ["002", "MR", "Bern", "P2"]], [])


@pytest.mark.parametrize(
    "word", ["n/a", "N/A", "NA", "nan", "NaN", "none", "None", "-", "unknown", " n/a ", "null", "?"]
)
def test_words_for_what_is_not_known_are_empty(word: str, tmp_path: Path):
    rows, faults = read(tmp_path, f"case,modality,site,subject\nna,{word},{word},{word}\nb,CT,x,P1\n")
    assert (rows, faults) == ([["na", "", "", ""], ["b", "CT", "x", "P1"]], [])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04" + bytes(99), "workbook .*renamed; save it as CSV"),
        (b"\xd0\xcf\x11\xe0" + bytes(99), "workbook .*renamed; save it as CSV"),
        (TABLE.encode("latin-1"), "no text in UTF-8.*; save it as CSV"),
        ("case,case\na,b\n", "found case, case; mend its first line"),
        ("case,subject_id\na,b\n", "found case, subject_id; mend its first line"),
        ("ca\xadse,site\na,b\n", r"found ca\\xadse, site; mend its first line"),
        ('"case,site"\n"a,b"\n', "remove the quotes around whole lines"),
        ('case,site\n"a,b\nc,d\n', r"unexpected end of data \(line 3\); save it as CSV"),
    ],
)
def test_what_is_no_table_says_why(content: str | bytes, says: str, tmp_path: Path):
    with pytest.raises(DatasetError, match=says):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('"002;CT;a"', "row 2 of cases.csv is a single cell: 002;CT;a; remove the quotes around the line"),
        ("002,CT,a", "row 2 of cases.csv is a single cell: 002,CT,a; remove the quotes around the line"),
        (
            "002;CT;Bern;Insel;P2",
            "row 2 of cases.csv has more cells than columns: 002, CT, Bern, Insel, P2; put",
        ),
        (";CT;Bern;P2", "row 2 of cases.csv has no case: CT, Bern, P2; name it"),
    ],
)
def test_a_row_that_is_not_as_the_first_is_a_fault(row: str, says: str, tmp_path: Path):
    rows, (fault,) = read(tmp_path, f"case;modality;site;subject\n001;CT;Bern;P1\n{row}\n")
    assert fault.startswith(says)
    assert [case for case, *_ in rows] == ["001"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("1", "1 may be 001: spreadsheets drop leading zeros"),
        ("001_0000.nii.gz", "write 001 alone"),
        ("001.nii.gz", "write 001 alone"),
        ("001_0000", "write 001 alone"),
        ("001.NII.GZ", "write 001 alone"),
        ("ANNA", "write anna as the image has it"),
        ("an\xadna", r"an\xadna: in cases.csv but without image; write anna"),
        ("x\xa0y", r"x\xa0y: in cases.csv but without image; add the image"),
        ("9" * 5000, "add the image"),
        ("3", "3: in cases.csv but without image; add the image, or remove the row"),
    ],
)
def test_an_unknown_case_says_what_may_be_meant(name: str, says: str):
    (fault,) = unknown_cases([name], ["001", "anna", "10"])
    assert says in fault


@pytest.mark.parametrize(
    "name",
    ["Cases.CSV", "CASES.csv", "cases.csv.csv", "cases.csv.txt", "cases.xlsx", "cases.tsv", "cases (1).csv"],
)
def test_a_table_under_another_name_is_a_fault(name: str, tmp_path: Path):
    (tmp_path / name).write_text(TABLE, encoding="utf-8")
    (fault,) = misnamed_tables(tmp_path)
    assert name in fault
    assert "save it as cases.csv" in fault


def test_other_files_are_no_tables(tmp_path: Path):
    for name in ("cases.nii.gz", "showcases.csv", "cases_0000.nii.gz", ".~lock.cases.csv#", "dataset.json"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "cases").mkdir()
    assert misnamed_tables(tmp_path) == []
    (tmp_path / "cases.xlsx").write_bytes(b"PK")
    (tmp_path / "cases.csv").write_text(TABLE, encoding="utf-8")
    assert misnamed_tables(tmp_path) == []
