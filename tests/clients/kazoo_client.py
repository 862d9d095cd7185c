"""A session of kazoo, the Python client, against a server: `kazoo_client.py HOST:PORT STEP …`.

Each step is one function below; a step that does not see what it should ends with a traceback and
exit code 1. Nothing about the server under test is known here.
"""

import queue
import sys

from kazoo.client import KazooClient
from kazoo.exceptions import (
    BadVersionError,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.security import make_digest_acl

WAIT_SECONDS = 20


def create_read_delete(client):
    """Every create mode, reads with their stat, versions, children, recursive deletion."""
    assert client.create("/a", b"one") == "/a"
    data, stat = client.get("/a")
    assert (data, stat.version, stat.dataLength) == (b"one", 0, 3), (data, stat)
    assert client.set("/a", b"two", version=0).version == 1
    expect(BadVersionError, lambda: client.set("/a", b"three", version=0))
    expect(NodeExistsError, lambda: client.create("/a"))
    expect(NoNodeError, lambda: client.get("/missing"))
    expect(NoNodeError, lambda: client.create("/missing/child"))
    path, stat = client.create("/a/child", b"", include_data=True)
    assert (path, stat.numChildren) == ("/a/child", 0)
    expect(NotEmptyError, lambda: client.delete("/a"))
    names = [client.create("/a/n-", b"", sequence=True) for _ in range(3)]
    assert names == ["/a/n-%010d" % number for number in (1, 2, 3)], names
    ephemeral = client.create("/a/e-", b"", ephemeral=True, sequence=True)
    assert client.exists(ephemeral).ephemeralOwner == client.client_id[0]
    assert len(client.get_children("/a")) == 5
    client.sync("/a")
    client.delete("/a", recursive=True)
    assert client.exists("/a") is None


def watches(client):
    """Data, child and exists watches, set by one session and triggered by another."""
    events = queue.Queue()
    client.create("/w", b"old")
    client.get("/w", watch=events.put)
    client.get_children("/w", watch=events.put)
    assert client.exists("/later", watch=events.put) is None
    with_another_session(client, lambda other: other.set("/w", b"new"))
    assert next_event(events) == ("CHANGED", "/w")
    with_another_session(client, lambda other: other.create("/w/child"))
    assert next_event(events) == ("CHILD", "/w")
    with_another_session(client, lambda other: other.create("/later"))
    assert next_event(events) == ("CREATED", "/later")
    client.get("/later", watch=events.put)
    with_another_session(client, lambda other: other.delete("/later"))
    assert next_event(events) == ("DELETED", "/later")
    assert events.empty()


def transactions(client):
    """A transaction is done as a whole or not at all."""
    client.create("/t", b"")
    transaction = client.transaction()
    transaction.check("/t", version=0)
    transaction.create("/t/a", b"1")
    transaction.set_data("/t", b"2")
    results = transaction.commit()
    assert results[:2] == [True, "/t/a"] and results[2].version == 1, results
    transaction = client.transaction()
    transaction.create("/t/b")
    transaction.delete("/t/missing")
    transaction.create("/t/c")
    kinds = [type(result) for result in transaction.commit()]
    assert kinds == [RolledBackError, NoNodeError, RuntimeInconsistency], kinds
    assert client.get_children("/t") == ["a"]


def access(client):
    """A digest identity opens what is closed to others."""
    acl = make_digest_acl("user", "password", all=True)
    client.create("/closed", b"secret", acl=[acl])
    expect(NoAuthError, lambda: client.get("/closed"))
    client.add_auth("digest", "user:password")
    assert client.get("/closed")[0] == b"secret"
    assert client.get_acls("/closed")[0] == [acl]


def recipes(client):
    """The lock, the election and the counter that come with kazoo."""
    with client.Lock("/lock", "one"):
        with_another_session(client, lambda other: refuse_lock(other))
    client.Election("/election", "one").run(lambda: None)
    counter = client.Counter("/counter")
    counter += 3
    assert counter.value == 3


def refuse_lock(other):
    assert not other.Lock("/lock", "two").acquire(blocking=False)


def read(client, path):
    """Prints the data of a znode."""
    sys.stdout.buffer.write(client.get(path)[0])


def write(client, path, text):
    """Creates a znode or sets its data."""
    if client.exists(path):
        client.set(path, text.encode())
    else:
        client.create(path, text.encode(), makepath=True)


def delete(client, path):
    """Deletes a znode and all below it."""
    client.delete(path, recursive=True)


def children(client, path):
    """Prints the names of the children, one a line, sorted."""
    print("\n".join(sorted(client.get_children(path))))


def expect(error, call):
    try:
        result = call()
    except error:
        return
    raise AssertionError("expected %s, got %r" % (error.__name__, result))


def next_event(events):
    event = events.get(timeout=WAIT_SECONDS)
    return event.type, event.path


def with_another_session(client, call):
    other = KazooClient(hosts=sys.argv[1])
    other.start(timeout=WAIT_SECONDS)
    try:
        call(other)
    finally:
        other.stop()
        other.close()


def main():
    client = KazooClient(hosts=sys.argv[1])
    client.start(timeout=WAIT_SECONDS)
    try:
        globals()[sys.argv[2]](client, *sys.argv[3:])
    finally:
        client.stop()
        client.close()


main()
