"""What holds of the package as a whole: a light import, pinned public names, small files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dspex

ROOT = Path(dspex.__file__).parent
HEAVY = ("numpy", "scipy", "sklearn", "dask", "distributed", "bokeh", "pandas", "tqdm", "click")


def test_importing_dspex_loads_nothing_heavy() -> None:
    code = f"import sys, dspex; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "[]"


def test_public_names_are_pinned_and_importable() -> None:
    assert dspex.__all__ == sorted(dspex.__all__)
    assert dspex.__all__ == [
        "Bool",
        "Choice",
        "Component",
        "Derived",
        "Float",
        "Int",
        "Measurement",
        "OptimizationResult",
        "Program",
        "RunningTrial",
        "Space",
        "Strategy",
        "Study",
        "Trial",
        "TrialState",
        "connect",
        "delete_study",
        "load",
        "optimize",
        "studies",
        "suggest_space",
    ]
    for name in dspex.__all__:
        assert getattr(dspex, name) is not None
        assert name in dir(dspex)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        dspex.optimise  # noqa: B018


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_is_small_and_opens_with_its_theory(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 450, "split it: a file is one idea"
    assert lines, "delete it"
    assert lines[0].startswith(('"""', 'r"""')), "say what this file knows, and must not know"
