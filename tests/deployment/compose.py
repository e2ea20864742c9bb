"""What is wrong with compose files, as far as it can be told without Docker."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

TOP = {"name", "services", "volumes", "networks"}
SERVICE = {
    "build", "cap_drop", "command", "depends_on", "entrypoint", "environment",
    "healthcheck", "image", "ports", "read_only", "restart", "security_opt",
    "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
# The keys of the emulators are printed in Microsoft's documentation.
PUBLIC_KEYS = ("C2y6yDjf5/R+ob0N8A7C", "Eby8vdM02xNOcqFlqUwJ")
# Published under one moving tag only.
MOVING = {"mcr.microsoft.com/cosmosdb/linux/azure-cosmos-emulator:vnext-preview"}


class Loader(yaml.SafeLoader):
    """YAML with the two tags of compose, and without names given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        double = {name for name in names if names.count(name) > 1 and name != "<<"}
        if double:
            raise yaml.YAMLError(f"given twice: {', '.join(sorted(double))}")
        return super().construct_mapping(node, deep)


def _plain(loader: Loader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


for tag in ("!override", "!reset"):
    Loader.add_constructor(tag, _plain)


def load(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(text, Loader)
    return found


def check(
    base: Path, overlays: Iterable[Path], settings: set[str], texts: dict[Path, str]
) -> list[str]:
    """Mistakes in a base with overlays; the last ones may need what others bring."""
    services: dict[str, dict[str, Any]] = {}
    volumes: set[str] = set()
    found: list[str] = []
    mounts: list[tuple[str, str]] = []
    for path in (base, *overlays):
        try:
            content = load(texts.get(path) or path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            found.append(f"{path.name}: {error}")
            continue
        volumes |= set(content.get("volumes") or {})
        unknown = {k for k in content if not k.startswith("x-")} - TOP
        found += [f"{path.name}: {name} is unknown" for name in sorted(unknown)]
        for name, service in content.get("services", {}).items():
            merged = services.setdefault(name, {})
            mounts += [(name, each) for each in service.get("volumes", ())]
            found += [
                f"{path.name}: {name}: {sentence}"
                for sentence in one_service(service, base.parent, settings)
            ]
            merged.update(service)
    for name, service in services.items():
        found += [f"{name}: {each}" for each in together(service, services)]
    for name, mount in mounts:
        source = mount.rsplit(":/", 1)[0]
        if re.fullmatch(r"[\w-]+", source) and source not in volumes:
            found.append(f"{name}: volume {source} is not declared")
    return found


def one_service(
    service: dict[str, Any], folder: Path, known: set[str]
) -> Iterator[str]:
    for name in sorted(service.keys() - SERVICE):
        yield f"{name} is unknown"
    build = service.get("build")
    if build:
        context = (folder / build["context"]).resolve()
        if not (context / build["dockerfile"]).is_file():
            yield f"there is no {build['dockerfile']}"
    for port in service.get("ports", ()):
        if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", str(port)):
            yield f"port {port} is open to other machines, or is no port"
    for name, value in (service.get("environment") or {}).items():
        yield from variable(name, value, known)
    image = service.get("image", "local:local")
    tag = image.rpartition(":")[2]
    if image not in MOVING and ("/" in tag or tag in {"latest", image}):
        yield f"image {image} has no fixed version"


def variable(name: str, value: object, known: set[str]) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{name} must be a text in quotes, not {value!r}"
    elif name.startswith("DICOM_") and name not in known:
        yield f"there is no setting {name}"
    elif re.search(r"(?i)key|password|secret", f"{name} {value}") and not any(
        key in value for key in PUBLIC_KEYS
    ):
        yield f"{name} holds a secret"


def together(
    service: dict[str, Any], services: dict[str, dict[str, Any]]
) -> Iterator[str]:
    """What can be said when all files are merged."""
    if "image" not in service:
        yield "there is no image"
    if "no-new-privileges:true" not in service.get("security_opt", ()):
        yield "may gain privileges"
    for other, how in service.get("depends_on", {}).items():
        if other not in services:
            yield f"depends on {other}, which is not there"
        elif how.get("condition") not in CONDITIONS:
            yield f"waits for {other} in an unknown way"
