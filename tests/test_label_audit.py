import numpy as np
import pandas as pd
import pytest
from label_errors import OFFER, audited, labelled, with_copies

from train.evaluation.label_audit import COLUMNS, LEAST, MOST_RELATED, SCORE, audit, with_neighbours


class TestByScore:
    def test_flipped_labels_come_first_unchanged(self):
        frame, scores = labelled(flipped=(3, 11, 31))
        table = audited(frame, scores)
        assert list(table.columns) == COLUMNS
        assert set(table["msg_id"][:3]) == {"m3", "m11", "m31"}
        assert table["wrong"].is_monotonic_decreasing
        assert table["wrong_so_far"].tolist() == pytest.approx(table["wrong"].cumsum().tolist())
        first = table[:3]
        assert (first["wrong"] > 0.5).all()
        assert (first["label"] == frame["label"].iloc[first.index]).all()
        assert (first["suggested_label"] == 1 - first["label"]).all()
        assert first["msg"].tolist() == frame["msg"].iloc[first.index].tolist()
        assert first["score"].tolist() == scores[first.index].tolist()
        assert (first["related"] == "").all()

    def test_others_are_listed_without_a_suggestion(self):
        frame, scores = labelled(flipped=(3, 11))
        table = audited(frame, scores)
        assert table["wrong"].min() >= LEAST
        likely_right = table["wrong"] <= 0.5
        assert (table["suggested_label"].isna() == likely_right).all()

    def test_reason_names_both_labels_and_each_view(self):
        frame, scores = labelled(flipped=(3, 11))
        scores[3] = 1.0
        views = {SCORE: scores, "words": np.where(np.arange(60) == 11, 0.25, scores)}
        table = audit(frame, views, np.arange(60)).table.set_index("msg_id")
        assert table["reason"]["m3"] == ("labelled negative, positive by score 99.9%, words 99.9%")
        assert table["reason"]["m11"] == (
            f"labelled positive, negative by score {1 - scores[11]:.1%}, words 75.0%"
        )

    def test_views_that_agree_say_more_than_one(self):
        """Of two labels that the scores contradict, the other view defends one."""
        frame, scores = labelled(120, flipped=(3, 12))
        scores[[3, 12]] = 0.9
        other = scores.copy()
        other[12] = 0.1
        views = {SCORE: scores, "words": other}
        table = audit(frame, views, np.arange(120)).table.set_index("msg_id")
        assert table["wrong"]["m3"] > 0.5 > table["wrong"].get("m12", 0)

    def test_checked_labels_are_not_listed(self):
        frame, scores = labelled(flipped=(3, 11))
        found = audit(frame.assign(ground_truth=np.arange(60) == 3), {SCORE: scores}, np.arange(60))
        assert "m3" not in set(found.table["msg_id"])
        assert found.audited == 59

    def test_expected_number_is_about_right(self):
        """Calibrated scores, and labels of which 5 % are wrong."""
        rng = np.random.default_rng(0)
        chance = np.where(rng.random(4000) < 0.3, rng.beta(30, 1, 4000), rng.beta(1, 60, 4000))
        truth = (rng.random(4000) < chance).astype(int)
        wrong = rng.random(4000) < 0.05
        frame = pd.DataFrame({"msg_id": np.arange(4000).astype(str), "msg": "text"})
        frame["msg"] += frame["msg_id"]
        frame["label"] = truth ^ wrong
        found = audit(frame, {SCORE: chance}, np.arange(4000))
        assert [count for count, _expected in found.progress()[2:4]] == [100, 200]
        for count, expected in found.progress()[2:4]:
            assert expected == pytest.approx(wrong[found.table.index[:count]].sum(), rel=0.35)
        first = found.table.index[:100]
        assert wrong[first].mean() > 0.5 > wrong.mean()

    def test_kind_names_the_words_that_wrong_labels_share(self):
        rows = [6, 21, 36, 51, 66, 81, 96, 111]
        frame, scores = labelled(120, flipped=tuple(rows))
        frame.loc[rows, "msg"] = "сдана " + frame.loc[rows, "msg"]
        found = audit(frame, {SCORE: scores}, np.arange(120))
        assert found.kinds[0].words == "сдана"
        assert found.kinds[0].rows.tolist() == rows
        assert set(found.table["kind"].loc[rows]) == {str(found.kinds[0])}
        assert "of 8 labelled negative are expected to be wrong" in str(found.kinds[0])

    def test_neighbours_are_similar_messages_of_other_groups(self):
        frame, scores = labelled(60, flipped=(3,))
        frame.loc[[3, 4, 7], "msg"] = ["a blue door by the sea"] * 2 + ["a blue door by the park"]
        groups = np.arange(60)
        groups[4] = 3
        found = audit(frame, {SCORE: scores}, groups)
        [lines] = with_neighbours(found.table.loc[[3]], frame, scores, groups)["neighbours"]
        first = lines.splitlines()[0]
        assert first == f"negative, score {scores[7]:.2f}: a blue door by the park"

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
            audit(frame.assign(label=labels), {SCORE: scores}, np.arange(len(frame)))


