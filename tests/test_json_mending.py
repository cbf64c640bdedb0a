"""Faults in JSON that exports are known to have, and JSON without any."""

import json
from collections import Counter
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedsieve.sources.json_mending import UnmendableJson, mend
from feedsieve.sources.json_stream import JsonStream
from feedsieve.sources.report import ReadReport

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)
FORMS = st.fixed_dictionaries(
    {
        "indent": st.sampled_from([None, 0, 1, "\t"]),
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
    }
)


def read(text: str) -> tuple[object, Counter[str]]:
    report = ReadReport()
    return JsonStream(StringIO(text), report).value(), report.mended


class TestMending:
    @pytest.mark.parametrize(
        ("text", "value", "faults"),
        [
            (
                '{"document_id":video_files/sticker (7).webm}',
                {"document_id": "video_files/sticker (7).webm"},
                {"values without quotes": 1},
            ),
            (
                '[{"a": (File not included. Change settings, then try.)\n }, {"b": x/y z }]',
                [{"a": "(File not included. Change settings, then try.)"}, {"b": "x/y z"}],
                {"values without quotes": 2},
            ),
            ('{"a":5x/7.tgs,"b":1}', {"a": "5x/7.tgs", "b": 1}, {"values without quotes": 1}),
            ('{"a":C:\\x}', {"a": "C:\\x"}, {"values without quotes": 1}),
            ('{"a":q}w.webm}', {"a": "q}w.webm"}, {"values without quotes": 1}),
            ("[a b, 1]", ["a b", 1], {"values without quotes": 1}),
            ('{"a":007}', {"a": "007"}, {"values without quotes": 1}),
            ('{"a": None, "b": True}', {"a": None, "b": True}, {"values without quotes": 2}),
            ('{"a":, "b":}', {"a": None, "b": None}, {"missing values": 2}),
            ("[1,,2]", [1, 2], {"missing values": 1}),
            ('{"a":[1,2,],"b":{"c":1,},}', {"a": [1, 2], "b": {"c": 1}}, {"trailing commas": 3}),
            (r'["\x41 \u12 C:\d \\ \" \n"]', ['\\x41 \\u12 C:\\d \\ " \n'], {"bad escapes": 3}),
            (
                '["one\ntwo\tthree\x01"]',
                ["one\ntwo\tthree\x01"],
                {"control characters in strings": 3},
            ),
            ('{"a\\_b":1}', {"a\\_b": 1}, {"bad escapes": 1}),
        ],
    )
    def test_fault_is_mended_and_counted(self, text, value, faults):
        assert read(text) == (value, faults)

    @pytest.mark.parametrize(
        "text", ['{"a" 1}', "{a: 1}", '{"a": 1 "b": 2}', '{"a": [1}', '["a" "b"]', "nonsense", "]"]
    )
    def test_other_faults_are_errors(self, text):
        with pytest.raises(ValueError, match="characters on"):
            read(text)
        with pytest.raises(UnmendableJson):
            mend(f"{text}\n")

    def test_what_follows_a_mended_value_is_read(self):
        report = ReadReport()
        stream = JsonStream(StringIO('{"list": [{"a": x}, 5,], "b": 7,}'), report)
        read = {}
        for name in stream.members():
            if name == "list":
                read[name] = [stream.value() for _ in stream.elements()]
            else:
                read[name] = stream.value()
        assert read == {"list": [{"a": "x"}, 5], "b": 7}
        assert report.mended == {"values without quotes": 1, "trailing commas": 2}

    @pytest.mark.parametrize("space", ["", "\n   "])
    @pytest.mark.parametrize("place", range(2**16 - 60, 2**16 + 2))
    def test_fault_across_chunks_is_mended(self, place, space):
        padding = "x" * (place - len('["", '))
        text = f'["{padding}", {{"a": sticker (7).webm{space}}}, {{{space}"b": "\\x"}}, 5]'
        stream = JsonStream(StringIO(text), report := ReadReport())
        assert [stream.value() for _ in stream.elements()][1:] == [
            {"a": "sticker (7).webm"},
            {"b": "\\x"},
            5,
        ]
        assert report.mended == {"values without quotes": 1, "bad escapes": 1}

    def test_fault_that_cannot_be_mended_is_an_error_at_once(self):
        text = StringIO('[{"a" 1}, ' + "5, " * 10**6)
        stream = JsonStream(text, ReadReport())
        with pytest.raises(ValueError, match="Expecting ':' delimiter"):
            [stream.value() for _ in stream.elements()]
        assert text.tell() == 2**16

    def test_many_faults_take_memory_and_time_of_one(self):
        entry = '{"text": [{"document_id": a/b.webm}, " в конце"]}'
        stream = JsonStream(StringIO(f"[{', '.join([entry] * 3_000)}]"), report := ReadReport())
        for _ in stream.elements():
            stream.value()
            assert len(stream._buffer) < 2**18
        assert report.mended == {"values without quotes": 3_000}


class TestWellFormed:
    @given(JSON, FORMS)
    @settings(max_examples=150, deadline=None)
    def test_correct_json_is_never_changed(self, value, form):
        text = json.dumps(value, **form)
        if text[0] in '[{"':
            mended = mend(text)
            assert mended is not None
            assert (mended.text, mended.end, mended.faults) == (text, len(text), {})
        stream = JsonStream(StringIO(text), report := ReadReport())
        assert repr(stream.value()) == repr(json.loads(text))
        assert report.mended == {}

    @given(JSON.filter(lambda value: isinstance(value, dict | list | str)), st.data())
    @settings(max_examples=100, deadline=None)
    def test_cut_json_is_never_completed(self, value, data):
        text = json.dumps(value)
        end = data.draw(st.integers(1, len(text) - 1))
        assert mend(text[:end]) is None
