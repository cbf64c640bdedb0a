"""Work in the background gives way to requests, though not for ever."""

import threading
import time

from feedsieve.backlog import Courtesy


def test_it_waits_until_no_request_is_answered():
    courtesy, answered = Courtesy(), threading.Event()
    courtesy._resumed -= 60  # so long has it worked

    def request():
        with courtesy.request():
            answered.wait(10)

    client = threading.Thread(target=request)
    client.start()
    while not courtesy._requests:
        time.sleep(0.001)
    worker = threading.Thread(target=courtesy.give_way)
    worker.start()
    worker.join(0.2)
    assert worker.is_alive()
    answered.set()
    client.join()
    worker.join(5)
    assert not worker.is_alive()


def test_its_patience_is_measured_by_the_work_and_not_by_the_time_before_it():
    courtesy = Courtesy()
    courtesy._resumed -= 3600  # an hour without work
    courtesy.resume()
    time.sleep(0.05)  # the work
    began = time.monotonic()
    with courtesy.request():
        courtesy.give_way()
    assert 0.2 <= time.monotonic() - began < 5
