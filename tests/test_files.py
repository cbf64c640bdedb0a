import errno
import os
from pathlib import Path

import pytest
from limits import largest_file

from feedsieve.files import RunningAlready, one_run_at_a_time, open_whole


class TestOpenWhole:
    def test_what_was_there_stays_until_the_end(self, tmp_path):
        path = tmp_path / "report.html"
        path.write_text("old")
        with open_whole(path) as file:
            file.write("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]

    def test_what_was_there_stays_if_the_rest_cannot_be_made(self, tmp_path):
        path = tmp_path / "report.html"
        path.write_text("old")
        with pytest.raises(TypeError), open_whole(path) as file:
            file.writelines(["new", None])
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_full_disk_is_told_of_the_file_that_was_asked_for(self, tmp_path):
        path = tmp_path / "report.html"
        path.write_text("old")
        too_large = os.strerror(errno.EFBIG)
        with (
            largest_file(1000),
            pytest.raises(OSError, match=too_large) as caught,
            open_whole(path) as file,
        ):
            file.write("new" * 1000)
        assert caught.value.filename == str(path)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_folder_that_is_not_there(self, tmp_path):
        path = tmp_path / "absent" / "report.html"
        with pytest.raises(FileNotFoundError) as caught, open_whole(path):
            pytest.fail("opened")
        assert caught.value.filename == str(path)


class TestOneRunAtATime:
    def test_a_second_is_refused_until_the_first_ends(self, tmp_path: Path):
        folder = tmp_path / "new" / "folder"
        with (
            one_run_at_a_time(folder),
            pytest.raises(RunningAlready, match=str(folder)),
            one_run_at_a_time(folder),
        ):
            pytest.fail("two hold one folder")
        with one_run_at_a_time(folder):
            pass

    def test_one_that_failed_leaves_nothing_behind(self, tmp_path: Path):
        with pytest.raises(KeyError), one_run_at_a_time(tmp_path):
            raise KeyError
        with one_run_at_a_time(tmp_path):
            pass
