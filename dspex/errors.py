"""The tree of errors.

Knows: every error that dspex raises on purpose, and which builtin each also is.
Must not know: any other room. Messages say the rule, then the values, then the remedy.
Every error pickles with its fields, because errors cross processes.

::

    DspexError
    ├── InvalidArgumentError (ValueError)      an argument breaks a rule, at the door
    │   ├── InvalidSpaceError                  a search space contradicts itself
    │   ├── InvalidParamsError                 params do not lie in their space
    │   ├── InvalidMetricError                 a metric is unknown, or cannot be used here
    │   ├── InvalidDataError                   the training data cannot be used here
    │   └── UnknownStrategyError               no strategy has this name
    ├── NotPicklableError (TypeError)          something cannot travel to another process
    ├── MissingDependencyError (ImportError)   an extra is not installed
    ├── ProgramError (RuntimeError)            the user's program is at fault
    │   ├── ProgramLoadError                   it cannot be loaded where it should run
    │   └── AllTrialsFailedError               nothing was measured, or the first ten trials failed
    ├── StudyError
    │   ├── StudyNotFoundError (KeyError)      no study of this name in this store
    │   ├── StudyExistsError (FileExistsError) resume="never", but the study is there
    │   ├── StudyMismatchError (ValueError)    resumed with another space, metric, seed, data ...
    │   └── StudyInUseError (BlockingIOError)  another process owns the study
    ├── StorageError (OSError)
    │   └── StorageCorruptError                the file is damaged, or is not a store of studies
    ├── ClusterError
    │   ├── ClusterUnreachableError (ConnectionError)  nobody answers at this address
    │   ├── ClusterLostError (ConnectionError)         the scheduler went away during a study
    │   ├── NoWorkersError (TimeoutError)              too few workers for too long
    │   ├── WorkerLostError                            an evaluation was lost with too many workers
    │   └── VersionMismatchError                       client and workers run different versions
    └── FoundationError                            the registry, the store, leases, the journal
        ├── InvalidRequestError (ValueError)           a message or a name breaks a rule
        ├── UnsupportedGuaranteeError (ValueError)     a backend cannot give what was asked
        │   └── InsufficientReplicasError              more copies were asked for than there are
        ├── UnavailableError (ConnectionError)         the scheduler, or its journal, cannot be used
        ├── KeyNotFoundError (KeyError)                no entry under this key
        ├── KeyExistsError (ValueError)                the key is taken
        ├── VersionConflictError (ValueError)          the entry is of another version than expected
        ├── StateError
        │   ├── StateNotFoundError (KeyError)          no state under this key
        │   ├── StateCorruptError                      the state's bytes are damaged
        │   └── StateIncompatibleError (TypeError)     the state cannot be read by this program
        ├── ResourceExhaustedError (TimeoutError)      nothing became free in time
        │   └── UnsatisfiableRequestError              no worker could ever give it
        ├── QuotaExceededError                         the tenant's quota can never allow it
        ├── LockTimeoutError (TimeoutError)            a lock, or leadership, did not come in time
        ├── LeaseExpiredError                          the lease ran out, or was given up
        │   └── SessionExpiredError                    the session of this process ran out
        ├── AgentError                                 something about an agent
        │   ├── AgentNotFoundError (KeyError)          no agent of this id
        │   ├── AgentExistsError (ValueError)          there is one of this id already
        │   ├── AgentFailedError (RuntimeError)        it could not be made, or restarted too often
        │   ├── AgentLostError (ConnectionError)       its worker was lost, and it stays so
        │   ├── AgentRaisedError (RuntimeError)        its method raised what cannot be pickled
        │   ├── DeadlineError (TimeoutError)           the deadline of a call, or a task, passed
        │   ├── DeliveryError (ConnectionError)        a message was cut off
        │   ├── MailboxFullError (BufferError)         too many messages wait for it
        │   └── TaskFailedError (RuntimeError)         a part of a distributed task was not done
        └── JournalError (OSError)
            ├── JournalFencedError                     another scheduler owns the journal
            └── JournalCorruptError                    an entry is damaged; names the place
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "AgentError",
    "AgentExistsError",
    "AgentFailedError",
    "AgentLostError",
    "AgentNotFoundError",
    "AgentRaisedError",
    "AllTrialsFailedError",
    "ClusterError",
    "ClusterLostError",
    "ClusterUnreachableError",
    "DeadlineError",
    "DeliveryError",
    "DspexError",
    "FoundationError",
    "InsufficientReplicasError",
    "InvalidArgumentError",
    "InvalidDataError",
    "InvalidMetricError",
    "InvalidParamsError",
    "InvalidRequestError",
    "InvalidSpaceError",
    "JournalCorruptError",
    "JournalError",
    "JournalFencedError",
    "KeyExistsError",
    "KeyNotFoundError",
    "LeaseExpiredError",
    "LockTimeoutError",
    "MailboxFullError",
    "MissingDependencyError",
    "NoWorkersError",
    "NotPicklableError",
    "ProgramError",
    "ProgramLoadError",
    "QuotaExceededError",
    "ResourceExhaustedError",
    "SessionExpiredError",
    "StateCorruptError",
    "StateError",
    "StateIncompatibleError",
    "StateNotFoundError",
    "StorageCorruptError",
    "StorageError",
    "StudyError",
    "StudyExistsError",
    "StudyInUseError",
    "StudyMismatchError",
    "StudyNotFoundError",
    "TaskFailedError",
    "UnavailableError",
    "UnknownStrategyError",
    "UnsatisfiableRequestError",
    "UnsupportedGuaranteeError",
    "VersionConflictError",
    "VersionMismatchError",
    "WorkerLostError",
]


def _rebuild(cls: type[DspexError], message: str, fields: dict[str, Any]) -> DspexError:
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(fields)
    return error


class DspexError(Exception):
    """Root of the tree.

    Keyword arguments become fields of the error and travel with it when it is pickled.

    Parameters
    ----------
    message : str
        The rule, the offending values, the remedy.
    **fields
        Whatever a handler may want to read without parsing the message.

    Examples
    --------
    >>> import pickle
    >>> error = DspexError("no more than 3; got 4; pass fewer", limit=3)
    >>> pickle.loads(pickle.dumps(error)).limit
    3
    """

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.__dict__.update(fields)

    # KeyError and OSError print themselves in ways of their own; ours is the message.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), dict(self.__dict__))


class InvalidArgumentError(DspexError, ValueError):
    """An argument breaks a rule; raised before any work is spent."""


class InvalidSpaceError(InvalidArgumentError):
    """A search space contradicts itself."""


class InvalidParamsError(InvalidArgumentError):
    """Params do not lie in their space; names the variable, the rule and the value."""


class InvalidMetricError(InvalidArgumentError):
    """A metric is unknown, or cannot be used with this program."""


class InvalidDataError(InvalidArgumentError):
    """The training data cannot be used with this program."""


class UnknownStrategyError(InvalidArgumentError):
    """No strategy has this name; the message lists those that exist."""


class NotPicklableError(DspexError, TypeError):
    """A program, metric or data cannot travel to another process."""


class MissingDependencyError(DspexError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class ProgramError(DspexError, RuntimeError):
    """The user's program is at fault."""


