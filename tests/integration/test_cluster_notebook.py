"""In a notebook: functions of its `__main__`, lambdas, the kernel's own event loop."""

from __future__ import annotations

import pathlib
from typing import Any

import nbclient
import nbformat
import pytest

import dspex

SOURCE = str(pathlib.Path(dspex.__file__).parents[1])

CELLS = [
    "import dspex\n"
    "from distributed import Client\n"
    "FACTOR = 3\n"
    "class Helper:\n"
    "    def apply(self, x): return FACTOR * x\n"
    "def program(params): return Helper().apply(params['x'])\n"
    "where = dict(space={'x': dspex.Float(0, 1)}, direction='minimize', trials=4,\n"
    "             parallel_evaluations=1, progress=False)",
    "found = dspex.optimize(program, cluster_nodes=1, **where)\n"
    "assert found.best_score == 3 * found.best_params['x']",
    "client = Client(n_workers=1, threads_per_worker=1, dashboard_address=':0')\n"
    "found = dspex.optimize(lambda params: FACTOR * params['x'], **where)\n"
    "assert all(trial.worker.startswith('tcp') for trial in found.trials)\n"
    "assert client.status == 'running'",
    "client.cluster.close(); client.close()\n"
    "found = await __import__('asyncio').to_thread(\n"
    "    dspex.optimize, program, cluster_nodes=1, **where)\n"
    "len(found.trials)",
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_kernel_runs_studies(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", SOURCE)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    make: Any = nbformat.v4
    notebook = make.new_notebook(cells=[make.new_code_cell(cell) for cell in CELLS])
    client: Any = nbclient.NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    assert not [
        output
        for cell in notebook.cells
        for output in cell.outputs
        if output.output_type == "stream"
    ]
    assert notebook.cells[-1].outputs[0]["data"]["text/plain"] == "4"
