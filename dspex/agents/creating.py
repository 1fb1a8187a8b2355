"""Making agents, one or many.

Knows: classes, options, the ledger's way. Must not know: where an agent ends up.
"""

from __future__ import annotations

import hashlib
import inspect
import pickle
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cloudpickle

from dspex.agents.handle import RESERVED, AgentHandle
from dspex.agents.options import Options, Placement
from dspex.cluster.agents.local import local_runtime
from dspex.cluster.agents.resident import dumps
from dspex.cluster.agents.runtime import Runtime, current_runtime, runtime_of
from dspex.errors import DeadlineError, DspexError, InvalidArgumentError, NotPicklableError
from dspex.foundation.ledger.wire import rebuilt_error
from dspex.foundation.member import Member

__all__ = ["create_agent", "create_agents"]

AT_ONCE = 2_000
WITHIN = 60.0
"""Seconds in which an agent must have been made, on_start included."""


def create_agent(
    cls: type,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    id: str | None = None,
    namespace: str | None = None,
    on_conflict: str = "error",
    distribution: str = "cluster",
    foundation: Any = None,
    **options: Any,
) -> AgentHandle:
    """Create an agent on the cluster, and wait until it is made; in async code, await it.

    Parameters
    ----------
    cls : type
        An `Agent`, or any class; importable on the workers, or picklable by value.
    args, kwargs
        For its constructor.
    id : str, optional
        Its name; one is made up where there is none.
    namespace : str, optional
        None: that of the agent that creates it, else of the foundation.
    on_conflict : "error" or "existing"
        Where there is an agent of this id: raise, or take it, if it is of the same class.
    distribution : "cluster" or "local"
        local: in this process, without Dask.
    foundation : Foundation, optional
        None: that of the agent or task that this is called in, else the last one connected.
    failover : "automatic", "manual" or "none"
        When its worker is lost: it lives on elsewhere; when asked for by
        ``state_store.recover_from_failure``; never.
    min_replicas : int, optional
        Copies of the state that there must be, the live one included.
    persistence : None, "cluster_replicated" or "durable"
        None: its state ends with its worker, and it begins afresh. Else every call is acknowledged
        when the scheduler has its changes, in memory or in its journal.
    placement : str, Placement or callable
        "any_node" (rendezvous hashing), "least_loaded", "spread", "pack", "round_robin", "random",
        "compute_nodes", "memory_nodes"; a callable is given the list of members and gives one, and
        is asked at the creation alone.
    capabilities : list of str
        To be found by; those of the class's own attribute ``capabilities`` are added.
    resources : mapping, optional
        cpu_cores, memory_gb, gpus, labels: leased where it lives, for as long as it does.
    restart : RestartPolicy, optional
    mailbox_size : int
        Messages that may wait.
    overflow : "wait" or "refuse"
        What becomes of one more: its sender tries again until there is room, or a call gets
        `MailboxFullError`, and what was cast becomes a dead letter.

    Returns
    -------
    AgentHandle

    Raises
    ------
    AgentExistsError, AgentFailedError, InvalidArgumentError, NotPicklableError
    UnsupportedGuaranteeError, InsufficientReplicasError, UnsatisfiableRequestError

    Examples
    --------
    >>> from dspex.agents import Agent, create_agent
    >>> counter = create_agent(dict, id="doc-create", distribution="local")
    >>> counter.setdefault("n", 3).result()
    3
    """
    runtime = _runtime(distribution, foundation)
    spec = {"cls": cls, "args": args, "kwargs": kwargs, "id": id, **options}
    return runtime.run(_create_one(runtime, spec, namespace, on_conflict))


async def _create_one(
    runtime: Runtime, spec: Mapping[str, Any], namespace: str | None, on_conflict: str
) -> AgentHandle:
    (handle,) = await _create(runtime, [spec], namespace, on_conflict)
    return handle


def create_agents(
    specs: Iterable[Mapping[str, Any]],
    *,
    namespace: str | None = None,
    on_conflict: str = "error",
    distribution: str = "cluster",
    foundation: Any = None,
) -> list[AgentHandle]:
    """Create many agents at once; in async code, await it.

    Parameters
    ----------
    specs : iterable of mappings
        Each with ``cls`` and whatever else `create_agent` takes of one agent.
    namespace, on_conflict, distribution, foundation
        As of `create_agent`, for all of them.

    Returns
    -------
    list of AgentHandle
        In the order of the specs.

    Raises
    ------
    AgentFailedError
        Where some could not be made; the others are there.

    Examples
    --------
    >>> specs = [{"cls": list, "id": f"doc-many-{n}"} for n in range(3)]
    >>> [handle.id for handle in create_agents(specs, distribution="local")]
    ['doc-many-0', 'doc-many-1', 'doc-many-2']
    """
    runtime = _runtime(distribution, foundation)
    return runtime.run(_create(runtime, list(specs), namespace, on_conflict))


def _runtime(distribution: str, foundation: Any) -> Runtime:
    if distribution not in ("cluster", "local"):
        raise InvalidArgumentError(f'distribution is "cluster" or "local"; got {distribution!r}')
    if foundation is not None:
        return runtime_of(foundation)
    return local_runtime() if distribution == "local" else current_runtime()


