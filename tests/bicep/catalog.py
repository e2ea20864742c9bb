"""Resource types: their properties as Microsoft's own type files have them.

`types.json` holds what infra/ uses of them, recorded by

    python -m bicep record PATH_OF_AZMCP

(npm package @azure/mcp-linux-x64, command `bicepschema`). Types that this tool does not
have are in `written.json`, from the public reference of Azure's templates.
"""

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORDED = HERE / "types.json"
WRITTEN = HERE / "written.json"
PLAIN = {"string", "int", "bool", "any", "null", "object"}


@dataclass
class ObjectType:
    """An object: its properties, `[type, flags, modifiers]` each."""

    name: str
    properties: dict[str, list[str]]
    additional: str = ""


@dataclass
class ResourceType:
    """A resource type of one version.

    Attributes:
        variants: Bodies by literal name; one with key "" where the name is free.
        seen: Names of the objects that somebody asked for.
    """

    name: str
    version: str
    variants: dict[str, ObjectType]
    objects: dict[str, Any]
    seen: set[str] = field(default_factory=set)

    def find(self, name: str, discriminator: dict[str, str]) -> ObjectType | None:
        """The object type of this name; None for what is no object or unknown."""
        entry = self.objects.get(name)
        if entry is None:
            return None
        self.seen.add(name)
        if "elements" in entry:
            chosen = entry["elements"].get(discriminator.get(entry["on"], ""), {})
            return ObjectType(name, {**entry["properties"], **chosen})
        return ObjectType(name, entry["properties"], entry.get("additional", ""))


class Catalog:
    """All known resource types by `Name@version`, in lower case."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.types: dict[str, ResourceType] = {}
        for name, entry in content.items():
            bare, version = name.split("@")
            variants = {
                key: ObjectType(bare, value) for key, value in entry["variants"].items()
            }
            self.types[name.lower()] = ResourceType(
                bare, version, variants, entry["objects"]
            )

    @classmethod
    def load(cls) -> "Catalog":
        recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
        written = json.loads(WRITTEN.read_text(encoding="utf-8"))
        return cls({**recorded, **written["types"]})

    def find(self, reference: str) -> ResourceType | None:
        return self.types.get(reference.lower())


# --- recording --------------------------------------------------------------------


def fetch(azmcp: Path, names: Iterable[str]) -> dict[str, Any]:
    """The whole types of these names, in the form of `Catalog`."""
    found = {}
    for name in sorted(set(names)):
        answer = subprocess.run(
            [azmcp, "bicepschema", "get", "--resource-type", name],
            capture_output=True,
            check=False,
            env={"AZURE_MCP_COLLECT_TELEMETRY": "false", "HOME": "/tmp"},
        )
        try:
            entries = json.loads(answer.stdout)["results"]["BicepSchemaResult"]
        except (ValueError, KeyError):
            continue
        resource = next(each for each in entries if each["$type"] == "Resource")
        found[resource["name"]] = {
            "variants": variants(resource["bodyType"]),
            "objects": {
                each["name"]: shape(each)
                for each in entries
                if each["$type"] in {"Object", "DiscriminatedObject"}
            },
        }
    return found


def variants(body: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    if body["$type"] == "Object":
        return {"": plain(body["properties"])}
    base = plain(body["baseProperties"])
    found = {}
    for element in body["elements"]:
        own = plain(element["properties"])
        found[own[body["discriminator"]][0]] = {**base, **own}
    return found


def shape(entry: dict[str, Any]) -> dict[str, Any]:
    if entry["$type"] == "Object":
        found: dict[str, Any] = {"properties": plain(entry["properties"])}
        if entry.get("additionalPropertiesType"):
            found["additional"] = entry["additionalPropertiesType"]
        return found
    on = entry["discriminator"]
    elements = [plain(each["properties"]) for each in entry["elements"]]
    return {
        "on": on,
        "properties": plain(entry["baseProperties"]),
        "elements": {each[on][0]: each for each in elements},
    }


def plain(properties: list[dict[str, str]]) -> dict[str, list[str]]:
    found = {}
    for each in properties:
        values = [each["type"], each.get("flags") or "", each.get("modifiers") or ""]
        while values[-1] == "":
            values.pop()
        found[each["name"]] = values
    return found


def pruned(content: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Only the objects that a check with this catalog came across."""
    return {
        name: {
            "variants": entry["variants"],
            "objects": {
                key: value
                for key, value in sorted(entry["objects"].items())
                if key in catalog.types[name.lower()].seen
            },
        }
        for name, entry in sorted(content.items())
    }


def alternatives(text: str) -> list[str]:
    """The members of a union of literals, which may have commas in them."""
    return [each.strip() for each in re.split(r" \| ", text)]
