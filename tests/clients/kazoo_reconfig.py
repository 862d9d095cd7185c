"""kazoo changes an ensemble: `kazoo_reconfig.py SERVERS SUPER_PASSWORD LINE NUMBER`.

LINE is the server.N=… line of a replica that runs and is to become a member, NUMBER its N. It joins, is
taken out again, and joins by a full replacement of the members.
"""

import sys

from kazoo.client import KazooClient
from kazoo.exceptions import BadArgumentsError, BadVersionError, NewConfigNoQuorumError, NoAuthError


def refused(error, change):
    try:
        change()
    except error:
        return
    raise AssertionError("no %s" % error.__name__)


def main(servers, password, line, number):
    def change(client, joining=None, leaving=None, new_members=None, from_config=-1):
        data, stat = client.reconfig(joining, leaving, new_members, from_config)
        assert stat.version == -1, stat
        return data.decode()

    anybody = KazooClient(hosts=servers)
    anybody.start(20)
    refused(NoAuthError, lambda: change(anybody, joining=line))
    seen = []
    anybody.DataWatch("/zookeeper/config", lambda data, stat: seen.append(data))

    client = KazooClient(hosts=servers, auth_data=[("digest", "super:" + password)])
    client.start(20)
    refused(BadVersionError, lambda: change(client, joining=line, from_config=1))
    refused(BadArgumentsError, lambda: change(client, joining="server.9=nowhere"))
    nobody = "server.99=127.0.0.1:1:2;127.0.0.1:3,server.98=127.0.0.1:4:5;127.0.0.1:6"
    refused(NewConfigNoQuorumError, lambda: change(client, new_members=nobody))
    before = client.get("/zookeeper/config")[0].decode()
    joined = change(client, joining=line)
    assert "server.%s=" % number in joined, joined
    left = change(client, leaving=number)
    assert left.rsplit("\n", 1)[0] == before.rsplit("\n", 1)[0], left
    version = int(left.rsplit("version=", 1)[1], 16)
    members = ",".join(left.splitlines()[:-1] + [line])
    assert "server.%s=" % number in change(client, new_members=members, from_config=version)
    anybody.handler.sleep_func(0.5)
    anybody.sync("/zookeeper/config")
    assert len(seen) >= 3, seen
    for one in (anybody, client):
        one.stop()
        one.close()


main(*sys.argv[1:])
