"""An interactive bash on a pseudo-terminal, in which `znode lock` is used: `terminal.py STEP`.

A step that does not see what it should ends with a traceback that shows the terminal's text.
"""

import os
import pty
import select
import sys
import time

WAIT_SECONDS = 30


class Terminal:
    def __init__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["PS1"] = "prompt> "
            os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
        self.text = ""
        self.seen = 0
        self.expect("prompt> ")

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def expect(self, text):
        """Waits until `text` comes after what was expected before."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (found := self.text.find(text, self.seen)) < 0:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.fd], [], [], max(left, 0))
            assert ready, "no %r in %r after %r" % (text, self.text[self.seen:], self.text[: self.seen])
            self.text += os.read(self.fd, 65536).decode(errors="replace")
        self.seen = found + len(text)

    def run(self, line):
        self.type(line + "\n")
        self.expect(line)


def reads(terminal):
    terminal.run("znode lock /l sh -c 'read -r line; echo \"got <$line>\"'")
    time.sleep(0.5)
    terminal.type("hello\n")
    terminal.expect("got <hello>")
    terminal.expect("prompt> ")
    # The shell has the terminal again.
    terminal.run("echo $((20 + 3))")
    terminal.expect("23")


def interrupt(terminal):
    terminal.run("while :; do znode lock /l sh -c 'echo r''unning; exec sleep 1000'; done; echo st''atus $?")
    terminal.expect("running")
    terminal.type("\x03")
    terminal.expect("prompt> ")
    terminal.run("sh -c \"znode lock /l sh -c 'echo r''unning; exec sleep 1000'; echo went on\"")
    terminal.expect("running")
    terminal.type("\x03")
    terminal.expect("prompt> ")
    terminal.run("echo st''atus $?")
    terminal.expect("status 130")
    assert "\nwent on" not in terminal.text, terminal.text
    # The lock was given back.
    terminal.run("znode lock -n /l echo fr''ee")
    terminal.expect("free")


def stop(terminal):
    terminal.run("znode lock /l sh -c 'echo r''unning; read -r line; echo \"got <$line>\"'")
    terminal.expect("running")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.expect("prompt> ")
    terminal.run("znode lock -n /l true")
    terminal.expect("held by")
    terminal.expect("prompt> ")
    terminal.run("fg")
    time.sleep(0.5)
    terminal.type("hello\n")
    terminal.expect("got <hello>")
    terminal.expect("prompt> ")
    terminal.run("znode lock /l sh -c 'sleep 1; echo do''ne' &")
    terminal.expect("prompt> ")
    terminal.run("fg")
    terminal.expect("done")
    terminal.expect("prompt> ")


def pipeline(terminal):
    terminal.run("znode lock /l sh -c 'echo one; read -r line < /dev/tty; echo \"got <$line>\"' | cat")
    terminal.expect("one")
    time.sleep(0.5)
    terminal.type("hello\n")
    terminal.expect("got <hello>")
    terminal.expect("prompt> ")


terminal = Terminal()
{"reads": reads, "interrupt": interrupt, "stop": stop, "pipeline": pipeline}[sys.argv[1]](terminal)
os.close(terminal.fd)
os.waitpid(terminal.pid, 0)
