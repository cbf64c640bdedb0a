"""Archives, folders and pipes, unpacked."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import largest_file
from serving import ROOT

from feedsieve.message import InvalidFile
from feedsieve.sources import unpack
from feedsieve.sources.keys import file_key
from feedsieve.sources.report import ReadReport
from feedsieve.sources.unpack import shown, unpacked

CSV = "msg_id,msg\n1,Отдам кота\n".encode()
ENCRYPTED = 1  # a flag of zip's; Python's zipfile writes no such files


def contents(path: Path, report: ReadReport | None = None) -> dict[str, bytes]:
    """Return the files of a path, by their names as users see them."""
    with unpacked(path, report or ReadReport()) as files:
        return {shown(str(file)): file.read_bytes() for file in files}


def complaint(path: Path) -> str:
    with pytest.raises(InvalidFile) as caught:
        contents(path)
    message = str(caught.value)
    assert "\n" not in message
    assert unpack._PREFIX not in message
    return message


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


class TestFiles:
    def test_ordinary_file_is_itself(self, tmp_path):
        path = tmp_path / "коты.csv"
        path.write_bytes(CSV)
        with unpacked(path, ReadReport()) as files:
            assert files == [path]

    @pytest.mark.parametrize(
        ("compress", "ending"),
        [(gzip.compress, ".gz"), (bz2.compress, ".bz2"), (lzma.compress, ".xz")],
    )
    def test_compressed_file_keeps_its_name(self, tmp_path, compress, ending):
        path = tmp_path / f"коты.csv{ending}"
        path.write_bytes(compress(CSV))
        with unpacked(path, ReadReport()) as files:
            assert [file.read_bytes() for file in files] == [CSV]
            assert file_key(files[0]) == file_key(Path("коты.csv"))
            temporary = files[0]
        assert not temporary.exists()

    def test_content_decides_not_the_name(self, tmp_path):
        path = tmp_path / "коты.csv"
        path.write_bytes(gzip.compress(CSV) + gzip.compress(b"2,b\n"))
        assert contents(path) == {"коты.csv": CSV + b"2,b\n"}
        (tmp_path / "plain.gz").write_bytes(CSV)
        assert list(contents(tmp_path / "plain.gz").values()) == [CSV]

    @pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
    def test_truncated_file_is_refused(self, tmp_path, compress):
        path = tmp_path / "a.csv.gz"
        path.write_bytes(compress(os.urandom(100_000))[:-5000])
        assert "a.csv.gz is damaged or cut short" in complaint(path)

    def test_missing_file_is_refused(self, tmp_path):
        assert complaint(tmp_path / "none.zip").endswith("none.zip: No such file or directory")

    def test_other_archives_are_refused_by_name(self, tmp_path):
        path = tmp_path / "a.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("a.csv"), io.BytesIO())
        assert "a.tar is a tar archive; unpack it first" in complaint(path)
        (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c\x00\x04")
        assert "a.7z is a 7z archive; unpack it first" in complaint(tmp_path / "a.7z")

    def test_pipe_is_read_to_its_end(self, tmp_path):
        pipe = tmp_path / "chat"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(CSV),))
        writer.start()
        assert contents(pipe) == {"chat": CSV}
        writer.join()

    def test_standard_input_is_read(self):
        code = (
            "from pathlib import Path; from feedsieve.sources.unpack import *;"
            "from feedsieve.sources.report import ReadReport\n"
            "with unpacked(Path('-'), ReadReport()) as files:"
            " print(shown(str(files[0])), len(files[0].read_bytes()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], input=CSV, capture_output=True, cwd=ROOT
        )
        assert done.stdout.decode().split() == ["stdin", str(len(CSV))], done.stderr


class TestZip:
    def test_messages_are_taken_and_others_named(self, tmp_path):
        files = {"коты/а.csv": CSV, "б.json": b"{}", "снимок.jpg": b"x", "__MACOSX/._а.csv": b"x"}
        report = ReadReport()
        found = contents(make_zip(tmp_path / "a.zip", files), report)
        assert found == {"a.zip/б.json": b"{}", "a.zip/коты/а.csv": CSV}
        assert report.notes == ["not read, no messages by their names: снимок.jpg"]

    def test_telegram_export_is_its_result(self, tmp_path):
        files = {"ChatExport/result.json": b"{}", "ChatExport/photos/1.jpg": b"", "b/a.csv": CSV}
        files["ChatExport/lists/a.json"] = b"{}"
        found = contents(make_zip(tmp_path / "a.zip", files))
        assert sorted(found) == ["a.zip/ChatExport/result.json", "a.zip/b/a.csv"]

    def test_archives_within_archives_are_read_to_a_depth(self, tmp_path):
        inner = make_zip(tmp_path / "inner.zip", {"a.csv": CSV}).read_bytes()
        path = make_zip(
            tmp_path / "outer.zip", {"inner.zip": inner, "b.csv.gz": gzip.compress(CSV)}
        )
        assert list(contents(path).values()) == [CSV, CSV]
        for _ in range(3):
            path = make_zip(tmp_path / "deep.zip", {"inner.zip": path.read_bytes()})
        assert "too many archives within archives" in complaint(path)

    def test_name_twice_loses_nothing(self, tmp_path):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.csv", CSV)
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr("a.csv", b"other")
        with unpacked(path, ReadReport()) as files:
            assert [file.read_bytes() for file in files] == [CSV, b"other"]
            assert [file.name for file in files] == ["a.csv", "a.csv"]

    def test_name_cannot_leave_the_folder(self, tmp_path):
        path = make_zip(tmp_path / "a.zip", {"../../up.csv": CSV, "/etc/down.csv": CSV})
        assert sorted(contents(path)) == ["a.zip/etc/down.csv", "a.zip/up.csv"]
        assert not (tmp_path.parent / "up.csv").exists()

    def test_russian_names_of_windows_are_read(self, tmp_path):
        path = make_zip(tmp_path / "a.zip", {"xxxx.csv": CSV})
        path.write_bytes(path.read_bytes().replace(b"xxxx", "коты".encode("cp866")))
        assert list(contents(path)) == ["a.zip/коты.csv"]

    def test_encrypted_archive_is_refused(self, tmp_path):
        path = make_zip(tmp_path / "a.zip", {"a.csv": CSV})
        content = bytearray(path.read_bytes())
        for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            content[content.index(header) + offset] |= ENCRYPTED
        path.write_bytes(content)
        assert "a.zip is encrypted; unpack it first" in complaint(path)

    def test_workbook_is_refused(self, tmp_path):
        path = make_zip(tmp_path / "a.xlsx", {"[Content_Types].xml": b"", "xl/workbook.xml": b""})
        assert "a.xlsx is an Office document; save the sheet as CSV" in complaint(path)

    def test_archive_without_messages_is_refused(self, tmp_path):
        path = make_zip(tmp_path / "a.zip", {"a.jpg": b""})
        assert "no file in it could be messages" in complaint(path)
        assert "no file in it could be" in complaint(make_zip(tmp_path / "empty.zip", {}))

    def test_truncated_archive_is_refused(self, tmp_path):
        path = make_zip(tmp_path / "a.zip", {"a.csv": os.urandom(10_000)})
        content = path.read_bytes()
        path.write_bytes(content[:-200])
        assert "a.zip is damaged or cut short" in complaint(path)
        path.write_bytes(content[:3000] + b"\xff" * 100 + content[3100:])
        assert "a.zip is damaged or cut short" in complaint(path)

    def test_entry_without_name_is_refused(self, tmp_path):
        path = make_zip(tmp_path / "a.zip", {"x": CSV})
        content = path.read_bytes()
        place = content.index(b"PK\x01\x02") + 46
        path.write_bytes(content[:place] + b"\0" + content[place + 1 :])
        assert "a.zip is damaged" in complaint(path)

    @given(st.integers(0, 2**31), st.binary(min_size=1, max_size=4))
    @settings(max_examples=150, deadline=None)
    def test_damaged_archive_is_read_or_refused(self, tmp_path_factory, place, damage):
        path = make_zip(tmp_path_factory.getbasetemp() / "a.zip", {"a.csv": CSV * 9, "b.txt": CSV})
        content = bytearray(path.read_bytes())
        place %= len(content)
        content[place : place + len(damage)] = damage
        path.write_bytes(content)
        with suppress(InvalidFile):
            contents(path)


class TestLimits:
    @pytest.mark.parametrize("name", ["a.csv.gz", "a.zip"])
    def test_bomb_is_refused(self, tmp_path, monkeypatch, name):
        monkeypatch.setattr(unpack, "FREE_BYTES", 10**6)
        path = tmp_path / name
        content = b"0" * 10**7
        if name == "a.zip":
            make_zip(path, {"a.csv": content})
        else:
            path.write_bytes(gzip.compress(content))
        assert f"{name} unpacks to more than" in complaint(path)

    def test_total_of_a_folder_is_not_bound_by_its_first_archive(self, tmp_path, monkeypatch):
        monkeypatch.setattr(unpack, "FREE_BYTES", 1000)
        monkeypatch.setattr(unpack, "HIGHEST_RATIO", 1)
        for name in "abc":
            (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(b"0" * 900))
        assert len(contents(tmp_path)) == 3

    def test_full_disk_is_named(self, tmp_path):
        path = tmp_path / "a.csv.gz"
        path.write_bytes(gzip.compress(os.urandom(100_000)))
        with largest_file(50_000):
            message = complaint(path)
        assert "cannot be unpacked into" in message
        assert "File too large; set TMPDIR to a folder with more space" in message


class TestFolder:
    def test_export_is_its_result(self, tmp_path):
        for name in ("result.json", "messages.html", "other.csv"):
            (tmp_path / name).write_bytes(CSV)
        with unpacked(tmp_path, ReadReport()) as files:
            assert files == [tmp_path / "result.json"]

    def test_files_below_are_taken_in_order(self, tmp_path):
        names = [
            "a.tsv",
            "b.jsonl",
            "export/result.json",
            "more/c.csv.gz",
            "photo.png",
            ".hidden.csv",
        ]
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.compress(CSV) if name.endswith("gz") else CSV)
        report = ReadReport()
        with unpacked(tmp_path, report) as files:
            found = [file.name for file in files]
        assert found == ["a.tsv", "b.jsonl", "result.json", "c.csv"]
        assert report.notes == ["not read, no messages by their names: .hidden.csv, photo.png"]

    def test_pages_are_taken_if_there_is_nothing_else(self, tmp_path):
        (tmp_path / "messages.html").write_text("<html>")
        assert len(contents(tmp_path)) == 1

    def test_empty_folder_is_refused(self, tmp_path):
        assert "no file in it could be messages" in complaint(tmp_path)
