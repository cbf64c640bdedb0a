"""RSS and Atom feeds, fetched from a server on loopback."""

import asyncio
import gzip
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from live_servers import Page, feeds

from feedsieve.message import Message
from feedsieve.sources.live import feeds as feeds_module
from feedsieve.sources.live.feeds import Feed
from feedsieve.sources.live.html_text import plain_text
from feedsieve.sources.live.source import SourceUnavailable

__all__ = ["feeds"]

RSS = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0"><channel><title>Новости &amp;amp; двор</title><link>https://example.org</link>
{items}</channel></rss>"""
ITEM = """<item><title>{title}</title><guid isPermaLink="false">{guid}</guid>
<link>https://example.org/{guid}</link><description>{text}</description>
<pubDate>Tue, 14 Nov 2023 22:13:20 +0200</pubDate></item>"""
ATOM = """<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>Двор</title><id>urn:feed</id>
<entry><title>Ремонт</title><id>urn:1</id><link href="/one"/><author><name>Анна</name></author>
<published>2023-11-14T22:13:20Z</published><updated>2023-11-15T08:00:00Z</updated>
<summary>кратко</summary>
<content type="html">&lt;p&gt;Лифт &lt;b&gt;чинят&lt;/b&gt;&lt;/p&gt;
&lt;p&gt;до пятницы&lt;/p&gt;</content>
</entry></feed>"""


def rss(*items: str) -> bytes:
    return RSS.format(items="".join(items)).encode()


def item(guid: str, title: str = "", text: str = "") -> str:
    return ITEM.format(guid=guid, title=title, text=text)


def fetch(feeds, position=None, times=1):
    """Return the batches of the first fetches of /feed."""

    async def collect():
        async with aclosing(Feed(f"{feeds.url}/feed", 0.01).batches(position, once=False)) as all_:
            return [await anext(all_) for _ in range(times)]

    return asyncio.run(asyncio.wait_for(collect(), 20))


def entries(feeds, body: bytes, **page) -> list[Message]:
    feeds.pages["/feed"] = Page(body, **page)
    [batch] = fetch(feeds)
    return list(batch.messages)


class TestEntries:
    def test_atom_entry_has_all_its_fields(self, feeds):
        [message] = entries(feeds, ATOM.encode())
        assert message == Message(
            id="urn:1",
            text="Ремонт\n\nЛифт чинят\nдо пятницы",
            channel="Двор",
            time=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
            source=f"rss:{feeds.url}/feed",
            sender="Анна",
            link=f"{feeds.url}/one",
            edited=datetime(2023, 11, 15, 8, tzinfo=UTC),
        )

    def test_rss_items_come_oldest_first_in_utc(self, feeds):
        found = entries(feeds, rss(item("2", "Второе"), item("1", "Первое", "и &lt;b&gt;ещё")))
        assert [(one.id, one.text) for one in found] == [("1", "Первое\n\nи ещё"), ("2", "Второе")]
        assert found[0].time == datetime(2023, 11, 14, 20, 13, 20, tzinfo=UTC)
        assert (found[0].channel, found[0].edited) == ("Новости & двор", None)

    @pytest.mark.parametrize(
        ("title", "text", "expected"),
        [
            ("Продаю стол", "Продаю стол, почти новый", "Продаю стол, почти новый"),
            ("Продаю стол, поч…", "Продаю стол, почти новый", "Продаю стол, почти новый"),
            ("Продаю стол, поч...", "Продаю  стол, почти новый", "Продаю стол, почти новый"),
            ("Стол", "Столько людей", "Стол\n\nСтолько людей"),
            ("", "Только текст", "Только текст"),
            ("Только заголовок", "", "Только заголовок"),
        ],
    )
    def test_title_that_repeats_the_text_is_left_out(self, feeds, title, text, expected):
        [message] = entries(feeds, rss(item("1", title, text)))
        assert message.text == expected

    def test_entry_without_guid_is_known_by_its_link_or_its_text(self, feeds):
        bare = ["<item><link>https://example.org/1</link><title>Раз</title></item>"]
        bare += ["<item><description>Два</description></item>"]
        by_text, by_link = entries(feeds, rss(*bare))
        assert by_link.id == "https://example.org/1"
        assert len(by_text.id) == 32

    def test_entries_that_link_to_one_page_are_kept_apart(self, feeds):
        page = "<item><link>https://example.org/</link><title>{}</title></item>"
        found = entries(feeds, rss(page.format("Раз"), page.format("Два")))
        assert len({one.id for one in found}) == 2

    def test_entry_without_text_is_counted(self, feeds):
        feeds.pages["/feed"] = Page(rss(item("1"), item("2", "Два")))
        [batch] = fetch(feeds)
        assert (len(list(batch.messages)), batch.report.skipped) == (1, {"without text": 1})

    @pytest.mark.parametrize("encoding", ["windows-1251", "koi8-r", "utf-16"])
    def test_declared_encoding_is_read(self, feeds, encoding):
        body = rss(item("1", "Привет")).decode().replace("UTF-8", encoding).encode(encoding)
        assert [one.text for one in entries(feeds, body)] == ["Привет"]

    @pytest.mark.parametrize("damage", ["<b>", "&nbsp;", "\x01"])
    def test_feed_that_is_no_xml_is_read_as_far_as_possible(self, feeds, damage):
        body = rss(item("1", f"Привет {damage}"), item("2", "Пока"))
        assert [one.id for one in entries(feeds, body)] == ["2", "1"]

    def test_impossible_time_is_none(self, feeds):
        body = rss(item("1", "Привет")).replace(b"Tue, 14 Nov 2023 22:13:20 +0200", b"yesterday")
        assert entries(feeds, body)[0].time is None


class TestFetching:
    @pytest.mark.parametrize(
        "headers", [{"ETag": '"one"'}, {"Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}, {}]
    )
    def test_unchanged_feed_is_read_once(self, feeds, headers):
        feeds.pages["/feed"] = Page(rss(item("1", "Привет")), headers=headers)
        first, second = fetch(feeds, times=2)
        assert len(list(first.messages)) == 1
        assert (second.messages, second.position) == ((), None)
        [after_restart] = fetch(feeds, first.position)
        assert after_restart.messages == ()
        sent = set(feeds.asked[-1][1]) & {"if-none-match", "if-modified-since"}
        assert len(sent) == len(headers)

    def test_etag_that_no_request_can_have_is_not_sent(self, feeds):
        feeds.pages["/feed"] = Page(rss(item("1", "Привет")), headers={"ETag": '"hé"'})
        [first] = fetch(feeds)
        [second] = fetch(feeds, first.position)
        assert second.messages == ()

    def test_changed_feed_is_read_again(self, feeds):
        feeds.pages["/feed"] = Page(rss(item("1", "Привет")), headers={"ETag": '"one"'})
        [first] = fetch(feeds)
        feeds.pages["/feed"] = Page(rss(item("1", "Пока")), headers={"ETag": '"two"'})
        [second] = fetch(feeds, first.position)
        assert [one.text for one in second.messages] == ["Пока"]

    def test_redirects_are_followed_and_the_key_stays(self, feeds):
        feeds.pages["/feed"] = Page(status=301, headers={"Location": "/new"})
        feeds.pages["/new"] = Page(rss(item("1", "Привет")))
        [batch] = fetch(feeds)
        assert [one.source for one in batch.messages] == [f"rss:{feeds.url}/feed"]

    def test_endless_redirect_is_one_line(self, feeds):
        feeds.pages["/feed"] = Page(status=302, headers={"Location": "/feed"})
        with pytest.raises(SourceUnavailable, match="cannot be fetched: .*redirects"):
            fetch(feeds)

    @pytest.mark.parametrize("status", [403, 404, 410, 500])
    def test_error_status_is_named(self, feeds, status):
        feeds.pages["/feed"] = Page(status=status)
        with pytest.raises(SourceUnavailable, match=f"/feed: answers {status}") as caught:
            fetch(feeds)
        assert caught.value.retry_after == 0

    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_in_seconds_is_respected(self, feeds, status):
        feeds.pages["/feed"] = Page(status=status, headers={"Retry-After": "17"})
        with pytest.raises(SourceUnavailable) as caught:
            fetch(feeds)
        assert caught.value.retry_after == 17

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (timedelta(minutes=5), 300),  # from now, when the test runs
            (timedelta(minutes=-5), 0),
            ("99999999999", 86_400),
            ("soon", 0),
            ("Wed, 99 Nov 2023 22:13:20 GMT", 0),
        ],
        ids=["in-minutes", "past", "large", "word", "no-date"],  # the same in every process
    )
    def test_retry_after_is_bounded(self, feeds, value, seconds):
        if isinstance(value, timedelta):
            value = format_datetime(datetime.now(UTC) + value, usegmt=True)
        feeds.pages["/feed"] = Page(status=503, headers={"Retry-After": value})
        with pytest.raises(SourceUnavailable) as caught:
            fetch(feeds)
        assert caught.value.retry_after == pytest.approx(seconds, abs=60)

    @pytest.mark.parametrize("body", [b"", b"<html><body>Hi</body></html>", b'{"version": "1.1"}'])
    def test_answer_that_is_no_feed_is_one_line(self, feeds, body):
        feeds.pages["/feed"] = Page(body)
        with pytest.raises(SourceUnavailable, match="neither RSS nor Atom"):
            fetch(feeds)

    @pytest.mark.parametrize("packed", [False, True])
    def test_answer_too_large_is_not_read_to_its_end(self, feeds, packed):
        body = b"<rss>" + b" " * feeds_module.MAX_BYTES
        headers = {"Content-Encoding": "gzip"} if packed else {}
        feeds.pages["/feed"] = Page(gzip.compress(body, 1) if packed else body, headers=headers)
        with pytest.raises(SourceUnavailable, match="has over 10,000,000 bytes"):
            fetch(feeds)

    def test_slow_answer_is_given_up(self, feeds, monkeypatch):
        monkeypatch.setattr(feeds_module, "_FETCH_SECONDS", 0.2)
        feeds.pages["/feed"] = Page(rss(), wait=1.0)
        started = time.monotonic()
        with pytest.raises(SourceUnavailable, match="cannot be fetched: TimeoutError"):
            fetch(feeds)
        assert time.monotonic() - started < 1

    def test_lost_network_is_one_line(self, feeds):
        feeds.server_close()
        with pytest.raises(SourceUnavailable, match="cannot be fetched"):
            fetch(feeds)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Раз<br>два</p>\n<ul><li>три<li>четыре</ul>", "Раз\nдва\nтри\nчетыре"),
        ("a &amp; b &lt;c&gt;&nbsp;d", "a & b <c> d"),
        ("<script>x()</script><style>p{}</style>видно", "видно"),
        ("</script>видно", "видно"),
        ("  много\n\n  места ", "много места"),
    ],
)
def test_html_becomes_plain_text(html, text):
    assert plain_text(html) == text
