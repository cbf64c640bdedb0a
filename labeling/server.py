"""`python -m labeling.server`: start Label Studio on this machine, with a user and a token."""

import argparse
import os
import secrets
import socket
import sys
from pathlib import Path

from feedsieve.command import run_command
from feedsieve.errors import FeedsieveError

USER = "feedsieve@localhost"
# Created by `make labelstudio`; in a container it is elsewhere.
ENVIRONMENT = Path(os.environ.get("LABEL_STUDIO") or ".venv-labelstudio")
DATA = Path(".labelstudio")
PORT = 8080
TOKEN_FILE = "token"
PASSWORD_FILE = "password"
_HOST = "127.0.0.1"
# No telemetry, error reports (from server and browser) or requests for newer versions.
_QUIET = {
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LATEST_VERSION_CHECK": "false",
    "FEATURE_FLAGS_OFFLINE": "true",
}


class LabelStudioFailed(FeedsieveError):
    """Label Studio cannot be started; the message says why and what to do."""


def secret(path: Path, length: int) -> str:
    """Return the secret in a file that only its owner can read, created from `length` bytes.

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
    """Return the environment of Label Studio, with the secrets of its user. Raises OSError.

    Secrets are not passed as arguments, which every user of the machine can read.
    """
    variables = {
        "BASE_DATA_DIR": str(data.resolve()),
        "HOST": "",  # overrides a HOST that is meant for another server
        "USERNAME": USER,
        "PASSWORD": secret(data / PASSWORD_FILE, 12),
        "USER_TOKEN": secret(data / TOKEN_FILE, 20),  # Label Studio wants 40 characters
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        **_QUIET,
    }
    return os.environ | {f"LABEL_STUDIO_{name}": value for name, value in variables.items()}


def main() -> int:
    """Replace this process by Label Studio, or return 1 after an error message."""
    options = _parser().parse_args()
    return run_command(
        "labeling.server", lambda: _start(options.program, options.data, options.port)
    )


def _start(program: Path, data: Path, port: int) -> None:
    if not program.is_file():
        raise LabelStudioFailed(f"{program} does not exist; `make labelstudio` installs it")
    with socket.socket() as probe:  # Label Studio would take the next free port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except (OSError, OverflowError) as error:
            raise LabelStudioFailed(
                f"port {port} is not available ({error}); choose another one"
            ) from error
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    variables = environment(data)
    print(
        f"Label Studio at http://{_HOST}:{port}\n"
        f"user {USER}, password in {data / PASSWORD_FILE}, API token in {data / TOKEN_FILE}\n"
        "the first start takes a minute",
        flush=True,
    )
    arguments = ["start", "--no-browser", "--internal-host", _HOST, "--port", str(port)]
    os.execve(program, [str(program), *arguments, "--enable-legacy-api-token"], variables)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m labeling.server",
        description="Start Label Studio without telemetry, reachable from this machine only. The"
        " first start creates a user and an API token.",
    )
    parser.add_argument("--port", type=int, default=PORT, help="port (%(default)s)")
    parser.add_argument(
        "--data", type=Path, default=DATA, metavar="DIR", help="folder of its data (%(default)s)"
    )
    parser.add_argument(
        "--program",
        type=Path,
        default=ENVIRONMENT / "bin" / "label-studio",
        metavar="FILE",
        help="program of Label Studio (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