class TestByNearDuplicates:
    def test_minority_is_listed_although_its_score_agrees(self):
        text = OFFER.format(900)
        table = audited(*with_copies((text, 1, 0.9), (text, 1, 0.9), (text, 0, 0.1)))
        row = table.set_index("msg_id").loc["c2"]
        assert row["label"] == 0
        assert row["wrong"] == 0.5
        assert row["related"] == "c0 c1"
        assert row["reason"] == (
            "labelled negative, positive by score 10.0%; labelled positive: 2 of 2"
            " near-duplicates, of identical text"
        )

    def test_tie_lists_both_and_suggests_nothing(self):
        text = OFFER.format(900)
        frame, scores = with_copies((text, 1, 0.9), (text.upper() + " ", 0, 0.1))
        table = audited(frame, scores).set_index("msg_id")
        table = table.loc[["c0", "c1"]]
        assert table["related"].to_dict() == {"c0": "c1", "c1": "c0"}
        assert table["wrong"].tolist() == [0.5, 0.5]
        assert table["suggested_label"].isna().all()
        assert table["reason"].str.contains("1 of 1 near-duplicates, of identical text").all()

    def test_score_breaks_a_tie(self):
        text = OFFER.format(900)
        table = audited(*with_copies((text, 1, 0.02), (text, 0, 0.02))).set_index("msg_id")
        assert table["suggested_label"]["c0"] == 0
        assert table["suggested_label"].isna()["c1"]
        assert "near-duplicates" in table["reason"]["c0"]

    def test_reason_mentions_texts_that_differ_in_numbers_only(self):
        table = audited(*with_copies((OFFER.format(900), 1, 0.9), (OFFER.format(95_000), 0, 0.1)))
        reasons = table.set_index("msg_id")["reason"].loc[["c0", "c1"]]
        assert reasons.str.contains("different only in numbers (both", regex=False).all()

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
        row = table.set_index("msg_id").loc["c3"]
        assert row["related"] == "c2 c1 c0"
        assert "3 of 3 near-duplicates, 1 of identical text, 1 different only" in row["reason"]
        assert "1 of similar text (both labels are right if the difference" in row["reason"]

    def test_many_near_duplicates_are_counted_and_some_named(self):
        text = OFFER.format(900)
        copies = [(text, 1, 0.9)] * (MOST_RELATED + 5)
        table = audited(*with_copies(*copies, (text, 0, 0.1)))
        row = table.set_index("msg_id").loc[f"c{len(copies)}"]
        assert len(row["related"].split()) == MOST_RELATED
        assert f"{MOST_RELATED + 5} of {MOST_RELATED + 5} near-duplicates" in row["reason"]

    def test_copies_with_one_label_are_not_listed(self):
        text = OFFER.format(900)
        table = audited(*with_copies((text, 1, 0.9), (text, 1, 0.9)))
        assert (table["related"] == "").all()
