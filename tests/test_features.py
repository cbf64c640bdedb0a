import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from feedsieve.scoring.features import EMBEDDING, HEAD, LEXICON, Features, Head
from feedsieve.scoring.handcrafted import HANDCRAFTED, handcrafted_features
from feedsieve.scoring.lexicon import Lexicon
from feedsieve.scoring.word_model import opening
from feedsieve.text import LONGEST, normalise, plain
from train.classifier import head as heads
from train.classifier import stacking, word_model
from train.classifier.word_model import TextCounts

ANY = st.text(st.characters(codec="utf-8"), max_size=60)
TEXTS = [
    "Сдам квартиру в центре, 2 спальни",
    "Сдаю студию у моря",
    "Сниму квартиру, сдайте семье",
    "flat to let, two bedrooms",
    "looking for a flat",
    "ищу квартиру в центре",
] * 4
LABELS = np.array([1, 1, 0, 1, 0, 0] * 4)
CURRENCIES = [*"€$£₽", "EUR", "euro", "euros", "евро", "usd", "долл", "ευρώ", "євро", "у.е"]


class TestPlain:
    @given(ANY)
    def test_plain_is_idempotent(self, text):
        assert plain(plain(text)) == plain(text)
        assert plain(normalise(text)) == plain(text)
        assert plain(text) == plain(text).lower()

    def test_case_and_emoji_are_removed(self):
        assert plain("СДАМ\nквартиру 🏠🌊 в центре ❤️👍🏽") == "сдам квартиру в центре"
        assert plain("🏠") == plain("") == ""

    @pytest.mark.parametrize(
        "emoji", [*"🔥🙂✨⏰⌚⏳", "▶️", "❤️", "☎️", "➡️", "◼️", "🇨🇾", "👩\u200d👧"]
    )
    def test_every_kind_of_emoji_is_removed(self, emoji):
        assert plain(f"{emoji}Flat {emoji} to let{emoji}") == "flat to let"

    def test_keycap_becomes_its_digit(self):
        assert plain("1\ufe0f\u20e3 Flat, 2\u20e3 Studio") == "1 flat, 2 studio"

    def test_long_text_is_truncated(self):
        text = "сдам 🏠 " + "а" * LONGEST + " сниму"
        assert plain(text) == plain(normalise(text)[:LONGEST]) == "сдам " + "а" * (LONGEST - 7)

    def test_meaningful_signs_stay(self):
        assert plain("1 200 € — 85 м², тел. +357 00, №5 • 50%") == (
            "1 200 € — 85 м2, тел. +357 00, no5 • 50%"
        )


