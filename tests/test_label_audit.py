import numpy as np
import pandas as pd
import pytest
from label_errors import OFFER, audited, labelled, with_copies

from train.audit import formulas
from train.evaluation.label_audit import COLUMNS, MOST_RELATED, audit, suspects, what_if


class TestByScore:
    def test_flipped_labels_come_first_unchanged(self):
        frame, scores = labelled(flipped=(3, 11, 31))
        table = audited(frame, scores)
        assert list(table.columns) == COLUMNS
        assert set(table["msg_id"][:3]) == {"m3", "m11", "m31"}
        assert table["quality"].is_monotonic_increasing
        first = table[:3]
        assert (first["label"] == frame["label"].iloc[first.index]).all()
        assert (first["suggested_label"] == 1 - first["label"]).all()
        assert first["msg"].tolist() == frame["msg"].iloc[first.index].tolist()
        assert first["score"].tolist() == scores[first.index].tolist()
        assert (first["related"] == "").all()

    def test_quality_is_the_probability_of_the_label(self):
        frame, scores = labelled(flipped=(3, 11))
        table = audited(frame, scores).set_index("msg_id")
        assert table["quality"]["m3"] == pytest.approx(1 - scores[3])
        assert table["quality"]["m11"] == pytest.approx(scores[11])

    def test_clean_labels_are_not_listed(self):
        frame, scores = labelled()
        table = audited(frame, scores)
        assert list(table.columns) == COLUMNS
        assert len(table) == len(suspects(table)) == formulas(table) == 0

    def test_reason_names_both_labels(self):
        frame, scores = labelled(flipped=(3, 11))
        scores[3] = 1.0
        [to_positive, to_negative] = audited(frame, scores)["reason"][:2]
        assert to_positive == (
            "labelled negative, but its out-of-fold probability of positive is 99.9%"
        )
        assert to_negative.startswith("labelled positive, but")
        assert f"probability of negative is {1 - scores[11]:.1%}" in to_negative

    def test_equal_scores_are_listed_together(self):
        wrong, unsure = [1, 2, 4, 7], [8, 11, 13, 14, 16, 17]
        frame, scores = labelled(flipped=(*wrong, *unsure))
        scores[wrong], scores[unsure] = 0.02, 0.4
        assert audited(frame, scores)["msg_id"].tolist() == ["m1", "m2", "m4", "m7"]

    def test_lowest_quality_comes_first(self):
        text = OFFER.format(900)
        frame, scores = with_copies((text, 1, 0.1), (text, 0, 0.01))
        scores[:60] = np.where(scores[:60] > 0.5, 0.6, 0.01)
        frame.loc[0, "label"] = 0
        table = audited(frame, scores)
        assert table["msg_id"].tolist() == ["c0", "m0", "c1"]
        assert table["suggested_label"].tolist() == [pd.NA, 1, pd.NA]

    @pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
    def test_constant_scores_doubt_one_label_at_most(self, score):
        frame, _ = labelled()
        table = audited(frame, np.full(len(frame), score))
        assert set(table["label"]) <= {int(score < 0.5)}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda labels, scores: (labels, scores[1:]), "of one length"),
            (lambda labels, scores: (labels, scores + 0.5), "between 0 and 1"),
            (lambda labels, scores: (labels, scores * np.nan), "between 0 and 1"),
            (lambda labels, scores: (labels * 0, scores), "both of them"),
            (lambda labels, scores: (labels * 0 + 1, scores), "both of them"),
            (lambda labels, scores: (labels * 2, scores), "must be 0 or 1"),
        ],
    )
    def test_bad_input_is_rejected(self, change, message):
        frame, scores = labelled()
        labels, scores = change(frame["label"].to_numpy(), scores)
        with pytest.raises(ValueError, match=message):
            audit(frame.assign(label=labels), scores, np.arange(len(frame)))


