"""`python -m MODULE` or `python -c CODE` in a process that starts with slow libraries imported.

PyTorch, transformers, scikit-learn and the others take up to ten seconds of processor time to
import, more than most commands of the tests take for their work. So each process is forked from one
that has imported them (a fork server of multiprocessing). It has its own environment, folder,
output and exit code. What a command imports by itself is checked by tests/test_exports.py and
tests/test_house_rules.py, in processes that start from nothing.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

SLOW = [
    "lightgbm", "matplotlib.pyplot", "nncf", "onnx", "optimum.exporters.onnx", "pandera.pandas",
    "sklearn.feature_extraction.text", "sklearn.linear_model", "sklearn.neighbors", "sklearn.svm",
    "sqlalchemy.orm", "torch", "transformers.models.bert.modeling_bert",
]  # fmt: skip
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(SLOW)


def run_python(
    *arguments: object, cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run Python with `arguments`, of which the first is -m or -c; return its output."""
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory(prefix="python-process-") as folder:
        out, err = Path(folder) / "stdout", Path(folder) / "stderr"
        process = _server.Process(target=_run, args=(words, cwd, dict(env), out, err))
        process.start()
        process.join()
        output = (out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))
        assert process.exitcode is not None
        return subprocess.CompletedProcess(words, process.exitcode, *output)


def _run(
    words: list[str], cwd: Path, environment: dict[str, str], out: Path, err: Path
) -> NoReturn:
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:] = [str(cwd), *environment.get("PYTHONPATH", "").split(":"), *sys.path]
    option, program, *sys.argv[1:] = words
    code = 0
    try:
        if option == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            sys.argv[0] = "-c"
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        code = _exit_code(end)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code(end: SystemExit) -> int:
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr)
        return 1
    return end.code or 0
