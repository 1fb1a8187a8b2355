"""Opening a study: new, or resumed from its log, or refused because it is another one.

Knows: what identifies a study, and what may change between its sessions.
Must not know: how it proceeds.

The head of a log holds, as JSON, what identifies the study (`IDENTITY`: a difference refuses the
resume by name) and what is only worth a warning (`CIRCUMSTANCES`).
"""

from __future__ import annotations

import json
import platform
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, final

from dspex.engine.ports import Log
from dspex.errors import (
    InvalidArgumentError,
    InvalidParamsError,
    StudyExistsError,
    StudyMismatchError,
    StudyNotFoundError,
)
from dspex.space import Space
from dspex.storage import open_log, study_info
from dspex.strategies.registry import NAMES, create
from dspex.study.goal import Goal
from dspex.study.records import Opened, Record
from dspex.study.seeds import fresh_seed
from dspex.study.state import StudyState

__all__ = [
    "IDENTITY",
    "OpenedStudy",
    "Resume",
    "circumstances",
    "kept_strategy",
    "open_study",
    "restore",
]

Resume = Literal["auto", "never", "must", "force"]

IDENTITY = (
    "space",
    "goal",
    "strategy",
    "seed",
    "reproducible",
    "k",
    "block",
    "folds",
    "cv",
    "metric",
    "data",
    "validation_data",
    "metadata",
)

CIRCUMSTANCES = ("program", "versions", "machine", "blas_threads")

_PACKAGES = ("dspex", "numpy", "scipy", "scikit-learn", "cmaes", "dask", "distributed")


@final
@dataclass(frozen=True, slots=True)
class OpenedStudy:
    """A study ready to go on.

    Attributes
    ----------
    log : Log
        Owned by this process.
    state : StudyState
        With all records replayed.
    head : mapping
        The head in force.
    """

    log: Log
    state: StudyState
    head: Mapping[str, Any]


