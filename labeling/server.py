"""`python -m labeling.server`: Label Studio on this machine, with a user and a token of its own."""

import argparse
import os
import secrets
import socket
import sys
from pathlib import Path

USER = "feedsieve@localhost"
# The environment that `make labelstudio` makes; a container has it elsewhere.
ENVIRONMENT = Path(os.environ.get("LABEL_STUDIO") or ".venv-labelstudio")
DATA = Path(".labelstudio")
PORT = 8080
TOKEN_FILE = "token"
PASSWORD_FILE = "password"
_HOST = "127.0.0.1"
# Label Studio would tell its maker who uses it and how, and what went wrong, from the server and
# from the browser; and it would ask a package index for a newer version.
_QUIET = {
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LATEST_VERSION_CHECK": "false",
    "FEATURE_FLAGS_OFFLINE": "true",
}


class CannotStart(RuntimeError):
    """Label Studio cannot be started; says why and what to do."""


def secret(path: Path, length: int) -> str:
    """Return what is in `path`, which nobody else may read; made of `length` bytes if not there.

    Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    value = secrets.token_hex(length)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(value + "\n")
    return value


def environment(data: Path) -> dict[str, str]:
    """Return the environment that Label Studio is started in, with its user's secrets.

    They are not arguments, which every user of the machine could read. Raises OSError.
    """
    set_here = {
        "BASE_DATA_DIR": str(data.resolve()),
        "HOST": "",  # else a HOST that is meant for another server
        "USERNAME": USER,
        "PASSWORD": secret(data / PASSWORD_FILE, 12),
        "USER_TOKEN": secret(data / TOKEN_FILE, 20),  # of 40 characters, Label Studio's length
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        **_QUIET,
    }
    return os.environ | {f"LABEL_STUDIO_{name}": value for name, value in set_here.items()}


def main() -> int:
    """Become Label Studio; return 1 after one line on stderr that says why that cannot be."""
    options = _parser().parse_args()
    try:
        _start(options.program, options.data, options.port)
    except CannotStart as error:
        print(f"labeling.server: {error}", file=sys.stderr)
    except OSError as error:
        print(f"labeling.server: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


def _start(program: Path, data: Path, port: int) -> None:
    if not program.is_file():
        raise CannotStart(f"there is no {program}; `make labelstudio` installs it")
    with socket.socket() as probe:  # Label Studio would take the next port that is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except (OSError, OverflowError) as error:
            raise CannotStart(f"port {port} cannot be had ({error}); choose another one") from error
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    surroundings = environment(data)
    print(
        f"Label Studio at http://{_HOST}:{port}\n"
        f"user {USER}, password in {data / PASSWORD_FILE}, API token in {data / TOKEN_FILE}\n"
        "the first start takes a minute",
        flush=True,
    )
    arguments = ["start", "--no-browser", "--internal-host", _HOST, "--port", str(port)]
    os.execve(program, [str(program), *arguments, "--enable-legacy-api-token"], surroundings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m labeling.server",
        description="Start Label Studio on this machine alone, without telemetry. The first start"
        " makes a user and an API token.",
    )
    parser.add_argument("--port", type=int, default=PORT, help="where it listens (%(default)s)")
    parser.add_argument(
        "--data", type=Path, default=DATA, metavar="DIR", help="what it keeps (%(default)s)"
    )
    parser.add_argument(
        "--program",
        type=Path,
        default=ENVIRONMENT / "bin" / "label-studio",
        metavar="FILE",
        help="Label Studio itself (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
