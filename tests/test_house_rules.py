"""The rules of the house: who may import whom, and what must not be there at all."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import ROOT

from docs.command_help import COMMANDS
from feedsieve.api.routes import web
from feedsieve.settings import Settings

SERVING = ("feedsieve", "service.py")
# Packages that each part must not import. The runtime stays small.
FORBIDDEN = {
    "feedsieve": {"train", "export", "data", "labeling"},
    "service.py": {"train", "export", "data", "labeling"},
    "export": {"train", "data", "labeling"},
    "train": {"data", "labeling"},
    "labeling": {"data"},
    "feature_repo": {"train", "export", "data", "labeling"},
    "notebooks": {"data"},
}
HEAVY = {"torch", "transformers", "optimum", "pandas", "mlflow", "feast", "dask", "sklearn", "onnx"}
PICKLES = {"pickle", "cloudpickle", "joblib", "dill", "shelve"}
IMPORT_ALL = """
import importlib, pkgutil, sys
import feedsieve
for module in pkgutil.walk_packages(feedsieve.__path__, "feedsieve."):
    if module.name != "feedsieve.service":  # it needs a model
        importlib.import_module(module.name)
from feedsieve.scoring.classifier import import_lightgbm_alone
import_lightgbm_alone()
import onnxruntime, openvino  # which feedsieve imports when it loads a model
print(*sorted({name.partition(".")[0] for name in list(sys.modules)}))
"""


def violations(root: Path) -> list[str]:
    """Return where the source below `root` breaks a rule."""
    found = []
    for part, forbidden in FORBIDDEN.items():
        banned = forbidden | PICKLES | (HEAVY if part in SERVING else set())
        for file in sources(root / part):
            place = file.relative_to(root)
            tree = ast.parse(code(file))
            for package, line in imports(tree):
                if package in banned:
                    found.append(f"{place}:{line} imports {package}")
            if place.name not in ("settings.py", "__init__.py") and part in SERVING:
                found += [f"{place}:{line} reads a setting" for line in settings_read(tree)]
    return found


def sources(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted([*place.rglob("*.py"), *place.glob("*.ipynb")])


def code(file: Path) -> str:
    """Return the Python in a file: all of it, or the cells of a notebook."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".ipynb":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return "\n".join("".join(cell["source"]) for cell in cells)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0], node.lineno


