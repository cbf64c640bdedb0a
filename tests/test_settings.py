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

    def test_defaults_work_on_a_laptop(self):
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
