"""kazoo, content with a server that has no quorum: `kazoo_read_only.py HOSTS PATH`.

Reads PATH there, is refused a write, says `reading`, and waits for the quorum; then it writes PATH, says
`written` and ends.
"""

import sys
import threading

from kazoo.client import KazooClient, KazooState, KeeperState
from kazoo.exceptions import NotReadOnlyCallError

WAIT_SECONDS = 60


def main():
    hosts, path = sys.argv[1:]
    client = KazooClient(hosts=hosts, read_only=True)
    takes_writes = threading.Event()

    def look(state):
        if state == KazooState.CONNECTED and client.client_state == KeeperState.CONNECTED:
            takes_writes.set()

    client.add_listener(look)
    client.start(timeout=WAIT_SECONDS)
    assert client.client_state == KeeperState.CONNECTED_RO, client.client_state
    print("read", client.get(path)[0].decode(), flush=True)
    try:
        client.set(path, b"not now")
    except NotReadOnlyCallError:
        print("reading", flush=True)
    assert takes_writes.wait(WAIT_SECONDS)
    client.retry(client.set, path, b"by kazoo")
    print("written", flush=True)
    client.stop()
    client.close()


main()
