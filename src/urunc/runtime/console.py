"""The container's terminal: a pty whose master goes to the engine, or is copied to urunc's own terminal by `run`.

`create` opens the pair in the host's devpts before it forks, so that init needs no devpts in the monitor's root;
init only takes the slave's descriptor. `attach` imports nothing: init calls it after pivot_root.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import time
from _struct import pack, unpack

from ..errors import HostError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any
else:
    import _signal

_TIOCSCTTY = 0x540E
_TIOCGWINSZ = 0x5413
_TIOCSWINSZ = 0x5414
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_CONNECT_SECONDS = 10
_MAX_PENDING = 65536


def open_pty(size: tuple[int, int] | None = None, owner: int | None = None) -> tuple[int, int]:
    """Return the descriptors (master, slave) of a new terminal, of that (height, width) in characters if given.

    `owner` is the uid, as the host sees it, that may open the terminal again by name. Both descriptors are
    close-on-exec, and the terminal controls no process yet. Raises HostError.
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    try:
        master = os.open("/dev/ptmx", flags)
    except OSError as error:
        raise HostError(f"cannot open a terminal: `/dev/ptmx`: {reason(error)}") from None
    slave = -1
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
        if size and all(0 < length < 65536 for length in size):
            set_size(master, size)
        if owner is not None:
            os.fchown(slave, owner, -1)
    except OSError as error:
        for fd in (master, slave):
            if fd >= 0:
                os.close(fd)
        raise HostError(f"cannot open a terminal: {reason(error)}") from None
    return master, slave


def set_size(terminal: int, size: tuple[int, int]) -> None:
    """Set a terminal's (height, width) in characters. The foreground processes get SIGWINCH."""
    fcntl.ioctl(terminal, _TIOCSWINSZ, pack("HHHH", size[0], size[1], 0, 0))


def get_size(terminal: int) -> tuple[int, int]:
    """Return a terminal's (height, width) in characters. Raises OSError where it is no terminal."""
    height, width, _, _ = unpack("HHHH", fcntl.ioctl(terminal, _TIOCGWINSZ, bytes(8)))
    return height, width


def hung_up(pipe: int) -> bool:
    """Return whether nobody holds the reading end of a pipe that we could write to."""
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))


def attach(slave: int) -> None:
    """Make the terminal the caller's controlling one, and its stdin, stdout and stderr. Closes `slave`.

    The caller leads its session (setsid) and has no controlling terminal. Raises OSError.
    """
    fcntl.ioctl(slave, _TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    if slave > 2:
        os.close(slave)


def send_master(path: str, master: int) -> None:
    """Send the terminal's master to the engine's console socket. Raises HostError."""
    send_descriptor(path, master, "/dev/ptmx")


def send_descriptor(path: str, fd: int, name: str) -> None:
    """Send a descriptor over the unix socket at `path`, with a name as the message's data, as runc's callers expect.

    Waits ten seconds at most for the other side to take it. Raises HostError naming the socket.
    """
    try:
        _send(path, fd, name)
    except BlockingIOError:
        raise HostError(f"nobody answers at the socket `{path}`") from None
    except OSError as error:
        raise HostError(f"cannot use the socket `{path}`: {reason(error)}") from None


def _send(path: str, fd: int, name: str) -> None:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC, 0)
    place = -1
    try:
        # not settimeout(): a non-blocking connect fails at once where the listener's backlog is full
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, pack("ll", _CONNECT_SECONDS, 0))
        if len(os.fsencode(path)) > 107:  # sun_path is short: go through the folder's descriptor
            place = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            path = f"/proc/self/fd/{place}/{os.path.basename(path)}"
        sock.connect(path)
        sock.sendmsg([name.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("i", fd))], _socket.MSG_NOSIGNAL)
    finally:
        if place >= 0:
            os.close(place)
        sock.close()