def settings_read(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that look at the environment."""
    for node in ast.walk(tree):
        names = {getattr(node, name, None) for name in ("id", "attr")}
        if names & {"environ", "environb", "getenv"}:
            yield node.lineno


class TestSource:
    def test_no_rule_is_broken(self):
        assert violations(ROOT) == []

    @pytest.mark.parametrize(
        ("file", "line", "said"),
        [
            ("feedsieve/scoring/scorer.py", "import torch", "scorer.py:1 imports torch"),
            (
                "feedsieve/scoring/scorer.py",
                "from pandas import DataFrame",
                "scorer.py:1 imports pandas",
            ),
            ("feedsieve/new.py", "def late():\n    import dask.array", "new.py:2 imports dask"),
            ("feedsieve/store/store.py", "from train import data", "store.py:1 imports train"),
            ("feedsieve/store/feed.py", "import pickle", "feed.py:1 imports pickle"),
            ("feedsieve/new.py", "x = environ['FEEDSIEVE_DB']", "new.py:1 reads a setting"),
            ("service.py", "import transformers", "service.py:1 imports transformers"),
            (
                "export/check.py",
                "from train.data.labelled import split",
                "check.py:1 imports train",
            ),
            ("train/data/labelled.py", "import joblib", "labelled.py:1 imports joblib"),
            (
                "train/data/labelled.py",
                "from labeling import pull",
                "labelled.py:1 imports labeling",
            ),
            ("feature_repo/definitions.py", "import train", "definitions.py:1 imports train"),
        ],
    )
    def test_a_broken_rule_is_seen(self, tmp_path, file, line, said):
        for part in FORBIDDEN:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copyfile
            copy(ROOT / part, tmp_path / part)
        path = tmp_path / file
        path.write_text(f"{line}\n{path.read_text() if path.exists() else ''}")
        [found] = violations(tmp_path)
        assert found.endswith(said)

    def test_a_rule_broken_in_a_notebook_is_seen(self, tmp_path):
        cells = [
            {"cell_type": "markdown", "source": ["import joblib"]},
            {"cell_type": "code", "source": ["x = 1\n", "import pickle"]},
        ]
        (tmp_path / "notebooks").mkdir()
        (tmp_path / "notebooks" / "new.ipynb").write_text(json.dumps({"cells": cells}))
        assert violations(tmp_path) == ["notebooks/new.ipynb:2 imports pickle"]


class TestServing:
    def test_what_serves_brings_no_training_library_along(self):
        """Not through our own imports, nor through those of the libraries that we import."""
        done = subprocess.run(
            [sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        loaded = set(done.stdout.split())
        assert {"feedsieve", "onnxruntime", "openvino", "lightgbm"} <= loaded
        assert loaded & HEAVY == set()

    @pytest.mark.parametrize("command", ["train", "train.compare", "export"])
    def test_help_needs_no_training_library(self, command):
        """They take ten seconds to import."""
        code = "import runpy, sys\nsys.argv = ['x', '--help']\n"
        code += f"try:\n    runpy.run_module({command!r}, run_name='__main__')\n"
        code += "except SystemExit:\n    print('modules', *sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0 and "usage: " in done.stdout, done.stderr
        modules = done.stdout.rpartition("modules")[2].split()
        loaded = {name.partition(".")[0] for name in modules}
        assert loaded & (HEAVY - {"pandas"}) == set()

    def test_what_was_left_out_can_still_be_imported(self):
        later = "from feedsieve.scoring.classifier import import_lightgbm_alone as alone\nalone()\n"
        later += "import lightgbm, pandas, sklearn\nprint(pandas.DataFrame({'a': [1]}).a.sum())\n"
        later += "alone()\nimport pandas as again\nassert again is pandas"
        done = subprocess.run(
            [sys.executable, "-c", later], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "1"


class TestPages:
    PAGES = (
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        ROOT / "data" / "README.md",
    )
    PICTURE = re.compile(r"!\[(?P<alternative>[^]]*)\]\((?P<path>[^)]+)\)")
    SOURCE = re.compile(r"[\w.]+(?:/[\w.]+)+\.py\b")
    COMMAND = re.compile(r"python -m ([a-z][\w.]*)")
    TARGET = re.compile(r"(?<![\w-])make ([a-z][a-z-]*)")

    @staticmethod
    def text(page: Path) -> str:
        return page.read_text(encoding="utf-8")

    def pictures(self) -> Iterator[tuple[str, Path]]:
        """Yield the alternative text of each picture, and its file."""
        for page in self.PAGES:
            for found in self.PICTURE.finditer(self.text(page)):
                yield found["alternative"], (page.parent / found["path"]).resolve()

    def test_each_picture_exists_and_has_an_alternative_text(self):
        for alternative, file in self.pictures():
            assert alternative and file.is_file(), file

    def test_each_picture_is_shown_on_a_page(self):
        files = {file.resolve() for file in (ROOT / "docs" / "images").iterdir()}
        assert files == {file for _alternative, file in self.pictures()}

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_links_lead_to_files(self, page):
        for link in re.findall(r"\]\(([^)#]+)", self.text(page)):
            assert link.startswith(("http", "mailto:")) or (page.parent / link).exists(), link

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_named_modules_exist(self, page):
        for path in self.SOURCE.findall(self.text(page)):
            assert (ROOT / path).is_file(), path

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_named_commands_exist(self, page):
        for module in self.COMMAND.findall(self.text(page)):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_named_make_targets_exist(self, page):
        targets = set(re.findall(r"^([a-z-]+):", self.text(ROOT / "Makefile"), re.MULTILINE))
        code = re.findall(r"`[^`]+`|^```.*?^```", self.text(page), re.MULTILINE | re.DOTALL)
        assert {target for part in code for target in self.TARGET.findall(part)} <= targets

    def test_readme_is_at_most_a_thousand_words(self):
        assert len(self.text(ROOT / "README.md").split()) <= 1000

    @pytest.mark.parametrize("name", ["README.md", "README.ru.md", "docs/tutorial.md"])
    def test_own_messages_go_the_way_of_the_course(self, name):
        steps = ("make notebook", "data/scored_corpus.csv", "make labelstudio", "--by time", "push")
        text = self.text(ROOT / name)
        assert "make build" in text
        places = [text.rindex("data/messages.db", 0, text.index("data/scored_corpus.csv"))]
        for step in (*steps, "pull", "make train", "make serve"):
            places.append(text.find(step, places[-1]))
        assert -1 not in places, places

    def test_named_settings_exist(self):
        prefix = Settings.model_config["env_prefix"]
        ours = {f"{prefix}{name}".upper() for name in Settings.model_fields}
        for page in (ROOT / "README.md", ROOT / "README.ru.md", ROOT / "docs" / "serving.md"):
            named = set(re.findall(r"FEEDSIEVE_[A-Z_]+", self.text(page)))
            assert named <= ours, page

    def test_every_setting_is_described_for_the_reference(self):
        for name, field in Settings.model_fields.items():
            assert field.description, name

    def test_the_page_of_commands_has_every_command(self):
        listed = {command.partition(" ")[0] for group in COMMANDS.values() for command in group}
        for file in (ROOT / folder for folder in ("feedsieve", "train", "export", "labeling")):
            for source in file.rglob("*.py"):
                if '__name__ == "__main__"' in self.text(source):
                    module = source.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
                    assert module.removesuffix(".__main__") in listed, module

    def test_the_page_of_routes_has_every_route(self):
        page = self.text(ROOT / "docs" / "reference" / "routes.md")
        for route in web.routes:
            path = route.path.replace(":path", "").rstrip("/")
            assert f"{path}`" in page or f"{path}?" in page, path

    def test_screenshots_are_small_png(self):
        taken = [file for file in (ROOT / "docs" / "images").iterdir() if file.suffix == ".png"]
        assert taken
        for file in taken:
            assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n"), file
            assert file.stat().st_size < 250_000, file


class TestDevContainer:
    def test_its_image_is_made_of_what_is_there(self):
        folder = ROOT / ".devcontainer"
        built = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))["build"]
        stages = (folder / built["dockerfile"]).read_text(encoding="utf-8").split("\nFROM ")
        [stage] = [stage for stage in stages if stage.startswith(f"system AS {built['target']}\n")]
        lines = stage.splitlines()
        copied = {
            name
            for line in lines
            if line.startswith("COPY ")
            for name in line.split()[1:-1]
            if not name.startswith("--")
        }
        ignored = (folder / built["context"] / ".dockerignore").read_text(encoding="utf-8")
        assert copied == {line[1:] for line in ignored.splitlines() if line.startswith("!")}
        assert all((ROOT / name).is_file() for name in copied)
