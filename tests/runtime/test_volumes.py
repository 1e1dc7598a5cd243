"""Sources of volumes on the host, as the kubelet and users make them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from urunc.errors import SpecError
from urunc.oci.checks import Source
from urunc.oci.spec import Mount
from urunc.runtime import volumes


def mount(source: Path | str, *options: str) -> Mount:
    return Mount(destination="/etc/app", type="bind", source=str(source), options=("rbind", *options))


@pytest.fixture
def config_map(tmp_path: Path) -> Path:
    """What the kubelet makes of a ConfigMap: links to `..data`, which is a link to a folder with a time for a name."""
    folder = tmp_path / "config"
    (folder / "..2024_01_01/sub").mkdir(parents=True)
    (folder / "..2024_01_01/key").write_text("value")
    (folder / "..2024_01_01/key").chmod(0o640)
    (folder / "..2024_01_01/sub/deep").write_text("deep value")
    (folder / "..data").symlink_to("..2024_01_01")
    (folder / "key").symlink_to("..data/key")
    (folder / "sub").symlink_to("..data/sub")
    return folder


def test_a_config_map(config_map: Path) -> None:
    asked = mount(config_map, "ro")
    assert volumes.look("/bundle", asked, 0) == Source(kind="folder", small=True)
    assert [(file.path, file.content, file.mode) for file in volumes.read("/bundle", asked)] == [
        ("/etc/app/key", b"value", 0o640),
        ("/etc/app/sub/deep", b"deep value", 0o644),
    ]


def test_a_file_beside_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "app.conf").write_text("x=1")
    asked = mount("app.conf")
    assert volumes.look(str(tmp_path), asked, 0) == Source(kind="file", small=True)
    assert [file.path for file in volumes.read(str(tmp_path), asked)] == ["/etc/app"]


def test_links_do_not_lead_out(config_map: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the host's secret")
    for target in ("../secret", str(tmp_path / "secret"), "/etc/passwd", "missing"):
        (config_map / "out").symlink_to(target)
        assert not volumes.look("/bundle", mount(config_map, "ro"), 0).small
        with pytest.raises(SpecError, match="cannot read"):
            volumes.read("/bundle", mount(config_map, "ro"))
        (config_map / "out").unlink()


def spoil(folder: Path, how: str) -> None:
    if how == "large":
        (folder / "large").write_bytes(bytes(volumes.MAX_BYTES))
    elif how == "many":
        for number in range(volumes.MAX_FILES):
            (folder / str(number)).touch()
    elif how == "fifo":
        os.mkfifo(folder / "fifo")
    elif how == "circle":
        (folder / "circle").symlink_to(".")
    elif how == "deep":
        (folder / "/".join("d" * 20)).mkdir(parents=True)


@pytest.mark.parametrize("how", ["large", "many", "fifo", "circle", "deep"])
def test_what_is_not_small_is_not_copied(config_map: Path, how: str) -> None:
    spoil(config_map, how)
    assert volumes.look("/bundle", mount(config_map, "ro"), 0) == Source(kind="folder")
    with pytest.raises(SpecError, match=r"too large|cannot read"):
        volumes.read("/bundle", mount(config_map, "ro"))


def test_a_file_that_has_grown_since_is_not_copied_in_part(tmp_path: Path) -> None:
    (tmp_path / "app.conf").write_bytes(bytes(volumes.MAX_BYTES))
    assert volumes.look(str(tmp_path), mount("app.conf"), 0).small
    assert len(volumes.read(str(tmp_path), mount("app.conf"))[0].content) == volumes.MAX_BYTES
    (tmp_path / "app.conf").write_bytes(bytes(volumes.MAX_BYTES + 1))
    with pytest.raises(SpecError, match="has grown too large"):
        volumes.read(str(tmp_path), mount("app.conf"))


def test_a_folder_to_be_written_is_not_even_looked_into(config_map: Path) -> None:
    assert volumes.look("/bundle", mount(config_map), 0) == Source(kind="folder")


def test_other_sources(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert volumes.look("/bundle", mount(tmp_path / "fifo"), 0) == Source()
    assert volumes.look("/bundle", mount("/dev/null"), 0) == Source()
    with pytest.raises(SpecError, match=r"^mounts\[7\]\.source: `.*/gone`: no such file"):
        volumes.look("/bundle", mount(tmp_path / "gone"), 7)


@pytest.mark.root
def test_a_block_device(tmp_path: Path) -> None:
    os.mknod(tmp_path / "disk", 0o60600, os.makedev(7, 3))
    assert volumes.look("/bundle", mount(tmp_path / "disk"), 0) == Source(kind="block", device=(7, 3))
