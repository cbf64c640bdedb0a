"""The shape of large bodies, before they are parsed."""

import json
import time

import pytest
from test_bad_input import assert_problem

from feedsieve.api.json_shape import MAX_OTHER, MAX_STRINGS, is_plain
from feedsieve.api.schemas import MAX_BODY

MESSAGE = {
    "source": "telegram:channel:1",
    "id": "1",
    "text": 'Сдаётся "квартира" \\ у моря, {недорого}, [до мая]: ' * 40,
    "channel": "Аренда",
    "time": "2026-01-01T00:00:00Z",
    "sender": "1",
    "link": "https://example.org",
    "reply_to": None,
}
TOO_MANY = {
    "strings": b'{"texts":[' + b'"a",' * MAX_STRINGS + b'"a"]}',
    "objects": b'{"texts":[' + b"{}," * (MAX_OTHER // 3) + b"1]}",
    "numbers": b'{"texts":[' + b"1," * (MAX_OTHER // 2) + b"1]}",
    "nested": b'{"texts":' + b"[" * (MAX_OTHER + 1),
    "keys": b'{"a":1' + b',"k":1' * MAX_STRINGS + b"}",
    "space": b'{"texts":["a"]' + b" " * (MAX_OTHER + 1) + b"}",
    "after an unfinished string": b"1," * (MAX_OTHER // 2) + b'1"\\',
}


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_messages_are_plain(indent, ascii_only):
    body = json.dumps([MESSAGE] * 256, indent=indent, ensure_ascii=ascii_only)
    assert is_plain(body.encode())


@pytest.mark.parametrize("text", ['"', "\\", '\\"', "\n", "{},", "😀"])
def test_texts_of_signs_are_plain(text):
    body = json.dumps({"texts": [text * (10_000 // len(text))] * 256}).encode()
    assert is_plain(body)


@pytest.mark.parametrize("name", TOO_MANY)
def test_many_values_are_not_plain(name):
    assert not is_plain(TOO_MANY[name])


@pytest.mark.parametrize("name", TOO_MANY)
@pytest.mark.parametrize("path", ["/score", "/messages"])
def test_many_values_are_400_at_once(small_server, path, name):
    body = TOO_MANY[name].ljust(MAX_BODY)
    started = time.monotonic()
    answer = small_server.client.post(
        path, content=body, headers={"Content-Type": "application/json"}
    )
    assert_problem(answer, 400, "values")
    assert time.monotonic() - started < 5
