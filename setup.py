"""Write the commit into wheels; all else about the package is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent))
from feedsieve.commit import COMMIT_FILE, find_commit


class WithCommit(build_py):
    """Copies the modules, and adds the file that says of which commit they are."""

    def run(self) -> None:
        super().run()
        known = find_commit()
        if known and not self.editable_mode:  # an editable installation asks git
            Path(self.build_lib, "feedsieve", COMMIT_FILE).write_text(known, encoding="utf-8")


setup(cmdclass={"build_py": WithCommit})
