"""The journal in a real etcd: lost and late answers, damage, leases, space, TLS, what it leaves."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import JournalCorruptError, JournalError, JournalFencedError
from dspex.storage.journals.etcd import EtcdJournal
from dspex.storage.journals.etcd_address import EtcdAddress
from dspex.storage.journals.etcd_client import Client, delete, get, put
from dspex.storage.journals.etcd_gateway import EtcdError, Gateway
from dspex.storage.journals.etcd_values import PIECE, Keys, write_line
from dspex.testing.etcd import EtcdServers, needs_etcd
from dspex.testing.journals import read_all

pytestmark = needs_etcd
_prefixes = count()


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServers]:
    with EtcdServers() as servers:
        yield servers


@pytest.fixture
def url(etcd: EtcdServers) -> str:
    return etcd.url(f"test-{next(_prefixes)}")


@pytest.fixture
def keys(url: str) -> Keys:
    return Keys(EtcdAddress.parse(url).prefix)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    client = Client(Gateway(EtcdAddress.parse(url)))
    yield client
    client.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., EtcdJournal]]:
    with ExitStack() as stack:

        def make(url: str, **options: Any) -> EtcdJournal:
            journal = EtcdJournal(url, **{"patience": 0.0, "lease": 3.0, **options})
            journal.open()
            stack.callback(journal.close)
            return journal

        yield make


def names(client: Client, keys: Keys) -> list[str]:
    """The keys of a journal, without prefix, without the part that is drawn."""
    found = client.read(keys.all, keys.all[:-1] + "0", keys_only=True)
    return [re.sub("-[0-9a-f]{32}", "", item.key.removeprefix(keys.all)) for item in found]


# --- requests whose answers are lost, and requests that come late -----------------------------


class Thief(ThreadingHTTPServer):
    """Stands before etcd; what it does with the next requests to a path stands in `tricks`.

    "lose the answer": etcd performs it; "keep": etcd gets it when `deliver` is called.
    """

    daemon_threads = True

    def __init__(self, etcd: EtcdServers) -> None:
        super().__init__(("127.0.0.1", 0), ThiefHandler)
        self.etcd = etcd
        self.tricks: list[str] = []
        self.kept: list[Any] = []

    def deliver(self) -> list[Any]:
        return [self.etcd.ask(0, path, body) for path, body in self.kept]


class ThiefHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Thief

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(data)
        # The thread that renews the lease is left alone.
        is_write = self.path == "/v3/kv/put" or b"request_put" in data
        trick = self.server.tricks.pop(0) if is_write and self.server.tricks else ""
        if trick == "keep":
            self.server.kept.append((self.path, body))
            self.close_connection = True
            return
        answer = json.dumps(self.server.etcd.ask(0, self.path, body)).encode()
        if trick:
            self.close_connection = True
            return
        self.send_response(200 if b'"code"' not in answer else 503)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def thief(etcd: EtcdServers) -> Iterator[Thief]:
    with Thief(etcd) as thief:
        thread = threading.Thread(target=thief.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield thief
        thief.shutdown()
        thread.join()


@pytest.fixture
def by_thief(thief: Thief) -> str:
    return f"etcd://127.0.0.1:{thief.server_address[1]}/test-{next(_prefixes)}"


def fail(journal: EtcdJournal, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let a call fail because no answer comes in time."""
    client = journal._client
    assert client is not None
    with monkeypatch.context() as patch:
        patch.setattr(client._gateway, "_timeout", 0.2)
        with pytest.raises(EtcdError, match="no answer"):
            act()


def test_a_lost_answer_is_asked_for_again_and_the_entries_are_kept_once(
    thief: Thief, by_thief: str, opened: Callable[..., EtcdJournal]
) -> None:
    journal = opened(by_thief)
    thief.tricks = ["lose the answer"]
    journal.append(1, [b"1", b"2"])
    journal.append(3, [b"3"])
    thief.tricks = ["lose the answer"]
    journal.append(4, [b"4"])
    assert thief.tricks == []
    assert read_all(journal)[2] == [(n, b"%d" % n) for n in range(1, 5)]


