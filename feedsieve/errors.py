"""Base class of the errors that users can cause.

Their messages are one line and say what to do. Commands print it and exit with code 1.
"""


class FeedsieveError(Exception):
    """Base class. Subclasses are defined next to the code that raises them."""
