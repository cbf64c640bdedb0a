import errno
import os
from pathlib import Path

import pytest
from limits import largest_file

from feedsieve.files import AlreadyRunning, one_run_at_a_time, open_atomically


class TestOpenAtomically:
    def test_old_file_stays_until_the_block_ends(self, tmp_path):
        path = tmp_path / "report.html"
        path.write_text("old")
        with open_atomically(path) as file:
            file.write("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]

    def test_old_file_stays_if_the_block_raises(self, tmp_path):
        path = tmp_path / "report.html"
        path.write_text("old")
        with pytest.raises(TypeError), open_atomically(path) as file:
            file.writelines(["new", None])
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_full_disk_error_names_the_target(self, tmp_path):
        path = tmp_path / "report.html"
        path.write_text("old")
        too_large = os.strerror(errno.EFBIG)
        with (
            largest_file(1000),
            pytest.raises(OSError, match=too_large) as caught,
            open_atomically(path) as file,
        ):
            file.write("new" * 1000)
        assert caught.value.filename == str(path)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_missing_folder_error_names_the_target(self, tmp_path):
        path = tmp_path / "absent" / "report.html"
        with pytest.raises(FileNotFoundError) as caught, open_atomically(path):
            pytest.fail("opened")
        assert caught.value.filename == str(path)


class TestOneRunAtATime:
    def test_second_run_is_rejected_until_the_first_ends(self, tmp_path: Path):
        folder = tmp_path / "new" / "folder"
        with (
            one_run_at_a_time(folder),
            pytest.raises(AlreadyRunning, match=str(folder)),
            one_run_at_a_time(folder),
        ):
            pytest.fail("two hold one folder")
        with one_run_at_a_time(folder):
            pass

    def test_failed_run_releases_the_lock(self, tmp_path: Path):
        with pytest.raises(KeyError), one_run_at_a_time(tmp_path):
            raise KeyError
        with one_run_at_a_time(tmp_path):
            pass
