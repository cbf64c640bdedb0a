"""`feedsieve keys`: add, list, revoke."""

import json
import re

import pytest

from feedsieve.store.keys import KEY_PATTERN, hash_key
from feedsieve.store.store import MessageStore


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run `feedsieve keys` on a store of its own; return exit code, output and errors."""
    from feedsieve.__main__ import main
    from feedsieve.settings import settings

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("FEEDSIEVE_DB", str(tmp_path / "store.db"))
        settings.cache_clear()
        code = main(["keys", *arguments])
        return code, *capsys.readouterr()

    yield call
    settings.cache_clear()


def listed(run):
    return json.loads(run("list", "--json")[1])


class TestAdd:
    def test_stdout_has_the_key_alone(self, run, tmp_path):
        code, output, errors = run("add", "bot")
        assert code == 0
        assert re.fullmatch(f"{KEY_PATTERN}\n", output)
        assert errors == "bot may read, score and write; the key is shown once:\n"
        [key] = MessageStore.open(tmp_path / "store.db").valid_keys()
        assert key.hash == hash_key(output.strip())

    def test_key_is_not_shown_again_and_not_in_the_file(self, run, tmp_path):
        key = run("add", "bot")[1].strip()
        assert key not in "".join(map(str, (*run("list"), *run("list", "--json"))))
        for file in tmp_path.iterdir():
            assert key.encode() not in file.read_bytes()

    def test_scopes_and_rate_are_options(self, run):
        run("add", "first")
        run("add", "bot", "--scope", "score", "--scope", "read", "--rate", "60")
        assert listed(run)[1] | {"created_at": ""} == {
            "name": "bot",
            "scopes": ["read", "score"],
            "requests_per_minute": 60,
            "created_at": "",
            "last_used_at": None,
            "revoked_at": None,
        }

    def test_several_keys_are_valid_at_once(self, run):
        assert run("add", "old")[1] != run("add", "new")[1]
        assert [key["name"] for key in listed(run)] == ["old", "new"]

    def test_taken_name_is_refused(self, run):
        run("add", "bot")
        code, output, errors = run("add", "bot")
        assert (code, output) == (1, "")
        assert errors.startswith("feedsieve: a key named 'bot' exists")

    @pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "a\nb", 'a"b', "a\\b", "a/b"])
    def test_name_that_logs_could_not_hold_is_refused(self, run, name):
        code, output, errors = run("add", "--", name)
        assert (code, output) == (2, "")
        assert "up to 64 letters" in errors
        assert listed(run) == []

    @pytest.mark.parametrize("rate", ["0", "-1", "many", "1e3"])
    def test_bad_rate_is_refused(self, run, rate):
        assert run("add", "bot", "--rate", rate)[0] == 2

    def test_first_key_that_may_not_write_is_remarked(self, run):
        _code, output, errors = run("add", "reader", "--scope", "read")
        assert re.fullmatch(f"{KEY_PATTERN}\n", output)
        assert "nobody may write now" in errors
        assert "nobody" not in run("add", "admin", "--scope", "admin")[2]


class TestList:
    def test_keys_are_a_line_each(self, run):
        run("add", "bot", "--scope", "write", "--rate", "1000")
        run("add", "other")
        run("revoke", "other")
        bot, other = run("list")[1].splitlines()
        assert bot.startswith("bot: write, 1,000 requests a minute; added 20")
        assert bot.endswith("never used")
        assert ", revoked 20" in other

    def test_no_valid_key_is_remarked(self, run):
        code, output, errors = run("list")
        assert (code, output) == (0, "")
        assert "anyone who reaches the server may write" in errors
        run("add", "bot")
        assert run("list")[2] == ""


class TestRevoke:
    def test_revoked_key_is_not_valid(self, run):
        run("add", "bot")
        run("add", "other")
        assert run("revoke", "bot")[:2] == (
            0,
            "bot is revoked; running servers refuse it within 3 seconds\n",
        )
        assert [bool(key["revoked_at"]) for key in listed(run)] == [True, False]

    def test_last_key_is_kept_unless_named_the_last(self, run):
        run("add", "bot")
        code, _output, errors = run("revoke", "bot")
        assert code == 1 and "--last" in errors
        assert listed(run)[0]["revoked_at"] is None
        assert run("revoke", "bot", "--last")[0] == 0
        assert listed(run)[0]["revoked_at"]

    def test_unknown_name_is_refused(self, run):
        code, output, errors = run("revoke", "nobody")
        assert (code, output) == (1, "")
        assert errors.startswith("feedsieve: no valid key is named 'nobody'")
