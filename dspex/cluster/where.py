"""Where the evaluations of a study run: in this process, or on which cluster, on what leases.

Knows: the executors, what each can be asked for. Must not know: studies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from dspex.cluster.admission import LeaseRequest
from dspex.cluster.inside import is_inside_task
from dspex.engine.ports import Executor, Notice
from dspex.errors import InvalidArgumentError
from dspex.execution.audience import Audience
from dspex.execution.inprocess import InProcessExecutor

__all__ = ["Where"]


@final
@dataclass(frozen=True, slots=True)
class Where:
    """A place for evaluations.

    Attributes
    ----------
    distributed : bool
    cluster : object
        Whatever the user calls a cluster.
    cluster_nodes : int or None
    request : LeaseRequest or None
        What each evaluation needs a lease of.
    """

    distributed: bool
    cluster: Any = None
    cluster_nodes: int | None = None
    request: LeaseRequest | None = None

    @classmethod
    def checked(
        cls,
        distributed: bool | None,
        cluster: Any,
        nodes: int | None,
        request: LeaseRequest | None = None,
    ) -> Where:
        """Refuse at the door what cannot be had.

        Raises
        ------
        InvalidArgumentError
            Where arguments contradict each other, or an embedded cluster would be too small.
        """
        if distributed is None:
            distributed = not is_inside_task()
        given = (
            f"cluster={cluster!r}"
            if cluster is not None
            else f"cluster_nodes={nodes}"
            if nodes is not None
            else "resources or tenant"
            if request is not None
            else ""
        )
        if not distributed and given:
            raise InvalidArgumentError(
                f"without Dask there is no cluster; got {given} and distributed=False (the "
                "default inside a Dask task and in an agent's method); drop one of them, or say "
                "distributed=True"
            )
        if nodes is not None and nodes < 1:
            raise InvalidArgumentError(f"cluster_nodes is at least 1; got {nodes!r}")
        if distributed and cluster is None and request is not None:
            from dspex.cluster.connect import current_client
            from dspex.cluster.embedded import shape_for

            if current_client() is None:
                shape_for(request, nodes)
        return cls(distributed, cluster, nodes, request)

    @contextmanager
    def executor(
        self, audience: Audience, timeout: float | None, most: int | None = None
    ) -> Iterator[Executor]:
        """Make an executor, closed at the end, with what was started for it.

        Parameters
        ----------
        audience : Audience
            Told what is being waited for.
        timeout : float or None
            Seconds to wait for `cluster_nodes` workers.
        most : int, optional
            How many evaluations the study can run at once.
        """
        if not self.distributed:
            here = InProcessExecutor()
            try:
                yield here
            finally:
                here.close()
            return

        def notify(message: str) -> None:
            audience(Notice(message=message))

        # Importing distributed takes half a second that a study in this process does not need.
        from dspex.cluster.connect import connect_cluster
        from dspex.cluster.executor import DaskExecutor

        with connect_cluster(
            self.cluster,
            cluster_nodes=self.cluster_nodes,
            timeout=timeout,
            notify=notify,
            request=self.request,
        ) as connected:
            executor = DaskExecutor(
                connected.client,
                max_workers=connected.max_workers,
                request=self.request,
                most=most,
            )
            try:
                yield executor
            finally:
                executor.close()
