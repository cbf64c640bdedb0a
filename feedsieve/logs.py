"""Logging without line breaks from requests and messages."""

import logging
import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class OneLine(logging.Filter):
    """Escapes control characters in log messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        record.msg = _CONTROL.sub(lambda match: ascii(match[0])[1:-1], message)
        record.args = ()
        return True
