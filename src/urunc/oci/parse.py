"""From a decoded config.json to a Spec: config.md of the OCI runtime specification 1.3, one function a section.

Not part of `spec` because only create and run read a config.json: the other verbs need no more than the records.
"""

from __future__ import annotations

from . import parse_linux
from .node import UINT32, UINT64, Node, clean_path, show
from .spec import Hook, Hooks, Mount, Process, Rlimit, Spec, User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HOST_NAME_MAX = 64
_RLIMITS = (
    "RLIMIT_AS",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "RLIMIT_RSS",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
    "RLIMIT_SIGPENDING",
    "RLIMIT_STACK",
)
_UNSUPPORTED_MOUNT = ("uidMappings", "gidMappings")
_UNSUPPORTED_OPTIONS = ("idmap", "ridmap")
_UNSUPPORTED_VM = ("hypervisor", "kernel", "image", "hwConfig")


def read_spec(data: Any) -> Spec:
    """Return the Spec of a decoded config.json. Raises SpecError, whose message starts with the JSON path."""
    top = Node(data)
    version = _version(top.need("ociVersion"))
    process = top.need("process")
    root = top.need("root")
    linux = top.section("linux")
    unsupported = tuple(path for item in top.items("mounts") for path in _unsupported_of_mount(item))
    vm = top.section("vm")
    unsupported += tuple(f"vm.{name}" for name in _UNSUPPORTED_VM if parse_linux.is_given(vm.key(name)))
    return Spec(
        version=version,
        process=_process(process),
        rootfs=_not_empty(root.need("path")),
        root_readonly=root.flag("readonly"),
        hostname=_name(top, "hostname"),
        domainname=_name(top, "domainname"),
        mounts=tuple(_mount(item) for item in top.items("mounts")),
        hooks=_hooks(top.section("hooks")),
        annotations=dict(_annotation(key, node) for key, node in top.entries("annotations")),
        unsupported=unsupported + parse_linux.unsupported(linux),
        **parse_linux.read_linux(linux),
    )


def _version(node: Node) -> str:
    """Section "Specification version": SemVer 2.0.0; compatible within major version 1."""
    version = node.as_text()
    core, _, build = version.partition("+")
    core, _, pre = core.partition("-")
    numbers = core.split(".")
    odd = [part for part in (pre, build) if not all(c.isascii() and (c.isalnum() or c in ".-") for c in part)]
    if len(numbers) != 3 or not all(_is_semver_number(number) for number in numbers) or odd:
        raise node.fail(f"want a version such as 1.0.2, got {show(version)}")
    if numbers[0] != "1":
        raise node.fail(f"version {show(version)} is not supported, want 1.x")
    return version


def _is_semver_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or not text.startswith("0"))


def _not_empty(node: Node) -> str:
    text = node.as_text()
    if not text:
        raise node.fail("is empty")
    return text


def _name(top: Node, key: str) -> str:
    name = top.text(key)
    if len(name.encode()) > _HOST_NAME_MAX:
        raise top.need(key).fail(f"longer than {_HOST_NAME_MAX} bytes")
    return name


def _annotation(key: str, node: Node) -> tuple[str, str]:
    """Section "Annotations". Values of other tools are not judged: only their type is looked at."""
    if not key:
        raise node.fail("an annotation's key is empty")
    if type(node.value) is not str:
        raise node.unwanted("a string")
    return key, node.value


def _mount(node: Node) -> Mount:
    """Section "Mounts". A relative destination is deprecated and counts from `/`."""
    options = node.texts("options")
    bind = "bind" in options or "rbind" in options
    return Mount(
        destination=clean_path(_not_empty(node.need("destination"))),
        type="bind" if bind else node.text("type"),
        source=node.text("source"),
        options=options,
    )


def _unsupported_of_mount(node: Node) -> list[str]:
    maps = [f"{node.path}.{name}" for name in _UNSUPPORTED_MOUNT if node.items(name)]
    return maps + [item.path for item in node.items("options") if item.value in _UNSUPPORTED_OPTIONS]


def _process(node: Node) -> Process:
    """Section "Process". `args` may be empty here: an image can carry its own command line."""
    terminal = node.flag("terminal")
    return Process(
        args=node.texts("args"),
        env=tuple(_environment(item) for item in node.items("env")),
        cwd=node.need("cwd").as_path(),
        terminal=terminal,
        console_size=_console_size(node) if terminal else None,
        user=_user(node.section("user")),
        rlimits=_rlimits(node.items("rlimits")),
        oom_score_adj=node.number("oomScoreAdj", (-1000, 1000)),
        **_scheduling(node),
        apparmor=node.text("apparmorProfile"),
        selinux=node.text("selinuxLabel"),
        unknown_capabilities=parse_linux.unknown_capabilities(node),
    )


def _scheduling(node: Node) -> dict[str, Any]:
    scheduler, io_priority = node.key("scheduler"), node.key("ioPriority")
    if scheduler is None and io_priority is None:
        return {}
    from . import parse_scheduling

    return {
        "scheduler": parse_scheduling.read_scheduler(scheduler) if scheduler else None,
        "io_priority": parse_scheduling.read_io_priority(io_priority) if io_priority else None,
    }


def _environment(node: Node) -> str:
    entry = node.as_text()
    name, separator, _ = entry.partition("=")
    if not separator or not name:
        raise node.fail(f"want NAME=VALUE, got {show(entry)}")
    return entry


def _console_size(process: Node) -> tuple[int, int] | None:
    node = process.key("consoleSize")
    if node is None:
        return None
    limits = (0, 65535)  # struct winsize holds unsigned shorts
    return node.need("height").as_number(limits), node.need("width").as_number(limits)


def _user(node: Node) -> User:
    return User(
        uid=node.number("uid", UINT32) or 0,
        gid=node.number("gid", UINT32) or 0,
        umask=node.number("umask", (0, 0o777)),
        groups=tuple(item.as_number(UINT32) for item in node.items("additionalGids")),
    )


def _rlimits(nodes: list[Node]) -> tuple[Rlimit, ...]:
    limits: dict[str, Rlimit] = {}
    for node in nodes:
        kind = node.need("type")
        name = kind.as_text()
        if name not in _RLIMITS:
            raise kind.fail(f"unknown resource {show(name)}")
        if name in limits:
            raise kind.fail(f"{show(name)} is limited twice")
        soft, hard = node.need("soft").as_number(UINT64), node.need("hard").as_number(UINT64)
        if soft > hard:
            raise node.need("soft").fail(f"{soft} is above the hard limit {hard}")
        limits[name] = Rlimit(kind=name, soft=soft, hard=hard)
    return tuple(limits.values())


def _hooks(node: Node) -> Hooks:
    return Hooks(
        prestart=_hook_list(node, "prestart"),
        create_runtime=_hook_list(node, "createRuntime"),
        create_container=_hook_list(node, "createContainer"),
        start_container=_hook_list(node, "startContainer"),
        poststart=_hook_list(node, "poststart"),
        poststop=_hook_list(node, "poststop"),
    )


def _hook_list(node: Node, kind: str) -> tuple[Hook, ...]:
    return tuple(_hook(item) for item in node.items(kind))


def _hook(node: Node) -> Hook:
    """Section "POSIX-platform Hooks": an absolute path; a timeout in seconds, above zero."""
    return Hook(
        path=node.need("path").as_path(),
        args=node.texts("args"),
        env=node.texts("env") if node.key("env") else None,
        timeout=node.number("timeout", (1, 2**31 - 1)),
    )
