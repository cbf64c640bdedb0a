"""Live sources by the names that users write."""

import builtins
import re

import pytest
from live_servers import TOKEN

from feedsieve.sources.live.opening import SourceOptions, open_source, split_sources
from feedsieve.sources.live.source import InvalidSource


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("", []),
        (" , ", []),
        ("telegram:", ["telegram:"]),
        ("telegram:, /exports ./more", ["telegram:", "/exports", "./more"]),
        ("telegram:,/a,b", ["telegram:", "/a", "b"]),
        ("https://example.org/?tags=a,b,https://example.org/2", ["https://example.org/?tags=a,b", "https://example.org/2"]),
        ("https://example.org/a,telegram:bot", ["https://example.org/a", "telegram:bot"]),
    ],
)  # fmt: skip
def test_list_is_split_at_spaces_and_commas_outside_urls(text, sources):
    assert split_sources(text) == sources


class TestOpening:
    @pytest.mark.parametrize("name", ["telegram:", "telegram:bot", "Telegram:"])
    def test_bot_is_known_by_the_number_in_its_token(self, name):
        source = open_source(name, SourceOptions(token=TOKEN))
        assert (source.label, source.key) == ("telegram", "telegram:bot:123456789")

    def test_token_may_be_in_a_file(self, tmp_path):
        file = tmp_path / "token"
        file.write_text(f"{TOKEN}\n")
        source = open_source("telegram:", SourceOptions(token_file=file))
        assert source.key == "telegram:bot:123456789"

    def test_missing_token_says_where_it_goes(self):
        with pytest.raises(InvalidSource, match="FEEDSIEVE_TELEGRAM_TOKEN_FILE"):
            open_source("telegram:", SourceOptions())

    @pytest.mark.parametrize("content", [None, b"\xff\xfe"])
    def test_unreadable_token_file_is_named(self, tmp_path, content):
        file = tmp_path / "token"
        if content:
            file.write_bytes(content)
        with pytest.raises(InvalidSource, match="token: (No such file|it is not text)"):
            open_source("telegram:", SourceOptions(token_file=file))

    def test_token_in_the_source_is_rejected_without_it(self):
        with pytest.raises(InvalidSource, match="nothing may follow the colon") as caught:
            open_source(f"telegram:{TOKEN}", SourceOptions())
        assert TOKEN not in str(caught.value)

    def test_options_do_not_show_the_token(self):
        assert TOKEN not in repr(SourceOptions(token=TOKEN))

    def test_password_of_a_feed_is_not_in_its_names(self):
        source = open_source("https://anna:pass@example.org/feed?x=1", SourceOptions())
        assert re.fullmatch(r"https://example\.org/feed#[0-9a-f]{8}", source.label)
        assert source.key == "rss:https://example.org/feed?x=1"

    def test_feeds_that_differ_in_the_query_have_labels_without_it(self):
        urls = [f"https://example.org/feed?token={token}" for token in ("secret-1", "secret-2")]
        labels = [open_source(url, SourceOptions()).label for url in [*urls, urls[0]]]
        assert labels[0] == labels[2] != labels[1]
        assert "token" not in labels[0] and "secret" not in labels[0]

    def test_feed_without_a_query_is_named_by_its_url(self):
        source = open_source("https://example.org/feed", SourceOptions())
        assert source.label == "https://example.org/feed"
        assert source.key == "rss:https://example.org/feed"

    @pytest.mark.parametrize(
        "url", ["https://", "http://anna:pass@", "https://[::1/feed", "https://?token=pass"]
    )
    def test_url_without_a_host_is_rejected(self, url):
        with pytest.raises(InvalidSource, match="not a URL of a feed") as caught:
            open_source(url, SourceOptions())
        assert "pass" not in str(caught.value)

    def test_anything_else_is_a_folder(self, tmp_path):
        assert open_source(str(tmp_path), SourceOptions()).key == f"folder:{tmp_path.resolve()}"

    @pytest.mark.parametrize(
        ("name", "module", "library"),
        [
            ("telegram:", "telegram_bot", "telegram"),
            ("https://example.org", "feeds", "feedparser"),
            ("/tmp", "folder", "watchfiles"),
        ],
    )
    def test_missing_library_says_how_to_install_it(self, monkeypatch, name, module, library):
        load = builtins.__import__

        def without(wanted, *arguments, **options):
            if wanted.partition(".")[0] == library or wanted.endswith(f"sources.live.{module}"):
                raise ImportError(f"No module named {library!r}")
            return load(wanted, *arguments, **options)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(InvalidSource, match=r"pip install -c constraints.txt -e '.\[watch\]'"):
            open_source(name, SourceOptions(token=TOKEN))
