"""What may be asked of an agent, and which of it goes together.

Knows: the options of `create_agent`. Must not know: how they are met.

================== ========================================== ================================
persistence        min_replicas                               failover
================== ========================================== ================================
None               None, 1                                    automatic and manual (it begins
                                                              afresh), none (it is lost)
cluster_replicated None, 1, 2 (the agent and the scheduler)   automatic, manual, none
durable            None, 1, 2; with etcd up to 1 + members    automatic, manual, none
================== ========================================== ================================

``durable`` needs a journal on disk or in etcd. A restart policy with a limit goes with any failover
but "none", which never restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from dspex.cluster.units import parse_seconds
from dspex.errors import (
    InsufficientReplicasError,
    InvalidArgumentError,
    UnsupportedGuaranteeError,
)

__all__ = ["Options", "Placement", "RestartPolicy", "table"]

_PLACEMENTS = (
    "any_node",
    "least_loaded",
    "spread",
    "pack",
    "round_robin",
    "random",
    "compute_nodes",
    "memory_nodes",
)


@final
@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """How often an agent may be made anew because its worker was lost.

    An agent that takes its worker down with it would take down one after the other.

    Parameters
    ----------
    max_restarts : int, optional
        None: as often as it takes.
    within : float or str
        Seconds in which they are counted; older ones are forgotten.

    Examples
    --------
    >>> RestartPolicy(max_restarts=3, within="1 minute").within
    60.0
    """

    max_restarts: int | None = None
    within: float | str = 60.0

    def __post_init__(self) -> None:
        limit: Any = self.max_restarts
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise InvalidArgumentError(
                f"max_restarts is a whole number from 0, or None; got {self.max_restarts!r}"
            )
        object.__setattr__(self, "within", parse_seconds("within", self.within))


@final
@dataclass(frozen=True, kw_only=True)
class Placement:
    """A place that is not one of the words.

    Parameters
    ----------
    worker : str, optional
        The address or the name of the only worker that will do; the agent waits for it.
    agent : str, optional
        The id of the agent whose worker it shares.

    Examples
    --------
    >>> Placement.pinned("worker-3")
    Placement(worker='worker-3', agent=None)
    """

    worker: str | None = None
    agent: str | None = None

    @classmethod
    def pinned(cls, worker: Any) -> Placement:
        """To one worker: its address, its name, or a `Member`."""
        return cls(worker=str(getattr(worker, "address", worker)))

    @classmethod
    def same_as(cls, agent: Any) -> Placement:
        """Where another agent is, whenever this one is placed."""
        return cls(agent=str(getattr(agent, "id", agent)))


@final
@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one creation, checked."""

    failover: str = "automatic"
    min_replicas: int | None = None
    persistence: str | None = None
    placement: str | Placement | Callable[[Sequence[Any]], Any] = "any_node"
    capabilities: Sequence[str] = ()
    resources: Mapping[str, Any] | None = None
    restart: RestartPolicy | None = None
    mailbox_size: int = 10_000
    overflow: str = "wait"

    def check(self, journal: Mapping[str, Any]) -> None:
        """Refuse what does not go together, or what this journal cannot give.

        Raises
        ------
        InvalidArgumentError, UnsupportedGuaranteeError, InsufficientReplicasError
        """
        _one_of("failover", self.failover, ("automatic", "manual", "none"))
        _one_of("persistence", self.persistence, (None, "cluster_replicated", "durable"))
        if isinstance(self.placement, str):
            _one_of("placement", self.placement, (*_PLACEMENTS, "least_loaded_node"))
        elif not isinstance(self.placement, Placement) and not callable(self.placement):
            raise InvalidArgumentError(
                f"placement is one of {', '.join(_PLACEMENTS)}, a Placement or a callable; got "
                f"{self.placement!r}"
            )
        names: Any = self.capabilities
        if isinstance(names, str) or not all(isinstance(each, str) and each for each in names):
            raise InvalidArgumentError(
                f"capabilities are a list of names; got {self.capabilities!r}"
            )
        _one_of("overflow", self.overflow, ("wait", "refuse"))
        size: Any = self.mailbox_size
        if not isinstance(size, int) or size < 1:
            raise InvalidArgumentError(
                f"mailbox_size is a whole number from 1; got {self.mailbox_size!r}"
            )
        if self.restart is not None and not isinstance(self.restart, RestartPolicy):
            raise InvalidArgumentError(f"restart is a RestartPolicy; got {self.restart!r}")
        limited = self.restart is not None and self.restart.max_restarts is not None
        if self.failover == "none" and limited:
            raise InvalidArgumentError(
                'failover="none" never restarts an agent, so a limit of restarts says nothing; '
                f"leave one of them out\n{table()}"
            )
        if self.persistence == "durable" and not journal.get("durable"):
            raise UnsupportedGuaranteeError(
                'persistence="durable" needs a journal that outlives the scheduler; this one is '
                f'{journal.get("url")!r}; connect with journal="sqlite:///path" or '
                f'"etcd://host:port", or use persistence="cluster_replicated"\n{table()}'
            )
        self._check_replicas(journal)

    def _check_replicas(self, journal: Mapping[str, Any]) -> None:
        wanted: Any = self.min_replicas
        if wanted is None:
            return
        if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
            raise InvalidArgumentError(f"min_replicas is a whole number from 1; got {wanted!r}")
        there = {
            None: 1,
            "cluster_replicated": 2,
            "durable": 1 + int(journal.get("copies", 1)),
        }[self.persistence]
        if wanted > there:
            raise InsufficientReplicasError(
                f"min_replicas counts the copies of the state, the live one included; with "
                f"persistence={self.persistence!r} and the journal {journal.get('url')!r} there "
                f"are {there}; got {wanted}\n{table()}"
            )

    def fields(self, digest: str, cls: type) -> dict[str, Any]:
        """What the ledger is told."""
        restart = self.restart or RestartPolicy()
        placement = self.placement if isinstance(self.placement, str) else "any_node"
        chosen = self.placement if isinstance(self.placement, Placement) else Placement()
        resources = dict(self.resources or {})
        labels = resources.pop("labels", ())
        return {
            "class": digest,
            "name": f"{cls.__module__}.{cls.__qualname__}",
            "persistence": self.persistence,
            "failover": self.failover,
            "placement": placement,
            "worker": chosen.worker,
            "same_as": chosen.agent,
            "capabilities": list(self.capabilities),
            "amounts": resources,
            "labels": [labels] if isinstance(labels, str) else list(labels),
            "max_restarts": restart.max_restarts,
            "within": restart.within,
            "mailbox": self.mailbox_size,
            "overflow": self.overflow,
        }


def table() -> str:
    """The legal combinations, for errors and docs.

    Examples
    --------
    >>> "cluster_replicated" in table()
    True
    """
    assert __doc__ is not None
    lines = __doc__.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("====="))
    last = max(at for at, line in enumerate(lines) if line.startswith("====="))
    return "\n".join(lines[first : last + 1])


def _one_of(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        shown = ", ".join(map(repr, choices))
        raise InvalidArgumentError(f"{name} is one of {shown}; got {value!r}\n{table()}")
