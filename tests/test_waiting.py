from contextlib import ExitStack

import pytest

from feedsieve.problems import ProblemResponse
from feedsieve.waiting import WaitingRoom


def enter(room, *requests):
    """Return the room's guests; closing it lets them go."""
    guests = ExitStack()
    for request in requests:
        guests.enter_context(room.place(request))
    return guests


def test_as_many_as_allowed_find_a_place_and_the_next_does_once_they_are_gone():
    room = WaitingRoom(requests=2, size=100)
    with enter(room, 1, 1), pytest.raises(ProblemResponse, match="too many requests") as refused:
        enter(room, 1)
    assert refused.value.status == 503
    enter(room, 1, 1)


def test_nor_may_they_be_larger_together_than_allowed():
    room = WaitingRoom(requests=10, size=100)
    with enter(room, 20, 20, 20, 20, 20):
        enter(room, 0).close()
        with pytest.raises(ProblemResponse):
            enter(room, 1)


def test_larger_ones_take_a_quarter_each():
    room = WaitingRoom(requests=10, size=100)
    with enter(room, 1, 300, 300, 300):
        enter(room, 24).close()
        with pytest.raises(ProblemResponse):
            enter(room, 300)


def test_who_fails_leaves_too():
    room = WaitingRoom(requests=1, size=100)
    for _ in range(2):
        with pytest.raises(KeyError), room.place():
            raise KeyError
