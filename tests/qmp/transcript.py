# SPDX-License-Identifier: GPL-2.0-or-later
#
# Plays requests to a program's QMP and prints what comes back, one line each, with what differs from run to run made equal:
#
#   transcript.py SOCKET <REQUESTS
#
# A line of REQUESTS is sent as it is, and answered before the next one goes out.  `@NAME` waits for that event (one that came
# since the last wait counts), `~SECONDS` lets time pass, `#...` is printed.  Bytes are not interpreted: what is compared is
# what a client sees.
import re
import socket
import sys
import time

conn = socket.socket(socket.AF_UNIX)
conn.settimeout(20)
conn.connect(sys.argv[1])
lines = conn.makefile("rb")
events = []


def show():
    line = lines.readline().decode()
    if not line:
        sys.exit("the connection ended")
    text = re.sub(r'"(seconds|microseconds)": \d+', r'"\1": 0', line)
    text = re.sub(r'"package": "[^"]*"', '"package": ""', text)
    text = re.sub(r'"actual-size": \d+', '"actual-size": 0', text)
    text = re.sub(r"#block\d+", "#block", text)
    print(text.replace("\r\n", "<CRLF>"), flush=True)
    found = re.search(r'^\{"timestamp": \{[^}]*\}, "event": "(\w+)"', line)
    if found:
        events.append(found.group(1))
    return not found


show()
for request in sys.stdin:
    request = request.rstrip("\n")
    if request.startswith("#"):
        print(request)
    elif request.startswith("~"):
        time.sleep(float(request[1:]))
    elif request.startswith("@"):
        while request[1:] not in events:
            show()
        events.clear()
    elif request:
        print("->", request)
        conn.sendall(request.encode() + b"\n")
        while not show():
            pass
