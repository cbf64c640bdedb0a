"""Files inside archives, folders and pipes, as plain files on disk."""

import bz2
import gzip
import lzma
import re
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath, PurePosixPath
from tempfile import TemporaryDirectory, gettempdir
from typing import IO, Any

from feedsieve.message import InvalidFile
from feedsieve.sources.report import ReadReport

STDIN = Path("-")
MOST_BYTES = 64 * 2**30
"""The most bytes that are unpacked from one path."""
HIGHEST_RATIO = 200
"""The most times that a file may grow beyond `FREE_BYTES`; chats grow 5 to 20 times."""
FREE_BYTES = 2**28

_CHUNK = 2**20
_MOST_ENTRIES = 100_000
_DEEPEST = 3  # archives within archives
_SHOWN = 5
_PREFIX = "feedsieve-unpacked-"
_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_COMPRESSED_ENDINGS = (".gz", ".bz2", ".xz")
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second one is empty
_OTHER_ARCHIVES = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
}
_TAR = 257, b"ustar"
_MESSAGES = {
    *(".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".ndjson", ".zip", ""),
    *(".db", ".db3", ".sqlite", ".sqlite3", ".sql", *_COMPRESSED_ENDINGS),
}
_PAGES = {".html", ".htm"}
_TELEGRAM = "result.json"
_SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini"}


@contextmanager
def unpacked(path: Path, report: ReadReport) -> Iterator[list[Path]]:
    """Yield the plain files of a path, for as long as the block lasts.

    A path is a file, a file compressed by gzip, bzip2 or xz, a zip file, a folder, a named pipe or
    `-`, the standard input. The content decides, not the name. Of a folder or zip file, files are
    taken that could be messages by their names; the report names the others. A Telegram export is
    its result.json. Unpacked files are temporary, under their own names; `shown` removes the rest
    of the path.

    Raises InvalidFile if there is no such file, if the archive is damaged, encrypted or unknown,
    if it unpacks to more than `MOST_BYTES`, or if the disk is full.
    """
    with ExitStack() as stack:
        try:
            folder = TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
        except OSError as error:
            raise InvalidFile(
                f"{path} cannot be read: there is no temporary folder: {error.strerror or error};"
                " set TMPDIR to one"
            ) from error
        yield _Unpacking(path, Path(stack.enter_context(folder)), report).files()


def shown(text: str) -> str:
    """Return a text, such as an error, with unpacked files as `ARCHIVE/NAME`."""
    return re.sub(rf"{re.escape(gettempdir())}/{_PREFIX}[^/]+/[^/]+/", "", text)


class _Unpacking:
    """The unpacking of one path into a temporary folder."""

    def __init__(self, path: Path, folder: Path, report: ReadReport) -> None:
        self._path, self._folder, self._report = path, folder, report
        self._bytes = self._entries = 0
        self._most = MOST_BYTES
        self._others: list[str] = []

    def files(self) -> list[Path]:
        """Return the plain files. Raises InvalidFile."""
        try:
            files = self._plain(self._path, 0)
        except OSError as error:
            raise InvalidFile(f"{self._path}: {error.strerror or error}") from error
        if self._others:
            more = len(self._others) - _SHOWN
            names = ", ".join(self._others[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
            self._report.note(f"not read, no messages by their names: {names}")
        if not files:
            raise InvalidFile(f"{self._path}: expected messages; no file in it could be messages")
        return files

    def _plain(self, path: Path, depth: int) -> list[Path]:
        if path == STDIN:
            return self._plain(self._copy(sys.stdin.buffer, "stdin"), depth)
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return self._of_folder(path, depth)
        if not stat.S_ISREG(status.st_mode):
            with path.open("rb") as pipe:
                return self._plain(self._copy(pipe, path.name), depth)
        with path.open("rb") as file:
            start = file.read(512)
        if start.startswith(_ZIP):
            return self._of_zip(path, self._deeper(path, depth))
        for magic, open_file in _COMPRESSED.items():
            if start.startswith(magic):
                return self._of_compressed(path, open_file, self._deeper(path, depth))
        self._check_known(path, start)
        return [path]

    def _check_known(self, path: Path, start: bytes) -> None:
        names = [name for magic, name in _OTHER_ARCHIVES.items() if start.startswith(magic)]
        if start[_TAR[0] :].startswith(_TAR[1]):
            names.append("a tar archive")
        if names:
            raise InvalidFile(f"{self._name(path)} is {names[0]}; unpack it first")

    def _deeper(self, path: Path, depth: int) -> int:
        if depth == _DEEPEST:
            raise InvalidFile(f"{self._name(path)}: too many archives within archives")
        if not depth:
            most = max(FREE_BYTES, path.stat().st_size * HIGHEST_RATIO)
            self._most = min(MOST_BYTES, self._bytes + most)
        return depth + 1

    def _of_folder(self, folder: Path, depth: int) -> list[Path]:
        if (folder / _TELEGRAM).is_file():
            return [folder / _TELEGRAM]
        entries = sorted(entry for entry in folder.iterdir() if not _is_of_the_system(entry.name))
        files = [entry for entry in entries if not entry.is_dir()]
        known = [file for file in files if file.is_file()]
        taken = [file for file in known if _could_be_messages(PurePath(file.name))]
        taken = taken or [file for file in known if file.suffix.lower() in _PAGES]
        self._others += [file.name for file in files if file not in taken]
        found = [plain for file in taken for plain in self._plain(file, depth)]
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
                found += self._of_folder(entry, depth)
        return found

    def _of_compressed(self, path: Path, open_file: Callable[..., Any], depth: int) -> list[Path]:
        name = path.name
        for ending in _COMPRESSED_ENDINGS:
            name = name[: -len(ending)] if name.lower().endswith(ending) else name
        with open_file(path) as file, self._named_errors(path):
            plain = self._copy(file, name or path.name)
        return self._plain(plain, depth)

    def _of_zip(self, path: Path, depth: int) -> list[Path]:
        with self._named_errors(path), zipfile.ZipFile(path) as archive:
            entries = [file for file in archive.infolist() if not file.filename.endswith("/")]
            self._entries += len(entries)
            if self._entries > _MOST_ENTRIES:
                raise self._too_large()
            if "[Content_Types].xml" in archive.namelist():
                raise InvalidFile(
                    f"{self._name(path)} is an Office document; save the sheet as CSV in UTF-8"
                )
            folder = self._folder / f"{depth}-{self._entries}" / path.name
            repeated = []
            for entry in _wanted(entries, self._others):
                if entry.flag_bits & 1:
                    raise InvalidFile(
                        f"{self._name(path)} is encrypted; unpack it first, with its password"
                    )
                with archive.open(entry) as file:
                    plain = self._copy(file, _safe(_decoded(entry)), folder)
                if not plain.is_relative_to(folder):
                    repeated.append(plain)
            found = self._of_folder(folder, depth) if folder.exists() else []
            return found + [plain for file in repeated for plain in self._plain(file, depth)]

    @contextmanager
    def _named_errors(self, path: Path) -> Iterator[None]:
        """Raise InvalidFile for a damaged archive."""
        try:
            yield
        except NotImplementedError as error:  # zipfile: a compression method it does not have
            raise InvalidFile(
                f"{self._name(path)} cannot be unpacked: {error}; unpack it first"
            ) from error
        except (
            *(zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
            *(EOFError, ValueError, OverflowError, struct.error),
        ) as error:
            if isinstance(error, InvalidFile):
                raise
            raise InvalidFile(
                f"{self._name(path)} is damaged or cut short: {error}; get it again"
            ) from error

    def _copy(self, source: IO[bytes], name: str, folder: Path | None = None) -> Path:
        """Copy to a temporary file in chunks. Raises InvalidFile, and errors of `source`."""
        self._entries += 1
        target = (folder or self._folder / str(self._entries)) / name
        if target.exists():  # an archive may have a name twice
            target = self._folder / str(self._entries) / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("wb", buffering=0)
        except OSError as error:
            raise self._cannot_write(error) from error
        with file:
            while chunk := source.read(_CHUNK):
                self._bytes += len(chunk)
                if self._bytes > self._most:
                    raise self._too_large()
                rest = memoryview(chunk)
                while rest:
                    try:
                        rest = rest[file.write(rest) :]
                    except OSError as error:
                        raise self._cannot_write(error) from error
        return target

    def _too_large(self) -> InvalidFile:
        return InvalidFile(
            f"{self._path} unpacks to more than {self._most / 2**30:,.1f} GiB or"
            f" {_MOST_ENTRIES:,} files; unpack it yourself, and import what is in it"
        )

    def _cannot_write(self, error: OSError) -> InvalidFile:
        return InvalidFile(
            f"{self._path} cannot be unpacked into {self._folder.parent}:"
            f" {error.strerror or error}; set TMPDIR to a folder with more space"
        )

    def _name(self, path: Path) -> str:
        return str(path) if path == self._path else shown(str(path))


def _wanted(entries: list[zipfile.ZipInfo], others: list[str]) -> Iterator[zipfile.ZipInfo]:
    """Yield the entries that could be messages; append the names of the others to `others`."""
    paths = [PurePosixPath(_safe(_decoded(entry))) for entry in entries]
    exports = {path.parent for path in paths if path.name == _TELEGRAM}
    for entry, path in zip(entries, paths, strict=True):
        if any(map(_is_of_the_system, path.parts)):
            continue
        is_beside_export = not exports.isdisjoint(path.parents) and path.name != _TELEGRAM
        could_be = _could_be_messages(path) or path.suffix.lower() in _PAGES
        if could_be and not is_beside_export:
            yield entry
        else:
            others.append(path.name)


def _could_be_messages(path: PurePath) -> bool:
    return path.suffix.lower() in _MESSAGES and not any(part[0] == "." for part in path.parts)


def _is_of_the_system(name: str) -> bool:
    return name.startswith(("._", "__MACOSX", "~$")) or name in _SYSTEM


def _decoded(entry: zipfile.ZipInfo) -> str:
    """Return an entry's name; Windows writes Russian names in cp866, macOS in unmarked UTF-8."""
    if entry.flag_bits & 0x800 or entry.filename.isascii():
        return entry.filename
    raw = entry.filename.encode("cp437")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp866")


def _safe(name: str) -> str:
    """Return a relative path without steps upwards."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..", ".")]
    return str(PurePosixPath(*parts)) if parts else "unnamed"
