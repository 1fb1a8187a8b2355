"""Which versions the workers run, asked before anything of ours is sent to them.

Knows: what must agree between client and workers so that pickles are understood.
Must not know: studies.

The question is a line of source text that the worker evaluates with Python's own `eval`: a worker
without dspex, or with another Python, could not even unpickle a function of ours. It reads the
metadata of installed packages and imports none of them, because it runs on the worker's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

from distributed import Client

from dspex.errors import VersionMismatchError

__all__ = [
    "Facts",
    "ask_scheduler",
    "ask_workers",
    "describe",
    "explain",
    "mismatches",
    "own_facts",
]

Facts: TypeAlias = Mapping[str, str | None]
"""{name: version}, None where it is not there."""

ANSWER_WITHIN = 5.0
"""Seconds for a worker's answer."""

_SOURCE = """
def facts():
    import importlib.metadata, importlib.util, sys
    def version(name):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None
    def is_there(name):
        return name in sys.modules or importlib.util.find_spec(name) is not None
    return {
        "python": "%d.%d" % sys.version_info[:2],
        # In a source tree that is only on the path there is a package without metadata.
        "dspex": (version("dspex") or "source") if is_there("dspex") else None,
        "numpy": version("numpy"),
        "scikit-learn": version("scikit-learn"),
        "cloudpickle": version("cloudpickle"),
    }
"""
_QUESTION = f"(lambda space: (exec({_SOURCE!r}, space), space['facts']())[1])({{}})"

_PARTS_THAT_MATTER = {"python": 2, "dspex": 3, "numpy": 1, "scikit-learn": 3, "cloudpickle": 1}
"""How many parts of a version must agree: numpy and cloudpickle read each other's pickles within
a major version; scikit-learn promises that only for equal versions."""


def own_facts() -> Facts:
    """The versions of this process.

    Examples
    --------
    >>> sorted(own_facts())
    ['cloudpickle', 'dspex', 'numpy', 'python', 'scikit-learn']
    """
    facts: Facts = eval(_QUESTION)
    return facts


async def ask_scheduler(client: Client, question: str = _QUESTION) -> Facts:
    """Ask the scheduler for its versions, on the client's event loop."""
    ask: Any = client.run_on_scheduler
    facts: Facts = await asyncio.wait_for(ask(eval, question), ANSWER_WITHIN)
    return facts


async def ask_workers(
    client: Client, workers: Collection[str], question: str = _QUESTION
) -> dict[str, Facts]:
    """Ask workers for their versions, on the client's event loop; those that do not answer lack."""

    async def ask(some: list[str]) -> dict[str, Any]:
        answers: dict[str, Any] = await asyncio.wait_for(
            client.run(eval, question, workers=some, on_error="ignore"), ANSWER_WITHIN
        )
        return answers

    answers: dict[str, Any] = {}
    if not workers:
        return {}
    try:
        answers = await ask(list(workers))
    except TimeoutError:
        # One that hangs holds up the answer for all; so each is asked by itself.
        alone = await asyncio.gather(*(ask([each]) for each in workers), return_exceptions=True)
        for each in alone:
            if isinstance(each, dict):
                answers |= each
            elif not isinstance(each, TimeoutError):
                raise each from None
    return {worker: facts for worker, facts in answers.items() if isinstance(facts, Mapping)}


def mismatches(ours: Facts, theirs: Facts) -> list[str]:
    """What does not fit, in words.

    Examples
    --------
    >>> mismatches({"python": "3.11", "numpy": "2.1.0"}, {"python": "3.12", "numpy": "2.3.1"})
    ['python 3.12 instead of 3.11']
    >>> mismatches({"dspex": "0.1.0"}, {"dspex": None})
    ['no dspex instead of 0.1.0']
    """
    found = []
    for name, own in ours.items():
        other = theirs.get(name)
        parts = _PARTS_THAT_MATTER[name]
        if _head(own, parts) != _head(other, parts):
            has = f"no {name}" if other is None else f"{name} {other}"
            found.append(f"{has} instead of {own or 'none'}")
    return found


def _head(version: str | None, parts: int) -> Sequence[str] | None:
    return None if version is None else version.split(".")[:parts]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(sorted(names)[:3]) + more


def describe(unfit: Mapping[str, Sequence[str]]) -> str:
    """Say who has what, those alike together: {address: what does not fit}.

    Examples
    --------
    >>> describe({"a": ["no dspex"], "b": ["no dspex"], "c": ["python 3.12"]})
    'a, b: no dspex; c: python 3.12'
    """
    groups: dict[str, list[str]] = {}
    for worker, found in unfit.items():
        groups.setdefault(", ".join(found), []).append(worker)
    return "; ".join(f"{_some(names)}: {what}" for what, names in groups.items())


def explain(unfit: Mapping[str, Sequence[str]], workers: int) -> VersionMismatchError:
    """The error for a cluster some of whose workers do not fit: {address: what does not fit}."""
    return VersionMismatchError(
        "workers must run the client's versions, because programs and data travel as pickles; "
        f"{len(unfit)} of {workers} do not: {describe(unfit)}; start them from the client's "
        "environment (pip install dspex there), or pass distributed=False",
        workers={worker: list(found) for worker, found in unfit.items()},
    )