class ProgramLoadError(ProgramError):
    """The program or its data cannot be loaded in the process that should evaluate it."""


class AllTrialsFailedError(ProgramError):
    """Nothing was measured, or the first ten trials all failed.

    The message ends with the program's own traceback.
    """


class StudyError(DspexError):
    """Something is wrong with a stored study."""


class StudyNotFoundError(StudyError, KeyError):
    """No study of this name lies in this store."""


class StudyExistsError(StudyError, FileExistsError):
    """``resume="never"``, but the study exists."""


class StudyMismatchError(StudyError, ValueError):
    """A study is resumed with another space, metric, direction, strategy, seed, cv or data."""


class StudyInUseError(StudyError, BlockingIOError):
    """Another process owns the study."""


class StorageError(DspexError, OSError):
    """A store cannot be opened, read or written."""


class StorageCorruptError(StorageError):
    """A file is damaged, or is not a store of studies; it is never overwritten."""


class ClusterError(DspexError):
    """Something is wrong with the Dask cluster."""


class ClusterUnreachableError(ClusterError, ConnectionError):
    """Nobody answers at the scheduler's address."""


class ClusterLostError(ClusterError, ConnectionError):
    """The scheduler went away during a study; all that was recorded is kept."""


class NoWorkersError(ClusterError, TimeoutError):
    """Too few workers were there for too long."""


