import pandas as pd

from train.evaluation.error_analysis import mistakes

FRAME = pd.DataFrame(
    {"msg_id": list("abcd"), "msg": ["A", "B", "C", "D"], "label": [0, 1, 1, 0], "subset": "train"}
)


def test_worst_mistake_comes_first_without_right_decisions():
    table = mistakes(FRAME, [0.9, 0.05, 0.7, 0.3], threshold=0.3)
    assert table.to_dict("list") == {
        "msg_id": ["b", "a", "d"],
        "label": [1, 0, 0],
        "score": [0.05, 0.9, 0.3],
        "msg": ["B", "A", "D"],
    }


def test_right_decisions_give_an_empty_table():
    assert mistakes(FRAME, [0.1, 0.9, 0.9, 0.1], threshold=0.5).empty