async def _create(
    runtime: Runtime,
    specs: Sequence[Mapping[str, Any]],
    namespace: str | None,
    on_conflict: str,
) -> list[AgentHandle]:
    space = runtime.space(namespace)
    members: list[Member] | None = None
    handles: list[AgentHandle] = []
    groups: dict[Any, tuple[Options, type, list[str], list[bytes]]] = {}
    names: dict[type, str] = {}  # one text for all handles of a class
    for spec in specs:
        rest = dict(spec)
        cls = rest.pop("cls", None)
        args, kwargs = rest.pop("args", ()), rest.pop("kwargs", None)
        name = rest.pop("id", None)
        _check_class(cls)
        name = f"{cls.__name__.lower()}-{secrets.token_hex(5)}" if name is None else name
        if not isinstance(name, str) or not name:
            raise InvalidArgumentError(f"an id is a text that is not empty; got {name!r}")
        options = _options(cls, rest)
        if callable(options.placement) and not isinstance(options.placement, Placement | str):
            if members is None:
                rows = await runtime.caller.read("members.list")
                members = [Member.from_fields(each) for each in rows]
            chosen = Placement.pinned(options.placement(members))
            options = _options(cls, {**rest, "placement": chosen})
        key = f"{space}:{name}"
        packed = dumps((tuple(args), dict(kwargs or {}))) if args or kwargs else b""
        group = groups.setdefault((cls, _identity(options)), (options, cls, [], []))
        group[2].append(key)
        group[3].append(packed)
        of_class = names.setdefault(cls, f"{cls.__module__}.{cls.__qualname__}")
        handles.append(AgentHandle(key, of_class, runtime))
    failed: list[Any] = []
    for options, cls, keys, packed_args in groups.values():
        options.check(runtime.caller.facts)
        code = _pickled(cls)
        fields = options.fields(hashlib.sha256(code).hexdigest(), cls)
        if fields["same_as"] is not None:
            fields["same_as"] = f"{space}:{fields['same_as']}"
        for at in range(0, len(keys), AT_ONCE):
            upto = at + AT_ONCE
            some = list(zip(keys[at:upto], packed_args[at:upto], strict=True))
            try:
                reply = await runtime.caller.write(
                    "agents.create",
                    timeout=WITHIN,
                    spec=fields,
                    code=code,
                    agents=some,
                    on_conflict=on_conflict,
                )
            except TimeoutError as late:
                if isinstance(late, DspexError):
                    raise
                raise _late(some, len(handles)) from late
            failed += reply["failed"]
            for key, _ in some:
                runtime.messages.learn(key, is_kept=options.persistence is not None)
    if failed:
        key, payload = failed[0]
        error = rebuilt_error(payload)
        if len(failed) > 1:
            error.add_note(f"and {len(failed) - 1} more of {len(handles)} could not be made")
        raise error
    return handles


def _late(some: Sequence[tuple[str, bytes]], total: int) -> DeadlineError:
    first = some[0][0].partition(":")[2]
    return DeadlineError(
        f"agents are made within {WITHIN:g} s; {first!r} and {len(some) - 1} more of {total} are "
        "not yet: foundation.status() tells who waits for a worker; they go on, and "
        'on_conflict="existing" takes them'
    )


def _options(cls: type, given: Mapping[str, Any]) -> Options:
    unknown = given.keys() - Options.__dataclass_fields__.keys()
    if unknown:
        raise InvalidArgumentError(
            f"an agent takes {sorted(Options.__dataclass_fields__)}; got {sorted(unknown)}"
        )
    own = tuple(getattr(cls, "capabilities", ()))
    if not own or isinstance(given.get("capabilities"), str):  # which is refused later
        return Options(**given)
    every = dict.fromkeys((*own, *given.get("capabilities", ())))
    return Options(**{**given, "capabilities": tuple(every)})


def _identity(options: Options) -> Any:
    return repr(options) if options.resources or options.restart else options_key(options)


def options_key(options: Options) -> Any:
    """What two creations have in common that may travel together."""
    return (
        options.failover,
        options.min_replicas,
        options.persistence,
        options.placement,
        tuple(options.capabilities),
        options.mailbox_size,
        options.overflow,
    )


def _check_class(cls: Any) -> None:
    if not isinstance(cls, type):
        raise InvalidArgumentError(f"an agent is made of a class; got {cls!r:.80}")
    is_plain = not getattr(cls, "__dspex_agent__", False)
    taken = [
        name
        for name in sorted(RESERVED if is_plain else RESERVED | _OF_AGENTS)
        if (is_plain and hasattr(cls, name)) or (not is_plain and _is_own(cls, name))
    ]
    if taken:
        raise InvalidArgumentError(
            f"handles mean {', '.join(sorted(RESERVED))} themselves; {cls.__qualname__} defines "
            f"{', '.join(taken)}; name them otherwise"
        )
    if inspect.iscoroutinefunction(getattr(cls, "on_error", None)):
        raise InvalidArgumentError(
            f"on_error runs in the call that raised and awaits nothing; {cls.__qualname__} defines "
            "it with async def; define it with def"
        )


_OF_AGENTS = frozenset({"after", "cancel_timer", "coordinate_task", "every", "incarnation"})
"""What `Agent` has, and no subclass may replace."""


def _is_own(cls: type, name: str) -> bool:
    """Whether a subclass of `Agent` defines what `Agent` keeps for itself."""
    return any(
        name in vars(each) for each in cls.__mro__ if each.__module__ != "dspex.agents.agent"
    ) and not (name in ("state", "id") and isinstance(inspect.getattr_static(cls, name), property))


def _pickled(cls: type) -> bytes:
    try:
        code: bytes = cloudpickle.dumps(cls)
        pickle.loads(code)
    except Exception as error:
        raise NotPicklableError(
            f"the class of an agent travels to its worker; {cls.__qualname__} cannot be pickled "
            f"({type(error).__name__}: {error})"
        ) from error
    return code
