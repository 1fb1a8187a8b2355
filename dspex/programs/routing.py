"""Where metadata goes, decided once at the door.

Knows: scikit-learn's two ways of passing metadata. Must not know: how fits are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from dspex.errors import InvalidArgumentError
from dspex.programs.metrics import Metrics

__all__ = ["Routed", "route"]


@final
@dataclass(frozen=True, slots=True)
class Routed:
    """Metadata by who takes it: the splitter, or the estimator's fit (and the scorers)."""

    split: dict[str, Any]
    fit: dict[str, Any]
    by_request: bool


def route(metadata: Mapping[str, Any], estimator: Any, splitter: Any, metrics: Metrics) -> Routed:
    """Decide who takes what.

    Raises
    ------
    InvalidArgumentError
        Where scikit-learn's routing is enabled and nobody requests a piece of metadata.
    """
    import sklearn

    if not sklearn.get_config()["enable_metadata_routing"]:
        split = {key: value for key, value in metadata.items() if key == "groups"}
        fit = {key: value for key, value in metadata.items() if key != "groups"}
        return Routed(split, fit, False)
    from sklearn.metrics import check_scoring
    from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing

    scorer = check_scoring(estimator, scoring=metrics.scoring)
    router = MetadataRouter(owner="optimize")
    parts = {"splitter": (splitter, "split"), "estimator": (estimator, "fit")}
    for name, (part, method) in {**parts, "scorer": (scorer, "score")}.items():
        mapping = MethodMapping().add(caller="fit", callee=method)
        router.add(**{name: part}, method_mapping=mapping)
    try:
        routed = process_routing(router, "fit", **metadata)
    except (TypeError, ValueError) as error:  # both of scikit-learn's routing errors are these
        raise InvalidArgumentError(
            f"metadata goes to who requests it, for scikit-learn's routing is enabled: {error}"
        ) from error
    # Who takes what inside a fold is asked again there, with the split made.
    inside = MetadataRouter(owner="optimize")
    for name, (part, method) in {
        "estimator": (estimator, "fit"),
        "scorer": (scorer, "score"),
    }.items():
        inside.add(**{name: part}, method_mapping=MethodMapping().add(caller="fit", callee=method))
    taken = inside.consumes("fit", metadata.keys())
    return Routed(
        dict(routed.splitter.split), {key: metadata[key] for key in metadata if key in taken}, True
    )
