import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedsieve.text import MOST_LIGATURES, MOST_MARKS, fingerprint, normalise, plain, storable

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too
# Marks that precompose, that NFKC reorders, and that it makes two of.
MARKS = st.text(st.sampled_from("aя \u0301\u0327\u0344\u0f73\uff9e\u3099\U0001e8d0"), max_size=200)


class TestNormalise:
    @pytest.mark.parametrize(
        ("text", "normal"),
        [
            ("  flat \t to\r\nlet ", "flat to let"),
            ("flat\u200bto\ufefflet\u00a0now", "flat to let now"),
            ("bell\x07 and\x00 null", "bell and null"),
            ("ﬁve ½ ２０", "five 1⁄2 20"),
            ("cafe\u0301", "café"),
            ("lone \ud83d half", "lone half"),
            ("\u200b \n", ""),
        ],
    )
    def test_normalised_forms(self, text, normal):
        assert normalise(text) == normal

    @pytest.mark.parametrize(("ligature", "length"), [("\ufdfa", 18), ("\ufdfb", 8)])
    def test_ligatures_of_phrases_are_bounded(self, ligature, length):
        text = f"{'a' * 5000} {ligature * (MOST_LIGATURES + 5)} end"
        assert len(normalise(text)) == 5000 + 1 + MOST_LIGATURES * length + len(" end")
        few = ligature * MOST_LIGATURES
        assert normalise(few) == unicodedata.normalize("NFKC", few)

    def test_only_control_characters_and_surrogates_are_removed(self):
        spaces = "\t\n\r\u200b\u200c\u200d\ufeff"
        for character in map(chr, range(0x110000)):
            if character not in spaces and unicodedata.category(character) in ("Cc", "Cs"):
                assert normalise(f"a{character}b") == "ab"
            else:
                expected = unicodedata.normalize(
                    "NFKC", "a b" if character in spaces else f"a{character}b"
                )
                assert normalise(f"a{character}b") == " ".join(expected.split())

    def test_normalise_keeps_case(self):
        assert normalise("Flat TO let") == "Flat TO let"

    def test_row_of_marks_is_bounded(self):
        assert normalise("a" + 40 * "\u0327") == "a" + MOST_MARKS * "\u0327"
        word = "z" + MOST_MARKS * "\u0327" + "b"
        assert normalise(word + word) == word + word

    @given(MARKS)
    @settings(max_examples=300, deadline=None)
    def test_rows_of_marks_normalise_alike(self, text):
        normal = normalise(text)
        assert normalise(normal) == normal
        assert unicodedata.is_normalized("NFKC", normal)
        if len(text) <= MOST_MARKS // 2:
            assert normal == " ".join(unicodedata.normalize("NFKC", text).split())

    def test_every_mark_may_be_in_a_row(self):
        for character in map(chr, range(0x110000)):
            decomposed = unicodedata.normalize("NFKD", character)
            if unicodedata.combining(decomposed[0]):
                assert len(normalise("a" + 400 * character)) <= 1 + MOST_MARKS * len(decomposed)
                assert len(decomposed) <= 2

    @given(ANY_TEXT)
    @settings(max_examples=300, deadline=None)
    def test_normalise_is_idempotent(self, text):
        normal = normalise(text)
        assert normalise(normal) == normal
        assert normal == normal.strip() and "  " not in normal
        assert unicodedata.is_normalized("NFKC", normal)
        normal.encode()


class TestFingerprint:
    def test_fingerprint_is_stable(self):
        assert fingerprint("Flat to let") == "ce04c121215c43c8a619b73e7c972938"

    def test_fingerprint_ignores_spacing_and_width_only(self):
        assert fingerprint("Flat\n to  let ") == fingerprint("Flat to ｌｅｔ")
        assert fingerprint("Flat to let") != fingerprint("flat to let")

    def test_empty_text_has_a_fingerprint(self):
        assert fingerprint("") == fingerprint(" \u200b\ud800")
        assert len(fingerprint("")) == 32

    @given(ANY_TEXT)
    @settings(max_examples=300, deadline=None)
    def test_equal_fingerprints_give_models_equal_texts(self, text):
        assert plain(normalise(text)) == plain(text)


class TestStorable:
    def test_nul_is_removed_and_lone_surrogates_replaced(self):
        assert storable("a\x00b") == "ab"
        assert storable("a\ud800b\udc00") == "a\ufffdb\ufffd"

    def test_surrogate_pair_is_joined(self):
        assert storable("\ud83c\udfe0") == "🏠"

    def test_byte_order_mark_stays(self):
        assert storable("\ufeffa") == "\ufeffa"

    @given(ANY_TEXT)
    @settings(max_examples=300, deadline=None)
    def test_other_characters_stay(self, text):
        kept = storable(text)
        kept.encode()
        assert storable(kept) == kept
        if not any("\ud800" <= character <= "\udfff" for character in text):
            assert kept == text.replace("\x00", "")
