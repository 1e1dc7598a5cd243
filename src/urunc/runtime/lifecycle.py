"""What each verb does to a container. The table of which verb is allowed when is `status.ALLOWED`.

`create` and `run` import the whole sandbox on use; the other verbs need the record and little more.
"""

from __future__ import annotations

import os
import time
from _signal import SIGKILL  # type: ignore[import-not-found]

from .. import log
from ..errors import StateError, UruncError, reason
from ..linux import proc
from . import status, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .options import Globals, Options
    from .store import Container


def create(settings: Globals, options: Options) -> None:
    """Make a container that waits for `start`. Executes the delegate, and does not return, for one that is not ours."""
    from . import create as creation
    from . import load

    request = load.load(settings.root, options, systemd=settings.systemd_cgroup)
    if request is None:
        hand_over(settings, options)
    creation.create(settings.root, options, request)


def dry_run(settings: Globals, options: Options) -> dict[str, Any]:
    """Return the plan of a container, which is not made; of one that is not ours, who would make it."""
    from . import load

    request = load.load(settings.root, options, systemd=settings.systemd_cgroup)
    if request is None:
        return {"id": options.id, "delegate": load.read_settings(settings.root).delegate}
    found: dict[str, Any] = _without_contents(request.plan.to_data())
    return found


