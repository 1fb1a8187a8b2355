"""Programs that are plain Python: functions and classes.

Knows: how to call them, and what they may return. Must not know: scikit-learn, search spaces.

A function is ``f(params)``, ``f(params, data)`` or ``f(params, data, trial)`` (`signature` has the
rule) and returns a number, a dict of numbers or a `Measurement`; a generator yields such values,
and the last is the outcome. Its best program is ``functools.partial(f, params)``.

A class is built with params, ``P(params)``, or ``P(**params)`` where its signature names the
variables instead. Without a metric the object is called with the data and returns what a function
may return; with a metric it is ``metric(object, X, y)`` (``metric(object, data)`` where the data is
no pair) that measures, and the object is not called. Its best program is the object.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from typing import Any, final

from dspex.errors import InvalidArgumentError, InvalidDataError, InvalidMetricError
from dspex.programs.base import RunningTrial
from dspex.programs.data import pair
from dspex.programs.signature import Call, plan
from dspex.space import Space
from dspex.study.measurement import SCORE, Measurement, as_measurement

__all__ = ["ClassProgram", "FunctionProgram"]

_ROLES = ("params", "data", "trial")


def _measurements(value: Any) -> Measurement | Iterator[Measurement]:
    if isinstance(value, Iterator):
        return _each(value)
    return as_measurement(value)


def _each(values: Iterator[Any]) -> Iterator[Measurement]:
    try:
        for value in values:
            yield as_measurement(value)
    finally:
        # Whoever closes this one early means the program's own generator.
        if isinstance(values, Generator):
            values.close()


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _is_async(function: Callable[..., Any]) -> bool:
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def _refuse_spread(function: Callable[..., Any], names: Collection[str]) -> None:
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):  # some builtins have no signature
        return
    if first is None or first.name == "params" or first.name not in names:
        return
    if first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        raise InvalidArgumentError(
            f"a function is called with all params as one dict; {_name(function)} takes "
            f"{first.name!r}, the name of one variable; pass `lambda params: f(**params)`, or call "
            "its parameter `params`"
        )


def _offered(has_data: bool) -> tuple[str, ...]:
    return ("params", "data") if has_data else ("params",)


def _check_data(call: Call, name: str, has_data: bool) -> None:
    if has_data and not call.takes("data"):
        raise InvalidDataError(
            f"data is passed to programs that take it; {name} takes no data, but training_data "
            "was given; add a parameter `data`, or drop training_data"
        )
    if not has_data and call.takes("data") and not call.takes("trial"):
        raise InvalidDataError(f"{name} takes data; got training_data=None; pass training_data=")


@final
class FunctionProgram:
    """A callable that measures itself.

    Parameters
    ----------
    function : callable
    names : collection of str
        The names of the params, to see that the function does not take them one by one.
    has_data : bool
        Whether there is training data to call it with.

    Raises
    ------
    InvalidArgumentError
        Where it cannot be called with params, data and trial.

    Examples
    --------
    >>> program = FunctionProgram(lambda params: params["x"] ** 2, has_data=False)
    >>> program.evaluate({"x": 3}, RunningTrial(0, 0, {"x": 3}, 0)).score
    9.0
    """

    def __init__(
        self, function: Callable[..., Any], *, names: Collection[str] = (), has_data: bool
    ) -> None:
        _refuse_spread(function, names)
        if _is_async(function):
            raise InvalidArgumentError(
                f"a program returns its measurement; {_name(function)} is async and returns a "
                "coroutine; pass `lambda params: asyncio.run(f(params))`"
            )
        self._function = function
        self._call = plan(function, _ROLES, offered=_offered(has_data))
        _check_data(self._call, _name(function), has_data)
        self._data: Any = None

    def space(self) -> Space | None:
        """None: only the user knows what a function's params are."""
        return None

    def prepare(self, data: Any) -> None:
        """Keep what the function is called with."""
        self._data = data

    def evaluate(
        self, params: Mapping[str, Any], trial: RunningTrial
    ) -> Measurement | Iterator[Measurement]:
        """Call the function."""
        roles = {"params": dict(params), "data": self._data, "trial": trial}
        return _measurements(self._call(self._function, roles))

    def finish(self, params: Mapping[str, Any]) -> Any:
        """The function with its params bound."""
        return functools.partial(self._function, dict(params))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_data": None}  # data travels on its own road


