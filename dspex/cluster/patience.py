"""How long a study waits for workers, and what it says meanwhile: a pure core without a clock."""

from __future__ import annotations

from typing import final

from dspex.errors import ClusterLostError, NoWorkersError

__all__ = ["Patience", "scheduler_lost"]


def scheduler_lost(address: str) -> ClusterLostError:
    """Make the error for a scheduler that Dask's client has given up."""
    return ClusterLostError(
        f"the scheduler at {address} is lost, and did not come back within the client's patience "
        "(Dask's distributed.comm.timeouts.connect); run the same call again: with storage= it "
        "goes on from what is recorded",
        address=address,
    )


@final
class Patience:
    """Counts the seconds without any worker.

    Parameters
    ----------
    seconds : float
        How long to wait for one.
    address : str
        The scheduler's.
    wanted : str
        What a worker must be able to give, in words; empty for nothing.

    Examples
    --------
    >>> patience = Patience(seconds=60.0, address="tcp://host:8786")
    >>> patience.look(0, now=0.0)
    'no workers at tcp://host:8786; waiting up to 60 s for one'
    >>> patience.look(0, now=1.0), patience.look(2, now=2.0), patience.look(2, now=3.0)
    (None, 'workers are back', None)
    """

    def __init__(self, *, seconds: float, address: str, wanted: str = "") -> None:
        self._seconds = seconds
        self._address = address
        self._that = f" that could give {wanted}" if wanted else ""
        self._alone_since: float | None = None

    def look(self, workers: int, *, now: float) -> str | None:
        """Take note of how many workers there are; answers what is worth saying.

        Raises
        ------
        NoWorkersError
            When there was none for too long.
        """
        if workers:
            was_alone, self._alone_since = self._alone_since is not None, None
            return "workers are back" if was_alone else None
        if self._alone_since is None:
            self._alone_since = now
            return (
                f"no workers{self._that} at {self._address}; "
                f"waiting up to {self._seconds:g} s for one"
            )
        if now - self._alone_since > self._seconds:
            raise NoWorkersError(
                f"a study waits {self._seconds:g} s for a worker{self._that}; none came to "
                f"{self._address}; start some and run the same call again: with storage= it goes "
                "on from what is recorded"
            )
        return None
