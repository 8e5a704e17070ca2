# SPDX-License-Identifier: GPL-2.0-or-later
#
# A reader of query-qmp-schema's answer, as clients of QEMU have one: entities by name, paths through them, and a comparison.

KEYS = {
    "builtin": {"json-type"},
    "enum": {"values", "members"},
    "array": {"element-type"},
    "object": {"members", "tag", "variants"},
    "alternate": {"members"},
    "command": {"arg-type", "ret-type", "allow-oob"},
    "event": {"arg-type"},
}
OPTIONAL = {"tag", "variants", "allow-oob", "features"}


class Schema:
    def __init__(self, entities):
        self.entities = entities
        self.by_name = {entity["name"]: entity for entity in entities}

    def names(self, kind):
        return {entity["name"] for entity in self.entities if entity["meta-type"] == kind}

    def check(self):
        assert len(self.by_name) == len(self.entities), "a name is there twice"
        for entity in self.entities:
            wanted = KEYS[entity["meta-type"]]
            keys = set(entity) - {"name", "meta-type", "features"}
            assert wanted - OPTIONAL <= keys <= wanted, entity
            for type_name in self.types_of(entity):
                assert self.by_name[type_name]["meta-type"] not in ("command", "event"), entity
            if "tag" in entity:
                tag = next(member for member in entity["members"] if member["name"] == entity["tag"])
                cases = [variant["case"] for variant in entity["variants"]]
                assert self.by_name[tag["type"]]["values"] == cases, entity
            if entity["meta-type"] == "enum":
                assert [member["name"] for member in entity["members"]] == entity["values"], entity

    @staticmethod
    def types_of(entity):
        if entity["meta-type"] != "enum":
            for member in entity.get("members", ()):
                yield member["type"]
        for variant in entity.get("variants", ()):
            yield variant["type"]
        for key in ("element-type", "arg-type", "ret-type"):
            if key in entity:
                yield entity[key]

    def at(self, path):
        """What a path leads to: COMMAND/arg-type/MEMBER/+VARIANT/MEMBER, ^VALUE for one of an enum; None: nowhere."""
        name, *rest = path.split("/")
        for step in rest:
            entity = self.by_name[name]
            if entity["meta-type"] == "array":
                entity = self.by_name[entity["element-type"]]
            if step.startswith("^"):
                return step[1:] in entity["values"]
            if step in ("arg-type", "ret-type"):
                name = entity[step]
            elif step.startswith("+"):
                name = next((v["type"] for v in entity["variants"] if v["case"] == step[1:]), None)
            else:
                name = next((m["type"] for m in entity["members"] if m["name"] == step), None)
            if name is None:
                return None
        return name

    def members(self, name):
        return {member["name"]: member for member in self.by_name[name].get("members", ())}

    def kind(self, name):
        """A type's kind, with what it is made of where that has no name."""
        entity = self.by_name[name]
        if entity["meta-type"] == "array":
            return "array of " + self.kind(entity["element-type"])
        return entity["json-type"] if entity["meta-type"] == "builtin" else entity["meta-type"]

    def compare_objects(self, other, mine, theirs, where):
        ours, wanted = self.members(mine), other.members(theirs)
        for name, member in ours.items():
            if name not in wanted:
                yield "%s%s is not QEMU's" % (where, name)
                continue
            a, b = self.kind(member["type"]), other.kind(wanted[name]["type"])
            choices = [other.kind(m["type"]) for m in other.by_name[wanted[name]["type"]].get("members", ())] \
                if b == "alternate" else []
            if a != b and a != "value" and a not in choices:
                yield "%s%s is %s, QEMU has %s" % (where, name, a, b)
            if ("default" in member) != ("default" in wanted[name]):
                yield "%s%s is optional in one of the two" % (where, name)
            if a == b == "enum":
                surplus = set(self.by_name[member["type"]]["values"]) - set(other.by_name[wanted[name]["type"]]["values"])
                if surplus:
                    yield "%s%s: QEMU has no %s" % (where, name, ", ".join(sorted(surplus)))
        for name, member in wanted.items():
            if "default" not in member and name not in ours:
                yield "%s%s is missing" % (where, name)

    def differs(self, other, name):
        """What we say of a command or event and QEMU does not."""
        mine, theirs = self.by_name[name]["arg-type"], other.by_name[name]["arg-type"]
        yield from self.compare_objects(other, mine, theirs, "")
        variants = {v["case"]: v["type"] for v in other.by_name[theirs].get("variants", ())}
        for variant in self.by_name[mine].get("variants", ()):
            case = variant["case"]
            if case not in variants:
                yield "QEMU has no variant " + case
            else:
                yield from self.compare_objects(other, variant["type"], variants[case], case + ": ")