class TestLexicon:
    @given(st.lists(ANY, max_size=5))
    def test_scores_equal_scikit_learns(self, texts):
        vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
        model = LinearSVC(random_state=0).fit(vectorizer.fit_transform(map(plain, TEXTS)), LABELS)
        pieces = vectorizer.get_feature_names_out().tolist()
        ours = Lexicon(pieces, vectorizer.idf_, model.coef_[0], model.intercept_[0])
        asked = [plain(text) for text in [*TEXTS, *texts]]
        theirs = model.decision_function(vectorizer.transform(asked))
        assert ours.score(asked) == pytest.approx(theirs, abs=1e-6)

    def test_score_does_not_depend_on_the_batch(self):
        """To the last bit, for any other texts in the batch."""
        words = word_model.fit(TextCounts.of(TEXTS), LABELS, seed=7)
        texts = [
            "сдам студию",
            "",
            "студию сдам сдам",
            "сда" * 7_000,
            "сдам " * 2000,
            "\U00010348 a",
        ]
        alone = [words.score([text])[0] for text in texts]
        assert words.score(texts).tolist() == alone
        assert words.score(texts[::-1] * 30).tolist() == alone[::-1] * 30
        assert len(set(alone)) > 3

    def test_piece_is_found_without_its_prefixes(self):
        """A lexicon may have a piece without having its prefixes."""
        pieces = [" сдам ", "𐍈", "сд", "a"]
        lexicon = Lexicon(pieces, np.ones(4), np.array([1.0, 2.0, 4.0, 8.0]), 0.0)
        assert lexicon.score(["сдам", "сдаму", "𐍈", "сдам a", "у"]) == pytest.approx(
            [5 / 2**0.5, 4, 2, 13 / 3**0.5, 0], abs=1e-6
        )

    def test_large_alphabet_has_no_collisions(self):
        """Some letters have hundreds of successors, which all need free slots."""
        letters = [chr(0x4E00 + number) for number in range(1500)]
        share = 1 / np.arange(1, 1501)
        drawn = np.random.default_rng(0).choice(letters, (40_000, 2), p=share / share.sum())
        pieces = sorted({"".join(pair) for pair in drawn} | {letters[0] + one for one in letters})
        wide = Lexicon(pieces, np.ones(len(pieces)), np.arange(len(pieces)), 0.0)
        assert wide.score(pieces).tolist() == list(range(len(pieces)))

    def test_lexicon_without_pieces_scores_the_intercept(self):
        empty = Lexicon([], np.empty(0), np.empty(0), 0.5)
        assert empty.score(["сдам", ""]).tolist() == [0.5, 0.5]
        assert empty.score([]).tolist() == []

    def test_words_decide_the_sign(self):
        words = word_model.fit(TextCounts.of(TEXTS), LABELS, seed=7)
        let, wanted = words.score(["сдам студию", "ищу квартиру"])
        assert let > 0 > wanted

    def test_out_of_fold_scores_have_not_seen_the_labels(self):
        """Random labels cannot be predicted out of fold."""
        random = np.random.default_rng(0)
        texts = ["".join(random.choice(list("абвгд "), 40)) for _ in range(120)]
        labels = random.integers(0, 2, 120)
        rows = np.arange(120)
        parts = [(rows[rows % 4 != fold], rows[rows % 4 == fold]) for fold in range(4)]
        counts = TextCounts.of(texts)
        held_out = word_model.out_of_fold(counts, labels, parts, seed=7)
        seen = word_model.fit(counts, labels, seed=7).score([plain(text) for text in texts])
        assert ((seen > 0) == labels).mean() > 0.95
        assert ((held_out > 0) == labels).mean() < 0.65

    def test_text_without_known_pieces_scores_the_intercept(self):
        words = word_model.fit(TextCounts.of(TEXTS), LABELS, seed=7)
        assert words.score(["", "ßßß"]).tolist() == [words.text.intercept] * 2

    def test_first_words_count_more(self):
        """The same words at the beginning and at the end mean different things."""
        filler = "и ещё много других слов о погоде и о море у нас"
        texts = [f"{first} {filler} {last}" for first, last in (("куплю", "дом"), ("дом", "куплю"))]
        labels = np.array([0, 1] * 10)
        words = word_model.fit(TextCounts.of(texts * 10), labels, seed=7)
        assert words.text.score(texts) == pytest.approx(words.text.score(texts)[::-1])
        below, above = words.score(texts)
        assert below < 0 < above

    def test_opening_is_the_first_words(self):
        assert opening(" a  b\nc d e f g h") == "a b c d e f"
        assert opening("") == ""


