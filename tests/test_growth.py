"""No text takes more than linear time: four times the text takes about four times as long."""

import time
from collections.abc import Callable

import pytest

from feedsieve.language import language
from feedsieve.scoring.handcrafted import HANDCRAFTED
from feedsieve.text import normalise, plain, storable

UNITS = (
    "\u0301", "\u0301\u0327", "\u0344\u0327", "\uff9e\u0301", "a" + 29 * "\u0301",
    "\u1100\u1161\u11a8", "\ufdfa", " ", "\n", "\u200b", "\0", "\ud83d", "🔥", "👩\u200d", "🇨🇾",
    "日本", "a", "я ", ".", "-", "- ", "•", "1", "1 ", "1.", "111 ", "1 200 ", "12 345,", "€",
    "€1 ", "+357 ", "(1)", "10 м", "12,1", "@", "a@", "@abc", "#", "#a", "<", "<p", "&#", "http://",
    "www.", "t.me/", "a.", "a.com", "[{", '"', "\\",
)  # fmt: skip
LENGTH = 2_500  # characters; quadratic steps of a nanosecond take 6 ms
MOST = 9  # times as long for four times the length: linear is 4, quadratic 16
NEGLIGIBLE = 0.01  # seconds, for `4 * LENGTH` characters: a request has 256 texts
READERS: dict[str, Callable[[str], object]] = {
    "normalise": normalise,
    "plain": plain,
    "language": language,
    "storable": storable,
    **HANDCRAFTED,
}


def seconds(read: Callable[[str], object], text: str) -> float:
    """Return the least processor time of three calls, each with another text of this length."""
    times = []
    for number in range(3):
        other = f"{number}{text}"[: len(text)]  # not cached
        started = time.process_time()
        read(other)
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize("name", READERS)
def test_time_grows_with_the_length(name):
    read = READERS[name]
    read("the first call may build a table \u0301" + 20 * "\u0301")
    for unit in UNITS:
        short = (unit * LENGTH)[:LENGTH]
        long = seconds(read, (unit * 4 * LENGTH)[: 4 * LENGTH])
        assert long < NEGLIGIBLE or long < MOST * seconds(read, short), f"{unit!r}"