class WorkerLostError(ClusterError):
    """One evaluation was lost with more workers than ``retries`` allows."""


class VersionMismatchError(ClusterError):
    """Client and workers run different versions of what must agree."""


class FoundationError(DspexError):
    """Something is wrong with the registry, the state store, leases or the journal."""


class InvalidRequestError(FoundationError, ValueError):
    """A message, a name or a size breaks a rule; refused at the border, nothing has changed."""


class UnsupportedGuaranteeError(FoundationError, ValueError):
    """A backend or a journal is asked for what it cannot give."""


class InsufficientReplicasError(UnsupportedGuaranteeError):
    """More copies must acknowledge than there are."""


class UnavailableError(FoundationError, ConnectionError):
    """The scheduler or its journal cannot be used now.

    Whether a mutation that raises this took effect is not known; made again, it is a new one. A
    lease or a lock that it got is given back as soon as the scheduler can be reached.
    """


class KeyNotFoundError(FoundationError, KeyError):
    """No entry lies under this key."""


class KeyExistsError(FoundationError, ValueError):
    """The key is taken, and ``on_conflict="error"``."""


class VersionConflictError(FoundationError, ValueError):
    """The entry is of another version than the caller expected; nothing has changed."""


class StateError(FoundationError):
    """A state cannot be given."""


class StateNotFoundError(StateError, KeyError):
    """No state lies under this key."""


class StateCorruptError(StateError):
    """The bytes of a state are damaged or lost."""


class StateIncompatibleError(StateError, TypeError):
    """A state is whole, but this program cannot read it."""


class ResourceExhaustedError(FoundationError, TimeoutError):
    """What was asked for did not become free in time, or too many wait already."""


class UnsatisfiableRequestError(ResourceExhaustedError):
    """No worker, however idle, could give what was asked for."""


class QuotaExceededError(FoundationError):
    """The tenant's quota can never allow the request."""


class LockTimeoutError(FoundationError, TimeoutError):
    """A lock or leadership did not become free in time."""


class LeaseExpiredError(FoundationError):
    """The lease ran out or was given up; its token is refused from now on."""


class SessionExpiredError(LeaseExpiredError):
    """The session of this process ran out, and with it all that it held."""


class JournalError(FoundationError, OSError):
    """A journal cannot be opened, read or written."""


class JournalFencedError(JournalError):
    """Another scheduler has taken the journal over; this one may not write any more."""


class JournalCorruptError(JournalError):
    """A journal is damaged; the message names the place. It is never changed unless repaired.

    Attributes
    ----------
    place : str
        The place alone, in words.
    """

    place: str = ""


class AgentError(FoundationError):
    """Something about an agent."""


class AgentNotFoundError(AgentError, KeyError):
    """There is no agent of this id."""


class AgentExistsError(AgentError, ValueError):
    """There is one of this id already."""


class AgentFailedError(AgentError, RuntimeError):
    """An agent could not be made or restored, or was restarted too often; it answers no more."""


class AgentLostError(AgentError, ConnectionError):
    """An agent's worker was lost, and by its policy it does not come back."""


class AgentRaisedError(AgentError, RuntimeError):
    """An agent's method raised what cannot be pickled; the message tells what it was."""


class DeadlineError(AgentError, TimeoutError):
    """The deadline of a call passed before it had begun."""


class DeliveryError(AgentError, ConnectionError):
    """A message that is sent at most once was cut off; whether it took effect is not known."""


class MailboxFullError(AgentError, BufferError):
    """An agent has as many messages before it as its mailbox holds."""


class TaskFailedError(AgentError, RuntimeError):
    """A part of a distributed task could not be done.

    Attributes
    ----------
    causes : dict of str to Exception
        Of the first such part: {id of a worker: why it did not do it}. Empty where none tried.
    result : TaskResult or None
        What was done of the task.
    """

    causes: Mapping[str, BaseException] = MappingProxyType({})
    result: Any = None
