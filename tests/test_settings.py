import os
from pathlib import Path

import pytest

from feedsieve.settings import InvalidSettings, settings


class TestSettings:
    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch):
        for name in [name for name in os.environ if name.startswith("FEEDSIEVE_")]:
            monkeypatch.delenv(name)
        settings.cache_clear()
        yield
        settings.cache_clear()

    def test_defaults_work_on_a_laptop(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # `make serve` leaves a sample in the checkout
        assert settings().db == "data/messages.db"
        assert settings().model == "feedsieve-classifier:latest"
        assert settings().threads == 0
        assert settings().cache == Path.home() / ".cache/feedsieve"

    def test_environment_overrides_defaults(self, monkeypatch):
        monkeypatch.setenv("FEEDSIEVE_DB", "postgresql://host/chat")
        monkeypatch.setenv("FEEDSIEVE_THREADS", "3")
        monkeypatch.setenv("FEEDSIEVE_CACHE", "~/elsewhere")
        assert (settings().db, settings().threads) == ("postgresql://host/chat", 3)
        assert settings().cache == Path.home() / "elsewhere"

    def test_empty_variable_counts_as_unset(self, monkeypatch):
        monkeypatch.setenv("FEEDSIEVE_THREADS", "")
        monkeypatch.setenv("FEEDSIEVE_MODEL", "")
        assert settings().threads == 0
        assert settings().model == "feedsieve-classifier:latest"

    @pytest.mark.parametrize("threads", ["-1", "many", "100000"])
    def test_invalid_variable_is_named(self, monkeypatch, threads):
        monkeypatch.setenv("FEEDSIEVE_THREADS", threads)
        with pytest.raises(InvalidSettings, match="FEEDSIEVE_THREADS"):
            settings()

    @pytest.mark.parametrize(
        ("value", "origins"),
        [
            (None, ()),
            ("", ()),
            ("*", ("*",)),
            ("https://a.example", ("https://a.example",)),
            (
                " HTTPS://A.example:443 ,http://localhost:80,",
                ("https://a.example", "http://localhost"),
            ),
            ("https://a.example:8443", ("https://a.example:8443",)),
            ("http://[::1]:5173, app://local", ("http://[::1]:5173", "app://local")),
        ],
    )
    def test_origins_are_those_that_browsers_send(self, monkeypatch, value, origins):
        if value is not None:
            monkeypatch.setenv("FEEDSIEVE_CORS_ORIGINS", value)
        assert settings().cors_origins == origins

    @pytest.mark.parametrize(
        "value",
        [
            "a.example",
            "https://",
            "https://a.example/",
            "https://a.example/x",
            "https://*",
            "null",
            "a b",
        ],
    )
    def test_other_origins_are_refused(self, monkeypatch, value):
        monkeypatch.setenv("FEEDSIEVE_CORS_ORIGINS", f"https://ok.example,{value}")
        with pytest.raises(InvalidSettings, match="FEEDSIEVE_CORS_ORIGINS.*scheme://host"):
            settings()

    @pytest.mark.parametrize(
        ("value", "path"), [("", ""), ("/", ""), ("/chat", "/chat"), ("/a/b.c/", "/a/b.c")]
    )
    def test_root_path_has_no_slash_at_its_end(self, monkeypatch, value, path):
        monkeypatch.setenv("FEEDSIEVE_ROOT_PATH", value)
        assert settings().root_path == path

    @pytest.mark.parametrize(
        "value", ["chat", "//evil.example", "/a//b", "/..", "/a b", "/x" * 200]
    )
    def test_other_root_paths_are_refused(self, monkeypatch, value):
        monkeypatch.setenv("FEEDSIEVE_ROOT_PATH", value)
        with pytest.raises(InvalidSettings, match="FEEDSIEVE_ROOT_PATH.*such as /chat"):
            settings()
