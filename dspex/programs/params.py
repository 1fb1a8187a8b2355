"""From params to a configured estimator.

Knows: what scikit-learn calls a parameter, and which parameters decide about chance and cores.
Must not know: data, metrics.

Params name scikit-learn parameters (``"svc__C"``). What a `Component` brings is called
``"clf.svc.C"`` there and means the parameter ``clf__C`` of the object chosen for ``clf``.
Objects are cloned, so that no evaluation sees another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspex.study.seeds import derive_seed

__all__ = ["configure", "final_step", "is_estimator", "parameter_of"]


def is_estimator(value: object) -> bool:
    """Whether it is an estimator's object, judged without importing scikit-learn."""
    methods = ("get_params", "set_params", "fit")
    return not isinstance(value, type) and all(hasattr(value, each) for each in methods)


def parameter_of(name: str) -> str:
    """The scikit-learn parameter that a param sets.

    Examples
    --------
    >>> parameter_of("svc__C"), parameter_of("clf.svc.C"), parameter_of("clf.bag.estimator.knn.p")
    ('svc__C', 'clf__C', 'clf__estimator__p')
    """
    # Names alternate: a parameter, the label chosen for it, a parameter of what was chosen ...
    return "__".join(name.split(".")[::2])


def configure(
    estimator: Any, params: Mapping[str, Any], *, seed: int | None = None, one_core: bool = False
) -> Any:
    """A clone of the estimator with params set.

    Parameters
    ----------
    estimator : scikit-learn estimator
        Left as it is.
    params : mapping of str to object
        Objects, not labels, as ``space.resolve`` gives them.
    seed : int, optional
        What parameters ``random_state=None``, nested ones too, are seeded from.
    one_core : bool
        Whether to set ``n_jobs`` to 1 wherever params do not say something else.

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> model = configure(RandomForestClassifier(n_jobs=-1), {"max_depth": 3}, one_core=True)
    >>> model.max_depth, model.n_jobs
    (3, 1)
    """
    from sklearn.base import clone

    named = {parameter_of(name): value for name, value in params.items()}
    model = clone(estimator)
    model.set_params(**clone(named, safe=False))
    own: dict[str, Any] = {}
    for name, value in model.get_params(deep=True).items():
        last = name.rpartition("__")[2]
        if seed is not None and last == "random_state" and value is None:
            own[name] = derive_seed(seed, name) & 0x7FFF_FFFF
        elif (
            one_core and last == "n_jobs" and name not in named and _uses_cores(model, name, value)
        ):
            own[name] = 1
    return model.set_params(**own) if own else model


def final_step(model: Any) -> tuple[str, Any]:
    """What is fitted last, and the prefix of its parameters; of a pipeline (of pipelines)."""
    prefix = ""
    while hasattr(model, "steps"):
        name, model = model.steps[-1]
        prefix += f"{name}__"
    return prefix, model


def _uses_cores(model: Any, name: str, value: Any) -> bool:
    if value is not None:
        return bool(value != 1)
    # To scikit-learn None is one core (and some classes warn of anything else); to others, all.
    owner = model.get_params(deep=True)[name.rpartition("__")[0]] if "__" in name else model
    return not type(owner).__module__.startswith("sklearn.")
