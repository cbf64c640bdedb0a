"""Imports that leave out what a library would take along if it is installed."""

import importlib
import sys


def import_lightgbm_alone() -> None:
    """Import LightGBM without scikit-learn and pandas, which it takes along where they are.

    They are for those who train. A server does with arrays, and where somebody trains as well they
    would take 130 MB and a second of its start. Who imports them afterwards gets them.
    """
    absent = [name for name in ("pandas", "sklearn", "pyarrow", "dask") if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment] # an import of it raises ImportError
    try:
        importlib.import_module("lightgbm")
    finally:
        for name in absent:
            del sys.modules[name]
