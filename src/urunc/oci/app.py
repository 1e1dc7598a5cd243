"""What to boot, or None: this is not a unikernel, and the delegate (runc) takes the container.

Holds the one table that says which container is a unikernel, with the reason for each row. Looks at no file:
whether the rootfs holds one is asked through a function.
"""

from __future__ import annotations

from .. import jsonio
from ..errors import ImageError
from ..record import Record
from . import annotations as keys
from .node import describe, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any

    from .spec import Process, Spec

URUNC_JSON = "/urunc.json"
MAX_URUNC_JSON = 1024 * 1024
"""Bytes of `/urunc.json` at most; the reader need not read more than one byte beyond."""

_KERNEL = "binary"
"""The key that every unikernel must give: it names the kernel."""


class App(Record):
    """What the image and the engine ask to boot. Paths are absolute inside the container's rootfs, without `..`."""

    guest: str  # a key of vm.guests, such as "unikraft"
    monitor: str  # a key of vm.monitors, such as "qemu"
    kernel: str
    initrd: str | None = None
    block: str | None = None
    block_mount: str | None = None  # where the guest mounts `block`
    args: tuple[str, ...] = ()  # process.args, or the annotation `cmdline` split as a shell splits words
    env: tuple[str, ...] = ()  # process.env, each NAME=VALUE
    cwd: str = "/"
    guest_version: str | None = None
    mount_rootfs: bool = False
    net_device: str | None = None  # solo5NetDev: the manifest's name for the NIC
    block_device: str | None = None  # solo5BlkDev
    messages: tuple[str, ...] = ()  # what the log should say


class Facts(Record):
    """What the table looks at."""

    sandbox: bool  # the pod's sandbox container (pause)
    in_pod: bool  # any container of a pod
    image_says: bool  # /urunc.json is there
    keys: bool  # the bundle's annotations hold a key of urunc's
    kernel_named: bool  # .. and among them the kernel's
    kernel: bool  # .. which is a file in the rootfs


class Row(Record):
    """A row of the table: the first whose `holds` is true decides."""

    name: str
    unikernel: bool
    holds: Callable[[Facts], bool]
    reason: str


TABLE: tuple[Row, ...] = (
    Row(
        name="sandbox",
        unikernel=False,
        holds=lambda facts: facts.sandbox,
        reason="it is the pod's sandbox, which only holds namespaces; the pod's annotations reach it too",
    ),
    Row(
        name="image",
        unikernel=True,
        holds=lambda facts: facts.image_says,
        reason="its image holds /urunc.json",
    ),
    Row(
        name="plain",
        unikernel=False,
        holds=lambda facts: not facts.keys,
        reason="neither its image nor its annotations name a unikernel",
    ),
    Row(
        name="override",
        unikernel=False,
        holds=lambda facts: facts.in_pod and not facts.kernel_named,
        reason="a pod's annotations reach all its containers: without a kernel they only override",
    ),
    Row(
        name="sidecar",
        unikernel=False,
        holds=lambda facts: facts.in_pod and not facts.kernel,
        reason="its image does not hold the kernel that the pod's annotations name: it is a sidecar",
    ),
    Row(
        name="annotations",
        unikernel=True,
        holds=lambda facts: True,
        reason="its annotations name a unikernel; if one that is broken, that is an error and not runc's",
    ),
)


