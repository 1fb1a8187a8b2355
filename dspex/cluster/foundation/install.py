"""Putting the foundation onto a running cluster: once, and only where it can work.

Knows: a Dask client, versions, the plugin. Must not know: what the foundation is used for.

Before anything is registered the scheduler and the workers are asked, with the standard library
alone, what they run: a plugin that a worker cannot load would make it exit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from distributed import Client
from distributed.protocol.pickle import dumps

from dspex.cluster.foundation.plugin import NAME, FoundationPlugin
from dspex.cluster.source import Source
from dspex.cluster.versions import Facts, ask_scheduler, ask_workers, describe
from dspex.errors import (
    DspexError,
    InvalidArgumentError,
    UnavailableError,
    VersionMismatchError,
)
from dspex.foundation.ledger.wire import (
    PROTOCOL,
    Call,
    Request,
    decode_answer,
    encode_request,
)
from dspex.storage.journals.opening import open_journal

__all__ = ["install", "misfits"]

_ANSWER_WITHIN = 30.0
"""Seconds that a scheduler may be held up."""

_SOURCE = """
def facts():
    import importlib.metadata, importlib.util, sys
    def version(name):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None
    try:
        from dspex.foundation.ledger.wire import PROTOCOLS
    except ImportError:
        PROTOCOLS = None
    return {
        "python": "%d.%d" % sys.version_info[:2],
        "dspex": version("dspex"),
        "protocols": None if PROTOCOLS is None else "%d-%d" % PROTOCOLS,
        "cloudpickle": version("cloudpickle"),
    }
"""
_IS_THERE = Source("lambda dask_scheduler: 'dspex' in dask_scheduler.handlers")

_QUESTION = f"(lambda space: (exec({_SOURCE!r}, space), space['facts']())[1])({{}})"


async def install(client: Client, *, journal: str | None, lease: float) -> None:
    """See that the scheduler runs the foundation.

    Raises
    ------
    VersionMismatchError
        Where scheduler or workers run what does not fit; nothing was registered.
    InvalidArgumentError
        Where it runs already, on another journal.
    UnavailableError
        Where the scheduler does not answer, or cannot do it.
    """
    try:
        running = await _journal_of(client)
        if running is None:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await _check_versions(client)
            scheduler: Any = client.scheduler
            # Without a limit: it may have a long journal to read.
            await scheduler.register_scheduler_plugin(
                plugin=dumps(FoundationPlugin(journal or "memory", lease=lease)),
                name=NAME,
                idempotent=True,
            )
            running = await _journal_of(client)
    except TimeoutError as error:
        if isinstance(error, DspexError):
            raise
        raise UnavailableError(
            f"the scheduler did not answer within {_ANSWER_WITHIN:g} s; it may be held up by a "
            "large graph; try again"
        ) from error
    if running is None:
        raise UnavailableError(
            "the foundation's plugin was registered and does not answer; look at the "
            "scheduler's log"
        )
    if journal is not None and journal not in running and _url(journal) not in running:
        raise InvalidArgumentError(
            f"a scheduler has one journal; this one uses {running[0]!r}, not {journal!r}; leave "
            "journal out, or start the scheduler with `--preload dspex.preload --dspex-journal`"
        )


async def _journal_of(client: Client) -> tuple[str, str] | None:
    """The URL of the journal of a foundation that runs, and how it was asked for; or None."""
    run: Any = client.run_on_scheduler
    scheduler: Any = client.scheduler
    request = encode_request(Request("connecting", 0, [Call(None, "status", {})]))
    async with asyncio.timeout(_ANSWER_WITHIN):
        if not await run(_IS_THERE):
            return None
        blob = await scheduler.dspex(blob=request)
    if not blob:
        raise UnavailableError("the scheduler closes; connect to the next one")
    status, payload = decode_answer(blob).replies[0]
    if status:
        name, message, _ = payload
        raise UnavailableError(f"the foundation of this scheduler refuses: {name}: {message}")
    facts = payload["journal"]
    return facts["url"], facts["asked"]


def _url(journal: str) -> str:
    """How a journal of this name calls itself, in this process."""
    return open_journal(journal).url


async def _check_versions(client: Client) -> None:
    everyone: Any = await client.scheduler.ncores()  # type: ignore[union-attr]
    workers = await ask_workers(client, everyone, question=_QUESTION)
    facts = {"scheduler": await ask_scheduler(client, _QUESTION), **workers}
    ours = own_facts()
    unfit = {who: found for who, theirs in facts.items() if (found := misfits(ours, theirs))}
    if unfit:
        raise VersionMismatchError(
            "the foundation needs dspex on the scheduler and on every worker, of a version that "
            f"speaks the client's protocol, and the client's Python; {len(unfit)} of "
            f"{len(facts)} do not fit: {describe(unfit)}; nothing was installed; start them from "
            "the client's environment",
            workers={who: list(found) for who, found in unfit.items()},
        )


def own_facts() -> Facts:
    """Tell what this process runs."""
    facts: Facts = eval(_QUESTION)
    return facts


def misfits(ours: Facts, theirs: Mapping[str, str | None]) -> list[str]:
    """What does not fit, in words.

    Examples
    --------
    >>> ours = {"python": "3.11", "protocols": "1-1", "cloudpickle": "3.0", "dspex": "0.1.0"}
    >>> misfits(ours, {**ours, "protocols": "1-4", "dspex": "0.9.0"})
    []
    >>> misfits(ours, {**ours, "protocols": None, "dspex": None, "python": "3.12"})
    ['python 3.12 instead of 3.11', 'no dspex']
    >>> misfits(ours, {**ours, "protocols": "3-4", "dspex": "2.0.0"})
    ['dspex 2.0.0, which speaks protocols 3-4 and not 1']
    """
    found = []
    for name, parts in (("python", 2), ("cloudpickle", 1)):
        own, other = ours.get(name), theirs.get(name)
        if (own or "").split(".")[:parts] != (other or "").split(".")[:parts]:
            found.append(f"{name} {other or 'missing'} instead of {own}")
    spoken = theirs.get("protocols")
    if spoken is None:
        old = theirs.get("dspex")
        found.append("no dspex" if old is None else f"dspex {old}, which has no foundation")
    else:
        oldest, newest = (int(each) for each in spoken.split("-"))
        if not oldest <= PROTOCOL <= newest:
            found.append(
                f"dspex {theirs.get('dspex')}, which speaks protocols {spoken} and not {PROTOCOL}"
            )
    return found
