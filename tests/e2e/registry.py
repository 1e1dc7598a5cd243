"""A registry on loopback, for tools that pull: it serves the images of tar files by the distribution specification.

Run as a service inside a world: `python3 registry.py PORT IMAGE.tar ..`, where the names are those of the tars.
"""

from __future__ import annotations

import json
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
blobs: dict[str, bytes] = {}
tags: dict[tuple[str, str], str] = {}
"""Digests of manifests, by repository and tag."""


def add(file: Path) -> None:
    """Add an image that `images.Image.write` has written."""
    with tarfile.open(file) as tar:
        members = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        content = {name: stream.read() for name, stream in members.items() if stream is not None}
    for name, data in content.items():
        if name.startswith("blobs/sha256/"):
            blobs[f"sha256:{name.rpartition('/')[2]}"] = data
    [entry] = json.loads(content["index.json"])["manifests"]
    for name in json.loads(content["manifest.json"])[0]["RepoTags"]:
        repository, _, tag = name.rpartition(":")
        tags[repository, tag] = entry["digest"]


class Registry(BaseHTTPRequestHandler):
    """Pulls alone: GET and HEAD of `/v2/`, manifests and blobs."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with what the path names."""
        parts = self.path.removeprefix("/v2/").split("/")
        digest, kind = parts[-1], "application/octet-stream"
        if self.path == "/v2/":
            self._answer(200, b"{}", kind)
            return
        if parts[-2] == "manifests":
            digest, kind = tags.get(("/".join(parts[:-2]), digest), digest), MANIFEST
        if digest in blobs:
            self._answer(200, blobs[digest], kind, digest)
        else:
            self._answer(404, b"{}", "application/json")

    do_HEAD = do_GET  # noqa: N815  # the name is http.server's

    def _answer(self, status: int, body: bytes, kind: str, digest: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        add(Path(name))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Registry).serve_forever()
