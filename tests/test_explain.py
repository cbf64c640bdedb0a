"""Explanations: contributions of features and words to one score, in Python and over HTTP."""

import math
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import quote

import lightgbm
import numpy as np
import pytest
from starlette.requests import Request
from test_bad_input import assert_problem
from test_service import BROWSER, Page

from feedsieve.api.rendering import render
from feedsieve.message import Message
from feedsieve.scoring.calibration import Calibration
from feedsieve.scoring.classifier import Classifier, ClassifierDescription, Start
from feedsieve.scoring.explain import (
    FEWEST_SPANS,
    MOST_SPANS,
    TOKENS,
    Explanation,
    FeatureContribution,
    WordsContribution,
    explain,
)
from feedsieve.scoring.features import EMBEDDING, LEXICON, Features
from feedsieve.scoring.lexicon import Lexicon
from feedsieve.scoring.scorer import Scorer
from feedsieve.scoring.word_model import WordModel
from feedsieve.store.store import MessageStore
from feedsieve.text import normalise, plain

COLUMNS = 4
MOST_TOKENS = 256
FILLER = ["кофе", "море", "рядом", "утром", "вчера", "город", "рынок", "погода", "центр", "пляж"]


class Counting:
    """An encoder with one token per word and two special ones; embeddings count some words.

    It counts the texts and tokens that it encodes.
    """

    description = SimpleNamespace(max_tokens=MOST_TOKENS)

    def __init__(self):
        self.texts = self.tokens = 0

    def tokenize(self, texts):
        return [[0, *map(hash, plain(text).split()), 1][:MOST_TOKENS] for text in texts]

    def encode(self, texts, progress=None):
        self.texts += len(texts)
        self.tokens += sum(map(len, self.tokenize(texts)))
        read = [plain(text).split()[: MOST_TOKENS - 2] for text in texts]
        counts = [[words.count(word) for word in FILLER[:COLUMNS]] for words in read]
        return np.array(counts, np.float32).reshape(-1, COLUMNS)

    def embed(self, texts, all_submitted=None, eager=True):
        yield list(range(len(texts))), Done(self.encode(texts))


