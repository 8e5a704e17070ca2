# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk server that writes down what is done to its disks, in one order for all of them.

    Recorder({name: bytes}, directory)      serves each over NBD on the unix socket directory/name
    .events                                 ("issue", op), ("done", op) in the order in which they happened

Reads are answered at once. Everything else waits until nothing more comes in, then the oldest request is answered: so
what the client has in flight at the same time is seen as such. The part of the protocol is the one that QEMU's client uses
(https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md): fixed newstyle, NBD_OPT_GO, simple replies.
"""
import collections
import os
import selectors
import socket
import struct
import threading

READ, WRITE, DISCONNECT, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
FLAG_FUA = 1
# has flags, flush, FUA, trim, write zeroes
EXPORT_FLAGS = 1 | 4 | 8 | 32 | 64
REQUEST = struct.Struct(">IHHQQI")

Op = collections.namedtuple("Op", "number disk kind offset data fua")


class Session:
    def __init__(self, conn, disk):
        self.conn, self.disk, self.buf, self.negotiated, self.greeted = conn, disk, b"", False, False


class Recorder:
    def __init__(self, disks, directory):
        self.disks = {name: bytearray(data) for name, data in disks.items()}
        self.events, self.waiting, self.count = [], collections.deque(), 0
        self.selector = selectors.DefaultSelector()
        for name in disks:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(os.path.join(directory, name))
            listener.listen()
            self.selector.register(listener, selectors.EVENT_READ, name)
        self.stopping = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def stop(self):
        self.stopping = True
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()

    def mark(self, word):
        self.events.append((word, None))

    def serve(self):
        while not self.stopping:
            # While somebody waits, a short look whether more comes; then the oldest gets its answer.
            ready = self.selector.select(0.002 if self.waiting else 0.05)
            for key, _ in ready:
                if isinstance(key.data, str):
                    self.accept(key.fileobj, key.data)
                else:
                    self.read(key.data)
            if not ready and self.waiting:
                self.finish(*self.waiting.popleft())

    def accept(self, listener, disk):
        conn, _ = listener.accept()
        conn.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        self.selector.register(conn, selectors.EVENT_READ, Session(conn, disk))

    def read(self, session):
        try:
            piece = session.conn.recv(1 << 20)
        except OSError:
            piece = b""
        if not piece:
            self.selector.unregister(session.conn)
            session.conn.close()
            self.waiting = collections.deque(w for w in self.waiting if w[0] is not session)
            return
        session.buf += piece
        while (self.request if session.negotiated else self.negotiate)(session):
            pass

    # --- Negotiation -------------------------------------------------------------------------------------------------

    def negotiate(self, session):
        if not session.greeted:
            if len(session.buf) < 4:
                return False
            session.buf, session.greeted = session.buf[4:], True
        if len(session.buf) < 16:
            return False
        option, length = struct.unpack(">II", session.buf[8:16])
        if len(session.buf) < 16 + length:
            return False
        session.buf = session.buf[16 + length:]
        if option == 7:  # NBD_OPT_GO
            self.reply(session, option, 3, struct.pack(">HQH", 0, len(self.disks[session.disk]), EXPORT_FLAGS))
            self.reply(session, option, 1)
            session.negotiated = True
        else:
            self.reply(session, option, 0x80000001)
        return True

    @staticmethod
    def reply(session, option, kind, data=b""):
        session.conn.sendall(struct.pack(">QIII", 0x3e889045565a9, option, kind, len(data)) + data)

    # --- Requests ----------------------------------------------------------------------------------------------------

    def request(self, session):
        if len(session.buf) < REQUEST.size:
            return False
        _, flags, kind, handle, offset, length = REQUEST.unpack_from(session.buf)
        size = REQUEST.size + (length if kind == WRITE else 0)
        if len(session.buf) < size:
            return False
        data, session.buf = session.buf[REQUEST.size:size], session.buf[size:]
        if kind == READ:
            self.answer(session, handle, self.disks[session.disk][offset:offset + length])
        elif kind != DISCONNECT:
            data = data if kind == WRITE else bytes(length) if kind in (ZEROES, TRIM) else b""
            op = Op(self.count, session.disk, "flush" if kind == FLUSH else "write", offset, data, bool(flags & FLAG_FUA))
            self.count += 1
            self.events.append(("issue", op))
            self.waiting.append((session, handle, op))
        return True

    def finish(self, session, handle, op):
        self.disks[op.disk][op.offset:op.offset + len(op.data)] = op.data
        self.events.append(("done", op))
        self.answer(session, handle)

    @staticmethod
    def answer(session, handle, data=b""):
        try:
            session.conn.sendall(struct.pack(">IIQ", 0x67446698, 0, handle) + bytes(data))
        except OSError:
            pass  # the client was killed
