import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from train.behaviour.outcome import Case, Check, Outcome
from train.evaluation.slices import by_slice
from train.report import page, plots
from train.report.model_card import INTENDED_USE, NOT_INTENDED_FOR, Card, Data
from train.report.page import write_report

EVIL = "</script></style></title></svg><img src=x onerror=alert(1)>\"'{{ 7 * 7 }}&amp;<!--"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """The tags and the text of a page, and whether its tags are balanced."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.balanced = True
        self.feed(source)
        self.close()
        self.balanced = self.balanced and not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        self.balanced = self.balanced and bool(self.open) and self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of_class(self, name: str) -> int:
        return sum(attributes.get("class") == name for _, attributes in self.tags)


def table(source: str, heading: str) -> list[str]:
    """Return the rows of the table below a heading, each as the words of its cells."""
    below = source.partition(f"<h2>{heading}</h2>")[2].partition("<tbody>")[2]
    rows = below.partition("</tbody>")[0].split("</tr>")[:-1]
    return [" ".join(html.unescape(re.sub("<[^>]*>", " ", row)).split()) for row in rows]


def arguments(count: int = 200, **changes):
    rng = np.random.default_rng(0)
    labels = (np.arange(count) % 4 == 0).astype(int)
    scores = np.clip(labels * 0.5 + rng.random(count) * 0.6, 0, 1)
    return {
        "metrics": {"test.f1": 0.87654, "test.n": 1325, "threshold": 0.55, "encoder_tag": "e:abc"},
        "labels": labels,
        "scores": scores,
        "threshold": 0.55,
        "texts": [f"message text {number}" for number in range(count)],
        "identifiers": [f"id-{number}" for number in range(count)],
    } | changes


@pytest.fixture
def written(tmp_path):
    def write(**changes) -> tuple[str, Page]:
        path = write_report(tmp_path / "reports" / "one", **arguments(**changes))
        assert path == tmp_path / "reports" / "one" / "report.html"
        source = path.read_text(encoding="utf-8")
        return source, Page(source)

    return write


class TestPage:
    def test_page_shows_figures(self, written):
        _, page = written()
        for shown in ("0.8765", "1,325", "e:abc", "0.5500"):
            assert shown in page.text
        assert page.balanced
        assert sum(tag == "svg" for tag, _ in page.tags) == 3

    def test_nested_metrics_are_flattened_and_nan_is_a_dash(self, written):
        _, page = written(metrics={"test": {"recall": np.float64(0.25)}, "none": float("nan")})
        assert page.text.count("0.2500") == 2
        assert "—" in page.text

    def test_page_counts_decisions(self, written):
        labels = [1] * 7 + [0] * 24
        scores = [0.9] * 4 + [0.1] * 3 + [0.55] * 5 + [0.2] * 19
        _, page = written(
            labels=labels, scores=scores, texts=["t"] * 31, identifiers=["i"] * 31, threshold=0.55
        )
        cells = re.sub(r"\s+", " ", page.text)
        for shown in ("4found", "3missed", "5false alarm", "19left out"):
            assert shown in cells

    def test_page_lists_the_worst_mistakes_of_both_kinds(self, written):
        labels = [0] * 20 + [1] * 20
        scores = np.concatenate([np.linspace(0.6, 0.98, 20), np.linspace(0.02, 0.4, 20)])
        changes = arguments(40, labels=labels, scores=scores, threshold=0.5)
        _, page = written(**changes)
        shown = [int(number) for number in re.findall(r"id-(\d+)", page.text)]
        assert shown == [*range(19, 4, -1), *range(20, 35)]
        assert page.text.count("20, the worst 15 of them") == 2

    def test_right_decisions_are_not_listed(self, written):
        _, page = written(
            labels=[0, 1], scores=[0.1, 0.9], texts=["a", "b"], identifiers=["x", "y"]
        )
        assert page.of_class("text") == 0
        assert page.text.count("None.") == 2

    def test_page_shows_feed_and_precisions(self, written):
        _, page = written(
            feed_preview=[("77", "top of all", 0.991), ("78", "second", 0.5)],
            comparison={
                "fp32": {"validation_f1": 0.911, "megabytes": 93.21},
                "int8": {"validation_f1": 0.905, "messages_per_second": 61.5},
                "chosen": "int8",
                "reason": "faster by half",
            },
        )
        for shown in ("top of all", "0.991", "fp32", "0.9110", "93.2", "61.5", "faster by half"):
            assert shown in page.text
        assert "messages per second" in page.text
        assert page.of_class("chosen") == 1

    def test_optional_sections_are_absent_without_data(self, written):
        _, page = written()
        assert "Top of the feed" not in page.text
        assert "Precisions" not in page.text

    def test_page_needs_no_other_file(self, written):
        source, page = written()
        assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
        references = [
            value
            for _, attributes in page.tags
            for name, value in attributes.items()
            if name in ("src", "href", "xlink:href")
        ]
        assert references and all(value.startswith("#") for value in references)
        assert set(re.findall(r"https?://[\w./]+", source)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }

    def test_page_supports_dark_and_narrow_screens(self, written):
        source, page = written()
        assert "prefers-color-scheme: dark" in source
        assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in (
            page.tags
        )

    def test_page_is_repeatable(self, written):
        assert written()[0] == written()[0]


class TestFurtherSections:
    """Optional sections appear if their data is given."""

    HEADINGS = (
        "Fine-tuning",
        "By language and length",
        "Behaviour",
        "Labels that may be wrong",
        "About this model",
    )

    def headings(self, page: Page) -> set[str]:
        return {heading for heading in self.HEADINGS if f"\n{heading}\n" in page.text}

    def test_sections_are_absent_without_data(self, written):
        _, page = written()
        assert self.headings(page) == set()
        _, page = written(slices=[], behaviour=None, audit=[], finetuning=[], card=None)
        assert self.headings(page) == set()

    def test_slices_have_a_table(self, written):
        texts = ["Добрый день всем соседям"] * 30 + ["Good morning"] * 3
        labels, scores = [1, 0, 0] * 11, [0.9, 0.9, 0.1] * 11
        source, page = written(slices=by_slice(texts, labels, scores, 0.5))
        assert self.headings(page) == {"By language and length"}
        rows = table(source, "By language and length")
        assert rows[0] == "Russian language 30 10 0.6667 0.5000 1.0000 0.5000 0.3000"
        assert rows[1] == "English language 3 1 — — — — —"
        meters = [attributes["value"] for tag, attributes in page.tags if tag == "meter"]
        assert "0.6667" in meters

    def test_failed_checks_come_first(self, written):
        case = Case("an invented message", 0.4)
        checks = [
            Check("invariance", "capitals", 12, {"mean move": 0.1}, {"mean move": 0.05}, []),
            Check("direction", "for sale", 9, {"mean fall": 0.2}, {"mean fall": 0.125}, [case]),
            Check("functionality", "reply", 7, {}, {"accuracy": 0.5}, []),
        ]
        source, page = written(behaviour=Outcome(checks, 0.5, 28).as_table())
        assert self.headings(page) == {"Behaviour"}
        assert table(source, "Behaviour") == [
            "for sale direction mean fall 0.125 (required ≥ 0.20) 9 failed",
            "capitals invariance mean move 0.050 (required ≤ 0.10) 12 passed",
            "reply functionality accuracy 0.500 7 passed",
        ]
        assert "1 of 3 checks failed" in " ".join(page.text.split())

    def test_audit_has_a_table(self, written):
        source, page = written(audit=[(25, 23.6), (1000, 71.2)], kinds=["“for sale”: 7 of 9"])
        assert self.headings(page) == {"Labels that may be wrong"}
        assert table(source, "Labels that may be wrong") == ["25 24", "1,000 71"]
        assert "“for sale”: 7 of 9" in page.text
        assert "in common" not in written(audit=[(25, 23.6)])[1].text

    def test_finetuning_has_a_table(self, written):
        history = [
            {"encoder": 1, "epoch": 1, "loss": float("nan"), "average_precision": 0.75},
            {"encoder": 2, "epoch": 3, "loss": 0.25, "average_precision": 0.875},
        ]
        source, page = written(finetuning=history, metrics={"finetuning": history})
        assert self.headings(page) == {"Fine-tuning"}
        assert table(source, "Fine-tuning") == ["1 1 — 0.7500", "2 3 0.2500 0.8750"]
        assert "'encoder'" not in page.text

    def test_card_has_its_lines(self, written):
        data = Data("f00d", {"training part": (80, 20), "test part": (20, 5)}, True, {"Greek": 100})
        _, page = written(card=Card({}, data))
        assert self.headings(page) == {"About this model"}
        for line in (*INTENDED_USE, *NOT_INTENDED_FOR, *data.lines, *Card({}).known_failures):
            assert f"\n{line}\n" in page.text
        assert "\nData\n" not in written(card=Card({}))[1].text

    def test_hostile_names_are_escaped(self, written):
        row = {"slice": EVIL, "name": EVIL, "n": 30, "positives": 12} | dict.fromkeys(
            ["f1", "precision", "recall", "average_precision", "ece"], 0.1
        )
        checks = [Check(EVIL, EVIL, 3, {EVIL: 1.0}, {EVIL: 0.5}, [Case(EVIL, 0.5)])]
        outcome = Outcome(checks, 0.5, 3)
        data = Data(EVIL, {EVIL: (10, 5)}, False, {EVIL: 10})
        card = Card({"test": {"f1": 0.9}}, data, EVIL, slices=[row], behaviour=outcome)
        _, page = written(slices=[row], behaviour=outcome.as_table(), card=card)
        assert page.balanced
        assert not {"script", "img"} & {tag for tag, _ in page.tags}
        assert sum(tag == "svg" for tag, _ in page.tags) == 3
        assert page.text.count(EVIL) >= 6


class TestHostileText:
    def test_hostile_text_is_escaped(self, written):
        _, clean = written(feed_preview=[("1", "x", 0.5)], comparison={"a": {"b": 1}})
        _, page = written(
            texts=[EVIL] * 200,
            identifiers=[EVIL] * 200,
            feed_preview=[(EVIL, EVIL, 0.5)],
            metrics=arguments()["metrics"] | {"encoder_tag": EVIL},
            comparison={EVIL: {EVIL: EVIL}, "chosen": EVIL, "reason": EVIL},
        )
        assert page.balanced
        assert {tag for tag, _ in page.tags} == {tag for tag, _ in clean.tags}
        assert not [name for _, attributes in page.tags for name in attributes if name[:2] == "on"]
        assert EVIL in page.text

    def test_plots_have_no_message_text(self, written):
        source, _ = written(texts=["unmistakable"] * 200, identifiers=["unmistakable"] * 200)
        assert "unmistakable" in source
        assert "unmistakable" not in "".join(re.findall(r"<svg.*?</svg>", source, re.DOTALL))

    def test_huge_text_is_shortened(self, written):
        plain, _ = written()
        source, page = written(texts=["W" * 1_000_000] * 200, identifiers=["i" * 9_999] * 200)
        assert len(source) < len(plain) + 100_000
        assert "(1,000,000 characters)" in page.text

    def test_nul_and_lone_surrogates_are_replaced(self, written):
        source, page = written(texts=["a\x00b \ud83c c"] * 200, identifiers=["\x00i\udc00"] * 200)
        assert "\x00" not in source
        assert "ab \ufffd c" in page.text


class TestWriting:
    def test_failed_write_keeps_the_old_page(self, tmp_path, monkeypatch):
        write_report(tmp_path, **arguments())
        before = (tmp_path / "report.html").read_bytes()

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(page.Path, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write_report(tmp_path, **arguments(threshold=0.1))
        assert (tmp_path / "report.html").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]

    @pytest.mark.parametrize("changes", [{"texts": ["one"]}, {"identifiers": []}, {"labels": [1]}])
    def test_unequal_lengths_are_rejected(self, tmp_path, changes):
        with pytest.raises(ValueError, match="of one length"):
            write_report(tmp_path, **arguments(**changes))
        assert not list(tmp_path.iterdir())


class TestPlots:
    @pytest.mark.parametrize("labels", [np.zeros(3, int), np.ones(3, int), np.array([0, 1, 0])])
    @pytest.mark.parametrize("scores", [np.zeros(3), np.ones(3), np.array([0.2, 0.5, 0.5])])
    def test_any_labels_and_scores_can_be_drawn(self, labels, scores):
        for drawing in (
            plots.precision_recall(labels, scores, 0.5),
            plots.calibration(labels, scores),
            plots.histogram(labels, scores, 0.5),
        ):
            assert drawing.startswith("<svg")
            assert "<style" not in drawing
            assert "#ffffff" not in drawing and "#000000" not in drawing
            assert "currentColor" in drawing

    def test_plots_mark_the_threshold(self):
        labels, scores = np.array([0, 1, 0]), np.array([0.2, 0.5, 0.5])
        assert "threshold 0.375" in plots.precision_recall(labels, scores, 0.375)
        assert "threshold 0.375" in plots.histogram(labels, scores, 0.375)

    def test_calibration_counts_its_bins(self):
        drawing = plots.calibration(np.tile([0, 1], 617), np.full(1234, 0.35))
        assert "1,234" in drawing

    def test_plots_have_distinct_ids(self):
        labels, scores = np.array([0, 1, 0]), np.array([0.2, 0.5, 0.5])
        drawings = [plots.calibration(labels, scores), plots.histogram(labels, scores, 0.5)]
        first, second = (set(re.findall(r' id="([^"]+)"', drawing)) for drawing in drawings)
        assert first and second and not first & second
