"""The rootfs: options taken apart, mounts in a mount namespace of the test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inchild import run_in, set_propagation
from urunc.errors import HostError, KernelError
from urunc.linux import libc
from urunc.shim import rootfs


def test_containerds_own_options_are_not_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(libc, "mount", lambda *call: calls.append(call))
    rootfs._mount(
        {"type": "ext4", "source": "/dev/x", "options": ["X-containerd.custom=1", "ro", "errors=panic"]}, "/y"
    )
    assert calls == [("/dev/x", "/y", "ext4", libc.MS_RDONLY, "errors=panic")]


def test_long_lists_of_lower_folders_are_named_from_where_they_are(tmp_path: Path) -> None:
    lower = [f"{tmp_path}/snapshots/{number}/fs" for number in range(3)]
    (tmp_path / "snapshots").mkdir()
    here = os.getcwd()
    try:
        assert rootfs._shorten(["index=off", f"lowerdir={':'.join(lower)}"]) == ["index=off", "lowerdir=0/fs:1/fs:2/fs"]
        assert os.path.samefile(".", tmp_path / "snapshots")
    finally:
        os.chdir(here)


@pytest.mark.parametrize("lower", ["/a:/b", "/x\\:y/a:/x\\:y/b"])
def test_lists_that_cannot_be_shortened(lower: str) -> None:
    assert rootfs._shorten([f"lowerdir={lower}"]) == [f"lowerdir={lower}"]


def mount(kind: str, source: str, *options: str, target: str = "") -> dict[str, Any]:
    return {"type": kind, "source": source, "target": target, "options": list(options)}


def private(body: Any) -> Any:
    """Run the body in a mount namespace of its own, whose mounts reach nobody."""

    def inside() -> Any:
        set_propagation("rprivate")
        return body()

    return run_in(("mount",), inside)


@pytest.mark.root
class TestMounting:
    def test_a_bind_and_its_flags(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "bundle" / "rootfs"
        source.mkdir()
        (source / "file").write_text("content")

        def body() -> None:
            rootfs.mount_all([mount("bind", str(source), "rbind", "ro")], str(target))
            assert (target / "file").read_text() == "content"
            with pytest.raises(OSError, match="Read-only"):
                (target / "new").write_text("")
            rootfs.unmount_all(str(target))
            assert list(target.iterdir()) == []

        private(body)

    def test_an_overlay_of_more_layers_than_a_page_holds(self, tmp_path: Path) -> None:
        layers = [tmp_path / "a-long-name-for-a-folder-of-snapshots" / str(number) for number in range(120)]
        for number, layer in enumerate(layers):
            layer.mkdir(parents=True)
            (layer / f"file{number}").write_text("")

        def body() -> None:
            options = f"lowerdir={':'.join(map(str, layers))}"
            assert len(options) > 4096
            before = os.getcwd()
            rootfs.mount_all([mount("overlay", "overlay", options)], str(tmp_path / "rootfs"))
            assert len(list((tmp_path / "rootfs").iterdir())) == 120
            assert os.getcwd() == before

        private(body)

    def test_a_failing_mount_takes_the_others_with_it(self, tmp_path: Path) -> None:
        target = tmp_path / "rootfs"

        def body() -> None:
            mounts_ = [mount("tmpfs", "tmpfs"), mount("ext4", "/no/such/device", target="below")]
            with pytest.raises(KernelError, match="cannot mount the rootfs: `/no/such/device`"):
                rootfs.mount_all(mounts_, str(target))
            assert str(target) not in Path("/proc/self/mountinfo").read_text()

        private(body)

    def test_a_busy_mount_is_detached(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target = tmp_path / "root fs\\x"
        monkeypatch.setattr(rootfs, "_BUSY_SECONDS", 0.0)

        def body() -> None:
            rootfs.mount_all([mount("tmpfs", "tmpfs")], str(target))
            with (target / "open").open("w"):
                rootfs.unmount_all(str(target))
            assert list(target.iterdir()) == []
            rootfs.unmount_all(str(target))

        private(body)

    @pytest.mark.skipif(not os.path.exists("/dev/loop-control"), reason="no loop devices here")
    def test_an_image_file_through_a_loop_device(self, tmp_path: Path) -> None:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(8 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin"})

        def body() -> str:
            target = tmp_path / "rootfs"
            rootfs.mount_all([mount("ext4", str(image), "loop")], str(target))
            assert (target / "lost+found").is_dir()
            with open("/proc/self/mountinfo") as file:
                device = next(line.split()[-2] for line in file if f" {target} " in line)
            rootfs.unmount_all(str(target))
            for fd in rootfs._held_loops:
                os.close(fd)
            return device

        device = private(body)
        assert device.startswith("/dev/loop")
        assert not Path(f"/sys/block/{device[5:]}/loop/backing_file").exists()


def test_no_mounts_touch_nothing(tmp_path: Path) -> None:
    rootfs.mount_all([], str(tmp_path / "rootfs"))
    assert not (tmp_path / "rootfs").exists()
    rootfs.unmount_all(str(tmp_path / "rootfs"))


def test_options_longer_than_a_page(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="a page is the limit"):
        rootfs.mount_all([mount("overlay", "overlay", "x" * 5000)], str(tmp_path / "rootfs"))