class RawTerminal:
    """A context manager: our own terminal, if `fd` is one, passes every key on while the body runs."""

    def __init__(self, fd: int = 0) -> None:
        self.fd = fd
        self.saved: list[Any] | None = None

    def __enter__(self) -> RawTerminal:
        if os.isatty(self.fd):
            import termios

            self.saved = termios.tcgetattr(self.fd)
            termios.tcsetattr(self.fd, termios.TCSADRAIN, raw_mode(self.saved))
        return self

    def __exit__(self, *_: object) -> None:
        if self.saved is not None:
            import termios

            termios.tcsetattr(self.fd, termios.TCSADRAIN, self.saved)


def raw_mode(attributes: list[Any]) -> list[Any]:
    """Return terminal attributes as cfmakeraw(3) makes them of these (a list as of `termios.tcgetattr`)."""
    import termios as t

    iflag, oflag, cflag, lflag, ispeed, ospeed, chars = attributes
    iflag &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
    lflag &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
    chars = list(chars)
    chars[t.VMIN], chars[t.VTIME] = 1, 0
    return [iflag, oflag & ~t.OPOST, (cflag & ~(t.CSIZE | t.PARENB)) | t.CS8, lflag, ispeed, ospeed, chars]


def copy_terminal(
    master: int,
    is_over: Callable[[], bool] = lambda: False,
    resized: Callable[[int, int], None] = lambda _height, _width: None,
) -> None:
    """Copy stdin to the terminal and the terminal to stdout, until the terminal's other side is closed by all.

    stdin is in raw mode meanwhile where it is a terminal, and its size is followed: `resized` is called with the
    height and width. `is_over` is asked twice a second, for a container whose children keep the terminal open after
    its end. Raises OSError where stdout fails.
    """
    wake, alarm = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    old_handler = _signal.signal(_signal.SIGWINCH, lambda *_: None)
    old_wakeup = _signal.set_wakeup_fd(alarm)
    was_blocking = os.get_blocking(master)
    os.set_blocking(master, False)
    try:
        _follow_size(master, resized)
        with RawTerminal():
            _copy(master, wake, is_over, resized)
    finally:
        os.set_blocking(master, was_blocking)
        _signal.set_wakeup_fd(old_wakeup)
        _signal.signal(_signal.SIGWINCH, old_handler if old_handler is not None else _signal.SIG_DFL)
        os.close(wake)
        os.close(alarm)


def _copy(master: int, wake: int, is_over: Callable[[], bool], resized: Callable[[int, int], None]) -> None:
    pending = b""  # typed, and not taken by the terminal yet
    stdin_open = True
    while True:
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(master, select.POLLIN | (select.POLLOUT if pending else 0))
        if stdin_open and len(pending) < _MAX_PENDING:
            poll.register(0, select.POLLIN)
        events = dict(poll.poll(500))
        if wake in events:
            os.read(wake, 512)
            _follow_size(master, resized)
        if 0 in events:
            typed = os.read(0, 4096)
            stdin_open = bool(typed)
            pending += typed
        if pending:
            pending = pending[_write_some(master, pending) :]
        shown = _read_some(master) if master in events else b""
        if shown is None or (not events and is_over()):
            return
        _write_all(1, shown)


def _read_some(master: int) -> bytes | None:
    """Return what the terminal shows, b"" for nothing yet, None once nobody holds its other side."""
    try:
        return os.read(master, 65536) or None
    except BlockingIOError:
        return b""
    except OSError as error:
        if error.errno == errno.EIO:
            return None
        raise


def _write_some(master: int, data: bytes) -> int:
    """Return how many bytes were taken; all, unseen, where the other side is gone."""
    try:
        return os.write(master, data)
    except BlockingIOError:
        return 0
    except OSError as error:
        if error.errno == errno.EIO:
            return len(data)
        raise


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            time.sleep(0.01)


def _follow_size(master: int, resized: Callable[[int, int], None]) -> None:
    try:
        size = get_size(0)
        set_size(master, size)
    except OSError:
        return
    resized(*size)
