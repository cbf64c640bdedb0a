import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedsieve.store.feed import Cursor
from feedsieve.text import storable

FINGERPRINT = "0123456789abcdef" * 2
FIELDS = ["model:one", 0.5, FINGERPRINT, 10]

cursors = st.builds(
    Cursor,
    model=st.text(min_size=1, max_size=100).map(storable).filter(bool),
    score=st.floats(0, 1),
    fingerprint=st.text("0123456789abcdef", min_size=32, max_size=32),
    rank=st.integers(1, 2**53),
)


def encoded(fields: object, separators: tuple[str, str] = (",", ":")) -> str:
    text = json.dumps(fields, separators=separators)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


class TestRoundTrip:
    @given(cursors)
    @settings(max_examples=200, deadline=None)
    def test_cursor_round_trips_exactly(self, cursor):
        text = cursor.encode()
        assert Cursor.decode(text) == cursor
        assert Cursor.decode(text).score.hex() == cursor.score.hex()

    @given(cursors)
    @settings(max_examples=50, deadline=None)
    def test_encoded_cursor_needs_no_escape_in_a_url(self, cursor):
        assert set(cursor.encode()) <= set(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        )

    def test_helper_encodes_as_the_cursor_does(self):
        assert encoded(FIELDS) == Cursor(*FIELDS).encode()


def refused(text: object) -> bool:
    with pytest.raises(ValueError, match="not a cursor: pass the `next` of an earlier page"):
        Cursor.decode(text)
    return True


class TestAnythingElseIsRefused:
    @given(st.text(st.characters(exclude_categories=())) | st.text("AQWcz09-_=", max_size=80))
    @settings(max_examples=200, deadline=None)
    def test_other_text_is_rejected(self, text):
        assert refused(text)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        )
    )
    @settings(max_examples=200, deadline=None)
    def test_other_json_is_rejected(self, value):
        assert refused(encoded(value))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            (0, ""),
            (0, 5),
            (0, None),
            (0, "a\x00"),
            (0, "\ud800"),
            (0, "m" * 2000),
            (1, 1),
            (1, True),
            (1, "0.5"),
            (1, float("nan")),
            (1, float("inf")),
            (2, FINGERPRINT[1:]),
            (2, FINGERPRINT.upper()),
            (2, FINGERPRINT + "\n"),
            (2, "' OR 1=1 --" + FINGERPRINT),
            (3, 0),
            (3, True),
            (3, 1.0),
            (3, 2**53 + 1),
        ],
    )
    def test_wrong_field_is_rejected(self, field, value):
        fields = FIELDS.copy()
        fields[field] = value
        assert refused(encoded(fields))

    @pytest.mark.parametrize("fields", [FIELDS[:3], [*FIELDS, 1], dict.fromkeys("abcd"), "abcd"])
    def test_other_shape_is_rejected(self, fields):
        assert refused(encoded(fields))

    def test_other_encoding_of_a_cursor_is_rejected(self):
        text = encoded(FIELDS)
        others = [
            text + "=",
            " " + text,
            text + "\n",
            text + "AA",
            encoded(FIELDS, (", ", ": ")),
        ]
        assert all(refused(other) for other in others)

    def test_tampered_cursor_is_rejected(self):
        text = Cursor("model:one", 0.123, FINGERPRINT, 7).encode()
        for place in range(len(text)):
            tampered = text[:place] + "!" + text[place + 1 :]
            assert refused(tampered)

    @pytest.mark.parametrize("text", [None, 5, b"", [], "", "[" * 3000])
    def test_other_type_is_rejected(self, text):
        assert refused(text)

    def test_deep_nesting_is_rejected(self):
        assert refused(base64.urlsafe_b64encode(b"[" * 1500).decode())
