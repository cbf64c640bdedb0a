"""`python -m deploy.audit`: look up the pinned versions in PyPI's database of vulnerabilities."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from feedsieve.command import run_command
from feedsieve.errors import FeedsieveError

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"
TIMEOUT = 15  # seconds for one package


class Unaudited(FeedsieveError):
    """The database cannot be reached, or does not know packages."""


class Vulnerable(FeedsieveError):
    """A pinned version has a known vulnerability."""


def audit(pins: Path) -> None:
    """Print how many versions have no known vulnerability. Raises Unaudited or Vulnerable."""
    packages = _report(pins)
    # pip-audit passes over such packages, all of them behind a mirror that has no database.
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        raise Unaudited(
            f"the database of vulnerabilities does not know {len(skipped)} of {len(packages)}"
            f" packages, such as {skipped[0]}; use an index that has one, as PyPI has"
        )
    found = [
        f"{package['name']} {package['version']}: {one['id']}"
        f" (fixed in {', '.join(one['fix_versions']) or 'no version yet'})"
        for package in packages
        for one in package["vulns"]
    ]
    for line in found:
        print(line)
    if found:
        raise Vulnerable(f"{len(found)} known vulnerabilities in {pins.name}; raise these versions")
    print(f"{len(packages)} versions without a known vulnerability")


def _report(pins: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(pins), "--format", "json"]
    command += ["--no-deps", "--disable-pip", "--progress-spinner", "off"]
    done = subprocess.run(
        [*command, "--timeout", str(TIMEOUT)], capture_output=True, text=True, check=False
    )
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        [reason, *_] = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise Unaudited(
            "pip-audit cannot reach the database of vulnerabilities, it needs a network"
            f" ({reason[:200]})"
        ) from None
    return packages


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.audit",
        description="Look up the versions of constraints.txt in PyPI's database of vulnerabilities."
        " The exit code is 1 if one is vulnerable, or if the database cannot be reached.",
    )
    parser.add_argument("--pins", type=Path, default=PINS, help="versions to look up (%(default)s)")
    options = parser.parse_args()
    return run_command("deploy.audit", lambda: audit(options.pins))


if __name__ == "__main__":
    sys.exit(main())
