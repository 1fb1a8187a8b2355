"""Code that travels as text: for processes that may lack dspex, or run another version.

Knows: pickle's protocol. Must not know: what the code does.

What unpickles needs Python's own `eval`, and nothing of ours.
"""

from __future__ import annotations

from typing import Any, final

__all__ = ["Source"]


@final
class Source:
    """Pickles to the value of an expression, evaluated where it is unpickled.

    Parameters
    ----------
    expression : str

    Examples
    --------
    >>> import pickle
    >>> pickle.loads(pickle.dumps(Source("lambda x: x + 1")))(2)
    3
    """

    def __init__(self, expression: str) -> None:
        self._expression = expression

    def __call__(self) -> None:
        """Look like a function, as which it arrives."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self._expression,)