class TestByNearDuplicates:
    def test_minority_is_listed_although_its_score_agrees(self):
        text = OFFER.format(900)
        table = audited(*with_copies((text, 1, 0.9), (text, 1, 0.9), (text, 0, 0.1)))
        [row] = table.itertuples(index=False)
        assert (row.msg_id, row.label, row.suggested_label) == ("c2", 0, 1)
        assert row.related == "c0 c1"
        assert row.reason == (
            "labelled positive: 2 of 2 near-duplicates, of identical text; "
            "its out-of-fold probability of negative is 90.0%"
        )

    def test_tie_lists_both_and_suggests_nothing(self):
        text = OFFER.format(900)
        frame, scores = with_copies((text, 1, 0.9), (text.upper() + " ", 0, 0.1))
        table = audited(frame, scores).set_index("msg_id")
        assert table["related"].to_dict() == {"c0": "c1", "c1": "c0"}
        assert table["suggested_label"].isna().all()
        assert table["reason"].str.contains("1 of 1 near-duplicates, of identical text").all()
        assert len(suspects(audited(frame, scores))) == 0

    def test_score_breaks_a_tie(self):
        text = OFFER.format(900)
        table = audited(*with_copies((text, 1, 0.02), (text, 0, 0.02))).set_index("msg_id")
        assert table["suggested_label"]["c0"] == 0
        assert table["suggested_label"].isna()["c1"]
        assert "but its out-of-fold" in table["reason"]["c0"]
        assert "near-duplicates" in table["reason"]["c0"]

    def test_reason_mentions_texts_that_differ_in_numbers_only(self):
        table = audited(*with_copies((OFFER.format(900), 1, 0.9), (OFFER.format(95_000), 0, 0.1)))
        assert len(table) == 2
        assert table["reason"].str.contains("different only in numbers (both", regex=False).all()

    def test_closest_near_duplicate_comes_first(self):
        similar = OFFER.format(900).replace("bright", "sunny")
        table = audited(
            *with_copies(
                (similar, 1, 0.9),
                (OFFER.format(1200), 1, 0.9),
                (OFFER.format(900), 1, 0.9),
                (OFFER.format(900), 0, 0.1),
            )
        )
        [row] = table.itertuples(index=False)
        assert row.related == "c2 c1 c0"
        assert "3 of 3 near-duplicates, 1 of identical text, 1 different only" in row.reason
        assert "1 of similar text (both labels are right if the difference matters)" in row.reason

    def test_many_near_duplicates_are_counted_and_some_named(self):
        text = OFFER.format(900)
        copies = [(text, 1, 0.9)] * (MOST_RELATED + 5)
        [row] = audited(*with_copies(*copies, (text, 0, 0.1))).itertuples(index=False)
        assert len(row.related.split()) == MOST_RELATED
        assert f"{MOST_RELATED + 5} of {MOST_RELATED + 5} near-duplicates" in row.reason

    def test_copies_with_one_label_are_not_listed(self):
        text = OFFER.format(900)
        assert audited(*with_copies((text, 1, 0.9), (text, 1, 0.9))).empty


class TestWhatIf:
    LABELS = (1, 0, 1, 0)
    SCORES = (0.9, 0.8, 0.2, 0.1)

    def test_rows_match_a_manual_calculation(self):
        rows = what_if(self.LABELS, self.SCORES, [1, 2], 0.5, tops=(1, 2))
        assert [row["flipped"] for row in rows] == [0, 1, 2]
        # 1 0 1 0: one hit of two shown and two positive. 1 1 1 0: two of two shown, of three.
        assert [row["f1"] for row in rows] == pytest.approx([1 / 2, 4 / 5, 1])
        # Of 1 0 1 0 the positives are first and third in rank, of the others they lead.
        assert [row["average_precision"] for row in rows] == pytest.approx([(1 + 2 / 3) / 2, 1, 1])

    def test_input_labels_are_not_changed(self):
        labels = np.array(self.LABELS)
        what_if(labels, self.SCORES, [1, 2], 0.5)
        assert labels.tolist() == list(self.LABELS)

    @pytest.mark.parametrize(
        ("count", "flipped"), [(0, [0]), (1, [0, 1]), (2, [0, 2]), (3, [0, 2, 3]), (4, [0, 2, 3])]
    )
    def test_rows_end_at_the_number_of_suspects(self, count, flipped):
        labels, scores = [1, 0, 1, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.5]
        rows = what_if(labels, scores, range(count), 0.5, tops=(2, 3))
        assert [row["flipped"] for row in rows] == flipped

    @pytest.mark.parametrize("rows", [[1, 1], [4], [-1]])
    def test_invalid_suspects_are_rejected(self, rows):
        with pytest.raises(ValueError, match="row numbers below 4"):
            what_if(self.LABELS, self.SCORES, rows, 0.5)
