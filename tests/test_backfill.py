"""The backfill pauses for requests, for a bounded time."""

import threading
import time

from feedsieve.serving.backfill import Throttle


def test_pause_waits_until_no_request_is_in_progress():
    throttle, answered = Throttle(), threading.Event()
    throttle._resumed -= 60  # seconds of work

    def request():
        with throttle.request():
            answered.wait(10)

    client = threading.Thread(target=request)
    client.start()
    while not throttle._requests:
        time.sleep(0.001)
    worker = threading.Thread(target=throttle.pause)
    worker.start()
    worker.join(0.2)
    assert worker.is_alive()
    answered.set()
    client.join()
    worker.join(5)
    assert not worker.is_alive()


def test_pause_is_bounded_by_the_work_since_resume():
    throttle = Throttle()
    throttle._resumed -= 3600  # an hour without work
    throttle.resume()
    time.sleep(0.05)  # the work
    started = time.monotonic()
    with throttle.request():
        throttle.pause()
    assert 0.2 <= time.monotonic() - started < 5
