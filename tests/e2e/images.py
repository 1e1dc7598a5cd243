"""Images made by the tests themselves, without a registry: `docker load` and `ctr image import` both take them.

An image here is an OCI layout in a tar with Docker's `manifest.json` beside it: one layer, one platform.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "echo", "sleep", "cat", "httpd", "ip", "ping", "nc", "id", "ls", "env", "true", "false", "mkdir")


class Image:
    """What goes into an image: files by path, and the fields of its configuration."""

    def __init__(self, name: str) -> None:
        self.name = name  # with its tag, such as `test/busybox:1`
        self.files: dict[str, tuple[bytes, int]] = {}
        self.links: dict[str, str] = {}
        self.config: dict[str, Any] = {}
        self.annotations: dict[str, str] = {}  # of the manifest; engines read labels from `config`

    def file(self, path: str, content: bytes | Path, mode: int = 0o644) -> None:
        """Add a file. Its folders are made."""
        self.files[path.lstrip("/")] = (content.read_bytes() if isinstance(content, Path) else content, mode)

    def add_tree(self, tree: Path) -> None:
        """Add the files and links below a folder."""
        for path in sorted(tree.rglob("*")):
            inside = str(path.relative_to(tree))
            if path.is_symlink():
                self.links[inside] = str(path.readlink())
            elif path.is_file():
                self.file(inside, path, path.stat().st_mode & 0o777)

    def layer(self) -> bytes:
        """Return the layer, an uncompressed tar; the same content gives the same bytes."""
        folders = {"proc", "sys", "dev", "etc", "tmp", "run"}
        for path in [*self.files, *self.links]:
            folders.update(str(parent) for parent in Path(path).parents if str(parent) != ".")
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for folder in sorted(folders):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                tar.addfile(entry)
            for path, (content, mode) in sorted(self.files.items()):
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content), mode
                tar.addfile(entry, io.BytesIO(content))
            for path, target in sorted(self.links.items()):
                entry = tarfile.TarInfo(path)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                tar.addfile(entry)
        return out.getvalue()

    def write(self, file: Path) -> Path:
        """Write the image as a tar for `docker load`, `ctr image import` and `podman load`."""
        layer = self.layer()
        config = _json(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": "1970-01-01T00:00:00Z",
                "config": self.config,
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
                "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tests"}],
            }
        )
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
                "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
                "annotations": self.annotations,
            }
        )
        index = _json(
            {
                "schemaVersion": 2,
                "manifests": [
                    _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
                    | {
                        "platform": {"architecture": "amd64", "os": "linux"},
                        "annotations": {
                            "io.containerd.image.name": f"docker.io/{self.name}",
                            "org.opencontainers.image.ref.name": self.name.split(":")[-1],
                        },
                    }
                ],
            }
        )
        docker = [{"Config": _blob(config), "RepoTags": [self.name], "Layers": [_blob(layer)]}]
        members = {
            "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
            "index.json": index,
            "manifest.json": _json(docker),
            _blob(config): config,
            _blob(manifest): manifest,
            _blob(layer): layer,
        }
        with tarfile.open(file, "w") as tar:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return file


def busybox(name: str = "test/busybox:1", command: tuple[str, ...] = ("sleep", "1000")) -> Image:
    """Return an ordinary container's image."""
    image = Image(name)
    image.file("bin/busybox", BUSYBOX, 0o755)
    for applet in APPLETS:
        image.links[f"bin/{applet}"] = "busybox"
    image.file("www/index.html", b"a page from an ordinary container\n")
    image.config = {"Cmd": list(command), "Env": ["PATH=/bin"], "WorkingDir": "/"}
    return image


def unikernel(
    name: str, kernel: Path, annotations: dict[str, str], files: dict[str, bytes | Path] | None = None
) -> Image:
    """Return an image whose `/urunc.json` names the kernel, which is at `/unikernel/<its name>`.

    `annotations` are the short keys, such as `unikernelType`; `binary` is added.
    """
    image = Image(name)
    inside = f"unikernel/{kernel.name}"
    image.file(inside, kernel, 0o755)
    for path, content in (files or {}).items():
        image.file(path, content)
    full = {f"com.urunc.unikernel.{key}": value for key, value in {"binary": f"/{inside}", **annotations}.items()}
    image.file("urunc.json", _json(full))
    image.annotations = full
    image.config = {"Cmd": [f"/{inside}"], "WorkingDir": "/", "Labels": full}
    return image


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _blob(content: bytes) -> str:
    return "blobs/sha256/" + hashlib.sha256(content).hexdigest()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}
