"""What stands in the URL of a journal in etcd.

Knows: hosts, ports, prefixes. Must not know: sockets.

``etcd://host[:port][,host[:port]...][/prefix]``; with ``etcds://`` the members are spoken to by
TLS. User names are refused: etcd's JSON gateway takes part in its authentication by password only
after a log-in that expires, and by certificate not at all. Whom a member trusts is said by TLS.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from dspex.errors import InvalidArgumentError

__all__ = ["EtcdAddress"]

_PORT = 2379
_PREFIX = "dspex"
_WORD = re.compile(r"[A-Za-z0-9._-]+")


class EtcdAddress(NamedTuple):
    """Where a journal in etcd lies.

    Attributes
    ----------
    endpoints : tuple of (str, int)
        Hosts and client ports of some or all members; any one is enough while it lives.
    prefix : str
        Of all keys, without slashes at its ends.
    is_secure : bool
    """

    endpoints: tuple[tuple[str, int], ...]
    prefix: str
    is_secure: bool

    @classmethod
    def parse(cls, url: str) -> EtcdAddress:
        """Take a URL apart.

        Raises
        ------
        InvalidArgumentError

        Examples
        --------
        >>> EtcdAddress.parse("etcd://a:2379,b/team/dspex")
        EtcdAddress(endpoints=(('a', 2379), ('b', 2379)), prefix='team/dspex', is_secure=False)
        """
        scheme, _, rest = url.partition("://")
        hosts, _, path = rest.partition("/")
        if scheme not in ("etcd", "etcds") or not hosts:
            raise _refused(url, "it begins with etcd:// or etcds:// and the address of a member")
        prefix = path.strip("/") or _PREFIX
        if not all(_WORD.fullmatch(word) for word in prefix.split("/")):
            raise _refused(url, "a prefix is made of words of A-Z a-z 0-9 . _ - with / between")
        endpoints = tuple(_endpoint(url, each) for each in hosts.split(","))
        return cls(endpoints, prefix, scheme == "etcds")

    def __str__(self) -> str:
        hosts = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.endpoints
        )
        return f"etcd{'s' if self.is_secure else ''}://{hosts}/{self.prefix}"


def _endpoint(url: str, text: str) -> tuple[str, int]:
    if "@" in text:
        raise _refused(url, "etcd's gateway knows no user; use etcds:// and certificates")
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _refused(url, f"{text!r} is no address ({error})") from None
    if not host or parts.netloc != text or port == 0:
        raise _refused(url, f"{text!r} is no address")
    return host, port or _PORT


def _refused(url: str, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"a journal in etcd is named etcd://host:port[,host:port...][/prefix]; got {url!r}: {why}; "
        'pass for example "etcd://host:2379"'
    )