def find_app(
    spec: Spec,
    urunc_json: bytes | None,
    *,
    guests: Collection[str],
    monitors: Collection[str],
    supports: Callable[[str, str], bool],
    has_file: Callable[[str], bool],
    infer: Callable[[str, str | None, str | None], tuple[str, str]],
) -> App | None:
    """Return what to boot, None where the container is not a unikernel (`classify` says why).

    `urunc_json` is the content of `/urunc.json` in the rootfs, None where there is none. `guests` and `monitors`
    are the known names, `supports` tells whether a known guest runs on a known monitor. `has_file` tells whether a
    path in the rootfs leads to anything, without leaving the rootfs. `infer` returns guest and monitor of the kernel at
    a path for a guest or a monitor that the image does not give (None), or raises ImageError. Raises ImageError where
    the container is a unikernel but a broken one (unknown guest, no kernel, bad value); that the kernel is a readable
    file is for its opener to say.
    """
    if not classify(spec, urunc_json, has_file).unikernel:
        return None
    words = (*guests, *monitors)
    image, image_messages = keys.read(_decode_json(urunc_json), URUNC_JSON, words)
    engine, engine_messages = keys.read(spec.annotations, "annotations", words)
    fields = {**image, **engine}
    messages = image_messages + engine_messages
    _check_named(fields, guests, monitors)
    guest, monitor = fields.get("guest"), fields.get("monitor")
    if guest is None or monitor is None:
        missing = [name for name in ("guest", "monitor") if name not in fields]
        fields["guest"], fields["monitor"] = infer(fields["kernel"], guest, monitor)
        taken = " and ".join(f"{name} `{fields[name]}`" for name in missing)
        messages += (f"taken from the kernel, as neither image nor annotations say: {taken}",)
    elif not supports(guest, monitor):
        runs_on = ", ".join(name for name in monitors if supports(guest, name))
        raise ImageError(f"monitor `{monitor}` cannot run guest `{guest}`", hint=f"`{guest}` runs on {runs_on}")
    return _app(fields, spec.process, messages)


def classify(spec: Spec, urunc_json: bytes | None, has_file: Callable[[str], bool]) -> Row:
    """Return the table's row for this container. Raises ImageError where a pod's annotations hold a bad `binary`."""
    facts = _facts(spec.annotations, urunc_json is not None, has_file)
    return next(row for row in TABLE if row.holds(facts))


def _facts(values: Mapping[str, str], image_says: bool, has_file: Callable[[str], bool]) -> Facts:
    kinds = {values.get("io.kubernetes.cri.container-type"), values.get("io.kubernetes.cri-o.ContainerType")}
    sandbox = "sandbox" in kinds
    kernel_named = bool(values.get(keys.PREFIX + _KERNEL))
    in_pod = sandbox or "container" in kinds
    undecided = in_pod and kernel_named and not sandbox and not image_says
    kernel = keys.read_one(values, _KERNEL, "annotations") if undecided else None
    return Facts(
        sandbox=sandbox,
        in_pod=in_pod,
        image_says=image_says,
        keys=any(value and name.startswith(keys.PREFIX) for name, value in values.items()),
        kernel_named=kernel_named,
        kernel=kernel is not None and has_file(kernel),
    )


def _decode_json(content: bytes | None) -> dict[str, Any]:
    """Return the flat map that `/urunc.json` holds: the same full keys as the annotations."""
    if content is None:
        return {}
    if len(content) > MAX_URUNC_JSON:
        raise ImageError(f"{URUNC_JSON}: larger than {MAX_URUNC_JSON} bytes")
    try:
        data = jsonio.loads(content)
    except ValueError as error:
        raise ImageError(f"{URUNC_JSON}: {error}") from None
    if type(data) is not dict:
        raise ImageError(f"{URUNC_JSON}: want an object, got {describe(data)}")
    return data


def _check_named(fields: dict[str, Any], guests: Collection[str], monitors: Collection[str]) -> None:
    """Raise ImageError where no kernel is named, or a guest or monitor that nobody knows."""
    if "kernel" not in fields:
        raise ImageError(
            f"`{keys.PREFIX}{_KERNEL}` is missing",
            hint=f"set it as an annotation of the container or in the image's {URUNC_JSON}",
        )
    if "guest" in fields and fields["guest"] not in guests:
        raise ImageError(f"unknown guest {show(fields['guest'])}", hint=f"known are {', '.join(sorted(guests))}")
    if "monitor" in fields and fields["monitor"] not in monitors:
        raise ImageError(f"unknown monitor {show(fields['monitor'])}", hint=f"known are {', '.join(sorted(monitors))}")


def _app(fields: dict[str, Any], process: Process, messages: tuple[str, ...]) -> App:
    line = fields.pop("command_line", "")
    return App(
        args=process.args or keys.split_words(line),
        env=process.env,
        cwd=process.cwd,
        messages=messages,
        **fields,
    )
