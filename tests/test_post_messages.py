"""Writing to the server: `POST /messages` and `DELETE /messages/{identifier}`."""

import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from serving import Server, serve, wait_for, wait_until_ready

from feedsieve.store.store import MessageStore

CHAT = "telegram:channel:77"


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return tmp_path_factory.mktemp("posted") / "store.db"


@pytest.fixture(scope="module")
def writable(small_home, database, tmp_path_factory) -> Iterator[Server]:
    """A server with an empty store and a small model."""
    environment = {"BENTOML_HOME": str(small_home), "FEEDSIEVE_DB": str(database)}
    with serve(environment, tmp_path_factory.mktemp("log")) as server:
        wait_until_ready(server)
        wait_for(server, "/feed", lambda response: response.status_code == 200)
        yield server


def post(server, body, **parameters):
    return server.client.post("/messages", json=body, params=parameters)


def identifiers_in_feed(server):
    found, cursor = [], {}
    while cursor is not None:
        page = server.client.get("/feed", params={"limit": 100} | cursor).json()
        found += [item["id"] for item in page["items"]]
        cursor = {"cursor": page["next"]} if page["next"] else None
    return found


def message(number, text="Сдаётся дом у моря", **fields):
    return {"source": CHAT, "id": str(number), "text": text} | fields


@pytest.mark.parametrize(
    "identifier", [".", "..", "%2E%2E", "a/../b", "a\nb\r\n", "a?b#c", "/", "a\u2028b", "é 😀"]
)
def test_links_of_any_identifier_work(writable, identifier):
    text = f"Сдаётся дом {identifier!r}"
    [answer] = post(writable, message(identifier, text)).json()
    link = f"/messages/{quote(answer['id'], safe='')}"
    segments = link.lower().replace("%2e", ".").split("/")
    assert not {".", ".."} & set(segments), "a browser would take it out of the path"
    assert writable.client.get(link).json()["text"] == text
    assert writable.client.delete(link).status_code == 204


def test_identifier_with_a_line_end_is_found_as_it_was_posted(writable):
    post(writable, message("first\nsecond", "Сдаётся дом с террасой")).raise_for_status()
    answer = writable.client.get("/messages/first%0Asecond")
    assert answer.json()["text"] == "Сдаётся дом с террасой"