class TestHandcrafted:
    @staticmethod
    def of(text: str) -> dict[str, float]:
        return dict(zip(HANDCRAFTED, handcrafted_features([plain(text)])[0], strict=True))

    @pytest.mark.parametrize(
        ("text", "count", "lowest", "highest"),
        [
            ("1200 евро", 1, 1200, 1200),
            ("цена €950, с парковкой 1.050€", 2, 950, 1050),
            ("от 1 200 € до 1 500 €", 2, 1200, 1500),
            ("1,250 EUR per month", 1, 1250, 1250),
            ("850.00 euros", 1, 850, 850),
            ("$2000", 1, 2000, 2000),
            ("2 спальни, 3 этаж", 0, math.nan, math.nan),
            ("europe 2024", 0, math.nan, math.nan),
            *((f"{sign} 7", 1, 7, 7) for sign in CURRENCIES),
            *((f"7 {sign}", 1, 7, 7) for sign in CURRENCIES),
        ],
    )
    def test_prices_are_found(self, text, count, lowest, highest):
        found = self.of(text)
        assert found["prices"] == count
        assert found["lowest price"] == pytest.approx(lowest, nan_ok=True)
        assert found["highest price"] == pytest.approx(highest, nan_ok=True)

    @pytest.mark.parametrize(
        ("text", "area"),
        [
            ("85 м²", 85),
            ("85 кв.м", 85),
            ("120 кв м", 120),
            ("90 sq.m", 90),
            ("covered 100m2", 100),
            ("70 τ.μ.", 70),
            ("5 минут до моря", math.nan),
        ],
    )
    def test_areas_are_found(self, text, area):
        assert self.of(text)["largest area"] == pytest.approx(area, nan_ok=True)

    def test_contacts_are_counted(self):
        found = self.of("Звоните +357 00 000 000 или @agent, https://example.org #аренда #центр")
        assert found["telephone numbers"] == found["handles"] == found["links"] == 1
        assert found["hashtags"] == 2
        assert self.of("2 спальни, 1200 евро, 85 м2")["telephone numbers"] == 0

    @pytest.mark.parametrize(
        ("name", "text", "count"),
        [
            ("links", "t.me/let https://a.b/c.com www.example x.ru, y.example 1.5", 4),
            ("links", "https//x ru. com.", 0),
            ("handles", "@agent (@agency) me@agency.org @ab", 2),
            ("hashtags", "#let c#sharp # #5", 2),
            ("list marks", "- a well-kept flat - new • *", 4),
            ("telephone numbers", "@35700000000 (00) 000-00-00, 00000000x", 1),
        ],
    )
    def test_similar_patterns_are_not_counted(self, name, text, count):
        assert self.of(text)[name] == count

    def test_shares_of_scripts(self):
        assert self.of("квартира")["share of Cyrillic letters"] == 1
        assert self.of("flat")["share of Latin letters"] == 1
        assert self.of("σπίτι")["share of Greek letters"] == 1
        assert self.of("їжак")["share of Ukrainian letters"] == 0.25

    @given(ANY)
    def test_any_text_has_finite_or_nan_features(self, text):
        values = handcrafted_features([plain(text)])
        assert values.shape == (1, len(HANDCRAFTED))
        assert not np.isinf(values).any()

    def test_no_texts(self):
        assert handcrafted_features([]).shape == (0, len(HANDCRAFTED))

    @pytest.mark.parametrize("unit", ["1 ", "€", "+(", "1.", "@", "1 000 ", "www.", "#"])
    def test_adversarial_text_takes_linear_time(self, unit):
        """A pattern that backtracks would take minutes."""
        found = dict(
            zip(HANDCRAFTED, handcrafted_features([unit * (10_000 // len(unit))])[0], strict=True)
        )
        assert found["length in characters"] == 10_000 // len(unit) * len(unit)
        assert all(
            0 <= found[name] <= 10_000
            for name in HANDCRAFTED
            if "price" not in name and "area" not in name
        )


class TestEndlessNumbers:
    def test_prices_are_those_of_the_whole_number(self):
        lowest, count = HANDCRAFTED["lowest price"], HANDCRAFTED["prices"]
        for number in ("1" * 5000, "123" + 2000 * " 456", "7" + 40 * "0"):
            digits = float("".join(filter(str.isdigit, number))[:12])
            for text in (f"€{number}", f"{number}€", f"{number}.50 €"):
                assert count(text) == 1
                assert lowest(text) == digits
            assert count(f"{number} м") == 0


class TestFeatures:
    @pytest.fixture
    def features(self) -> Features:
        head = Head(np.array([1.0, -0.5, 1 / 3]), 0.25)
        return Features(word_model.fit(TextCounts.of(TEXTS), LABELS, seed=7), head, 3)

    def test_columns_match_the_named_blocks(self, features):
        rows = np.arange(12, dtype=np.float32).reshape(4, 3)
        columns = features.columns(TEXTS[:4], rows)
        assert columns.shape == (4, sum(features.blocks.values()))
        assert list(features.blocks) == [LEXICON, HEAD, *HANDCRAFTED, EMBEDDING]
        lexical_scores = features.words.score([plain(text) for text in TEXTS[:4]])
        assert columns[:, 0].tolist() == lexical_scores.tolist()
        assert columns[:, 1] == pytest.approx(rows @ [1, -0.5, 1 / 3] + 0.25)
        assert columns[:, -3:].tolist() == rows.tolist()

    def test_loaded_features_are_equal_bit_for_bit(self, features, tmp_path):
        features.save(tmp_path)
        rows = np.random.default_rng(0).normal(size=(len(TEXTS), 3)).astype(np.float32)
        again = Features.load(tmp_path).columns(TEXTS, rows)
        assert np.array_equal(again, features.columns(TEXTS, rows), equal_nan=True)

    def test_assemble_uses_the_given_logits(self, features):
        rows = np.zeros((2, 3))
        named = handcrafted_features([plain(text) for text in TEXTS[:2]])
        columns = features.assemble(named, rows, np.array([5.0, 6.0]), np.array([7.0, 8.0]))
        assert columns[:, :2].tolist() == [[5, 7], [6, 8]]
        same = features.columns(TEXTS[:2], rows)
        assert np.array_equal(columns[:, 2:], same[:, 2:], equal_nan=True)


class TestStack:
    def test_lightgbm_is_trained_on_out_of_fold_word_logits(self):
        """A word model fitted on random labels predicts them; LightGBM must not rely on that."""
        random = np.random.default_rng(0)
        texts = ["".join(random.choice(list("абвгд "), 40)) for _ in range(200)]
        labels = random.integers(0, 2, 200)
        features, fitted = stacking.fit(texts, labels, np.arange(200), None, None, 7)
        assert fitted.validation["average_precision"] < 0.7
        assert "embedding" in features.blocks and features.blocks["embedding"] == 0
        assert fitted.held_out.shape == (200,)

    def test_lightgbm_is_trained_on_out_of_fold_head_logits(self):
        """A head fitted on random labels predicts them; LightGBM must not rely on that."""
        random = np.random.default_rng(0)
        texts = ["".join(random.choice(list("абвгд "), 40)) for _ in range(200)]
        embeddings = random.normal(size=(200, 100)).astype(np.float32)
        labels = random.integers(0, 2, 200)
        features, fitted = stacking.fit(texts, labels, np.arange(200), embeddings, None, 7)
        assert fitted.validation["average_precision"] < 0.7
        logits = features.head.logits(embeddings)
        assert average_precision_score(labels, logits) > 0.75  # on its training labels

    def test_no_tree_splits_on_the_head_logit(self):
        """A split there would amplify the last bits of an embedding."""
        random = np.random.default_rng(0)
        texts = ["".join(random.choice(list("абвгд "), 40)) for _ in range(400)]
        embeddings = random.normal(size=(400, 8)).astype(np.float32)
        labels = (embeddings[:, 0] + random.normal(size=400) / 2 > 0.5).astype(np.int64)
        features, fitted = stacking.fit(texts, labels, np.arange(400), embeddings, None, 7)
        assert list(features.blocks)[:2] == [LEXICON, HEAD]
        assert fitted.booster.feature_importance()[1] == 0
        assert fitted.start.weights[1] > 0
        assert fitted.validation["average_precision"] > 0.8


class TestHead:
    @given(st.integers(1, 40), st.integers(0, 2**32 - 1))
    def test_logit_does_not_depend_on_the_batch(self, rows, seed):
        random = np.random.default_rng(seed)
        head = Head(random.normal(size=384), 0.5)
        embeddings = random.normal(size=(rows, 384)).astype(np.float32)
        together = head.logits(embeddings)
        assert together == pytest.approx(embeddings @ head.weights + 0.5, abs=1e-4)
        alone = [head.logits(embeddings[at : at + 1])[0] for at in range(rows)]
        assert together.tolist() == alone

    def test_head_equals_logistic_regression_on_the_embedding(self):
        random = np.random.default_rng(0)
        embeddings = random.normal(3, 2, size=(300, 5))
        labels = (embeddings[:, 0] > 3).astype(np.int64)
        scaled = StandardScaler().fit_transform(embeddings)
        expected = LogisticRegression(C=heads.C).fit(scaled, labels).decision_function(scaled)
        assert heads.fit(embeddings, labels).logits(embeddings) == pytest.approx(expected, abs=1e-3)
