"""Which container is a unikernel: each row of the table, and each way to be a broken one."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc import jsonio
from urunc.errors import ImageError
from urunc.oci import app, spec
from urunc.oci.app import App

GOLDEN = Path(__file__).parent / "golden"
PREFIX = "com.urunc.unikernel."
KEYS = {
    PREFIX + "unikernelType": "unikraft",
    PREFIX + "hypervisor": "qemu",
    PREFIX + "binary": "/unikernel/app",
}
POD = {"io.kubernetes.cri.container-type": "container"}
CRIO_POD = {"io.kubernetes.cri-o.ContainerType": "container"}
SANDBOX = {"io.kubernetes.cri.container-type": "sandbox"}
CRIO_SANDBOX = {"io.kubernetes.cri-o.ContainerType": "sandbox"}
RUNS_ON = {"unikraft": ("qemu",), "mirage": ("hvt", "spt"), "linux": ("qemu",)}


def find(annotations: dict[str, str], image: Any = None, *files: str, **process: Any) -> App | None:
    """Classify a container with these annotations, /urunc.json and files in its rootfs."""
    found = spec.parse(
        {
            "ociVersion": "1.0.2",
            "process": {"cwd": "/", **process},
            "root": {"path": "rootfs"},
            "annotations": annotations,
        }
    )
    content = image if image is None or isinstance(image, bytes) else json.dumps(image).encode()
    return app.find_app(
        found,
        content,
        guests=tuple(RUNS_ON),
        monitors=("qemu", "hvt", "spt"),
        supports=lambda guest, monitor: monitor in RUNS_ON[guest],
        has_file=lambda path: path in files,
        infer=lambda path, guest, monitor: (guest or f"of {path}", monitor or f"for {path}"),
    )


def row(annotations: dict[str, str], image: bytes | None = None, *files: str) -> str:
    found = spec.parse(
        {"ociVersion": "1.0.2", "process": {"cwd": "/"}, "root": {"path": "r"}, "annotations": annotations}
    )
    return app.classify(found, image, lambda path: path in files).name


def encoded(values: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


WANT = App(guest="unikraft", monitor="qemu", kernel="/unikernel/app")


@pytest.mark.parametrize(
    ("annotations", "image", "files", "name"),
    [
        ({}, None, (), "plain"),
        (POD, None, (), "plain"),
        ({"org.example": "x", PREFIX + "cmdline": ""}, None, (), "plain"),
        ({**KEYS, **SANDBOX}, None, ("/unikernel/app",), "sandbox"),
        ({**KEYS, **CRIO_SANDBOX}, b"{}", ("/unikernel/app",), "sandbox"),
        ({}, b"{}", (), "image"),
        (POD, b"{}", (), "image"),
        (KEYS, b"{}", (), "image"),
        (KEYS, None, (), "annotations"),
        ({PREFIX + "cmdline": "x"}, None, (), "annotations"),
        ({**POD, PREFIX + "cmdline": "x"}, None, (), "override"),
        ({**CRIO_POD, PREFIX + "hypervisor": "qemu", PREFIX + "unikernelType": "linux"}, None, (), "override"),
        ({**KEYS, **POD}, None, (), "sidecar"),
        ({PREFIX + "binary": "/k", **POD}, None, (), "sidecar"),
        ({PREFIX + "binary": "/k", **POD}, None, ("/k",), "annotations"),
        ({**KEYS, **CRIO_POD}, None, ("/other",), "sidecar"),
        ({**KEYS, **POD}, None, ("/unikernel/app",), "annotations"),
        ({**encoded(KEYS), **POD}, None, ("/unikernel/app",), "annotations"),
    ],
)
def test_rows(annotations: dict[str, str], image: bytes | None, files: tuple[str, ...], name: str) -> None:
    assert row(annotations, image, *files) == name


def test_every_row_has_a_reason_and_the_last_holds_always() -> None:
    assert len({each.name for each in app.TABLE}) == len(app.TABLE)
    assert all(each.reason for each in app.TABLE)
    nothing = app.Facts(sandbox=False, in_pod=False, image_says=False, keys=True, kernel_named=False, kernel=False)
    assert [each.name for each in app.TABLE if each.holds(nothing)] == ["annotations"]


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda file: file.stem)
def test_ordinary_containers_of_engines_are_delegated(file: Path) -> None:
    found = spec.parse(jsonio.loads(file.read_bytes()))
    plain = found.replace(annotations={k: v for k, v in found.annotations.items() if not k.startswith(PREFIX)})
    assert not app.classify(plain, None, lambda path: True).unikernel


def test_a_pause_container_with_pod_annotations_is_delegated() -> None:
    found = spec.parse(jsonio.loads((GOLDEN / "cri-sandbox.json").read_bytes()))
    keys = {**found.annotations, **KEYS, PREFIX + "binary": "../../bad"}
    assert app.classify(found.replace(annotations=keys), None, lambda path: True).name == "sandbox"


def test_from_annotations() -> None:
    assert find(KEYS) == WANT
    assert find(encoded(KEYS)) == WANT


def test_from_the_image() -> None:
    assert find({}, encoded(KEYS)) == WANT
    assert find({}, KEYS) == WANT
    assert find({}, b"\xef\xbb\xbf" + json.dumps(KEYS).encode() + b"\n") == WANT


def test_annotations_beat_the_image_key_by_key() -> None:
    image = encoded({**KEYS, PREFIX + "initrd": "/initrd", PREFIX + "useDMBlock": "true"})
    found = find({PREFIX + "binary": "/other", PREFIX + "mountRootfs": "false"}, image)
    assert found == WANT.replace(kernel="/other", initrd="/initrd", mount_rootfs=False)
    assert find({PREFIX + "useDMBlock": "false"}, {**image, PREFIX + "mountRootfs": "true"}) == WANT.replace(
        initrd="/initrd"
    )


@pytest.mark.parametrize(
    ("keys", "guest", "monitor", "said"),
    [
        ({}, "of /k", "for /k", "guest `of /k` and monitor `for /k`"),
        ({"unikernelType": "linux"}, "linux", "for /k", "monitor `for /k`"),
        ({"hypervisor": "spt"}, "of /k", "spt", "guest `of /k`"),
    ],
)
def test_what_is_not_said_is_asked_of_the_kernel(keys: dict[str, str], guest: str, monitor: str, said: str) -> None:
    """And the log says what was taken."""
    named = {PREFIX + "binary": "/k", **{PREFIX + key: value for key, value in keys.items()}}
    for found in (find(named), find({}, named), find({**named, **POD}, None, "/k")):
        assert found is not None
        assert (found.guest, found.monitor) == (guest, monitor)
        assert found.messages == (f"taken from the kernel, as neither image nor annotations say: {said}",)


def test_a_kernel_is_not_asked_where_all_is_said() -> None:
    found = find(KEYS)
    assert found is not None and found.messages == ()


def test_all_fields() -> None:
    found = find(
        {
            **KEYS,
            PREFIX + "initrd": "i",
            PREFIX + "block": "/b",
            PREFIX + "blkMntPoint": "/data",
            PREFIX + "unikernelVersion": "0.17.0",
            PREFIX + "mountRootfs": "1",
            PREFIX + "solo5NetDev": "net0",
            PREFIX + "solo5BlkDev": "disk",
            PREFIX + "cmdline": "ignored",
            PREFIX + "odd": "x",
        },
        None,
        args=["app", "a b"],
        env=["A=b"],
        cwd="/srv",
    )
    assert found == App(
        guest="unikraft",
        monitor="qemu",
        kernel="/unikernel/app",
        initrd="/i",
        block="/b",
        block_mount="/data",
        args=("app", "a b"),
        env=("A=b",),
        cwd="/srv",
        guest_version="0.17.0",
        mount_rootfs=True,
        net_device="net0",
        block_device="disk",
        messages=("annotations: unknown key `com.urunc.unikernel.odd` is ignored",),
    )


def test_the_command_line_is_split_where_there_are_no_arguments() -> None:
    assert find({**KEYS, PREFIX + "cmdline": "nginx -c '/etc/my conf'"}) == WANT.replace(
        args=("nginx", "-c", "/etc/my conf")
    )


@pytest.mark.parametrize(
    ("annotations", "image", "message", "hint"),
    [
        ({PREFIX + "cmdline": "x"}, None, "`com.urunc.unikernel.binary` is missing", "set it as an annotation"),
        ({}, {}, "`com.urunc.unikernel.binary` is missing", "set it as an annotation"),
        ({}, {**KEYS, PREFIX + "binary": ""}, "`com.urunc.unikernel.binary` is missing", "set it as an annotation"),
        ({**KEYS, PREFIX + "unikernelType": "foo"}, None, "unknown guest `foo`", "known are linux, mirage, unikraft"),
        ({**KEYS, PREFIX + "hypervisor": "xen"}, None, "unknown monitor `xen`", "known are hvt, qemu, spt"),
        ({PREFIX + "binary": "/k", PREFIX + "hypervisor": "xen"}, None, "unknown monitor `xen`", "known are hvt"),
        ({**KEYS, PREFIX + "hypervisor": "../qemu"}, None, "unknown monitor `../qemu`", "known are hvt, qemu, spt"),
        (
            {**KEYS, PREFIX + "hypervisor": "spt"},
            None,
            "monitor `spt` cannot run guest `unikraft`",
            "`unikraft` runs on qemu",
        ),
        ({}, b"{", "/urunc.json: Expecting property name", None),
        ({}, b"\xff", "/urunc.json: 'utf-8' codec can't decode", None),
        ({}, b"[]", "/urunc.json: want an object, got a list", None),
        ({}, b"null", "/urunc.json: want an object, got null", None),
        ({}, b"{}" + b" " * 2**20, "/urunc.json: larger than 1048576 bytes", None),
        ({}, {**KEYS, PREFIX + "initrd": 5}, "/urunc.json: `com.urunc.unikernel.initrd`: want a string, got 5", None),
        ({}, {**KEYS, PREFIX + "binary": "/../x"}, "/urunc.json: `com.urunc.unikernel.binary`: `..` is not all", None),
        ({}, {**KEYS, PREFIX + "bootKernel": "/x"}, "/urunc.json: `com.urunc.unikernel.bootKernel` is not supp", None),
        ({**KEYS, PREFIX + "bootInitrd": "/x"}, None, "annotations: `com.urunc.unikernel.bootInitrd` is not su", None),
        ({**POD, **KEYS, PREFIX + "binary": "/../x"}, None, "annotations: `com.urunc.unikernel.binary`: `..`", None),
    ],
)  # fmt: skip
def test_broken_ones(annotations: dict[str, str], image: Any, message: str, hint: str | None) -> None:
    with pytest.raises(ImageError) as caught:
        find(annotations, image)
    assert caught.value.message.startswith(message)
    assert (caught.value.hint or "").startswith(hint or "")


def test_an_override_in_the_image_that_is_bad_is_an_error_even_where_it_is_beaten() -> None:
    with pytest.raises(ImageError):
        find(KEYS, {**KEYS, PREFIX + "mountRootfs": "maybe"})


@given(st.binary(max_size=80))
def test_any_urunc_json_is_read_or_refused(content: bytes) -> None:
    try:
        find({}, content)
    except ImageError as error:
        assert error.message.isprintable()


texts = st.text(max_size=12) | st.sampled_from(["linux", "qemu", "/k", "unikraft", "spt"])


@given(st.dictionaries(st.sampled_from(sorted(KEYS)), texts), st.sampled_from([{}, POD, SANDBOX]))
def test_any_annotations_are_read_or_refused(keys: dict[str, str], pod: dict[str, str]) -> None:
    try:
        found = find({**keys, **pod}, None, "/k")
    except ImageError:
        return
    if found is None or found.messages:  # .. of what the kernel tells
        return
    assert found.guest in RUNS_ON and found.monitor in RUNS_ON[found.guest]
