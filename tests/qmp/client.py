# SPDX-License-Identifier: GPL-2.0-or-later
#
# A QMP client for tests: everything waits at most TIMEOUT seconds, and what came is kept in the order in which it came.
import json
import os
import socket

TIMEOUT = int(os.environ.get("MG_TIMEOUT", 60)) / 3


class Client:
    def __init__(self, path="qmp", negotiate=True):
        self.conn = socket.socket(socket.AF_UNIX)
        self.conn.settimeout(TIMEOUT)
        self.conn.connect(path)
        self.buf = b""
        self.seen = []  # (events and answers, in order)
        self.greeting = json.loads(self.line())["QMP"]
        if negotiate:
            self.ask("qmp_capabilities")

    def send(self, data):
        self.conn.sendall(data if isinstance(data, bytes) else data.encode())

    def line(self):
        while b"\r\n" not in self.buf:
            piece = self.conn.recv(1 << 20)
            if not piece:
                raise EOFError("the connection ended behind %r" % self.buf)
            self.buf += piece
        line, self.buf = self.buf.split(b"\r\n", 1)
        return line.decode()

    def take(self):
        message = json.loads(self.line())
        self.seen.append(message)
        return message

    def answer(self):
        while True:
            message = self.take()
            if "event" not in message:
                return message

    def ask(self, command, **arguments):
        request = {"execute": command}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.send(json.dumps(request))
        return self.answer()

    def event(self, name):
        """The first event of that name that nobody has asked for yet."""
        for message in self.seen:
            if message.get("event") == name:
                self.seen.remove(message)
                return message
        while True:
            message = self.take()
            if message.get("event") == name:
                self.seen.remove(message)
                return message

    def concluded(self, job):
        """A job that waits to be dismissed, dismissed: what query-jobs said of it."""
        while True:
            for state in self.ask("query-jobs")["return"]:
                if state["id"] == job and state["status"] == "concluded":
                    self.ask("job-dismiss", id=job)
                    return state

    def names(self):
        """What came, in short: names of events (of jobs' states, the state), and `return` or `error`."""
        out = []
        for message in self.seen:
            if message.get("event") == "JOB_STATUS_CHANGE":
                out.append(message["data"]["status"])
            else:
                out.append(message.get("event") or ("return" if "return" in message else "error"))
        return " ".join(out)

    def ended(self):
        """Does the other side end the connection?"""
        try:
            return self.conn.recv(1) == b""
        except ConnectionResetError:
            return True