def _without_contents(value: Any) -> Any:
    """Return a plan's data with the size of a file where its content stands, such as that of the guest's init."""
    if isinstance(value, dict):
        return {key: _without_contents(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_contents(item) for item in value]
    return f"{len(value)} bytes" if isinstance(value, bytes) else value


def hand_over(settings: Globals, options: Options) -> NoReturn:
    """Execute the delegate with the command line as it was given."""
    from . import delegate, knative, load

    knative.adapt(options.bundle)
    delegate.exec_delegate(load.read_settings(settings.root).delegate, settings.argv)


def start(root: str, name: str) -> None:
    """Let a created container's init execute the monitor. Raises what a hook or execve failed with."""
    began = time.monotonic_ns()
    with store.Lock(root, name):
        container = store.want(root, name)
        status.require("start", container, status.of(root, container))
        try:
            _meet_init(f"{root}/{name}", name)
        except BaseException:
            _end_failed_start(container)
            raise
        _note_start(root, container, began)
    if container.hooks.get("poststart"):
        _run_poststart(container)


def _run_poststart(container: Container) -> None:
    """Run the poststart hooks; one that fails stops the container (runtime.md, "Lifecycle", step 9; since 1.3)."""
    from . import signals, teardown

    try:
        teardown.run_late_hooks(container, "poststart", status.RUNNING)
    except BaseException:
        try:
            signals.end(container)
        except ProcessLookupError:
            pass  # it has ended by itself
        except (UruncError, OSError) as error:
            log.warn(f"after the failed poststart hook: {error}")
        _end_failed_start(container)
        raise


def _note_start(root: str, container: Container, began: int) -> None:
    """Add to the timeline. The monitor runs: that this cannot be written does not undo it."""
    timeline = (*container.timeline, ("start/begin", began), ("start/executed", time.monotonic_ns()))
    try:
        store.save(root, container.replace(timeline=timeline))
    except OSError as error:
        log.warn(f"cannot write the timeline of `{container.id}`: {reason(error)}")


def _meet_init(place: str, name: str) -> None:
    """Connect to init; its `started` and then the end-of-file that execve makes are success."""
    import _socket

    from .init_words import STARTED

    folder = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    meeting = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        meeting.connect(f"/proc/self/fd/{folder}/start.sock")
        answers = []
        while answer := meeting.recv(64 * 1024):
            answers.append(answer)
    except ConnectionError:
        raise StateError(f"cannot start `{name}`: container is stopped") from None
    finally:
        meeting.close()
        os.close(folder)
    if answers == [STARTED]:
        return
    failures = [answer for answer in answers if answer != STARTED]
    if not failures:
        raise StateError(
            f"cannot start `{name}`: its init ended before it could execute the monitor",
            hint="a seccomp profile that refuses execve, sendto or exit_group does that, and so does a lack of memory",
        )
    from .. import jsonio
    from .channel import carried_error

    raise carried_error(jsonio.loads(failures[-1]))


def _end_failed_start(container: Container) -> None:
    """A container whose start failed is stopped (runtime.md, "Lifecycle", step 8): only `delete` is left to it."""
    proc.wait_gone(container.pid, container.start_time, 1.0)


def state(root: str, name: str) -> dict[str, Any]:
    """Return the state document (runtime.md, "State"), with `rootfs` and `created` as runc's has them."""
    return _shown(root, store.want(root, name))


def _shown(root: str, container: Container) -> dict[str, Any]:
    document = status.document(container, status.of(root, container))
    return {**document, "rootfs": container.rootfs, "created": container.created}


def list_states(root: str) -> list[dict[str, Any]]:
    """Return one state document per container of ours, with `owner`, a uid, beside it.

    A record that cannot be read is a warning: it must not hide the others.
    """
    found = []
    for name in store.names(root):
        try:
            container = store.find(root, name)
        except StateError as error:
            log.warn(str(error))
            continue
        if container is not None:
            found.append({**_shown(root, container), "owner": container.owner})
    return found


def ps(root: str, name: str) -> list[int]:
    """Return the host's process ids in the container's cgroup, [] where it has ended."""
    from ..linux import cgroup

    container = store.want(root, name)
    status.require("ps", container, status.of(root, container))
    return cgroup.pids(container.cgroup)


def kill(root: str, name: str, signum: int, *, everything: bool = False) -> None:
    """Send a signal. Never waits: the engine owns the time limit.

    A stop signal reaches the guest where there is a way, else it ends the monitor. With `everything` (--all),
    KILL ends every process in the cgroup, and a stopped container is no error. Raises StateError.
    """
    from . import signals

    container = store.want(root, name)
    now = status.of(root, container)
    if everything and (signum == SIGKILL or now == status.STOPPED):
        _kill_all(container)
        return
    status.require("kill", container, now)
    try:
        signals.send(root, container, now, signum)
    except ProcessLookupError:
        raise StateError(f"cannot kill `{name}`: container not running") from None


def _kill_all(container: Container) -> None:
    from ..linux import cgroup

    cgroup.kill_all(container.cgroup, container.mark)


def delete(root: str, name: str, *, force: bool = False) -> None:
    """Remove a stopped or created container, with force a running one too, and everything that was made for it.

    With force, a container that is not there is no error, and what a killed urunc left is cleared as well. Raises
    StateError where the status does not allow it, UruncError for what cannot be cleared.
    """
    from . import teardown

    if force:
        _end_busy(root, name)
    try:
        with store.Lock(root, name):
            container = _clear(root, name, force=force)
    except StateError:
        if not force or os.path.exists(store.folder(root, name)):
            raise
        return
    finally:
        if force:
            teardown.remove_folder(root, store.unclaimed(name))
    if container is not None:
        teardown.run_poststop(container)


def _clear(root: str, name: str, *, force: bool) -> Container | None:
    """Undo what was made for the container; return its record, None where it had none."""
    from . import teardown

    container = _find_readable(root, name) if force else store.want(root, name)
    if container is None:
        teardown.remove_folder(root, name)
        return None
    if not force:
        status.require("delete", container, status.of(root, container))
    teardown.clear(root, container)
    return container


def _find_readable(root: str, name: str) -> Container | None:
    """Return the record, None where there is none, or one that tells nothing any more: --force removes that as well."""
    try:
        return store.find(root, name, any_version=True)
    except StateError as error:
        log.warn(f"{error}: what it recorded cannot be cleared, only its folder")
        return None


def _end_busy(root: str, name: str) -> None:
    """End what may hang, in a hook, say, with the lock held: a `create`, and the init that a `start` waits for.

    What a `create` made is in its record.
    """
    from . import signals

    container = _find_readable(root, name)
    if container is None or container.boot_id != proc.boot_id():
        return
    for pid, started in (container.creator, (container.pid, container.start_time)):
        try:
            if pid:
                proc.send_signal(pid, started, SIGKILL)
                signals.thaw(container)
                proc.wait_gone(pid, started, 1.0)
        except ProcessLookupError:
            pass


def run(settings: Globals, options: Options) -> int:
    """Create and start a container; without --detach wait for its end, delete it, and return its exit status."""
    from . import foreground

    return foreground.run(settings, options)
