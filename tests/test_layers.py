"""Layers, circles and pinned versions."""

import re
import shutil
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from serving import ROOT

LINTER = Path(sys.executable).with_name("lint-imports")
PACKAGES = ("feedsieve", "export", "train", "labeling", "loadtests", "data")
INSIDE_A_FUNCTION = ("feedsieve.scoring.scorer", "feedsieve.scoring.model_store")  # Scorer.load


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LINTER, "--no-cache"], cwd=root, capture_output=True, text=True)


def circle(imported: dict[str, set[str]]) -> list[str]:
    """Return the modules of a circle of imports, or none."""
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        return error.args[1]
    return []


class TestLayers:
    def test_no_layer_is_broken(self):
        done = lint(ROOT)
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize(
        ("file", "line", "broken"),
        [
            ("feedsieve/serving/runtime.py", "import feedsieve.api.routes", "Inside feedsieve"),
            ("feedsieve/scoring/scorer.py", "import feedsieve.store.store", "Inside feedsieve"),
            ("feedsieve/store/store.py", "import feedsieve.scoring.scorer", "Inside feedsieve"),
            ("feedsieve/sources/readers.py", "import feedsieve.store.feed", "Sources know"),
            ("export/check.py", "import train.options", "Dependencies point one way"),
            ("train/options.py", "import labeling.pull", "Dependencies point one way"),
        ],
    )
    def test_broken_layer_is_reported(self, tmp_path, file, line, broken):
        for package in PACKAGES:
            shutil.copytree(
                ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.db")
            )
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
        path = tmp_path / file
        path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
        done = lint(tmp_path)
        assert done.returncode == 1, done.stdout
        assert re.search(rf"^{broken}.*BROKEN", done.stdout, re.MULTILINE)

    def test_no_modules_import_each_other(self, monkeypatch):
        monkeypatch.syspath_prepend(ROOT)
        graph = grimp.build_graph(*PACKAGES, cache_dir=None)
        graph.remove_import(importer=INSIDE_A_FUNCTION[0], imported=INSIDE_A_FUNCTION[1])
        imported = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
        assert circle(imported) == []
        assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


def test_no_file_has_over_400_lines():
    files = [ROOT / "service.py"]
    for package in PACKAGES:
        files += (ROOT / package).rglob("*.py")
    lines = {str(file): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {file: count for file, count in lines.items() if count > 400} == {}


class TestVersions:
    def test_each_requirement_is_pinned_within_its_range(self):
        """`make constraints` writes the pins anew."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
        pins = {}
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
            name, _, version = line.partition("==")
            if version:
                pins[canonicalize_name(name)] = version
        for requirement in map(Requirement, lines):
            name = canonicalize_name(requirement.name)
            if name != "feedsieve":
                assert name in pins, f"constraints.txt has no {name}"
                assert requirement.specifier.contains(pins[name]), requirement

    def test_the_bento_has_the_libraries_of_live_sources(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        names = [Requirement(line).name for line in project["optional-dependencies"]["watch"]]
        service = (ROOT / "service.py").read_text(encoding="utf-8")
        packed = ", ".join(f'"{name}"' for name in sorted(names))
        assert f".python_packages({packed})" in service