class TestPost:
    def test_one_message_is_stored_and_scored(self, writable):
        body = message(
            "one", channel="Аренда", sender="Вера", time="2026-01-02T03:04:05+02:00", reply_to="4"
        )
        response = post(writable, body)
        assert response.status_code == 200
        [answer] = response.json()
        assert answer["id"] == "one" and answer["outcome"] == "added"
        assert 0 <= answer["score"] <= 1 and answer["label"] in ("positive", "negative")
        shown = writable.client.get("/messages/one").json()
        assert shown["text"] == body["text"]
        assert shown["score"] == answer["score"]

    def test_several_messages_are_answered_in_order(self, writable):
        bodies = [message(f"many-{number}", f"текст {number}") for number in range(256)]
        answers = post(writable, bodies).json()
        assert [answer["id"] for answer in answers] == [body["id"] for body in bodies]
        assert {answer["outcome"] for answer in answers} == {"added"}

    def test_text_without_a_time_of_edit_is_the_newest(self, writable):
        time, edited = "2026-11-03T10:00:00Z", "2026-11-03T11:00:00Z"
        post(writable, message(501, "Сдаётся дом, 900", time=time))
        post(writable, message(501, "Сдаётся дом, 950", time=time, edited=edited))
        [answer] = post(writable, message(501, "Сдаётся дом, 990", time=time)).json()
        assert answer["outcome"] == "changed"
        assert writable.client.get("/messages/501").json()["text"] == "Сдаётся дом, 990"

    def test_repeated_message_changes_nothing_and_new_text_is_an_edit(self, writable):
        outcomes = [
            post(writable, message("edit", text)).json()[0]["outcome"]
            for text in ("900 евро", "900 евро", "850 евро", "850 евро")
        ]
        assert outcomes == ["added", "unchanged", "changed", "unchanged"]
        assert writable.client.get("/messages/edit").json()["text"] == "850 евро"

    def test_same_identifier_in_another_source_is_another_message(self, writable):
        post(writable, message("twice", "дом"))
        [answer] = post(writable, message("twice", "кот", source="Питомцы")).json()
        assert answer["id"] == "Питомцы:twice"
        assert writable.client.get("/messages/twice").json()["text"] == "дом"
        assert writable.client.get("/messages/Питомцы:twice").json()["text"] == "кот"

    def test_message_is_in_the_feed_within_seconds(self, writable):
        [answer] = post(writable, message("fed", "Совсем новое сообщение"), wait=0).json()
        assert answer["outcome"] == "added"
        assert answer["score"] is None and answer["label"] is None

        def has_it(_response):
            return "fed" in identifiers_in_feed(writable)

        wait_for(writable, "/livez", has_it, 30)

    @pytest.mark.parametrize(
        ("body", "status", "reason"),
        [
            ({"id": "1", "text": "дом"}, 422, "source or channel"),
            (message("1", source="   "), 422, "source or channel"),
            (message("1", source="\x00"), 422, "source or channel"),
            (message("1", source=" name: "), 422, "source or channel"),
            (message("1", source="telegram:"), 422, "source or channel"),
            (message("1", source="", channel=" \t"), 422, "source or channel"),
            (message("1", "  \n"), 422, "must not be blank"),
            (message("  "), 422, "must not be blank"),
            (message("1", colour="red"), 422, "colour"),
            (message("1", "д" * 10_001), 422, "10000"),
            (message("1", time="вчера"), 422, "time"),
            (message("1", time="2026-01-02T03:04:05"), 422, "timezone"),
            (message("1", edited="0001-01-01T01:00:00+04:00"), 422, "years 1 to 9999"),
            (message("1", time="9999-12-31T23:00:00-04:00"), 422, "years 1 to 9999"),
            ([], 422, "at least 1"),
            ([message(n) for n in range(257)], 422, "256"),
            ([message("good"), {"id": "bad"}], 422, "text"),
            ("дом", 422, "valid"),
        ],
    )
    def test_bad_body_is_refused_and_nothing_is_stored(
        self, writable, database, body, status, reason
    ):
        before = MessageStore.open(database).count()
        response = post(writable, body)
        assert response.status_code in (status, 400), response.text
        assert reason in response.json()["detail"]
        assert "дом" not in response.text
        assert MessageStore.open(database).count() == before

    @pytest.mark.parametrize("string", ["'; DROP TABLE messages; --", "<script>", "%00", "a/b?c#d"])
    def test_hostile_identifiers_and_texts_are_stored_as_they_are(self, writable, string):
        [answer] = post(writable, message(string, string, source=string, sender=string)).json()
        assert answer["id"] == string
        shown = writable.client.get(f"/messages/{quote(string, safe='')}").json()
        assert shown["text"] == string

    def test_lone_surrogates_do_not_fail(self, writable):
        body = '{"source": "s", "id": "half", "text": "дом \\ud83d"}'.encode()
        headers = {"Content-Type": "application/json"}
        response = writable.client.post("/messages", content=body, headers=headers)
        assert response.status_code == 200, response.text


class TestDelete:
    def test_deleted_message_is_gone_and_stays_so(self, writable):
        post(writable, message("gone", "личное"))
        assert writable.client.delete("/messages/gone").status_code == 204
        assert writable.client.get("/messages/gone").status_code == 404
        assert writable.client.delete("/messages/gone").status_code == 404
        [again] = post(writable, message("gone", "личное")).json()
        assert again == {"id": "gone", "outcome": "deleted", "score": None, "label": None}
        assert writable.client.get("/messages/gone").status_code == 404

    def test_log_has_neither_text_nor_identifier(self, writable):
        post(writable, message("line\nend", "тайный текст"))
        assert writable.client.delete("/messages/line end").status_code == 204
        time.sleep(0.1)
        log = writable.log.read_text()
        assert "deleted a message" in log
        assert "тайный текст" not in log
        assert "line end" not in log


def test_openapi_documents_writing(writable):
    paths = writable.client.get("/openapi.json").json()["paths"]
    assert "post" in paths["/messages"]
    assert "delete" in paths["/messages/{identifier}"]


def test_other_methods_are_named(writable):
    answer = writable.client.put("/messages/1")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, HEAD"
    assert writable.client.put("/messages").headers["allow"] == "GET, HEAD, POST"
    assert writable.client.post("/feed").headers["allow"] == "GET, HEAD"
    assert writable.client.get("/score").headers["allow"] == "POST"
