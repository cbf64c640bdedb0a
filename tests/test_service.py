"""The routes, over HTTP, of the server that `make serve` starts."""

from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from serving import serve, wait_until_ready

from feedsieve import __version__
from feedsieve.backends import BACKENDS

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
OFFER = "Сдаётся квартира 2+1 в Лимассоле, центр, 1200 евро в месяц, на длительный срок"
CHATTER = "Всем привет! Кто знает хорошего стоматолога?"


class Page(HTMLParser):
    """The tags of a page and its text."""

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
    def test_it_is_ranked_by_score(self, server):
        answer = server.client.get("/feed?limit=5").json()
        assert set(answer) == {"model", "items", "next"}
        assert answer["model"].startswith("feedsieve-classifier:")
        assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4, 5]
        assert set(answer["items"][0]) == {"id", "text", "score", "label", "rank"}
        scores = [item["score"] for item in answer["items"]]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > 0.8
        assert answer["items"][0]["label"] == "positive"

    def test_ten_are_the_default_and_a_slash_does_no_harm(self, server):
        assert len(server.client.get("/feed").json()["items"]) == 10
        assert server.client.get("/feed/").json() == server.client.get("/feed").json()

    def test_pages_follow_one_another(self, server):
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
    def test_negotiation(self, server, accept, media_type):
        response = server.client.get("/feed", headers={"Accept": accept})
        assert response.headers["content-type"] == media_type
        assert response.headers["vary"] == "Accept"

    @pytest.mark.parametrize("accept", ["application/json", "text/html"])
    def test_who_has_it_is_not_sent_it_again(self, server, accept):
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

    def test_page_and_data_have_tags_of_their_own(self, server):
        tags = {
            server.client.get("/feed", headers={"Accept": accept}).headers["etag"]
            for accept in ("application/json", "text/html")
        }
        assert len(tags) == 2

    @pytest.mark.parametrize("path", ["/feed", "/feed?limit=3", "/docs"])
    def test_who_asks_for_the_head_gets_that(self, server, path):
        whole, head = server.client.get(path), server.client.head(path)
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["content-length"] == str(len(whole.content))
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert "head" not in server.client.get("/openapi.json").json()["paths"]["/feed"]

    def test_who_asks_for_the_head_is_refused_as_others_are(self, server):
        missing = server.client.head("/messages/nothing")
        assert (missing.status_code, missing.content) == (404, b"")
        assert server.client.head("/score").status_code == 405
        tag = server.client.get("/feed").headers["etag"]
        known = server.client.head("/feed", headers={"If-None-Match": tag})
        assert (known.status_code, known.content) == (304, b"")

    def test_the_root_leads_to_it(self, server):
        assert server.client.get("/").headers["location"] == "/feed"


def cursor_of(cursor):
    return {"cursor": cursor} if cursor else {}


class TestMessages:
    def test_one_of_the_feed(self, server):
        item = server.client.get("/feed?limit=1").json()["items"][0]
        answer = server.client.get(f"/messages/{item['id']}").json()
        assert answer.pop("model").startswith("feedsieve-classifier:")
        assert answer == {name: item[name] for name in ("id", "text", "score", "label")}

    def test_who_has_it_is_not_sent_it_again(self, server):
        item = server.client.get("/feed?limit=1").json()["items"][0]
        path = f"/messages/{item['id']}"
        tag = server.client.get(path).headers["etag"]
        assert server.client.get(path, headers={"If-None-Match": tag}).status_code == 304
        assert server.client.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
        explained = server.client.get(f"{path}?explain=1", headers={"If-None-Match": tag})
        assert explained.status_code == 200

    def test_its_page(self, server):
        item = server.client.get("/feed?limit=1").json()["items"][0]
        page = Page(server.client.get(f"/messages/{item['id']}", headers=BROWSER).text)
        assert item["text"] in page.text
        assert f"{item['score']:.4f}" in page.text

    def test_unknown_ones(self, server):
        response = server.client.get("/messages/nobody-wrote-this")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"
        page = server.client.get("/messages/nobody-wrote-this", headers=BROWSER)
        assert page.status_code == 404
        assert "no message has this identifier" in Page(page.text).text

    def test_a_random_sample(self, server):
        first, second = (
            server.client.get("/messages?limit=100").json()["msg_ids"] for _ in range(2)
        )
        assert len(set(first)) == 100
        assert first != second
        assert server.client.get(f"/messages/{first[0]}").status_code == 200
        assert len(server.client.get("/messages/").json()["msg_ids"]) == 10


