"""Holds one of kazoo's recipes until killed: `kazoo_holder.py HOST:PORT RECIPE PATH`.

Appends the recipe's name to the file `in` of the working directory once it holds.
"""

import sys
import time

from kazoo.client import KazooClient


def hold():
    with open("in", "a", encoding="utf-8") as record:
        record.write(recipe + "\n")
    while True:
        time.sleep(1)


address, recipe, path = sys.argv[1:]
client = KazooClient(hosts=address, timeout=4)
client.start(timeout=20)
made = getattr(client, recipe)(path, "kazoo")
if recipe == "Election":
    made.run(hold)
else:
    with made:
        hold()
