"""The command line: a thin skin over the public functions.

Knows: how to read arguments and print tables. Must not know: how studies work.
Exit codes: 0 done; 1 the study failed, or what was looked for is not there; 2 the command line is
wrong; 130 interrupted. A user's mistake prints one message, never a traceback.
"""

from __future__ import annotations

import runpy
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from dspex import __version__
from dspex.errors import DspexError

__all__ = ["main"]

DETAILS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """Turns our errors into messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _say_warning
                return super().invoke(ctx)
        except DspexError as error:
            click.secho(f"dspex: {error}", fg="red", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.secho("dspex: interrupted", fg="red", err=True)
            ctx.exit(130)


def _say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.secho(f"dspex: {message}", fg="yellow", err=True)


@click.group(cls=_Commands, context_settings=DETAILS)
@click.version_option(__version__, prog_name="dspex")
def main() -> None:
    """Improve machine-learning programs in parallel, on a laptop or a Dask cluster.

    \b
    Start here:
      dspex demo                     tune a real pipeline, watch it, get a report
      dspex optimize study.py:mine   run the study called `mine` in study.py
      dspex studies store.db         what is in a store
    """  # noqa: D301 - click wants the character itself, which keeps the lines as they are


@main.command()
@click.option("--trials", default=40, show_default=True, help="How many candidates to try.")
@click.option("--workers", default=None, type=int, help="Size of the embedded cluster.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same trials.")
@click.option(
    "--output",
    default="dspex-demo",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the store and the report.",
)
def demo(trials: int, workers: int | None, seed: int, output: Path) -> None:
    """Tune a scaler + PCA + SVC pipeline on scikit-learn's handwritten digits.

    Starts a Dask cluster on this machine, shows progress, and ends with a table of the default
    params against the best ones, the study's store and an HTML report. Under a minute on 2 cores.
    Run it again: the study is complete, so it only reads its log.
    """
    from dspex.demo import run_demo

    click.echo(run_demo(trials=trials, workers=workers, seed=seed, output=output))


@main.command()
@click.argument("declaration", metavar="FILE.py:NAME")
@click.option("--trials", type=int, help="The study's total; overrides the file's.")
@click.option("--cluster", help="Address of a Dask scheduler; an embedded cluster otherwise.")
@click.option("--storage", help="Where to keep the log: a path or sqlite:///path.")
@click.option("--study", help="The study's name in the store; NAME unless the file says another.")
@click.option("--seed", type=int, help="Makes the study reproducible.")
def optimize(declaration: str, **given: Any) -> None:
    """Run a study that a Python file declares.

    NAME is a dict of the arguments of dspex.optimize, `program` among them:

    \b
      mine = dict(program=SVC(), training_data=(X, y), metric="accuracy", trials=200)

    Ctrl-C ends the study in order; the same command goes on with it.
    """  # noqa: D301
    from dspex.api import optimize as run

    path, name, declared = _declared(declaration)
    options = {**declared, **{key: value for key, value in given.items() if value is not None}}
    if options.get("storage") is not None:
        options.setdefault("study", name)
    program = options.pop("program", None)
    if program is None:
        raise click.UsageError(f"{name!r} in {path} has no 'program'; add one")
    try:
        result = run(program, **options)
    except TypeError as error:
        if "unexpected keyword argument" in str(error):
            raise click.UsageError(f"{name!r} in {path}: {error}") from None
        raise
    click.echo(str(result))


@main.command()
@click.argument("store")
def studies(store: str) -> None:
    """List the studies in a STORE."""
    from dspex.storage import studies as list_studies

    found = list_studies(store)
    if not found:
        click.echo(f"there are no studies in {store}")
    rows = [
        (
            each.name,
            str(each.trials),
            each.head["strategy"]["name"],
            each.running or each.stop_reason or "broken off",
        )
        for each in found
    ]
    for line in _table(("study", "trials", "strategy", "state"), rows) if rows else ():
        click.echo(line)


@main.command()
@click.argument("store")
@click.argument("study")
@click.option("--trials", "most", default=10, show_default=True, help="How many of the best.")
@click.option("--verify", "check", is_flag=True, help="Derive every suggestion again.")
def show(store: str, study: str, most: int, check: bool) -> None:
    """Show a STUDY of a STORE: its best trials, and whether its log derives.

    With --verify every suggestion is asked for again from the log alone, and compared; the exit
    code is 1 where one differs.
    """
    from dspex.results import load
    from dspex.results.verify import verify
    from dspex.storage import read_records, study_info

    result = load(store, study)
    click.echo(str(result))
    completed = [trial for trial in result.trials if trial.score is not None]
    sign = result.goal.objectives[0].sign
    completed.sort(key=lambda trial: (trial.violation, sign * (trial.score or 0.0)))
    rows = [
        (
            str(trial.number),
            f"{trial.score:.6g}",
            f"{trial.seconds:.3g} s",
            ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items()),
        )
        for trial in completed[:most]
    ]
    click.echo()
    for line in _table(("trial", "score", "took", "params"), rows):
        click.echo(line)
    if check:
        verification = verify(study_info(store, study).head, read_records(store, study))
        if verification.not_derivable:
            raise click.ClickException(verification.not_derivable)
        click.echo(f"\n{verification.derived} suggestions derived again from the log")
        if verification.different:
            raise click.ClickException(f"these trials differ: {verification.different}")


@main.command()
@click.argument("store")
@click.argument("study")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="HTML file.")
def report(store: str, study: str, output: str) -> None:
    """Write a STUDY's report as one HTML file, which opens without a network."""
    from dspex.results import load

    click.echo(load(store, study).report(output))


def _declared(declaration: str) -> tuple[str, str, dict[str, Any]]:
    path, colon, name = declaration.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise click.UsageError(f"a study is named FILE.py:NAME; got {declaration!r}")
    if not Path(path).is_file():
        raise click.UsageError(f"there is no file {path}")
    # The file's neighbours are importable, as they are when Python runs it.
    sys.path.insert(0, str(Path(path).resolve().parent))
    try:
        names = runpy.run_path(path, run_name="__dspex__")
    except Exception as error:
        # Only the frames of the user's own code.
        frames = traceback.extract_tb(error.__traceback__)
        own = [
            each for each in frames if "runpy" not in each.filename and each.filename != __file__
        ]
        told = "".join([*traceback.format_list(own), *traceback.format_exception_only(error)])
        raise click.ClickException(f"{path} cannot be run:\n{told}") from None
    declared = names.get(name)
    if not isinstance(declared, Mapping):
        dicts = sorted(k for k, v in names.items() if isinstance(v, Mapping) and k[0] != "_")
        raise click.UsageError(
            f"{name!r} in {path} is not a dict of arguments; the file has {dicts or 'none'}"
        )
    return path, name, dict(declared)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Aligned columns; the last one is left as it is."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    widths[-1] = 0
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