class Done:
    """A finished future."""

    def __init__(self, embeddings):
        self.result = lambda: embeddings


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A classifier on words of the lexicon, words in the embedding, and question marks."""
    words = Lexicon([" сда", " сни"], np.ones(2), np.array([2.0, -1.0]), 0.5)
    features = Features(WordModel(words), None, 4)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice([*FILLER, "сдаю", "сниму", "?"], 8)) for _ in range(600)]
    labels = ["сдаю" in text or (text.count("кофе") > text.count("?")) for text in texts]
    columns = features.columns(texts, Counting().encode(texts))
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "deterministic": True}
    booster = lightgbm.train(parameters, lightgbm.Dataset(columns, np.array(labels)), 20)
    description = ClassifierDescription(
        encoder_tag="feedsieve-encoder:abc",
        threshold=0.5,
        start=Start([0.7], [0.2], -1.0),
        calibration=Calibration(slope=0.8, intercept=-0.3),
        features=features.blocks,
        metrics={},
        data_fingerprint="0" * 32,
    )
    return Classifier(booster, features, description)


@pytest.fixture
def scorer(classifier) -> Scorer:
    return Scorer(Counting(), classifier, "feedsieve-classifier:1")


def logit(score: float) -> float:
    return math.log(score / (1 - score))


def total(explanation) -> float:
    return explanation.base + sum(feature.contribution for feature in explanation.features)


def filler(words: int) -> str:
    return " ".join(FILLER[number % len(FILLER)] for number in range(words))


LONG = "Сдаю " + filler(2000)
ODD = ["", " \u200b\n", "сдаю", "🏠", "🏠 🏠🏠 🎉", "х" * 10_000, LONG[:10_000], "\x00Сдаю\x00 ﬁat"]
TEXTS = ["Сдаю рядом море", "кофе кофе ? вчера кофе", "Сниму 2 комнаты, 1 200 евро!", *ODD]


class TestFeatures:
    @pytest.mark.parametrize("text", TEXTS)
    def test_feature_contributions_add_up_to_the_logit(self, scorer, text):
        explanation = explain(scorer, text)
        [score] = scorer.score([text])
        assert explanation.logit == pytest.approx(logit(score), abs=1e-6)
        assert total(explanation) == pytest.approx(explanation.logit, abs=1e-6)

    def test_strongest_feature_comes_first(self, scorer):
        strongest, *others = explain(scorer, "Сдаю рядом море").features
        assert strongest.name == LEXICON
        assert strongest.value == pytest.approx(2.5)
        assert strongest.contribution > 1
        sizes = [abs(feature.contribution) for feature in (strongest, *others)]
        assert sizes == sorted(sizes, reverse=True)
        assert min(sizes) > 0

    def test_embedding_is_one_feature_without_a_value(self, scorer):
        features = {
            feature.name: feature for feature in explain(scorer, "кофе кофе вчера").features
        }
        assert len(features) == len(explain(scorer, "кофе кофе вчера").features)
        assert set(features) <= set(scorer.classifier.features.blocks)
        assert features[EMBEDDING].contribution > 0.1
        assert features[EMBEDDING].value is None
        assert all(value is None or math.isfinite(value) for value in values(features))

    def test_classifier_without_embedding_is_explained(self, classifier):
        features = Features(classifier.features.words, None, 0)
        texts = ["сдаю", "сниму", "море"] * 100
        columns = features.columns(texts, np.empty((300, 4), np.float32))
        rows = lightgbm.Dataset(columns, np.array([1, 0, 0] * 100))
        booster = lightgbm.train({"objective": "binary", "verbosity": -1}, rows, 5)
        small = Scorer(Counting(), Classifier(booster, features, classifier.description), "a:1")
        explanation = explain(small, "Сдаю рядом море")
        assert total(explanation) == pytest.approx(explanation.logit, abs=1e-6)
        assert EMBEDDING not in {feature.name for feature in explanation.features}

    def test_limited_score_has_finite_contributions(self, classifier):
        """Beyond the limit of the score, contributions still add up."""
        steep = replace(classifier.description, calibration=Calibration(1000.0, 0.0))
        limited = Classifier(classifier.booster, classifier.features, steep)
        explanation = explain(Scorer(Counting(), limited, "a:1"), "Сдаю рядом море")
        assert explanation.logit == pytest.approx(36, abs=0.1)
        assert total(explanation) > 36
        assert all(math.isfinite(span.contribution) for span in explanation.words)


def values(features) -> list[float | None]:
    return [feature.value for feature in features.values()]


class TestWords:
    def test_deciding_word_is_strongest(self, scorer):
        words = explain(scorer, "Рядом море, Сдаю\nвчера город").words
        assert [span.text for span in words] == ["Рядом", "море,", "Сдаю", "вчера", "город"]
        strongest = max(words, key=lambda span: abs(span.contribution))
        assert strongest.text == "Сдаю"
        assert strongest.contribution > 1

    def test_negative_word_has_a_negative_contribution(self, scorer):
        *_, question = explain(scorer, "кофе вчера рынок ?").words
        assert question.text == "?"
        assert question.contribution < -0.1

    @pytest.mark.parametrize("position", [0, 3, 30, 90, 199])
    def test_deciding_word_is_found_in_a_longer_text(self, scorer, position):
        words = filler(199).split()
        words.insert(position, "Сдаю")
        spans = explain(scorer, " ".join(words)).words
        strongest = max(spans, key=lambda span: span.contribution)
        assert "Сдаю" in strongest.text

    def test_word_contribution_is_the_change_without_it(self, scorer):
        words = explain(scorer, "Сдаю рядом море").words
        whole, without = scorer.score(["Сдаю рядом море", "рядом море"])
        assert words[0].contribution == pytest.approx(logit(whole) - logit(without), abs=1e-6)

    @pytest.mark.parametrize("text", TEXTS)
    def test_spans_join_to_the_text(self, scorer, text):
        assert " ".join(span.text for span in explain(scorer, text).words) == normalise(text)

    def test_single_word_is_compared_with_the_empty_text(self, scorer):
        [span] = explain(scorer, "Сдаю").words
        whole, nothing = scorer.score(["Сдаю", ""])
        assert span.contribution == pytest.approx(logit(whole) - logit(nothing), abs=1e-6)

    @pytest.mark.parametrize("text", ["", " ", "\x00", "\ufeff\u200b\n"])
    def test_blank_text_has_no_words(self, scorer, text):
        assert explain(scorer, text).words == []

    def test_emoji_contribute_nothing(self, scorer):
        assert [span.contribution for span in explain(scorer, "🏠 🏠🏠 🎉").words] == [0, 0, 0]


class TestBudget:
    @pytest.mark.parametrize("words", [1, 3, 10, 24, 48, 100, 150, 254, 255, 300, 1500])
    def test_encoded_texts_and_tokens_stay_in_the_budget(self, scorer, words):
        text = filler(words)
        spans = explain(scorer, text).words
        encoder = scorer.encoder
        assert encoder.texts == 1 + len(spans)
        assert len(spans) <= min(words, MOST_SPANS)
        assert len(spans) >= min(words, FEWEST_SPANS)
        assert encoder.tokens <= TOKENS + MOST_TOKENS
        assert encoder.tokens > TOKENS / 2 or len(spans) in (words, MOST_SPANS)

    def test_truncated_words_are_one_span(self, scorer):
        read, (*spans, rest) = MOST_TOKENS - 2, explain(scorer, filler(1500)).words
        assert sum(len(span.text.split()) for span in spans) == read
        assert len(rest.text.split()) == 1500 - read
        assert len(spans) == FEWEST_SPANS - 1

    def test_truncated_word_still_counts(self, scorer):
        """The encoder does not read it, but the word model does."""
        *_, rest = explain(scorer, "вчера " * 600 + "сдаю").words
        assert rest.contribution > 1


HOSTILE = (
    '</p></mark><script>alert(1)</script> <img src=x onerror="alert(1)"> {{ 7 * 7 }} <b>why</b>\n'
    '" onmouseover="alert(1) \u202e Сдаётся квартира'
)


def page(explanation: Explanation | None, text: str = "a text", identifier: str = "1") -> Page:
    """Return the page of a message with this explanation."""
    values = {"id": identifier, "text": text, "score": 0.75, "label": "positive", "model": "a:1"}
    answer = SimpleNamespace(**values, explanation=explanation)
    request = Request({"type": "http"})
    return Page(bytes(render(request, "message.html", 200, {}, answer=answer).body).decode())


def assert_harmless(page: Page) -> None:
    assert not {"script", "img", "b"} & set(page.tags)
    assert not {"onerror", "onmouseover", "src"} & page.attributes


class TestPage:
    def test_page_without_explanation_links_to_it(self):
        identifier = "a/'\"<b>&?#%"
        shown = page(None, identifier=identifier)
        assert f"/messages/{quote(identifier, safe='')}?explain=1" in shown.links
        assert not {"mark", "table"} & set(shown.tags)

    @pytest.mark.parametrize("text", [*TEXTS, HOSTILE])
    def test_page_shows_features_and_words(self, scorer, text):
        explanation = explain(scorer, text)
        shown = page(explanation, text)
        assert_harmless(shown)
        assert not [link for link in shown.links if "explain" in link]
        for feature in explanation.features[:12]:
            assert feature.name in shown.text
        for span in explanation.words:
            assert span.text in shown.text

    def test_contributions_are_shown_with_signs(self, scorer):
        explanation = Explanation(
            base=-1.0,
            logit=0.5,
            features=[
                FeatureContribution("words", 1.23456, 2.0),
                FeatureContribution("lowest price", 1200.0, -0.5),
                FeatureContribution("links", None, 0.001),
            ],
            words=[WordsContribution("сдаю", 1.5), WordsContribution("море", -0.25)],
        )
        text = page(explanation).text
        for shown in ("+2.00", "−0.50", "0.00", "+1.50", "−0.25", "1.23", "1,200", "−1.00"):
            assert shown in text
        assert "+0.00" not in text

    def test_page_shows_twelve_features_and_sums_the_rest(self):
        features = [FeatureContribution(f"feature {n}", float(n), 2 - n / 10) for n in range(15)]
        text = page(Explanation(0.0, 1.0, features, [])).text
        assert "feature 11" in text
        assert "feature 12" not in text
        assert "3 weaker ones" in text
        assert "+2.10" in text  # 0.8 + 0.7 + 0.6

    def test_explanation_without_features_is_shown(self):
        assert "+1.00" in page(Explanation(1.0, 1.0, [], [WordsContribution("🏠", 0.0)])).text


@pytest.fixture(scope="module")
def hostile(server, environment) -> str:
    """The path of a message with a hostile text and an identifier that needs quoting."""
    identifier = "why/'\"<b>&?#%"
    MessageStore.open(environment["FEEDSIEVE_DB"]).add([Message(identifier, HOSTILE)])
    return f"/messages/{quote(identifier, safe='')}"


@pytest.fixture(scope="module")
def item(server) -> dict:
    """The first message of the feed."""
    return server.client.get("/feed?limit=1").json()["items"][0]


class TestRoute:
    def test_message_is_not_explained_by_default(self, server, item):
        for query in ("", "?explain=0", "?explain=false"):
            answer = server.client.get(f"/messages/{item['id']}{query}").json()
            assert set(answer) == {"id", "text", "score", "label", "model"}

    @pytest.mark.parametrize("value", ["1", "true"])
    def test_explain_parameter_adds_the_explanation(self, server, item, value):
        answer = server.client.get(f"/messages/{item['id']}?explain={value}").json()
        explanation = answer.pop("explanation")
        assert answer == server.client.get(f"/messages/{item['id']}").json()
        assert set(explanation) == {"base", "logit", "features", "words"}
        contributions = [feature["contribution"] for feature in explanation["features"]]
        assert explanation["base"] + sum(contributions) == pytest.approx(explanation["logit"])
        assert explanation["logit"] == pytest.approx(logit(item["score"]), abs=0.01)
        assert {"name", "value", "contribution"} == set(explanation["features"][0])
        words = " ".join(span["text"] for span in explanation["words"])
        assert words == normalise(item["text"])

    def test_explanations_do_not_block_the_feed(self, server):
        """With more requests than threads (40), most still wait when the feed answers."""
        items = server.client.get("/feed?limit=50").json()["items"]
        shortest = min(items, key=lambda item: len(item["text"]))
        address = f"/messages/{shortest['id']}?explain=1"
        with ThreadPoolExecutor(50) as clients:
            waiting = [clients.submit(server.client.get, address) for _client in range(50)]
            wait(waiting, return_when=FIRST_COMPLETED)
            assert server.client.get("/feed?limit=1").is_success
            unanswered = sum(not answer.done() for answer in waiting)
        assert {answer.result().status_code for answer in waiting} == {200}
        assert unanswered > 30

    def test_browser_gets_an_explanation_page(self, server, item):
        address = f"/messages/{item['id']}"
        [link] = [
            link
            for link in Page(server.client.get(address, headers=BROWSER).text).links
            if "explain" in link
        ]
        response = server.client.get(link, headers=BROWSER)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
        shown = Page(response.text)
        assert {"mark", "table"} <= set(shown.tags)
        explanation = server.client.get(f"{address}?explain=1").json()["explanation"]
        assert explanation["features"][0]["name"] in shown.text
        for span in explanation["words"]:
            assert span["text"] in shown.text

    def test_hostile_text_is_escaped(self, server, hostile):
        answer = server.client.get(f"{hostile}?explain=1")
        assert answer.status_code == 200, answer.text
        [link] = [
            link
            for link in Page(server.client.get(hostile, headers=BROWSER).text).links
            if "explain" in link
        ]
        assert link == f"{hostile}?explain=1"
        response = server.client.get(link, headers=BROWSER)
        assert response.status_code == 200
        shown = Page(response.text)
        assert_harmless(shown)
        assert "<script>alert(1)</script>" in shown.text

    def test_unknown_message_is_404(self, server):
        assert_problem(server.client.get("/messages/nobody?explain=1"), 404, "no message")

    @pytest.mark.parametrize("value", ["maybe", "", "2", "%00", "1&explain=maybe", "9" * 5000])
    def test_invalid_explain_value_is_422(self, server, item, value):
        response = server.client.get(f"/messages/{item['id']}?explain={value}")
        assert_problem(response, 422, "explain: Input should be '0', '1', 'false' or 'true'")

    def test_openapi_documents_explain(self, server):
        document = server.client.get("/openapi.json").json()
        operation = document["paths"]["/messages/{identifier}"]["get"]
        [parameter] = [row for row in operation["parameters"] if row["name"] == "explain"]
        assert parameter["in"] == "query"
        assert not parameter["required"]
        assert parameter["schema"]["enum"] == ["0", "1", "false", "true"]
        schemas = document["components"]["schemas"]
        assert "explanation" in schemas["MessageAnswer"]["properties"]
        assert "explanation" not in schemas["MessageAnswer"]["required"]
        assert set(schemas["Explanation"]["properties"]) == {"base", "logit", "features", "words"}
