# SPDX-License-Identifier: GPL-2.0-or-later
#
# query-qmp-schema: a reader of QEMU's finds its way through it, and what it says of commands is what QEMU says.

load ../lib.bash

setup() {
    common_setup
    export PYTHONPATH=$TOP/tests/qmp PYTHONDONTWRITEBYTECODE=1
}

@test "every type is there once, every name leads to a type, every entity has its members" {
    mg_start -S
    timeout "$MG_TIMEOUT" python3 - 3>&- <<'PY'
from client import Client
from schema import Schema
c = Client()
schema = Schema(c.ask("query-qmp-schema")["return"])
schema.check()
commands = {entry["name"] for entry in c.ask("query-commands")["return"]}
assert commands == schema.names("command"), commands ^ schema.names("command")
assert schema.at("block-stream/arg-type/base-node") == "str"
assert schema.at("blockdev-add/arg-type/+qcow2/backing") == "BlockdevRefOrNull"
assert schema.at("blockdev-add/arg-type/+file/filename") == "str"
assert schema.at("blockdev-create/arg-type/options/+qcow2/cluster-size") == "int"
assert schema.at("transaction/arg-type/actions/type/^blockdev-snapshot")
assert schema.at("BLOCK_JOB_COMPLETED/arg-type/error") == "str"
PY
}

@test "arguments of commands and members of events: named, typed and required as QEMU has them" {
    command -v qemu-system-x86_64 >/dev/null || skip "no qemu-system-x86_64"
    mg_start -S --qemu-compat
    timeout -k 5 60 qemu-system-x86_64 -S -display none -nodefaults -monitor none -qmp unix:theirs,server=on,wait=off \
        >qemu.out 2>&1 </dev/null 3>&- &
    qemu=$!
    timeout "$MG_TIMEOUT" python3 - 3>&- <<'PY'
import time
from client import Client
from schema import Schema
def connect(path):
    for i in range(400):
        try:
            return Client(path)
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.05)
ours, theirs = (Schema(connect(path).ask("query-qmp-schema")["return"]) for path in ("qmp", "theirs"))
wrong = []
for kind in ("command", "event"):
    for name in sorted(ours.names(kind)):
        if name in theirs.names(kind):
            wrong += ["%s: %s" % (name, text) for text in ours.differs(theirs, name)]
        else:
            wrong.append("%s: QEMU has no such %s" % (name, kind))
assert not wrong, "\n".join(wrong)
PY
    kill "$qemu"
}
