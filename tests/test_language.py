import pytest

from feedsieve.language import language

RUSSIAN, ENGLISH = "Добрый день всем соседям", "Good morning to all neighbours"


class TestLanguage:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            (RUSSIAN, "Russian"),
            ("Доброго дня, здається помешкання біля моря, є місце для авто", "Ukrainian"),
            (ENGLISH, "English"),
            ("Καλημέρα σε όλους, ενοικιάζεται διαμέρισμα", "Greek"),
            ("ΚΑΛΗΜΕΡΑ", "Greek"),
            ("שלום לכולם", "other"),
            ("1 200 € 🔥 +357 00 000000", "other"),
            ("", "other"),
            ("ДОБРЫЙ ДЕНЬ", "Russian"),
            ("𝐆𝐨𝐨𝐝 𝐦𝐨𝐫𝐧𝐢𝐧𝐠", "English"),
        ],
    )
    def test_by_script_and_letters(self, text, name):
        assert language(text) == name

    def test_two_thirds_of_the_letters_decide(self):
        assert language("abcd яю") == "English"
        assert language("abc яю") == "mixed"
        assert language("ab яюшж") == "Russian"
        assert language("ab яю άέ") == "mixed"
        assert language("ab аб שלו") == "mixed"

    def test_ukrainian_has_more_of_its_own_letters_than_of_russian_ones(self):
        assert language("дім біля моря, ы") == "Ukrainian"
        assert language("дім, рыбы") == "Russian"
        assert language("дом") == "Russian"

    def test_addresses_are_not_looked_at(self):
        links = "https://example.com/a/long/path?with=words www.example.com t.me/somewhere"
        assert language(f"Добрый день {links} @some_long_handle name@example.com") == "Russian"
        assert language("https://example.com @handle") == "other"

    def test_a_text_made_to_be_slow(self):
        """A pattern that begins anew at every letter would take minutes for these."""
        for _time in range(200):
            assert language("a" * 10_000) == "English"
