"""containerd-shim-urunc-v2's command line: `start`, `delete`, `-v`, `-info`; see containerd's runtime v2 README.

Light: each action imports what it uses.
"""

from __future__ import annotations

import os
import sys

from .. import __version__
from ..errors import UruncError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from .places import Place
    from .wire import Values

_SWITCHES = frozenset({"debug", "v", "version", "info"})
_VALUES = frozenset({"namespace", "address", "publish-binary", "id", "bundle", "socket", "debug-socket"})
_STDIN_LIMIT = 10 << 20
NAME = "io.containerd.urunc.v2"


def main(argv: list[str] | None = None) -> int:
    """Run one action and return the exit status. An error is one line on standard error."""
    argv = list(sys.argv if argv is None else argv)
    try:
        flags, action = parse(argv[1:])
        return _run(flags, action)
    except UruncError as error:
        sys.stderr.write(f"{NAME}: {error}\n")
    except OSError as error:
        sys.stderr.write(f"{NAME}: {error.filename or action_of(argv)}: {error.strerror or error}\n")
    return 1


def action_of(argv: list[str]) -> str:
    """Return the last word of the command line, for an error."""
    return argv[-1] if len(argv) > 1 else "start"


def parse(args: list[str]) -> tuple[dict[str, str], str]:
    """Return the flags by name (a switch is "true") and the action, as Go's flag package does. Raises UsageError."""
    flags: dict[str, str] = {}
    rest = list(args)
    while rest and rest[0].startswith("-") and len(rest[0]) > 1:
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        if name in _SWITCHES:
            flags[name] = value if equals else "true"
        elif name not in _VALUES:
            raise UsageError(f"flag `-{name}` is unknown")
        elif equals:
            flags[name] = value
        elif rest:
            flags[name] = rest.pop(0)
        else:
            raise UsageError(f"flag `-{name}` needs a value")
    return flags, rest[0] if rest else ""


def _run(flags: dict[str, str], action: str) -> int:
    if flags.get("v") == "true" or flags.get("version") == "true":
        _write(f"{NAME}:\n  Version:  {__version__}\n  Python version: {sys.version.split()[0]}\n\n".encode())
        return 0
    if flags.get("info") == "true":
        _write(_info())
        return 0
    if not flags.get("namespace"):
        raise UsageError("shim namespace cannot be empty")
    if action == "start":
        _write(_start(flags).encode())
        return 0
    if action == "delete":
        _write(_delete(flags))
        return 0
    raise UsageError(f"action `{action}` is unknown", hint="start or delete")


def _start(flags: dict[str, str]) -> str:
    from . import begin, start

    params, cgroup = _parameters()
    bundle = os.getcwd()
    name = flags.get("id") or params.get("instance_id", "")
    if not name:
        raise UsageError("the container's id is missing", hint="-id ID")
    address = flags.get("address") or params.get("containerd_grpc_address", "")
    folder = params.get("socket_dir") or start.SOCKET_FOLDER
    path = start.socket_path(folder, address, flags["namespace"], start.group_of(bundle, name))

    def serve(listener: _socket.socket) -> None:
        debug = flags.get("debug") == "true"
        spare = begin.begin(debug=debug)
        from . import serve as server

        identity = server.Identity(
            namespace=flags["namespace"],
            path=path,
            grpc_address=address,
            ttrpc_address=os.environ.get("TTRPC_ADDRESS") or params.get("containerd_ttrpc_address", ""),
            publish_binary=flags.get("publish-binary") or params.get("containerd_binary", ""),
        )
        server.serve(identity, listener, spare)

    return start.start(bundle, path, serve, (lambda: _join(cgroup)) if cgroup else None)


def _parameters() -> tuple[Values, str]:
    """Return what containerd has written to `start`, {} where it has not; and the cgroup that a shim is to join."""
    data = _read_stdin()
    if not data:
        return {}, ""  # as a rule, and containerd waits: what could read it is loaded later
    from . import messages, options

    params = messages.bootstrap(data)
    return params, options.of_bootstrap(params).shim_cgroup


def _join(cgroup: str) -> None:
    from . import own_cgroup

    own_cgroup.join(cgroup)


def _delete(flags: dict[str, str]) -> bytes:
    """Clear what a shim that is gone has left of the container, and return the DeleteResponse."""
    from . import messages, places, rootfs, start
    from .wire import encode

    bundle = flags.get("bundle") or os.getcwd()
    name = flags.get("id") or os.path.basename(bundle)
    place = places.load_place(bundle) or _default_place(name, bundle, flags["namespace"])
    start.clear_socket(bundle)
    places.await_operation(bundle)
    try:
        if places.is_left(place):
            _clear(place)
        rootfs.unmount_all(f"{bundle}/rootfs")
    except UruncError as error:
        sys.stderr.write(f"{NAME}: {error}\n")
    response = {"pid": _read_pid(bundle), "exit_status": 128 + 9, "exited_at": messages.now()}
    return encode(messages.DELETE_RESPONSE, response)


def _default_place(name: str, bundle: str, namespace: str) -> Place:
    """Return the place of a container whose Create never came so far as to write it down."""
    from . import places

    return places.Place(id=name, bundle=bundle, root=f"{places.DEFAULT_ROOT}/{namespace}")


def _clear(place: Place) -> None:
    from . import places, work

    work.delete(place.replace(ours=places.is_ours(place)), force=True)


def _read_pid(bundle: str) -> int:
    try:
        with open(f"{bundle}/init.pid", encoding="ascii") as file:
            return int(file.read(20))
    except (OSError, ValueError):
        return 0


def _info() -> bytes:
    """Return the RuntimeInfo, with the features document: without it containerd 2 gives no user namespaces."""
    from .. import jsonio
    from ..runtime.features import document
    from . import messages
    from .wire import WireError, decode, encode

    options: Values | None = None
    try:
        options = decode(messages.ANY, _read_stdin())
    except WireError:
        pass
    info = {
        "name": NAME,
        "version": {"version": __version__},
        "options": options if options and options["type_url"] else None,
        "features": {"type_url": messages.FEATURES, "value": jsonio.dumps(document())},
    }
    return encode(messages.RUNTIME_INFO, info)


def _read_stdin() -> bytes:
    """Return what containerd wrote to standard input: options, parameters, or nothing."""
    data = bytearray()
    try:
        if os.isatty(0):
            return b""
        while len(data) < _STDIN_LIMIT and (part := os.read(0, 65536)):
            data += part
    except OSError:
        return b""
    return bytes(data)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
