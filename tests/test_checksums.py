"""Records say whether they, and the files that they speak of, are as they were written."""

import json

import pytest

from metaseg_nb.checksums import changed_files, checksum, read_record, write_record
from metaseg_nb.files import DamagedFile


@pytest.fixture
def record(tmp_path):
    """A record of two files, one of them in a folder below."""
    (tmp_path / "predictions").mkdir()
    files = [tmp_path / "metrics.csv", tmp_path / "predictions/c.nii.gz"]
    for file in files:
        file.write_bytes(file.name.encode())
    write_record(tmp_path / "metrics.json", {"dice": 0.1, "places": (1, 2), "names": {10: "ä", 9: None}}, files)
    return tmp_path / "metrics.json"


def test_the_checksum_is_that_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert checksum(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def test_what_was_written_comes_back_with_nothing_to_complain_of(record):
    content = read_record(record)
    assert {key: content[key] for key in ("dice", "places", "names")} == {
        "dice": 0.1, "places": [1, 2], "names": {"10": "ä", "9": None},
    }  # fmt: skip
    assert set(content["files"]) == {"metrics.csv", "predictions/c.nii.gz"}
    assert changed_files(record, content) == {}


def test_the_same_content_is_the_same_record(record, tmp_path):
    before = record.read_bytes()
    write_record(record, read_record(record), [tmp_path / "metrics.csv", tmp_path / "predictions/c.nii.gz"])
    assert record.read_bytes() == before


def test_every_flipped_bit_of_a_record_is_noticed(record):
    whole = record.read_bytes()
    content = read_record(record)
    for place in range(len(whole)):
        for bit in (0, 3, 6):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            record.write_bytes(damaged)
            try:
                assert read_record(record) == content, f"byte {place}, bit {bit}: another content"  # white space
            except DamagedFile as error:
                assert str(record) in str(error)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"'])
def test_what_is_no_record_is_named(record, text):
    record.write_text(text)
    with pytest.raises(DamagedFile, match=r"metrics\.json: found not complete JSON"):
        read_record(record)


def test_a_record_without_checksum_is_named(record):
    record.write_text(json.dumps({"dice": 0.1}))
    with pytest.raises(DamagedFile, match="content that has changed since it was written"):
        read_record(record)


def test_files_that_changed_or_are_lost_are_named(record, tmp_path):
    (tmp_path / "metrics.csv").write_text("other")
    (tmp_path / "predictions/c.nii.gz").unlink()
    assert changed_files(record, read_record(record)) == {
        "metrics.csv": "content that has changed since it was written",
        "predictions/c.nii.gz": "no such file",
    }
