"""What counts as left behind."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from dspex.testing.leaks import no_leaks


def test_an_open_pipe_is_a_leak() -> None:
    with pytest.raises(AssertionError, match="left open"), no_leaks():
        ends = os.pipe()
    for end in ends:
        os.close(end)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere files do not tell what they are")
def test_a_connection_that_somebody_opens_meanwhile_is_none() -> None:
    with no_leaks():
        connection = socket.socket()
    connection.close()
