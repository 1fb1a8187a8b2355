"""What the ledger keeps of an agent.

Knows: the fields. Must not know: who decides.

Made for a million of them: what many have in common is one object, and what few have is made when
it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from dspex.errors import (
    InvalidRequestError,
    UnsatisfiableRequestError,
    UnsupportedGuaranteeError,
)
from dspex.foundation.agents.dedup import Dedup
from dspex.foundation.ledger.amounts import Amounts, amounts_from
from dspex.foundation.ledger.events import Token
from dspex.foundation.ledger.fleet import Fleet
from dspex.foundation.ledger.placement import ALIASES, PLACEMENTS

__all__ = [
    "NOWHERE",
    "NO_ROOM",
    "OUTCOMES",
    "STATUSES",
    "Agent",
    "Outgoing",
    "Spec",
    "refuse_memory",
]

STATUSES = frozenset({"starting", "running", "moving", "waiting", "failed", "lost"})
"""An agent is at a host in the first three."""

OUTCOMES = frozenset({"failed", "lost"})
"""An agent stays in these until it is stopped."""

NOWHERE: Token = (0, 0)

NO_ROOM = "for a worker that is up and has room"
"""Why an agent waits, mostly."""


class Outgoing(NamedTuple):
    """A message that a turn sent, and that its receiver has not acknowledged."""

    number: int
    target: str
    method: str
    args: bytes
    sent_by: str


@final
@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """What the agents of one creation have in common.

    Attributes
    ----------
    fields : mapping
        As they travel.
    """

    fields: Mapping[str, Any]
    amounts: Amounts
    labels: frozenset[str]
    capabilities: tuple[str, ...]

    @property
    def persistence(self) -> str | None:
        """None, "cluster_replicated" or "durable"."""
        found: str | None = self.fields["persistence"]
        return found

    @property
    def failover(self) -> str:
        """automatic, manual or none."""
        return str(self.fields["failover"])

    @property
    def name(self) -> str:
        """Of the class."""
        return str(self.fields["name"])

    @classmethod
    def checked(cls, fields: Mapping[str, Any]) -> Spec:
        """Take the fields of a creation.

        Raises
        ------
        InvalidRequestError, UnsupportedGuaranteeError
        """
        missing = _FIELDS.keys() - fields.keys()
        unknown = fields.keys() - _FIELDS.keys()
        if missing or unknown:
            raise InvalidRequestError(
                f"agents are created with {sorted(_FIELDS)}; got {sorted(map(str, fields))!r:.200}"
            )
        for name, kinds in _FIELDS.items():
            if not isinstance(fields[name], kinds) or isinstance(fields[name], bool):
                raise InvalidRequestError(
                    f"{name} of agents is {' or '.join(each.__name__ for each in kinds)}; got "
                    f"{fields[name]!r:.80}"
                )
        for name in ("capabilities", "labels"):
            if not all(isinstance(each, str) for each in fields[name]):
                raise InvalidRequestError(
                    f"{name} of agents are a list of names; got {fields[name]!r:.80}"
                )
        if ALIASES.get(fields["placement"], fields["placement"]) not in PLACEMENTS:
            raise InvalidRequestError(
                f"placement is one of {', '.join(PLACEMENTS)}; got {fields['placement']!r:.80}"
            )
        if fields["persistence"] not in (None, "cluster_replicated", "durable"):
            raise InvalidRequestError(f"no persistence {fields['persistence']!r:.80}")
        if fields["failover"] not in ("automatic", "manual", "none"):
            raise InvalidRequestError(f"no failover {fields['failover']!r:.80}")
        if fields["overflow"] not in ("wait", "refuse"):
            raise InvalidRequestError(f"no overflow {fields['overflow']!r:.80}")
        return cls.made(fields)

    @classmethod
    def made(cls, fields: Mapping[str, Any]) -> Spec:
        """Take fields that were checked."""
        return cls(
            fields,
            amounts_from(fields["amounts"]),
            frozenset(fields["labels"]),
            tuple(fields["capabilities"]),
        )

    def refuse_impossible(self, fleet: Fleet) -> None:
        """Refuse what no worker that is here could give.

        Raises
        ------
        UnsatisfiableRequestError
        """
        if len(fleet) and not fleet.could_give(self.amounts, self.labels):
            raise UnsatisfiableRequestError(
                f"no worker could give {self.amounts} for an agent"
                + (f" with the labels {sorted(self.labels)}" if self.labels else "")
                + " if it were idle; ask for less, or add larger workers"
            )


def refuse_memory(fields: Mapping[str, Any], url: str) -> None:
    """Refuse to keep on disk what a journal in memory cannot.

    Raises
    ------
    UnsupportedGuaranteeError
    """
    if fields.get("persistence") == "durable":
        raise UnsupportedGuaranteeError(
            f'persistence="durable" needs a journal that outlives the scheduler; this one is '
            f'{url}; connect with journal="sqlite:///path" or "etcd://host:port", or use '
            'persistence="cluster_replicated"'
        )


_NONE = type(None)

_FIELDS: Mapping[str, tuple[type, ...]] = {
    "class": (str,),
    "name": (str,),
    "persistence": (str, _NONE),
    "failover": (str,),
    "placement": (str,),
    "worker": (str, _NONE),
    "same_as": (str, _NONE),
    "capabilities": (list, tuple),
    "amounts": (dict,),
    "labels": (list, tuple),
    "max_restarts": (int, _NONE),
    "within": (int, float),
    "mailbox": (int,),
    "overflow": (str,),
}


@final
class Agent:
    """One agent.

    Attributes
    ----------
    key : str
        "namespace:id".
    spec : Spec
    args : bytes
        Of its class; the ledger cannot read them.
    incarnation : token
        Larger with each host, and each time that its host takes it anew.
    host : str
        The address of a member; "" while it is nowhere.
    status : one of `STATUSES`
    reason : str
        Why it is not running.
    started : bool
        Whether it was ever made: then what it has kept is all that it is made from again.
    state : dict of str to bytes, or None
    dedup : Dedup or None
    outbox : dict of number to Outgoing, or None
    sent : int
        The number of the last message that it sent.
    restarts : tuple of float
        When it was placed anew because its host was lost.
    lease : token or None
    parcel : bytes or None
        What a volatile agent takes along on a move.
    """

    __slots__ = (
        "args",
        "dedup",
        "host",
        "incarnation",
        "key",
        "lease",
        "outbox",
        "parcel",
        "reason",
        "restarts",
        "sent",
        "spec",
        "started",
        "state",
        "status",
    )

    def __init__(self, key: str, spec: Spec, args: bytes) -> None:
        self.key = key
        self.spec = spec
        self.args = args
        self.incarnation = NOWHERE
        self.host = ""
        self.status = "waiting"
        self.reason = NO_ROOM
        self.started = False
        self.state: dict[str, bytes] | None = None
        self.dedup: Dedup | None = None
        self.outbox: dict[int, Outgoing] | None = None
        self.sent = 0
        self.restarts: tuple[float, ...] = ()
        self.lease: Token | None = None
        self.parcel: bytes | None = None

    @property
    def is_remembered(self) -> bool:
        """Whether the next scheduler must know that it was made: then it does not begin afresh."""
        return self.spec.persistence is not None or self.spec.failover != "automatic"

    def __repr__(self) -> str:
        return f"<Agent {self.key} {self.status} at {self.host or 'no host'}>"

    def restarts_within(self, now: float) -> int:
        """How many restarts count against its limit."""
        within = self.spec.fields["within"]
        return sum(now - each < within for each in self.restarts)

    def take(self, turn: Mapping[str, Any]) -> str | None:
        """Take what a turn (see `turns`) changed; gives a sender that was unknown before."""
        if "t" in turn:
            self.started = True
        changed, deleted = turn.get("s"), turn.get("d")
        if changed:
            if self.state is None:
                self.state = {}
            self.state.update(changed)
        if deleted and self.state:
            for name in deleted:
                self.state.pop(name, None)
        sent, acknowledged = turn.get("o"), turn.get("k")
        if sent:
            if self.outbox is None:
                self.outbox = {}
            for each in sent:
                self.outbox[each[0]] = Outgoing(*each)
        if acknowledged and self.outbox:
            for number in acknowledged:
                self.outbox.pop(number, None)
            if not self.outbox:
                self.outbox = None
        last = turn.get("n")
        if last is not None and last > self.sent:
            self.sent = last
        answered = turn.get("r")
        if answered is None:
            return None
        sender, number, below, is_ok, payload, fingerprint = answered
        if self.dedup is None:
            self.dedup = Dedup()
        self.dedup.acknowledge(sender, below)
        return sender if self.dedup.record(sender, number, (is_ok, payload, fingerprint)) else None
