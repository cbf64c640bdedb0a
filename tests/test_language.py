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
            ("「おはよう」, 各位, 𠀋", "other"),
            ("🔥🔥🔥🔥 да 🔥🔥🔥🔥", "Russian"),
            ("各位各位 да", "other"),
            ("𠀋𠀋𠀋 дада", "mixed"),
        ],
    )
    def test_language_by_script_and_letters(self, text, name):
        assert language(text) == name

    def test_script_needs_two_thirds_of_the_letters(self):
        assert language("abcd яю") == "English"
        assert language("abc яю") == "mixed"
        assert language("ab яюшж") == "Russian"
        assert language("ab яю άέ") == "mixed"
        assert language("ab аб שלו") == "mixed"

    def test_ukrainian_needs_more_of_its_own_letters(self):
        assert language("дім біля моря, ы") == "Ukrainian"
        assert language("дім, рыбы") == "Russian"
        assert language("дом") == "Russian"

    def test_addresses_are_ignored(self):
        links = "https://example.com/a/long/path?with=words www.example.com t.me/somewhere"
        assert language(f"Добрый день {links} @some_long_handle name@example.com") == "Russian"
        assert language("https://example.com @handle") == "other"

    def test_adversarial_text_takes_linear_time(self):
        """A pattern that restarts at every letter would take minutes."""
        for _time in range(200):
            assert language("a" * 10_000) == "English"