class TestScore:
    def test_an_offer_scores_above_chatter(self, server):
        offer, chatter = score(server, OFFER, CHATTER)
        assert set(offer) == {"score", "label", "by"}
        assert offer["label"] == "positive"
        assert chatter["label"] == "negative"
        assert offer["by"] == "encoder"
        assert 0 < chatter["score"] < offer["score"] < 1

    def test_as_many_and_as_long_as_allowed(self, server):
        words = "Сдаётся квартира в Лимассоле, рядом море, "
        texts = [f"{number} {words * 300}"[:10_000] for number in range(256)]
        assert {len(text) for text in texts} == {10_000}
        assert len(score(server, *texts)) == 256

    def test_a_stored_message_scores_as_it_did(self, server):
        item = server.client.get("/feed?limit=1").json()["items"][0]
        assert score(server, item["text"])[0]["score"] == pytest.approx(item["score"], abs=1e-4)

    def test_a_text_seen_before_is_not_embedded_again(self, server):
        text = f"{OFFER}, в первый раз"
        once = score(server, text, f"  {text}\n", text)
        before = counts(server)
        assert score(server, text, f"{text}\u200b") == once[:2]
        embedded, recalled = (now - then for now, then in zip(counts(server), before, strict=True))
        assert (embedded, recalled) == (0, 2)
        assert once[0] == once[1] == once[2]

    @pytest.fixture(scope="class")
    @classmethod
    def forgetful(cls, environment, tmp_path_factory):
        """A server that remembers no scores, with nothing in its store."""
        folder = tmp_path_factory.mktemp("forgetful")
        own = {"FEEDSIEVE_RECALLED": "0", "FEEDSIEVE_DB": str(folder / "new.db")}
        with serve(environment | own, folder) as forgetful:
            wait_until_ready(forgetful)
            yield forgetful

    def test_order_and_company_change_nothing(self, forgetful):
        texts = [f"{OFFER} {number}" for number in range(20)] + [CHATTER, "", "+", "🏠" * 50]
        together = [row["score"] for row in score(forgetful, *texts)]
        assert len(set(together)) > 10
        backwards = [row["score"] for row in score(forgetful, *reversed(texts))]
        assert together == backwards[::-1]
        assert together == [score(forgetful, text)[0]["score"] for text in texts]

    def test_remembering_changes_no_score(self, server, forgetful):
        texts = [OFFER, CHATTER, OFFER.upper(), "+", "", f"{OFFER} {CHATTER}"]
        remembered = [score(server, text) for text in texts for _ in range(2)]
        before = read(forgetful)
        assert [score(forgetful, text) for text in texts for _ in range(2)] == remembered
        assert read(forgetful) - before == 2 * len(texts)
        assert counts(forgetful)[1] == 0

    def test_many_clients_at_once_are_batched(self, server):
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
    """Return how many batches there were, and how many texts were in them."""
    name = "feedsieve_batch_texts"
    return tuple(sum(server.metric(f"{name}_{part}").values()) for part in ("count", "sum"))


def read(server):
    """Return how many texts the encoder or words alone have scored."""
    return counts(server)[0] + server.metric("feedsieve_texts_by_words_total")[""]


def counts(server):
    """Return how many texts were embedded, and of how many the score was known."""
    return tuple(
        server.metric(f"feedsieve_texts_{what}_total")[""] for what in ("embedded", "recalled")
    )


class TestOperations:
    def test_version_and_metrics_name_the_backend(self, server):
        answer = server.client.get("/version")
        assert answer.status_code == 200
        found = answer.json()
        assert found["version"] == __version__
        assert found["model"] == server.client.get("/feed").json()["model"]
        assert found["encoder"].startswith("feedsieve-encoder:")
        backend = found["backend"]
        assert backend["backend"] in {spec.name for spec in BACKENDS["int8"]}
        assert 0.999 < backend["lowest_cosine"] <= backend["mean_cosine"] <= 1.00001
        assert backend["cpu"] and backend["reason"]
        [labels] = server.metric("feedsieve_backend_info")
        assert f'backend="{backend["backend"]}"' in labels
        assert f'model="{found["model"]}"' in labels

    def test_the_log_says_which_backend_runs(self, server):
        backend = server.client.get("/version").json()["backend"]["backend"]
        assert f"the encoder runs on {backend} (" in server.log.read_text()

    def test_metrics_do_not_grow_with_the_addresses_asked_for(self, server):
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

    def test_alive_and_ready(self, server):
        assert server.client.get("/livez").status_code == 200
        assert server.client.get("/readyz").status_code == 200

    def test_the_documentation_lists_every_route(self, server):
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

    def test_the_documentation_tells_errors_as_they_come(self, server):
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

    def test_the_documentation_needs_no_network(self, server):
        page = server.client.get("/docs").text
        assert "http://" not in page
        assert "https://" not in page
        for file in ("swagger-ui-bundle.js", "swagger-ui.css"):
            assert f"/static_content/{file}" in page
            assert server.client.get(f"/static_content/{file}").status_code == 200
