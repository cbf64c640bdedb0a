"""CSV files of messages, the format of whatever is nothing else."""

from feedsieve.sources.start import FileStart
from feedsieve.sources.tables.messages import read_csv as read

__all__ = ["NAME", "TITLE", "read", "recognise"]

NAME = "csv"
TITLE = "CSV"


def recognise(start: FileStart) -> bool:
    """Return True: the errors of CSV name the columns."""
    return True
