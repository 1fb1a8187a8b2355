"""How values of a journal in etcd are told whole, and what may stand in its URL."""

from __future__ import annotations

import pytest

from dspex.errors import InvalidArgumentError
from dspex.storage.journals.etcd import EtcdJournal
from dspex.storage.journals.etcd_address import EtcdAddress
from dspex.storage.journals.etcd_values import (
    PIECE,
    Batch,
    Head,
    Keys,
    Pieces,
    Tail,
    after,
    cut,
    pack_chunks,
    pack_entries,
    read_line,
    sealed,
    unpack_chunks,
    unpack_entries,
    unsealed,
    write_line,
)
from dspex.storage.journals.opening import open_journal


def damaged(value: bytes) -> list[bytes]:
    """All that one changed, lost or added byte makes of a value."""
    flips = [
        value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
        for place in range(len(value))
    ]
    return [*flips, value[:-1], value[1:], value + b"0", b""]


def test_a_line_comes_back_or_is_refused() -> None:
    assert read_line(Tail(17, 4_000_000_000).encode(), 2) == ["17", "4000000000"]
    value = Head(9, "9-abc", Pieces(3, 7)).encode()
    assert read_line(value, 4) == ["9", "9-abc", "3", "7"]
    for each in damaged(value):
        with pytest.raises(ValueError, match="was changed"):
            read_line(each, 4)


def test_a_line_has_its_number_of_fields() -> None:
    assert read_line(write_line("a", 1), 2) == ["a", "1"]
    with pytest.raises(ValueError, match="was changed"):
        read_line(write_line("a", 1), 1)


@pytest.mark.parametrize(
    "batch",
    [
        Batch(1, 0, [b"", b"one", b"\0" * 50]),
        Batch(2**60, 2**32 - 1, None, "7-abc", Pieces(2, 9)),
    ],
)
def test_a_batch_comes_back_or_is_refused(batch: Batch) -> None:
    value, checksum = batch.encode()
    assert Batch.decode(value) == (batch, checksum)
    for each in damaged(value):
        with pytest.raises(ValueError, match="was changed"):
            Batch.decode(each)


def test_the_checksum_of_a_piece_depends_on_all_pieces_before() -> None:
    first, checksum = sealed(b"first")
    second, _ = sealed(b"second", checksum)
    assert unsealed(first)[0] == b"first"
    assert unsealed(second, checksum)[0] == b"second"
    with pytest.raises(ValueError, match="was changed"):
        unsealed(second)


@pytest.mark.parametrize("sizes", [[], [0], [1], [PIECE], [PIECE + 1], [3, 2 * PIECE, 0, PIECE]])
def test_a_stream_is_cut_into_full_pieces_and_a_rest(sizes: list[int]) -> None:
    datas = [bytes([number]) * size for number, size in enumerate(sizes)]
    pieces = list(cut(datas))
    assert b"".join(pieces) == b"".join(datas)
    assert all(len(piece) == PIECE for piece in pieces[:-1])
    assert all(0 < len(piece) <= PIECE for piece in pieces)


def test_chunks_come_back_from_pieces_as_far_as_these_go() -> None:
    chunks = [b"one", b"", b"x" * (PIECE + 5), b"four"]
    pieces = list(cut(pack_chunks(chunks)))
    assert len(pieces) == 2
    assert list(unpack_chunks(pieces)) == chunks
    assert list(unpack_chunks(pieces[:1])) == chunks[:2]
    assert unpack_entries(pack_entries(chunks)) == chunks


def test_keys_sort_by_number() -> None:
    keys = Keys("a/b")
    numbers = [1, 9, 10, 99, 10**19]
    assert sorted(map(keys.batch, numbers)) == [keys.batch(number) for number in numbers]
    assert all(keys.log < keys.batch(number) < after(keys.log) for number in numbers)
    assert keys.damaged(3, keys.batch(1)).startswith("a/b/damaged-3/log/0000")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("etcd://one", "etcd://one:2379/dspex"),
        ("etcd://one:1/", "etcd://one:1/dspex"),
        ("etcd://one:1,two,three:3", "etcd://one:1,two:2379,three:3/dspex"),
        ("etcd://[::1]:9/team/a.b-c_d", "etcd://[::1]:9/team/a.b-c_d"),
        ("etcds://10.0.0.1", "etcds://10.0.0.1:2379/dspex"),
    ],
)
def test_urls(url: str, text: str) -> None:
    assert str(EtcdAddress.parse(url)) == text
    assert EtcdAddress.parse(text) == EtcdAddress.parse(url)
    journal = open_journal(url)
    assert isinstance(journal, EtcdJournal)
    assert journal.url == text
    assert not journal.owns()
    assert (journal.durable, journal.identity) == (True, "")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("etcd:///prefix", "address of a member"),
        ("etcd://one,", "no address"),
        ("etcd://:2379", "no address"),
        ("etcd://one:port", "no address"),
        ("etcd://one:0", "no address"),
        ("etcd://one:70000", "no address"),
        ("etcd://one?x=1", "no address"),
        ("etcd://user:secret@one", "knows no user"),
        ("etcd://one/a b", "a prefix is made of words"),
        ("etcd://one/a//b", "a prefix is made of words"),
        ("etcd://one/päth", "a prefix is made of words"),
    ],
)
def test_other_urls_are_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f'{why}.*pass for example "etcd://'):
        open_journal(url)


def test_a_lease_has_a_length() -> None:
    with pytest.raises(InvalidArgumentError, match="more than 0 seconds"):
        EtcdJournal("etcd://one", lease=0)
