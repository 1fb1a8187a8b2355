"""The front door: `optimize` checks its arguments, wires the rooms together, and cleans up.

Knows: every room's entrance. Must not know: how any of them does its work.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dspex.arguments import finite, lease_request, observers, several_params, transient, whole
from dspex.cluster.units import parse_bytes, parse_seconds
from dspex.cluster.where import Where
from dspex.engine.engine import Engine
from dspex.engine.ports import Job, Observer, StudyStarted
from dspex.engine.settings import REPRODUCIBLE_K, Settings, block_size
from dspex.errors import AllTrialsFailedError, InvalidArgumentError
from dspex.execution.audience import Audience
from dspex.execution.driver import Driver
from dspex.monitoring import LogObserver, make_progress
from dspex.programs import Prepared, build
from dspex.results.opening import Resume, circumstances, kept_strategy, open_study
from dspex.results.result import Ending, OptimizationResult
from dspex.space import Space
from dspex.storage import resolve_storage
from dspex.strategies import Strategy, make

__all__ = ["optimize"]


def optimize(
    program: Any,
    training_data: Any = None,
    *misplaced: Any,
    space: Space | Mapping[str, Any] | None = None,
    metric: Any = None,
    direction: str | Mapping[str, str] | None = None,
    constraints: Mapping[str, tuple[str, float]] | None = None,
    strategy: Any = "auto",
    trials: int | None = 100,
    timeout: float | str | None = None,
    target_score: float | None = None,
    initial: Sequence[Mapping[str, Any]] = (),
    cv: Any = None,
    validation_data: Any = None,
    metadata: Mapping[str, Any] | None = None,
    refit: bool | None = None,
    distributed: bool | None = None,
    cluster: Any = None,
    cluster_nodes: int | None = None,
    parallel_evaluations: int | None = None,
    resources: Mapping[str, Any] | None = None,
    tenant: str | None = None,
    priority: int = 0,
    trial_timeout: float | str | None = None,
    memory_limit: int | str | None = None,
    isolation: Literal["process", "thread"] = "process",
    retries: int = 2,
    retry_on: Sequence[type[BaseException]] = (),
    max_failures: Literal["auto"] | int = "auto",
    seed: int | None = None,
    reproducible: bool | None = None,
    study: str | None = None,
    storage: str | None = None,
    resume: Resume = "auto",
    callbacks: Sequence[Observer] = (),
    progress: Literal["auto"] | bool = "auto",
) -> OptimizationResult:
    """Evaluate many candidates of a program in parallel, and return the best program.

    Parameters
    ----------
    program : estimator, function, class or Program
        A scikit-learn estimator or pipeline; ``f(params)``, ``f(params, data)`` or
        ``f(params, data, trial)`` that returns (or yields) a number, a dict of numbers or a
        `Measurement`; a class built with ``params`` and called with the data; or any object that
        keeps the `Program` protocol.
    training_data : object, optional
        A 2-tuple is ``(X, y)``; anything else is ``X``, or what a function takes as its data.
    space : Space or mapping of str to variable, optional
        What may vary. None: the program's own (`suggest_space` shows it).
    metric : str, callable, dict of them, optional
        A scikit-learn scorer's name, a scorer ``(estimator, X, y) -> float``, or several by name.
        None: the estimator's own ``score``.
    direction : "maximize", "minimize", or dict of measured name to one of them, optional
        "maximize" is the default with a metric; a function that returns its own number needs one.
        Two or more names give a Pareto front.
    constraints : dict of measured name to ("le" | "ge", bound), optional
        Only trials that meet them count as best.
    strategy : str, Strategy or Optuna sampler
        What to try next: "auto", "random", "sobol", "grid", "tpe", "cmaes", or an object.
    trials : int or None
        The study's total, resumed trials included. None: until something else ends it.
    timeout : float or str, optional
        Seconds (or "2h") after which the study ends in order.
    target_score : float, optional
        End once the first objective is at least this good.
    initial : sequence of params
        Tried first, right after the program's own defaults (trial 0) where it has them.
    cv : int, splitter or iterable, optional
        How scikit-learn programs are cross-validated; 5 folds unless said otherwise.
    validation_data : tuple (X, y), optional
        Score on these instead of cross-validation.
    metadata : dict, optional
        ``{"groups": g, "sample_weight": w}``, routed as scikit-learn does.
    refit : bool, optional
        Whether the best program is fitted on all the data; None: where it can be.
    distributed : bool, optional
        False: in this process, without Dask. None: on Dask, except inside a Dask task or an
        agent's method.
    cluster : Client, address, Dask cluster or Foundation, optional
        None: the current client, else an embedded cluster, which is closed afterwards.
    cluster_nodes : int, optional
        How many workers the embedded cluster has; of another cluster, how many to wait for and
        use at most.
    parallel_evaluations : int, optional
        Trials suggested and not yet told, at most: k. Default: two per slot, more for very short
        trials; 16 where the study is reproducible.
    resources : dict, optional
        What each evaluation needs, on one worker: ``{"cpu_cores": 2, "memory_gb": 4}``, also
        "gpus" and "labels". It runs on a lease of the cluster's foundation (`connect`), which is
        installed where it is not there yet; a study whose leases others hold waits. An embedded
        cluster gets workers that fit, and more than the machine has is refused. With `isolation`
        "process" BLAS may use as many threads as there are whole "cpu_cores", else one.
    tenant : str, optional
        Whose quota the leases count against; without `resources` one core for each evaluation.
    priority : int
        Larger comes first among requests for leases that wait.
    trial_timeout : float or str, optional
        Seconds that the evaluations of one trial may take in sum; past it they are killed.
    memory_limit : int or str, optional
        Bytes (or "2GB") that one evaluation may use; past it, it is killed.
    isolation : "process" or "thread"
        Evaluate in child processes of the workers, or in the workers' own threads. A thread shares
        the global random generators with its neighbours, so they are seeded in processes only;
        with threads, what is to be reproducible draws from ``trial.rng``.
    retries : int
        How often an evaluation that was lost with its worker runs again.
    retry_on : sequence of exception classes
        Errors worth another try.
    max_failures : "auto" or int
        "auto": give up when the first ten trials all fail. A number: end once more failed.
    seed : int, optional
        With a seed the study is reproducible: the same trials on any number of workers.
    reproducible : bool, optional
        False: take trials as they come, although there is a seed.
    study, storage : str, optional
        Keep every step under this name in this store (a path or ``sqlite:///path``); with `study`
        alone in the default store.
    resume : "auto", "never", "must" or "force"
        Go on with a study of this name; refuse to; insist on it; go on although it differs.
    callbacks : sequence of callables
        Each is called with every event of the study (`dspex.engine.ports`).
    progress : "auto" or bool
        A progress bar, in terminals and notebooks.

    Returns
    -------
    OptimizationResult

    Raises
    ------
    InvalidArgumentError, InvalidSpaceError, InvalidParamsError, InvalidMetricError, \
    InvalidDataError, UnknownStrategyError, NotPicklableError
        At the door, before any work is spent.
    AllTrialsFailedError
        When the first ten trials all fail, or no trial was completed; with the program's own
        traceback.
    StudyMismatchError, StudyInUseError, StudyExistsError, StudyNotFoundError, StorageError
        When the study's log cannot be opened, or is another study's.
    ClusterUnreachableError, NoWorkersError, VersionMismatchError, ClusterLostError
        When the cluster cannot be used. What was recorded is kept.
    UnsatisfiableRequestError, QuotaExceededError
        When no worker, however idle, could give the `resources`, or the tenant's quota never will.

    Examples
    --------
    >>> import dspex
    >>> def loss(params):
    ...     return (params["x"] - 1) ** 2 + (params["kind"] == "bad")
    >>> result = dspex.optimize(
    ...     loss,
    ...     space={"x": dspex.Float(-3, 3), "kind": ["good", "bad"]},
    ...     direction="minimize",
    ...     trials=80,
    ...     seed=0,
    ...     distributed=False,
    ...     progress=False,
    ... )
    >>> result.best_params["kind"]
    'good'
    """
    if misplaced:
        raise InvalidArgumentError(
            "optimize takes a program and one training_data; got "
            f"{2 + len(misplaced)} positional arguments; pass (X, y) as one tuple: "
            "dspex.optimize(program, (X, y), ...)"
        )
    request = lease_request(resources, tenant, priority)
    where = Where.checked(distributed, cluster, cluster_nodes, request)
    threads = 1 if request is None or isolation == "thread" else request.threads
    _check_isolation(isolation, trial_timeout, memory_limit)
    if trials is not None:
        trials = whole("trials", trials, least=1)
    if parallel_evaluations is not None:
        parallel_evaluations = whole("parallel_evaluations", parallel_evaluations, least=1)
    if target_score is not None:
        target_score = finite("target_score", target_score)
    if max_failures != "auto":
        max_failures = whole("max_failures", max_failures, least=0, instead='"auto"')
    seed = None if seed is None else whole("seed", seed)
    initial, callbacks = several_params(initial), observers(callbacks)
    retry_on = transient(retry_on)
    reproducible = seed is not None if reproducible is None else reproducible
    k = REPRODUCIBLE_K if parallel_evaluations is None and reproducible else parallel_evaluations
    if k is None and not where.distributed:
        k = 1  # nothing runs in parallel, so nothing is gained by not waiting
    settings = Settings(
        trials=trials,
        k=k,
        block=block_size(k) if reproducible and k is not None else None,
        retries=whole("retries", retries, least=0, instead=""),
        blame_losses=not reproducible,
        survive_losses=reproducible and isolation == "process",
        max_failures=max_failures,
        target_score=target_score,
        trial_timeout=parse_seconds("trial_timeout", trial_timeout),
    )
    session_timeout = parse_seconds("timeout", timeout)
    limit_bytes = parse_bytes("memory_limit", memory_limit)
    if trials is None and session_timeout is None and target_score is None:
        raise InvalidArgumentError(
            "a study ends by trials, timeout or target_score; got none of them; set one"
        )
    prepared = build(
        program,
        training_data,
        space=space,
        metric=metric,
        direction=direction,
        constraints=constraints,
        cv=cv,
        validation_data=validation_data,
        metadata=metadata,
        refit=refit,
    )
    rows, proposed_by = _initial_rows(prepared, initial)
    store = resolve_storage(storage, study)
    chosen, reason = make(
        kept_strategy(store, study) if strategy == "auto" else strategy,
        space=prepared.space,
        objectives=len(prepared.goal.objectives),
        trials=trials,
        seedable_needed=reproducible,
    )
    if trials is not None and k is not None and trials < 5 * k > 5:
        warnings.warn(
            f"with {trials} trials and {k} of them in flight at once the strategy learns little; "
            f"pass more trials, or parallel_evaluations={max(1, trials // 5)}",
            stacklevel=2,
        )
    opened = open_study(
        store,
        study,
        space=prepared.space,
        goal=prepared.goal,
        head=_head(prepared, chosen, reason, settings, seed, threads),
        resume=resume,
    )
    state, root_seed = opened.state, opened.head["seed"]
    audience = _audience(callbacks, progress)
    if trials is not None and len(state) >= trials and not state.unfinished().size:
        where = Where(distributed=False)  # nothing is left to do
    try:
        chosen.begin(
            prepared.space, objectives=len(prepared.goal.objectives), seed=root_seed, trials=trials
        )
        job = Job(
            program=prepared.program,
            space=prepared.space,
            data=prepared.data,
            seed=root_seed,
            isolation=isolation,
            memory_limit=limit_bytes,
            retry_on=retry_on,
            threads=threads,
        )
        # Of these trials each runs as many evaluations at once as it has folds.
        at_once = min((n for n in (k, trials) if n is not None), default=None)
        most = None if at_once is None else at_once * prepared.folds
        with where.executor(audience, session_timeout, most) as executor:
            capacity = executor.open(job)
            audience(
                StudyStarted(
                    study=study,
                    storage=store,
                    goal=prepared.goal,
                    space=prepared.space,
                    strategy=chosen.name,
                    reason=reason,
                    trials=trials,
                    resumed=state.n_ended,
                    head=opened.head,
                )
            )
            engine = Engine(state, settings, initial=rows, initial_by=proposed_by, by=chosen.name)
            driver = Driver(
                engine,
                executor,
                capacity,
                chosen,
                opened.log,
                audience=audience,
                timeout=session_timeout,
            )
            session = driver.run()
    finally:
        opened.log.close()
    best = state.best()
    if best is None and session.reason == "interrupted":
        raise KeyboardInterrupt
    if best is None:
        raise AllTrialsFailedError(
            f"a result needs a completed trial; the study ended by {session.reason!r} before one "
            "was; give it more time"
        )
    prepared.program.prepare(prepared.data)
    return OptimizationResult(
        state,
        Ending(stop_reason=session.reason, wall_time=session.wall_time, busy=session.busy),
        best_program=prepared.program.finish(prepared.space.resolve(best.params)),
        study=study,
        storage=store,
    )


# --- the parts of optimize -----------------------------------------------------------------


def _check_isolation(isolation: str, trial_timeout: object, memory_limit: object) -> None:
    if isolation not in ("process", "thread"):
        raise InvalidArgumentError(f'isolation is "process" or "thread"; got {isolation!r}')
    for name, limit in (("trial_timeout", trial_timeout), ("memory_limit", memory_limit)):
        if isolation == "thread" and limit is not None:
            raise InvalidArgumentError(
                f"an evaluation in a worker's own thread cannot be ended; got {name}={limit!r} "
                f'and isolation="thread"; drop {name}, or use isolation="process"'
            )


def _initial_rows(
    prepared: Prepared, initial: Sequence[Mapping[str, Any]]
) -> tuple[NDArray[np.float64], list[str]]:
    """The program's defaults, then what the user wants tried first; each once."""
    space = prepared.space
    params: list[Mapping[str, Any]] = []
    proposed_by: list[str] = []
    if prepared.defaults is not None:
        params.append(prepared.defaults)
        proposed_by.append("default")
    for each in initial:
        normal = space.normalise(each)
        if normal not in params:
            params.append(normal)
            proposed_by.append("initial")
    return space.rows(params), proposed_by


def _head(
    prepared: Prepared,
    strategy: Strategy,
    reason: str,
    settings: Settings,
    seed: int | None,
    threads: int,
) -> dict[str, Any]:
    """What identifies the study, as JSON."""
    return {
        "space": prepared.space.describe(),
        "goal": prepared.goal.describe(),
        "strategy": {"name": strategy.name, "options": strategy.options()},
        "reason": reason,
        "seed": seed,
        "reproducible": settings.reproducible,
        # In arrival order k promises nothing, so it may change between sessions.
        "k": settings.k if settings.reproducible else None,
        "block": settings.block,
        "folds": prepared.folds,
        "trials": settings.trials,
        "blas_threads": threads,
        **prepared.identity,
        **circumstances(),
    }


def _audience(callbacks: Sequence[Observer], progress: Literal["auto"] | bool) -> Audience:
    bar = make_progress(progress)
    return Audience([LogObserver(), *([] if bar is None else [bar]), *callbacks])
