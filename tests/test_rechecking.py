import numpy as np
import pandas as pd
import pytest
from labelled_files import offers
from tiny_bert import save_tiny_bert

from labeling import simulate_rechecking
from labeling.simulate_rechecking import CONTRADICTED, ONCE, RANDOM, ROUNDS, simulate, table
from train.classifier.neighbours import vote
from train.data.dataset import Dataset


def corpus(count: int = 400) -> pd.DataFrame:
    """Return messages of which half offer something; every tenth offer is labelled negative."""
    frame = offers(np.arange(count) % 2 == 0, test_every=5).rename(columns={"label": "adjudicated"})
    return frame.assign(label=frame["adjudicated"] * (np.arange(count) % 20 != 0))


@pytest.fixture(scope="module")
def simulation():
    return simulate(Dataset.of(corpus(), name="corpus"), None, None, batch=10, rounds=2, seed=7)


class TestSimulation:
    def test_rounds_find_nearly_all(self, simulation):
        assert simulation.wrong == 20  # of 400, none in the test part
        assert [step.checked for step in simulation.steps] == [0, 10, 20]
        found = simulation.curves[ROUNDS]
        assert found == [step.found for step in simulation.steps]
        assert found[0] == 0
        assert found[1] >= 9
        assert found[2] >= 0.8 * simulation.wrong
        assert simulation.curves[ONCE][1] == found[1]
        assert simulation.curves[CONTRADICTED][1] >= 9
        assert simulation.curves[RANDOM][2] < 5

    def test_expected_number_is_near(self, simulation):
        assert simulation.steps[0].expected == pytest.approx(10, abs=4)

    def test_table_has_all_figures(self, simulation):
        text = table(simulation)
        assert "| labels checked | 0 | 10 | 20 |" in text
        for name in (ROUNDS, ONCE, CONTRADICTED, RANDOM, "F1, test part"):
            assert f"| {name} | " in text


class TestCommand:
    def test_page_and_plot_are_written(self, tmp_path):
        corpus(200).to_csv(tmp_path / "labeled.csv", index=False)
        save_tiny_bert(tmp_path / "bert")
        page = tmp_path / "docs" / "labelling.md"
        page.parent.mkdir()
        page.write_text("before\n<!-- recheck -->\nold\n<!-- /recheck -->\nafter\n")
        options = f"--data {tmp_path / 'labeled.csv'} --encoder {tmp_path / 'bert'}"
        options += f" --batch 5 --rounds 1 --out {tmp_path / 'docs'}"
        assert simulate_rechecking.main(options.split()) == 0
        text = page.read_text()
        assert text.startswith("before\n<!-- recheck -->\nWrong labels found, of ")
        assert text.endswith("<!-- /recheck -->\nafter\n")
        assert "old" not in text
        assert "<svg" in (tmp_path / "docs" / "images" / "recheck-curve.svg").read_text()

    def test_adjudicated_labels_are_needed(self, tmp_path, capsys):
        corpus(200).drop(columns="adjudicated").to_csv(tmp_path / "labeled.csv", index=False)
        assert simulate_rechecking.main(["--data", str(tmp_path / "labeled.csv")]) == 1
        assert "has no column adjudicated" in capsys.readouterr().err


class TestNeighbours:
    def test_nearest_decide_and_near_duplicates_do_not(self):
        angles = np.concatenate([np.linspace(0, 0.1, 30), np.linspace(1.5, 1.6, 30)])
        embeddings = np.column_stack([np.cos(angles), np.sin(angles)])
        labels = np.repeat([1, 0], 30)
        shares = vote(embeddings, labels, np.arange(60))
        assert shares[:30] == pytest.approx(1)
        assert shares[30:] == pytest.approx(0)
        groups = np.where(np.arange(60) < 30, 0, np.arange(60))
        assert vote(embeddings, labels, groups)[:30] == pytest.approx(0)

    def test_one_group_has_no_neighbours(self):
        embeddings = np.eye(3)
        assert vote(embeddings, np.array([0, 1, 1]), np.zeros(3)).tolist() == [0.5] * 3
