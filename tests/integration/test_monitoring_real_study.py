"""A real study, seen: its result's pictures, report and frame, its log lines, in a notebook."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bokeh.models import Model
from nbclient import NotebookClient

import dspex
from dspex.monitoring import PlainLines


def program(params: dict[str, Any]) -> float:
    if params["x"] > 0.9:
        raise ArithmeticError(f"x={params['x']:.1f} is too much")
    return float((params["x"] - 0.3) ** 2 + params.get("knob", 0.1))


SPACE = {
    "x": dspex.Float(0, 1),
    "kind": dspex.Choice(["plain", "tuned"]),
    "knob": dspex.Float(0, 1).when("kind", equals="tuned"),
}


@pytest.fixture(scope="module")
def result() -> Any:
    return dspex.optimize(
        program,
        space=SPACE,
        direction="minimize",
        trials=60,
        seed=3,
        parallel_evaluations=4,
        distributed=False,
        progress=False,
    )


@pytest.mark.parametrize(
    "name", ["history", "timeline", "slice", "importance", "parallel_coordinates"]
)
def test_every_picture_of_a_real_result(result: Any, name: str) -> None:
    assert isinstance(getattr(result.plot, name)(), Model)


def test_report_frame_and_cards_of_a_real_result(result: Any, tmp_path: Path) -> None:
    text = Path(result.report(str(tmp_path / "report.html"))).read_text(encoding="utf-8")
    assert "ArithmeticError: x=" in text
    assert len(result.trials_dataframe()) == 60
    assert "stopped: all trials are done" in repr(result)
    assert "<svg" in result._repr_html_()
    assert result.importances()["x"] > 0


def test_progress_and_log_lines_of_a_real_study(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dspex")
    dspex.optimize(
        program,
        space=SPACE,
        direction="minimize",
        trials=20,
        seed=3,
        parallel_evaluations=4,
        distributed=False,
        progress=False,
        callbacks=[PlainLines(sys.stdout)],
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Study: strategy ")
    assert lines[-1].startswith("Stopped: all trials are done. 20 trials")
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("study started: strategy ")
    assert any("failed: ArithmeticError: x=" in message for message in messages)
    assert messages[-1].startswith("study ended (trials) after ")


def run_notebook(*cells: str) -> list[list[Any]]:
    notebook = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells]  # type: ignore[no-untyped-call]
    )
    NotebookClient(notebook, timeout=90, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


STUDY = """\
import dspex
result = dspex.optimize(
    lambda params: params["x"], space={"x": dspex.Float(0, 1)}, direction="maximize",
    trials=20, distributed=False,
)"""


@pytest.mark.slow
@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_shows_the_bar_the_card_and_the_picture(widgets: bool) -> None:
    without = "import sys; sys.modules['ipywidgets'] = None"
    _, study, card, picture = run_notebook(
        "pass" if widgets else without, STUDY, "result", "result.plot.history()"
    )
    written = "".join(output.text for output in study if output.output_type == "stream")
    assert "Stopped: all trials are done. 20 trials" in written
    assert "Warning" not in written
    drawn = [
        output
        for output in study
        if "application/vnd.jupyter.widget-view+json" in getattr(output, "data", {})
    ]
    assert bool(drawn) == widgets
    if not widgets:
        assert "20/20" in written
    assert any("<svg" in output.data.get("text/html", "") for output in card)
    kinds = {kind for output in picture for kind in output.data}
    assert "application/vnd.bokehjs_exec.v0+json" in kinds