def test_an_opening_whose_answer_was_lost_is_ours(
    thief: Thief, by_thief: str, opened: Callable[..., EtcdJournal]
) -> None:
    thief.tricks = ["lose the answer"]
    journal = opened(by_thief)
    assert thief.tricks == []
    assert journal.owns()
    journal.append(1, [b"1"])


@pytest.mark.parametrize("trick", ["lose the answer", "keep"])
def test_a_batch_of_unknown_fate_that_grew_is_kept_once(
    trick: str,
    thief: Thief,
    by_thief: str,
    opened: Callable[..., EtcdJournal],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = opened(by_thief)
    journal.append(1, [b"1"])
    thief.tricks = [trick] * 100
    fail(journal, monkeypatch, lambda: journal.append(2, [b"2", b"3"]))
    thief.tricks = []
    assert bool(thief.kept) == (trick == "keep")
    journal.append(2, [b"2", b"3", b"4"])
    expected = [(n, b"%d" % n) for n in range(1, 5)]
    assert read_all(journal)[2] == expected
    # What comes late, even after a snapshot took the place of the entries, changes nothing.
    assert not any(answer.get("succeeded") for answer in thief.deliver())
    assert read_all(journal)[2] == expected
    journal.compact(4, [b"all"])
    assert not any(answer.get("succeeded") for answer in thief.deliver())
    assert read_all(journal) == (4, [b"all"], [])
    journal.append(5, [b"5"])
    assert read_all(journal)[2] == [(5, b"5")]


def test_entries_after_a_batch_that_did_not_arrive_are_refused(
    thief: Thief,
    by_thief: str,
    opened: Callable[..., EtcdJournal],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = opened(by_thief)
    thief.tricks = ["keep"] * 100
    fail(journal, monkeypatch, lambda: journal.append(1, [b"1", b"2"]))
    thief.tricks = []
    with pytest.raises(JournalError, match="got number 3 after 0"):
        journal.append(3, [b"3"])
    assert read_all(journal)[2] == []


def test_late_pieces_of_a_large_batch_meet_nothing(
    thief: Thief,
    by_thief: str,
    opened: Callable[..., EtcdJournal],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = opened(by_thief)
    thief.tricks = ["", *["keep"] * 100]
    lost = [b"a" * PIECE, b"b" * PIECE]
    fail(journal, monkeypatch, lambda: journal.append(1, lost))
    thief.tricks = []
    assert thief.kept
    kept = [*lost, b"c" * PIECE]
    journal.append(1, kept)
    thief.deliver()
    assert read_all(journal)[2] == list(enumerate(kept, 1))


def test_a_snapshot_whose_answer_was_lost_is_kept(
    thief: Thief, by_thief: str, opened: Callable[..., EtcdJournal]
) -> None:
    journal = opened(by_thief)
    journal.append(1, [b"1", b"2"])
    thief.tricks = ["", "lose the answer"]
    journal.compact(1, [b"one"])
    assert thief.tricks == []
    assert read_all(journal) == (1, [b"one"], [(2, b"2")])


# --- damage -----------------------------------------------------------------------------------

CHUNKS = [b"first chunk", b"x" * (2 * PIECE), b"third chunk"]
LARGE = b"L" * (PIECE + 10)
ENTRIES = [b"11", b"12", LARGE, b"14", b"15", b"16", b"17"]
NUMBERED = list(enumerate(ENTRIES, 11))


@pytest.fixture
def filled(url: str) -> str:
    """A snapshot up to 10, and entries 11 to 17: in batches of 10-12, 13 (in pieces), 14-15, 16-17.

    The first batch begins with an entry that the snapshot covers.
    """
    journal = EtcdJournal(url, patience=0.0, lease=3.0)
    journal.open()
    journal.append(1, [b"covered"] * 9)
    journal.append(10, [b"covered", *ENTRIES[:2]])
    journal.compact(10, CHUNKS)
    journal.append(13, [LARGE])
    journal.append(14, ENTRIES[3:5])
    journal.append(16, ENTRIES[5:])
    journal.close()
    return url


def flip(client: Client, key: str) -> None:
    (item,) = client.transact([], [get(key)]).items[0]
    client.transact([], [put(key, item.value[:-1] + bytes([item.value[-1] ^ 1]))])


def find(client: Client, keys: Keys, place: str) -> str:
    """The key of which this is the end, once what is drawn is left out."""
    for item in client.read(keys.all, keys.all[:-1] + "0", keys_only=True):
        if re.sub("-[0-9a-f]{32}", "", item.key) == keys.all + place:
            return item.key
    raise AssertionError(place)


def batch(first: int) -> str:
    return f"log/{first:020}"


DAMAGES = [
    # place, what is left of chunks and entries, how many batches go
    ("tail", 3, 7, 0),
    (batch(14), 3, 3, 2),
    (f"snapshot/{10:020}/00000002", 1, 0, 4),
    *(
        pytest.param(*damage, marks=pytest.mark.slow)
        for damage in [
            ("term", 3, 7, 0),
            ("identity", 3, 7, 0),
            ("head", 0, 0, 4),
            (batch(10), 3, 0, 4),
            (batch(13), 3, 2, 3),
            (batch(16), 3, 5, 1),
            (f"part/{13:020}/00000001", 3, 2, 3),
            (f"snapshot/{10:020}/00000000", 0, 0, 4),
        ]
    ),
]


def read_through(url: str) -> None:
    journal = EtcdJournal(url, patience=0.0, lease=3.0)
    try:
        journal.open()
        read_all(journal)
    finally:
        journal.close()


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize(("place", "chunks", "entries", "dropped"), DAMAGES)
def test_damage_is_told_and_repaired(
    place: str,
    chunks: int,
    entries: int,
    dropped: int,
    is_lost: bool,
    filled: str,
    client: Client,
    keys: Keys,
    opened: Callable[..., EtcdJournal],
) -> None:
    key = find(client, keys, place)
    if is_lost:
        client.transact([], [delete(key)])
    else:
        flip(client, key)
    before = names(client, keys)
    with pytest.raises(JournalCorruptError, match=r"repair=True") as info:
        read_through(filled)
    # The batch that should have the first entry could begin with any number up to that one.
    told = keys.batch(11) if is_lost and place == batch(10) else key
    assert told in str(info.value)
    assert told in info.value.place
    assert names(client, keys) == before

    repaired = opened(filled, repair=True)
    last = 10 + entries if place != "head" else 0
    upto = 10 if place != "head" else 0
    assert read_all(repaired) == (upto, CHUNKS[:chunks], NUMBERED[:entries])
    assert repaired.repairs
    if dropped:
        aside = [each for each in names(client, keys) if re.match(r"damaged-\d+/log/", each)]
        is_gone = is_lost and place.startswith("log/")
        assert len(aside) == dropped - is_gone
    repaired.append(last + 1, [b"after"])
    repaired.close()

    again = opened(filled)
    assert read_all(again) == (upto, CHUNKS[:chunks], [*NUMBERED[:entries], (last + 1, b"after")])
    again.compact(last + 1, [b"whole"])
    assert read_all(again) == (last + 1, [b"whole"], [])


def test_a_batch_of_another_history_is_noticed(
    filled: str, client: Client, keys: Keys, opened: Callable[..., EtcdJournal]
) -> None:
    other = opened(f"{filled}-other")
    other.append(1, [b"another"] * 13)
    other.append(14, ENTRIES[3:5])
    other_keys = Keys(EtcdAddress.parse(other.url).prefix)
    (item,) = client.transact([], [get(other_keys.batch(14))]).items[0]
    client.transact([], [put(keys.batch(14), item.value)])
    with pytest.raises(
        JournalCorruptError, match=f"{keys.batch(14)}: it does not follow the batch before"
    ):
        read_all(opened(filled))


def test_batches_that_were_swapped_are_noticed(
    filled: str, client: Client, keys: Keys, opened: Callable[..., EtcdJournal]
) -> None:
    (one,), (other,) = client.transact([], [get(keys.batch(14)), get(keys.batch(16))]).items
    client.transact([], [put(one.key, other.value), put(other.key, one.value)])
    with pytest.raises(JournalCorruptError, match=f"{one.key}: it is another batch, from 16 on"):
        read_all(opened(filled))


def test_an_old_copy_of_the_last_batch_is_noticed(
    url: str, client: Client, keys: Keys, opened: Callable[..., EtcdJournal]
) -> None:
    (one, other) = (opened(url), f"{url}-other")
    one.append(1, [b"1"])
    another = opened(other)
    another.append(1, [b"x"])
    other_keys = Keys(EtcdAddress.parse(other).prefix)
    (item,) = client.transact([], [get(other_keys.batch(1))]).items[0]
    client.transact([], [put(keys.batch(1), item.value)])
    with pytest.raises(JournalCorruptError, match="names another batch"):
        read_all(one)


def test_a_whole_journal_that_is_repaired_stays_as_it_is(
    filled: str, opened: Callable[..., EtcdJournal]
) -> None:
    journal = opened(filled)
    identity = journal.identity
    journal.close()
    journal = opened(filled, repair=True)
    assert (journal.repairs, journal.identity) == ([], identity)
    assert read_all(journal) == (10, CHUNKS, NUMBERED)


@pytest.mark.slow
def test_a_repair_that_ends_in_the_middle_is_made_again(
    filled: str,
    client: Client,
    keys: Keys,
    opened: Callable[..., EtcdJournal],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flip(client, keys.batch(13))
    whole = Client.transact
    left = 0

    def transact(self: Client, conditions: Any, then: Any, otherwise: Any = ()) -> Any:
        nonlocal left
        if "request_put" in str(then) and "lease': '0'" in str(then):
            left -= 1
            if left < 0:
                raise ZeroDivisionError
        return whole(self, conditions, then, otherwise)

    for calls in count():
        left = calls
        journal = EtcdJournal(filled, repair=True, patience=0.0, lease=3.0)
        with monkeypatch.context() as patch:
            patch.setattr(Client, "transact", transact)
            try:
                journal.open()
            except ZeroDivisionError:
                continue
        assert read_all(journal) == (10, CHUNKS, NUMBERED[:2])
        journal.close()
        break
    assert calls > 3
    assert read_all(opened(filled)) == (10, CHUNKS, NUMBERED[:2])


def test_a_damaged_large_value_is_told_and_healed_by_writing_it(
    url: str, client: Client, keys: Keys, opened: Callable[..., EtcdJournal]
) -> None:
    data = b"v" * (2 * PIECE + 1)
    digest = sha256(data).hexdigest()
    journal = opened(url)
    for place in (f"{keys.blobs}{digest}", f"{keys.blob_parts}{digest}/00000001"):
        journal.put_blob(digest, data)
        flip(client, place)
        with pytest.raises(JournalCorruptError, match=f"{place}.*write the value again|{place}"):
            journal.get_blob(digest)
        journal.put_blob(digest, data)
        assert journal.get_blob(digest) == data
    with pytest.raises(JournalError, match="named by its SHA-256"):
        journal.put_blob(digest, b"another")


# --- owners -----------------------------------------------------------------------------------


def test_who_has_it_is_told(url: str, opened: Callable[..., EtcdJournal]) -> None:
    owner = opened(url, lease=1.0)
    with pytest.raises(JournalError, match=r"belongs to process \d+ on .*lease of 1 s did not end"):
        opened(url)
    new = opened(url, takeover=True)
    with pytest.raises(JournalFencedError, match=r"which had term 1, by process \d+ on"):
        owner.append(1, [b"1"])
    assert not owner.owns()
    assert new.owns()


def test_a_lease_that_ran_out_is_made_anew_while_the_term_is_ours(
    url: str, client: Client, keys: Keys, opened: Callable[..., EtcdJournal]
) -> None:
    journal = opened(url, lease=1.0)
    (item,) = client.transact([], [get(keys.owner)]).items[0]
    client.revoke(item.lease)
    found: list[Any] = []
    while not found:
        (found,) = client.transact([], [get(keys.owner)]).items
    assert found[0].lease != item.lease
    assert found[0].value == item.value
    journal.append(1, [b"1"])
    with pytest.raises(JournalError, match="one process owns a journal"):
        opened(url)


def test_an_owner_of_which_nothing_can_be_read_is_waited_for(
    url: str, client: Client, keys: Keys, opened: Callable[..., EtcdJournal]
) -> None:
    opened(url).close()
    client.transact([], [put(keys.owner, b"somebody")])
    with pytest.raises(JournalError, match=f"cannot be read.*etcdctl del {keys.owner}"):
        opened(url)
    assert opened(url, takeover=True, lease=1.0).owns()


def test_a_term_of_another_form_is_no_journal_of_ours(
    url: str, client: Client, keys: Keys, opened: Callable[..., EtcdJournal]
) -> None:
    opened(url).close()
    client.transact([], [put(keys.identity, write_line("dspex-journal-9", "abc"))])
    for repair in (False, True):
        with pytest.raises(JournalError, match="of the form dspex-journal-9; use the version"):
            opened(url, repair=repair)


def test_an_owner_under_whose_term_another_wrote_is_fenced(
    url: str, client: Client, keys: Keys, opened: Callable[..., EtcdJournal]
) -> None:
    journal = opened(url)
    journal.append(1, [b"1"])
    (tail,) = client.transact([], [get(keys.tail)]).items[0]
    journal.append(2, [b"2"])
    client.transact([], [put(keys.tail, tail.value)])
    with pytest.raises(JournalFencedError, match="restored from a copy or edited"):
        journal.append(3, [b"3"])
    assert not journal.owns()


def test_it_says_that_nobody_is_there(opened: Callable[..., EtcdJournal]) -> None:
    with pytest.raises(JournalError, match="see whether they run"):
        opened("etcd://127.0.0.1:1", lease=1.0)


# --- what it leaves ---------------------------------------------------------------------------


def test_a_snapshot_leaves_nothing_of_what_it_covers(
    url: str, client: Client, keys: Keys, opened: Callable[..., EtcdJournal]
) -> None:
    journal = opened(url)
    for turn in range(3):
        first = turn * 10 + 1
        journal.append(first, [b"small"] * 5)
        journal.append(first + 5, [LARGE])
        journal.append(first + 6, [b"small"] * 4)
        journal.compact(first + 8, [b"chunk", LARGE])
    # An attempt that failed left pieces; the next snapshot takes them, too.
    writer = journal._writer
    assert writer is not None
    writer.write_pieces(f"{keys.parts}{5:020}-{'a' * 32}/", [b"left"])
    writer.write_pieces(f"{keys.snapshots}{99:020}-{'b' * 32}/", [b"left"])
    writer.write_pieces(f"{keys.blob_parts}{'c' * 64}/", [b"left"])
    journal.put_blob(sha256(b"v").hexdigest(), b"v")
    journal.compact(29, [b"chunk"])
    assert journal.keep_blobs([]) == 1
    assert names(client, keys) == [
        "head",
        "identity",
        batch(27),
        "owner",
        f"snapshot/{29:020}/00000000",
        "tail",
        "term",
    ]
    journal.close()
    assert "owner" not in names(client, keys)


@pytest.mark.slow
def test_old_revisions_are_forgotten_so_that_space_is_used_again(
    opened: Callable[..., EtcdJournal],
) -> None:
    quota = 48 * PIECE
    with EtcdServers(options=[f"--quota-backend-bytes={quota}"]) as etcd:
        journal = opened(etcd.url("small"))
        entry = b"e" * (PIECE - 100)
        written = 0
        last = 0
        while written < 3 * quota:
            journal.append(last + 1, [entry, entry, entry])
            last, written = last + 3, written + 3 * len(entry)
            journal.compact(last, [entry])
        upto = last
        try:
            while last < upto + 2 * quota // PIECE:
                journal.append(last + 1, [entry])
                last += 1
        except EtcdError as error:
            trouble = error
        assert re.search("database space exceeded.*etcdctl defrag", str(trouble))
        assert trouble.reason == "space"
        # It is still owned and read.
        assert journal.owns()
        assert read_all(journal) == (upto, [entry], [(n, entry) for n in range(upto + 1, last + 1)])
        journal.close()


def test_two_journals_know_nothing_of_each_other(
    url: str, opened: Callable[..., EtcdJournal]
) -> None:
    one, inner = opened(url), opened(f"{url}/inner")
    one.append(1, [b"one"])
    inner.append(1, [b"inner"])
    inner.compact(1, [b"all of inner"])
    one.compact(1, [b"all of one"])
    assert read_all(inner) == (1, [b"all of inner"], [])
    assert one.identity != inner.identity


@pytest.mark.slow
def test_reading_goes_on_after_a_snapshot_and_is_told_after_two(
    url: str, opened: Callable[..., EtcdJournal]
) -> None:
    journal = opened(url)
    for number in range(1, 100):
        journal.append(number, [b"%d" % number])
    journal.compact(1, [b"1"])
    loaded = journal.load()
    next(loaded.entries)
    journal.compact(50, [b"50"])
    assert [entry for _, entry in loaded.entries] == [b"%d" % n for n in range(3, 100)]
    loaded = journal.load()
    next(loaded.entries)
    journal.append(100, [b"100"])
    journal.compact(100, [b"100"])
    journal.compact(100, [b"100"])
    with pytest.raises(JournalError, match="read again from the beginning"):
        list(loaded.entries)


# --- TLS --------------------------------------------------------------------------------------


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Files of an authority, of a certificate for 127.0.0.1 and of its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def made(
        name: str, issuer: x509.Name | None, signer: ec.EllipticCurvePrivateKey | None
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), True)
            .add_extension(x509.SubjectAlternativeName([address]), False)
        )
        return builder.sign(signer or key, hashes.SHA256()), key

    authority, signer = made("authority", None, None)
    certificate, key = made("member", authority.subject, signer)
    paths = (folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(authority.public_bytes(pem))
    paths[1].write_bytes(certificate.public_bytes(pem))
    paths[2].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@pytest.mark.slow
def test_members_are_spoken_to_by_tls(
    tmp_path: Path, opened: Callable[..., EtcdJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = certificates(tmp_path)
    with EtcdServers(certificates=paths) as etcd:
        url = etcd.url("secret")
        with pytest.raises(JournalError, match="set DSPEX_ETCD_CA"):
            opened(url)
        with pytest.raises(JournalError, match=r"speak TLS as the URL says"):
            opened(url.replace("etcds", "etcd"))
        monkeypatch.setenv("DSPEX_ETCD_CA", str(paths[0]))
        with pytest.raises(JournalError, match="set DSPEX_ETCD_CA, and DSPEX_ETCD_CERT"):
            opened(url)
        monkeypatch.setenv("DSPEX_ETCD_CERT", str(paths[1]))
        monkeypatch.setenv("DSPEX_ETCD_KEY", str(paths[2]))
        journal = opened(url)
        journal.append(1, [b"1"])
        assert read_all(journal)[2] == [(1, b"1")]
        journal.close()


def test_keys_are_readable_for_an_operator(
    url: str, etcd: EtcdServers, keys: Keys, opened: Callable[..., EtcdJournal]
) -> None:
    opened(url)
    answer = etcd.ask(0, "/v3/kv/range", {"key": base64.b64encode(keys.term.encode()).decode()})
    assert base64.b64decode(answer["kvs"][0]["value"]).startswith(b"1 ")
