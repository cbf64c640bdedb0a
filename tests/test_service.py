"""The routes of the server that `make serve` starts, over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from serving import serve, wait_until_ready

from feedsieve import __version__
from feedsieve.scoring.backends import BACKENDS

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
OFFER = "Сдаётся квартира 2+1 в Лимассоле, центр, 1200 евро в месяц, на длительный срок"
CHATTER = "Всем привет! Кто знает хорошего стоматолога?"


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [value for name, value in attributes if name == "href"]

    def handle_data(self, data):
        self.text += data


def score(server, *texts):
    response = server.client.post("/score", json={"texts": texts})
    assert response.status_code == 200, response.text
    return response.json()


class TestFeed:
    def test_feed_is_ranked_by_score(self, server):
        answer = server.client.get("/feed?limit=5").json()
        assert set(answer) == {"model", "items", "next"}
        assert answer["model"].startswith("feedsieve-classifier:")
        assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4, 5]
        assert set(answer["items"][0]) == {"id", "text", "score", "label", "rank"}
        scores = [item["score"] for item in answer["items"]]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > 0.8
        assert answer["items"][0]["label"] == "positive"

    def test_limit_defaults_to_ten_and_a_slash_is_allowed(self, server):
        assert len(server.client.get("/feed").json()["items"]) == 10
        assert server.client.get("/feed/").json() == server.client.get("/feed").json()

    def test_cursors_lead_through_the_feed(self, server):
        whole = server.client.get("/feed?limit=9").json()["items"]
        items, cursor = [], None
        for _ in range(3):
            page = server.client.get("/feed", params={"limit": 3} | cursor_of(cursor)).json()
            items += page["items"]
            cursor = page["next"]
        assert items == whole

    def test_browsers_get_a_page_with_the_same_messages(self, server):
        answer = server.client.get("/feed?limit=5").json()
        response = server.client.get("/feed?limit=5", headers=BROWSER)
        assert response.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in response.headers["content-security-policy"]
        page = Page(response.text)
        for item in answer["items"]:
            assert item["text"] in page.text
            assert f"/messages/{quote(item['id'], safe='')}" in page.links
        [following] = [link for link in page.links if "cursor=" in link]
        assert server.client.get(following).json()["items"][0]["rank"] == 6

    @pytest.mark.parametrize(
        ("accept", "media_type"),
        [
            ("*/*", "application/json"),
            ("application/json", "application/json"),
            ("text/html;q=0.5, application/json", "application/json"),
            ("text/html", "text/html; charset=utf-8"),
            ("application/json;q=0.1, text/*", "text/html; charset=utf-8"),
            (";;q=x,,", "application/json"),
        ],
    )
    def test_accept_header_decides_the_format(self, server, accept, media_type):
        response = server.client.get("/feed", headers={"Accept": accept})
        assert response.headers["content-type"] == media_type
        assert response.headers["vary"] == "Accept"

    @pytest.mark.parametrize("accept", ["application/json", "text/html"])
    def test_cached_answer_is_not_sent_again(self, server, accept):
        first = server.client.get("/feed?limit=3", headers={"Accept": accept})
        assert first.headers["cache-control"] == "no-cache"
        known = {"Accept": accept, "If-None-Match": f'"other", W/{first.headers["etag"]}'}
        again = server.client.get("/feed?limit=3", headers=known)
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["vary"] == "Accept"
        other = server.client.get("/feed?limit=4", headers=known)
        assert other.status_code == 200

    def test_page_and_json_have_different_etags(self, server):
        tags = {
            server.client.get("/feed", headers={"Accept": accept}).headers["etag"]
            for accept in ("application/json", "text/html")
        }
        assert len(tags) == 2

    @pytest.mark.parametrize("path", ["/feed", "/feed?limit=3", "/docs"])
    def test_head_has_the_headers_of_get(self, server, path):
        whole, head = server.client.get(path), server.client.head(path)
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["content-length"] == str(len(whole.content))
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert "head" not in server.client.get("/openapi.json").json()["paths"]["/feed"]

    def test_head_has_the_errors_of_get(self, server):
        missing = server.client.head("/messages/nothing")
        assert (missing.status_code, missing.content) == (404, b"")
        assert server.client.head("/score").status_code == 405
        tag = server.client.get("/feed").headers["etag"]
        known = server.client.head("/feed", headers={"If-None-Match": tag})
        assert (known.status_code, known.content) == (304, b"")

    def test_root_redirects_to_the_feed(self, server):
        assert server.client.get("/").headers["location"] == "/feed"


def cursor_of(cursor):
    return {"cursor": cursor} if cursor else {}


class TestMessages:
    def test_message_equals_its_item_in_the_feed(self, server):
        item = server.client.get("/feed?limit=1").json()["items"][0]
        answer = server.client.get(f"/messages/{item['id']}").json()
        assert answer.pop("model").startswith("feedsieve-classifier:")
        assert answer == {name: item[name] for name in ("id", "text", "score", "label")}

    def test_cached_answer_is_not_sent_again(self, server):
        item = server.client.get("/feed?limit=1").json()["items"][0]
        path = f"/messages/{item['id']}"
        tag = server.client.get(path).headers["etag"]
        assert server.client.get(path, headers={"If-None-Match": tag}).status_code == 304
        assert server.client.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
        explained = server.client.get(f"{path}?explain=1", headers={"If-None-Match": tag})
        assert explained.status_code == 200

    def test_message_page_shows_text_and_score(self, server):
        item = server.client.get("/feed?limit=1").json()["items"][0]
        page = Page(server.client.get(f"/messages/{item['id']}", headers=BROWSER).text)
        assert item["text"] in page.text
        assert f"{item['score']:.4f}" in page.text

    def test_unknown_message_is_404(self, server):
        response = server.client.get("/messages/nobody-wrote-this")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"
        page = server.client.get("/messages/nobody-wrote-this", headers=BROWSER)
        assert page.status_code == 404
        assert "no message has this identifier" in Page(page.text).text

    def test_messages_returns_a_random_sample(self, server):
        first, second = (
            server.client.get("/messages?limit=100").json()["msg_ids"] for _ in range(2)
        )
        assert len(set(first)) == 100
        assert first != second
        assert server.client.get(f"/messages/{first[0]}").status_code == 200
        assert len(server.client.get("/messages/").json()["msg_ids"]) == 10


class TestScore:
    def test_offer_scores_above_chatter(self, server):
        offer, chatter = score(server, OFFER, CHATTER)
        assert set(offer) == {"score", "label", "by"}
        assert offer["label"] == "positive"
        assert chatter["label"] == "negative"
        assert offer["by"] == "encoder"
        assert 0 < chatter["score"] < offer["score"] < 1

    def test_largest_request_is_scored(self, small_server):
        words = "Сдаётся квартира в Лимассоле, рядом море, "
        texts = [f"{number} {words * 300}"[:10_000] for number in range(256)]
        assert {len(text) for text in texts} == {10_000}
        assert len(score(small_server, *texts)) == 256

    def test_stored_message_scores_as_in_the_feed(self, server):
        item = server.client.get("/feed?limit=1").json()["items"][0]
        assert score(server, item["text"])[0]["score"] == pytest.approx(item["score"], abs=1e-4)

    def test_cached_text_is_not_embedded_again(self, server):
        text = f"{OFFER}, в первый раз"
        once = score(server, text, f"  {text}\n", text)
        before = counts(server)
        assert score(server, text, f"{text}\u200b") == once[:2]
        embedded, recalled = (now - then for now, then in zip(counts(server), before, strict=True))
        assert (embedded, recalled) == (0, 2)
        assert once[0] == once[1] == once[2]

    @pytest.fixture(scope="class")
    @classmethod
    def uncached(cls, environment, tmp_path_factory):
        """A server without a score cache, with an empty store."""
        folder = tmp_path_factory.mktemp("uncached")
        own = {"FEEDSIEVE_RECALLED": "0", "FEEDSIEVE_DB": str(folder / "new.db")}
        with serve(environment | own, folder) as uncached:
            wait_until_ready(uncached)
            yield uncached

    def test_scores_do_not_depend_on_order_or_batch(self, uncached):
        texts = [f"{OFFER} {number}" for number in range(20)] + [CHATTER, "", "+", "🏠" * 50]
        together = [row["score"] for row in score(uncached, *texts)]
        assert len(set(together)) > 10
        backwards = [row["score"] for row in score(uncached, *reversed(texts))]
        assert together == backwards[::-1]
        assert together == [score(uncached, text)[0]["score"] for text in texts]

    def test_cache_changes_no_score(self, server, uncached):
        texts = [OFFER, CHATTER, OFFER.upper(), "+", "", f"{OFFER} {CHATTER}"]
        cached = [score(server, text) for text in texts for _ in range(2)]
        before = read(uncached)
        assert [score(uncached, text) for text in texts for _ in range(2)] == cached
        assert read(uncached) - before == 2 * len(texts)
        assert counts(uncached)[1] == 0

    def test_concurrent_requests_are_batched(self, server):
        before = batches(server)
        texts = [f"{CHATTER} {number}" for number in range(200)]
        with ThreadPoolExecutor(32) as clients:
            answers = list(
                clients.map(
                    lambda text: server.client.post("/score", json={"texts": [text]}), texts
                )
            )
        assert [answer.status_code for answer in answers] == [200] * 200
        count, total = (after - start for after, start in zip(batches(server), before, strict=True))
        assert total == 200
        assert count < 100  # batches of two and more


def batches(server):
    """Return the numbers of batches and of texts in them."""
    name = "feedsieve_batch_texts"
    return tuple(sum(server.metric(f"{name}_{part}").values()) for part in ("count", "sum"))


def read(server):
    """Return the number of texts that the encoder or the word model has scored."""
    return counts(server)[0] + server.metric("feedsieve_texts_by_words_total")[""]


def counts(server):
    """Return the numbers of embedded and of cached texts."""
    return tuple(
        server.metric(f"feedsieve_texts_{what}_total")[""] for what in ("embedded", "recalled")
    )


class TestOperations:
    def test_version_and_metrics_name_the_backend(self, server):
        answer = server.client.get("/version")
        assert answer.status_code == 200
        version = answer.json()
        assert version["version"] == __version__
        assert version["model"] == server.client.get("/feed").json()["model"]
        assert version["encoder"].startswith("feedsieve-encoder:")
        backend = version["backend"]
        assert backend["backend"] in {spec.name for spec in BACKENDS["int8"]}
        assert 0.999 < backend["lowest_cosine"] <= backend["mean_cosine"] <= 1.00001
        assert backend["cpu"] and backend["reason"]
        [labels] = server.metric("feedsieve_backend_info")
        assert f'backend="{backend["backend"]}"' in labels
        assert f'model="{version["model"]}"' in labels

    def test_log_names_the_backend(self, server):
        backend = server.client.get("/version").json()["backend"]["backend"]
        assert f"the encoder runs on {backend} (" in server.log.read_text()

    def test_number_of_metrics_does_not_grow_with_paths(self, server):
        def series():
            return set(server.metric("feedsieve_request_seconds_count"))

        for path in ("/messages/nobody", "/nothing"):
            server.client.get(path)
        before = series()
        for number in range(20):
            server.client.get(f"/messages/nobody-{number}")
            server.client.get(f"/nothing/{number}")
        assert series() == before
        assert {
            'endpoint="/messages/{identifier}",status="404"',
            'endpoint="other",status="404"',
        } <= before

    def test_server_is_alive_and_ready(self, server):
        assert server.client.get("/livez").status_code == 200
        assert server.client.get("/readyz").json() == {"status": "ready"}

    def test_openapi_lists_every_route(self, server):
        document = server.client.get("/openapi.json").json()
        routes = {
            (path, method) for path, methods in document["paths"].items() for method in methods
        }
        assert {
            ("/feed", "get"),
            ("/messages", "get"),
            ("/messages/{identifier}", "get"),
            ("/score", "post"),
            ("/livez", "get"),
            ("/readyz", "get"),
            ("/metrics", "get"),
            ("/version", "get"),
        } <= routes

    def test_openapi_documents_errors_as_problems(self, server):
        document = server.client.get("/openapi.json").json()
        references = [
            answer["content"]["application/problem+json"]["schema"]["$ref"]
            for path, method in (("/score", "post"), ("/feed", "get"), ("/messages", "get"))
            for status, answer in document["paths"][path][method]["responses"].items()
            if status != "200"
        ]
        assert set(references) == {"#/components/schemas/Problem"}
        assert set(document["components"]["schemas"]["Problem"]["properties"]) == set(
            server.client.get("/nothing").json()
        )

    def test_docs_need_no_network(self, server):
        page = server.client.get("/docs").text
        assert "http://" not in page
        assert "https://" not in page
        for file in ("swagger-ui-bundle.js", "swagger-ui.css"):
            assert f"/static_content/{file}" in page
            assert server.client.get(f"/static_content/{file}").status_code == 200