@final
class ClassProgram:
    """A class built with params and called with data.

    Parameters
    ----------
    cls : type
    names : collection of str
        The names of the params, for classes whose signature spells them out.
    metric : callable, mapping of str to callable, or None
        ``metric(object, X, y)``, or ``metric(object, data)`` where the data is no pair.
    has_data : bool
    """

    def __init__(
        self, cls: type, *, names: Collection[str], metric: Any = None, has_data: bool
    ) -> None:
        self._class = cls
        self._spread = _spreads(cls, names)
        self._metrics = None if metric is None else _metrics(metric)
        self._call: Call | None = None
        if self._metrics is None:
            # Not hasattr: every class has the __call__ of its metaclass.
            if not any("__call__" in vars(each) for each in cls.__mro__):
                raise InvalidArgumentError(
                    f"without a metric a program's objects are called with the data; "
                    f"{cls.__qualname__} has no __call__; define one, or pass "
                    "metric=callable(object, X, y)"
                )
            # Seen from the class, the first parameter is self.
            self._call = plan(cls.__call__, ("data", "trial"), offered=_offered(has_data), skip=1)
            _check_data(self._call, cls.__qualname__, has_data)
        elif not has_data:
            raise InvalidDataError(
                "a metric measures a program on data; got training_data=None; pass it"
            )
        self._data: Any = None

    def space(self) -> Space | None:
        """None: only the user knows what a class's params are."""
        return None

    def prepare(self, data: Any) -> None:
        """Keep what the objects are called with."""
        self._data = data

    def evaluate(
        self, params: Mapping[str, Any], trial: RunningTrial
    ) -> Measurement | Iterator[Measurement]:
        """Build the object, then call it, or have the metric measure it."""
        built = self.finish(params)
        if self._metrics is None:
            assert self._call is not None
            return _measurements(self._call(built, {"data": self._data, "trial": trial}))
        X, y = pair(self._data)
        data = (X,) if y is None else (X, y)
        scores = {name: metric(built, *data) for name, metric in self._metrics.items()}
        return as_measurement(scores[SCORE] if set(scores) == {SCORE} else scores)

    def finish(self, params: Mapping[str, Any]) -> Any:
        """The object built with params."""
        return self._class(**params) if self._spread else self._class(dict(params))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_data": None}  # data travels on its own road


def _metrics(metric: Any) -> dict[str, Callable[..., Any]]:
    named = dict(metric) if isinstance(metric, Mapping) else {SCORE: metric}
    for name, each in named.items():
        if not callable(each):
            raise InvalidMetricError(
                "the metric of a class is a callable (object, X, y), or a dict of several; got "
                f"{each!r} for {name!r}; names of scikit-learn scorers need an estimator"
            )
    if not named:
        raise InvalidMetricError("a metric measures something; got an empty dict; name a callable")
    return {str(name): each for name, each in named.items()}


def _spreads(cls: type, names: Collection[str]) -> bool:
    """Whether the class is built as ``cls(**params)``."""
    try:
        parameters = inspect.signature(cls).parameters
    except (TypeError, ValueError):
        return False
    if "params" in parameters:
        return False
    required = [each for each in parameters.values() if each.default is each.empty]
    required = [
        each for each in required if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    fits = all(takes_any or name in parameters for name in names)
    if fits and all(each.name in names for each in required):
        return True
    if parameters and len(required) <= 1 and not any(p.kind is p.KEYWORD_ONLY for p in required):
        return False
    raise InvalidArgumentError(
        f"a class is built as P(params) or P(**params); {cls.__qualname__}"
        f"{inspect.signature(cls)} fits neither with the variables {sorted(names)}; give it a "
        "parameter `params`"
    )