def circumstances() -> dict[str, Any]:
    """Versions and processor, which G2 does not reach beyond.

    Examples
    --------
    >>> sorted(circumstances())
    ['machine', 'versions']
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "machine": f"{platform.system()} {platform.machine()}"}


def kept_strategy(storage: str | None, study: str | None) -> Any:
    """What "auto" means for a study that may exist: what was chosen for it, else a new choice.

    The choice depends on the budget, and a study whose total is raised is to go on as it began.
    """
    if storage is None or study is None:
        return "auto"
    try:
        recorded = study_info(storage, study).head["strategy"]
    except (StudyNotFoundError, KeyError):
        return "auto"
    return create(recorded["name"], **recorded["options"]) if recorded["name"] in NAMES else "auto"


def open_study(
    storage: str | None,
    study: str | None,
    *,
    space: Space,
    goal: Goal,
    head: Mapping[str, Any],
    resume: Resume,
) -> OpenedStudy:
    """Open a study's log and replay it.

    Parameters
    ----------
    storage, study : str or None
        Where, and under which name; both None: in memory.
    space, goal : Space, Goal
    head : mapping
        What the caller wants the study to be. A seed of None takes over the recorded one, or
        becomes a fresh one.
    resume : "auto", "never", "must", "force"

    Raises
    ------
    StudyExistsError, StudyNotFoundError
        Where `resume` says "never" or "must" and the log says otherwise.
    StudyMismatchError
        Where the log's study is another one; names both values.
    StudyInUseError, StorageError
        From the storage room.
    """
    if resume not in ("auto", "never", "must", "force"):
        raise InvalidArgumentError(f'resume is "auto", "never", "must" or "force"; got {resume!r}')
    log = open_log(storage, study)
    try:
        state = StudyState(space, goal, folds=head["folds"], reproducible=head["reproducible"])
        misfit = _replay(state, log.load())
        recorded = state.head
        if not recorded and resume == "must":
            raise StudyNotFoundError(
                f'resume="must", but there is no study {study!r} in {storage}; '
                'check the name with `dspex studies`, or pass resume="auto"'
            )
        if recorded and resume == "never":
            raise StudyExistsError(
                f'resume="never", but the study {study!r} is in {storage}; choose another name, '
                "or delete it with dspex.delete_study"
            )
        if recorded:
            in_force = _reconcile(recorded, head, study=study, force=resume == "force")
        else:
            in_force = {**head, "seed": fresh_seed() if head["seed"] is None else head["seed"]}
        if misfit is not None:
            raise StudyMismatchError(
                f"the study {study!r} has trials that do not lie in this space ({misfit}); "
                "give the study another name"
            ) from misfit
        opened = Opened(head=in_force, time=time.time())
        state.apply(opened)
        log.append([opened])
    except BaseException:
        log.close()
        raise
    return OpenedStudy(log, state, in_force)


def restore(head: Mapping[str, Any], records: Iterable[Record]) -> StudyState:
    """The state that a log holds, for reading only: no program, no objects, only labels.

    Parameters
    ----------
    head : mapping
        As the last session left it.
    records : iterable of Record
        A whole log.

    Examples
    --------
    >>> from dspex.space import Float, Space
    >>> goal = Goal.of("minimize").describe()
    >>> space = Space({"x": Float(0, 1)}).describe()
    >>> head = {"space": space, "goal": goal, "folds": 1, "reproducible": False}
    >>> restore(head, [Opened(head=head, time=0.0)])
    <StudyState 0/0 trials ended, 0 failed>
    """
    state = StudyState(
        Space.from_description(head["space"]),
        Goal.from_description(head["goal"]),
        folds=head["folds"],
        reproducible=head["reproducible"],
    )
    state.replay(records)
    return state


def _replay(state: StudyState, records: Iterable[Record]) -> Exception | None:
    """Replay a log; where its trials do not fit, the head tells better why."""
    try:
        state.replay(records)
    except (InvalidParamsError, KeyError, IndexError) as error:
        return error
    return None


def _reconcile(
    recorded: Mapping[str, Any], wanted: Mapping[str, Any], *, study: str | None, force: bool
) -> dict[str, Any]:
    """The head of a resumed study, or why it is another study."""
    # Through JSON, as the recorded one went: tuples become lists, numbers stay the same.
    given: dict[str, Any] = json.loads(json.dumps(dict(wanted)))
    if given["seed"] is None:
        given["seed"] = recorded["seed"]
    different = [name for name in IDENTITY if given.get(name) != recorded.get(name)]
    if different and not force:
        details = "; ".join(
            f"{name}: recorded {_short(recorded.get(name), given.get(name))}" for name in different
        )
        raise StudyMismatchError(
            f"the study {study!r} is another one: {details}. Give the study another name, call "
            'with the recorded values, or pass resume="force" to go on with the new ones',
            different=different,
        )
    for name in CIRCUMSTANCES:
        if given.get(name) != recorded.get(name):
            warnings.warn(
                f"the study {study!r} goes on with another {name}: recorded "
                f"{_short(recorded.get(name), given.get(name))}; its later trials may differ",
                stacklevel=2,
            )
    return given


def _short(recorded: Any, given: Any) -> str:
    """Both values; of long objects only the parts that differ."""
    recorded, given = _differing(recorded, given)
    return f"{_clip(recorded)}, given {_clip(given)}"


def _differing(recorded: Any, given: Any) -> tuple[Any, Any]:
    """What differs of two values from JSON; a list of named things is compared by name.

    Examples
    --------
    >>> x = {"name": "x", "low": 0, "high": 1}
    >>> _differing([x, {"name": "y"}], [{**x, "high": 2}, {"name": "y"}])
    ({'x': {'high': 1}}, {'x': {'high': 2}})
    """
    old, new = _by_name(recorded), _by_name(given)
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return recorded, given
    names = [*old, *(name for name in new if name not in old)]
    parts = {
        name: _differing(old.get(name), new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    }
    if not parts:  # the same things in another order
        return list(old), list(new)
    return {name: each[0] for name, each in parts.items()}, {
        name: each[1] for name, each in parts.items()
    }


def _by_name(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(v, Mapping) and "name" in v for v in value):
        return {v["name"]: {k: part for k, part in v.items() if k != "name"} for v in value}
    return value


def _clip(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 300 else f"{text[:297]}..."
