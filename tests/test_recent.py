import time

from feedsieve.recent import Recent


def test_an_answer_is_kept_for_its_time():
    recent = Recent[str](seconds=0.2, most=10)
    recent.keep("question", "answer")
    assert recent.find("question") == "answer"
    assert recent.find("another") is None
    time.sleep(0.25)
    assert recent.find("question") is None


def test_the_oldest_goes_first():
    recent = Recent[int](seconds=60, most=2)
    for number in (1, 2, 1, 3):
        recent.keep(number, number)
    assert [recent.find(number) for number in (1, 2, 3)] == [1, None, 3]
