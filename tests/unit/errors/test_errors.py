"""Errors cross processes, and are the builtins that people expect."""

import pickle

import pytest

from dspex import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_pickles_with_its_message_and_fields(name: str) -> None:
    error = getattr(errors, name)("rule; values; remedy", trial=3)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == "rule; values; remedy"
    assert copy.trial == 3


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InvalidParamsError, ValueError),
        (errors.StudyNotFoundError, KeyError),
        (errors.NotPicklableError, TypeError),
        (errors.NoWorkersError, TimeoutError),
        (errors.ClusterLostError, ConnectionError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_errors_double_as_builtins(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, builtin)
    assert issubclass(error, errors.DspexError)


def test_the_drawn_tree_names_every_error() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name in errors.__doc__
