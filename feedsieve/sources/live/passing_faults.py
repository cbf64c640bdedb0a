"""Faults of the disk, the network or another program, as opposed to those of a file's content."""

import errno
import sqlite3

from feedsieve.message import InvalidFile

# Of names and offsets in a damaged archive, and of programs that raise OSError without a number.
_OF_CONTENT = {
    None,
    errno.EEXIST,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
}
_PASSING_OF_SQLITE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
}
_PRIMARY = 0xFF  # bits of an error code of SQLite; those above tell its kinds apart


class FileUnavailable(InvalidFile):
    """A file that may be readable later as it is: the disk is full, or its server is away."""


def is_passing(error: BaseException | None) -> bool:
    """Return whether an error was caused by a fault that may pass without the file changing."""
    while error is not None:
        if isinstance(error, sqlite3.Error):
            return getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _PASSING_OF_SQLITE
        if isinstance(error, OSError):
            return error.errno not in _OF_CONTENT
        error = error.__cause__
    return False
