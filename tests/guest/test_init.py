"""urunc's init in Linux guests on real QEMU machines: what the application gets, and what becomes of its end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import linuxes
from guest import frames, linux_guest
from guest.linux_guest import QUICK, config
from guest.machines import GUEST, PATIENCE, Qemu, connect, want_programs

pytestmark = pytest.mark.slow

PORT = "org.urunc.control"
MAC = "52:54:00:12:34:56"
BASE = (("env", "PATH=/bin"), ("exit", "debug-exit"))
ODD = [
    "two words",
    "",
    "'single' \"double\"",
    "line\nbreak",
    "tab\there",
    "blå 漢字 🦊",
    "$HOME `id` \\n",
    "--",
    "-x=1,2",
    "\x01",
]


class Linux:
    """The kernel and the image's initrd, made once; `boot` gives one machine its configuration."""

    def __init__(self, folder: Path) -> None:
        kernel = linux_guest.find_kernel()
        self.folder = folder
        self.kernel = folder / "kernel"
        self.kernel.write_bytes(linux_guest.uncompressed(kernel))
        self.base = linux_guest.base_initrd(kernel)
        self.init = (GUEST / "build/urunc-init").read_bytes()

    def boot(
        self,
        configuration: bytes,
        *arguments: str,
        machine: str = "microvm",
        files: dict[str, bytes] | None = None,
        fds: tuple[int, ...] = (),
        boot_string: str = QUICK,
    ) -> Qemu:
        initrd = self.folder / "initrd"
        initrd.write_bytes(self.base + linux_guest.tail(self.init, configuration, files))
        more = ("-cpu", "qemu64", "-m", "128", "-initrd", str(initrd), *arguments)
        return Qemu(machine, self.kernel, boot_string, *more, fds=fds)

    def run(self, configuration: bytes, *arguments: str, files: dict[str, bytes] | None = None) -> tuple[int, str]:
        """Boot a microvm, wait for its end; return QEMU's status and what was printed."""
        with self.boot(configuration, *arguments, files=files) as qemu:
            status = qemu.wait()
        return status, qemu.output.decode(errors="surrogateescape")


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Linux:
    want_programs()
    return Linux(tmp_path_factory.mktemp("linux"))


def shell(script: str, *more: tuple[str, str | bytes], end: str = "reboot") -> bytes:
    """Return the configuration of a guest whose application is the shell with this script."""
    return config(("arg", "sh"), ("arg", "-c"), ("arg", script), *more, *BASE, ("end", end))


def between(text: str, start: str, end: str) -> str:
    return text.partition(f"{start}\n")[2].partition(f"{end}\n")[0]


def octets(dump: str) -> bytes:
    return bytes.fromhex("".join(dump.split()))


def test_the_application_gets_everything_whole(linux: Linux) -> None:
    arguments = [*ODD, *(f"argument {number}" for number in range(40))]
    environment = ["PATH=/bin", "EMPTY=", "ODD=a b\n'c' \"d\" ü", "BIG=" + "x" * 100_000]
    script = """
        echo ARGS; od -An -v -tx1 /proc/$$/cmdline; echo END
        echo ENV; od -An -v -tx1 /proc/$$/environ | md5sum; echo END
        echo "cwd=$(pwd)"; id; echo "umask=$(umask)"; echo "nofile=$(ulimit -n) $(ulimit -H -n)"
        hostname; cat /etc/hosts /etc/resolv.conf "/etc/sub folder/file"
        echo reopened > /dev/stdout; ls -l /etc/hosts
        [ -e /.urunc/config ] || echo clean
        cat /proc/self/mountinfo | while read -r _ _ _ _ point _; do echo "mounted=$point"; done
        ulimit -c; exit 0
    """.replace("md5sum", "busybox md5sum")
    configuration = config(
        *(("arg", word) for word in ("/bin/sh", "-c", script, "name", *arguments)),
        *(("env", entry) for entry in environment),
        *(("cwd", "/srv/with blank/new"), ("uid", "1000"), ("gid", "1001"), ("group", "7"), ("group", "12")),
        *(("umask", str(0o027)), ("rlimit", "RLIMIT_NOFILE 333 444"), ("rlimit", "RLIMIT_CORE 0 18446744073709551615")),
        *(
            ("hostname", "wêb-1"),
            ("dns", "192.0.2.53"),
            ("dns", "2001:db8::53"),
            ("search", "one.test"),
            ("search", "two"),
        ),
        *(("file", "/etc/hosts"), ("file", "/etc/sub folder/file"), ("end", "reboot"), ("exit", "debug-exit")),
    )
    files = {"/etc/hosts": b"192.0.2.7 web\n", "/etc/sub folder/file": b"the file\n"}
    status, text = linux.run(configuration, files=files)
    assert status == 0, text
    words = octets(between(text, "ARGS", "END")).split(b"\0")
    assert words == [b"/bin/sh", b"-c", script.encode(), b"name", *(word.encode() for word in arguments), b""]
    whole = b"\0".join(entry.encode() for entry in [*environment, "HOME=/home/the app"]) + b"\0"
    assert between(text, "ENV", "END").split() == [md5_of_dump(whole), "-"]
    for line in (
        *("cwd=/srv/with blank/new", "uid=1000(app) gid=1001 groups=7,12", "umask=0027", "nofile=333 444", "wêb-1"),
        *("192.0.2.7 web", "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch one.test two", "the file"),
        *(
            "reopened",
            "clean",
            *(f"mounted={point}" for point in ("/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/run")),
        ),
    ):
        assert f"\n{line}\n" in text, f"{line} is not in {text}"
    assert "-rw-r--r--" in text
    assert "\r" not in text


def md5_of_dump(data: bytes) -> str:
    """Return what `od -An -v -tx1 | md5sum` says of `data`."""
    rows = (data[start : start + 16] for start in range(0, len(data), 16))
    dump = "".join("".join(f" {octet:02x}" for octet in row) + "\n" for row in rows)
    return subprocess.run(["md5sum"], input=dump.encode(), capture_output=True, check=True).stdout.split()[0].decode()


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 1", 1), ("exit 254", 255), ("kill -9 $$", 137)],
)
def test_exit_status_by_the_debug_exit_device(linux: Linux, script: str, status: int) -> None:
    assert linux.run(shell(script))[0] == status


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["/bin/nothing here"], 127, "cannot run `/bin/nothing here`: no such file or directory"),
        (["not-executable"], 127, "cannot run `not-executable`: permission denied"),
    ],
)
def test_what_cannot_run_ends_as_in_a_shell(linux: Linux, words: list[str], status: int, message: str) -> None:
    got, text = linux.run(config(*(("arg", word) for word in words), *BASE, ("end", "reboot")))
    assert f"urunc-init: {message}\n" in text
    assert got == (126 | 1 if "permission" in message else status)


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        (b"", "/.urunc/config is empty"),
        (b"arg\0sh", "/.urunc/config is truncated"),
        (b"arg\0sh\0\xff\xfe\0x\0", "unknown key"),
        (b"cwd\0/\0exit\0debug-exit\0", "no application is named"),
        (b"arg\0sh\0nic\0" + b"A" * 300 + b"\0exit\0debug-exit\0", "is not a MAC address"),
        (b"arg\0sh\0uid\0-1\0exit\0debug-exit\0", "uid `-1` is not a number"),
    ],
)
def test_a_broken_configuration_is_said_and_fails(linux: Linux, configuration: bytes, message: str) -> None:
    status, text = linux.run(configuration)
    assert message in text
    assert status == 125


def test_the_first_process_outlives_what_is_thrown_at_it(linux: Linux) -> None:
    script = """
        for signal in 1 2 3 9 11 15 17 31; do kill -$signal 1; done
        for i in 1 2 3 4 5 6 7 8; do (sleep 0.01 &); done; sleep 0.5
        ps -o stat,ppid,args | while read stat ppid rest; do case $stat in Z*) echo "zombie $rest";; esac; done
        (sleep 1000 &); i=0
        while [ $i -lt 3000 ]; do echo "line $i of a long output that must not be cut"; i=$((i+1)); done
        echo $HOME; exit 9
    """
    status, text = linux.run(shell(script))
    assert status == 9
    assert "zombie" not in text
    assert text.count("that must not be cut\n") == 3000 and text.endswith("\n/root\n")


def test_console_without_a_terminal_is_exact(linux: Linux) -> None:
    with linux.boot(shell("echo up; head -c 12 | od -An -tx1; exit 0".replace("head", "busybox head"))) as qemu:
        qemu.wait_for(b"up\n")
        qemu.type(b"a\r\n\x03\x04\x1a\xffe\n\x11 z")
        assert qemu.wait() == 0
    assert octets(qemu.output.decode().rpartition("up\n")[2]) == b"a\r\n\x03\x04\x1a\xffe\n\x11 z"


def test_console_with_a_terminal_is_one(linux: Linux) -> None:
    script = (
        "trap 'echo interrupted; exit 4' INT; stty < /dev/tty > /dev/null && echo $HOME up; while :; do sleep 0.1; done"
    )
    with linux.boot(shell(script, ("terminal", "1"), ("env", "HOME=/given"))) as qemu:
        qemu.wait_for(b"/given up\r\n")
        qemu.type(b"\x03")
        assert qemu.wait() == 5
    assert b"interrupted\r\n" in qemu.output


def test_last_words_reach_a_slow_reader(linux: Linux) -> None:
    script = 'i=0; while [ $i -lt 20000 ]; do echo "$i .............."; i=$((i+1)); done; exit 3'
    with linux.boot(shell(script)) as qemu:
        qemu.wait_for(b"0 ....")
        time.sleep(2)  # the pipe and the guest's buffers fill up meanwhile
        assert qemu.wait() == 3
    assert qemu.lines()[-20001:] == [*(f"{number} .............." for number in range(20000)), ""]


def press_ctrl_alt_del(qmp: socket.socket) -> None:
    keys = [{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")]
    qmp.sendall(json.dumps({"execute": "qmp_capabilities"}).encode())
    qmp.sendall(json.dumps({"execute": "send-key", "arguments": {"keys": keys}}).encode())


def test_ctrl_alt_del_asks_the_application_to_stop(linux: Linux, tmp_path: Path) -> None:
    script = "trap 'echo term; exit 8' TERM; echo up; while :; do sleep 0.05; done"
    path = tmp_path / "qmp"
    arguments = ("-qmp", f"unix:{path},server=on,wait=off")
    with linux.boot(shell(script), *arguments, machine="q35") as qemu, connect(path) as qmp:
        qemu.wait_for(b"up\n")
        press_ctrl_alt_del(qmp)
        assert qemu.wait() == 9
    assert b"term\n" in qemu.output


def serial_port(machine: str, path: Path) -> list[str]:
    bus = "virtio-serial-device" if machine.startswith("microvm") else "virtio-serial-pci"
    chardev = f"socket,id=control,path={path},server=on,wait=off"
    return ["-device", bus, "-chardev", chardev, "-device", f"virtserialport,chardev=control,name={PORT}"]


def test_standard_input_by_a_port(linux: Linux, tmp_path: Path) -> None:
    """What comes before anyone listens waits; who has not connected yet has not ended; the end comes once."""
    path = tmp_path / "input"
    chardev = ("-chardev", f"socket,id=input,path={path},server=on,wait=off")
    ports = (*serial_port("microvm", tmp_path / "control"), *chardev)
    device = ("-device", "virtserialport,chardev=input,name=in")
    script = "busybox dd bs=4096 count=256 iflag=fullblock 2>&- | busybox sha256sum; read x || echo ended; exit 0"
    sent = bytes(range(256)) * 4096
    with linux.boot(shell(script, ("control", PORT), ("stdin", "in")), *ports, *device) as qemu:
        with connect(path) as visitor:
            visitor.sendall(sent)
            qemu.wait_for(b"  -\n")  # QEMU forgets what a socket still holds when its other side goes
        assert qemu.wait() == 0
    assert qemu.output.endswith(hashlib.sha256(sent).hexdigest().encode() + b"  -\nended\n")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("null", b""), ("none", b"urunc-init: no virtio-serial port `none`: the application gets no standard input\n")],
)
def test_no_standard_input(linux: Linux, wanted: str, message: bytes) -> None:
    with linux.boot(shell("cat; echo end; exit 0", ("stdin", wanted))) as qemu:
        assert qemu.wait() == 0
    assert qemu.output.endswith(message + b"end\n")


OUTPUTS = (("stdout", "out"), ("stderr", "console"))


def output_port(folder: Path) -> list[str]:
    """Return the options for a port `out` that nobody reads until he connects to the socket `out`."""
    chardev = f"socket,id=out,path={folder / 'out'},server=on,wait=off"
    return ["-chardev", chardev, "-device", "virtserialport,chardev=out,name=out"]


def test_output_by_a_port(linux: Linux, tmp_path: Path) -> None:
    """All of it goes there, and on the console is standard error alone."""
    out = tmp_path / "out"
    chardev = ("-chardev", f"file,id=out,path={out}", "-device", "virtserialport,chardev=out,name=out")
    script = "echo out; echo error >&2; busybox seq 1 50000; echo again >/dev/stderr; exit 3"
    records = (("control", PORT), *OUTPUTS)
    with linux.boot(shell(script, *records), *serial_port("microvm", tmp_path / "control"), *chardev) as qemu:
        assert qemu.wait() == 3
    assert qemu.output.endswith(b"error\nagain\n") and b"out\n" not in qemu.output
    assert out.read_text().split() == ["out", *map(str, range(1, 50001))]


def test_output_without_its_port(linux: Linux) -> None:
    with linux.boot(shell("echo out; exit 0", ("stdout", "none"), ("stderr", "console"))) as qemu:
        assert qemu.wait() == 0
    message = b"urunc-init: no virtio-serial port `none`: the application's output goes to the console\n"
    assert qemu.output.endswith(message + b"out\n")


def test_output_that_nobody_takes(linux: Linux, tmp_path: Path) -> None:
    """The application waits, until init is told that it does so in vain."""
    script = "trap '' PIPE; while echo out 2>&-; do :; done; echo over >&2; exit 0"
    ports = (*serial_port("microvm", tmp_path / "control"), *output_port(tmp_path))
    machine = linux.boot(shell(script, ("control", PORT), *OUTPUTS), *ports)
    with machine as qemu, connect(tmp_path / "control") as visitor:
        assert visitor.makefile("rb").readline() == b"started\n"
        visitor.sendall(b"closed\n")
        assert qemu.wait() == 0
    assert qemu.output.endswith(b"over\n")


def test_last_words_wait_for_their_reader_whatever_is_signalled(linux: Linux, tmp_path: Path) -> None:
    ports = (*serial_port("microvm", tmp_path / "control"), *output_port(tmp_path))
    script = "echo out; echo over >&2; exit 3"
    machine = linux.boot(shell(script, ("control", PORT), *OUTPUTS), *ports)
    with machine as qemu, connect(tmp_path / "control") as control:
        qemu.wait_for(b"over\n")
        time.sleep(1)  # the application has ended
        control.sendall(b"signal 28\n")
        time.sleep(4)  # longer than a stop leaves the reader
        with connect(tmp_path / "out") as reader:
            assert reader.makefile("rb").read() == b"out\n"
        assert qemu.wait() == 3


def test_a_stop_ends_the_wait_for_a_reader(linux: Linux, tmp_path: Path) -> None:
    """Whatever else the control port says meanwhile; a stop is Ctrl-Alt-Del as well."""
    ports = (*serial_port("q35", tmp_path / "control"), *output_port(tmp_path))
    arguments = (*ports, "-qmp", f"unix:{tmp_path / 'qmp'},server=on,wait=off")
    configuration = shell("trap '' TERM; echo out; echo over >&2; exit 3", ("control", PORT), *OUTPUTS, end="poweroff")
    machine = linux.boot(configuration, *arguments, machine="q35")
    with machine as qemu, connect(tmp_path / "control") as control, connect(tmp_path / "qmp") as qmp:
        qemu.wait_for(b"over\n")
        press_ctrl_alt_del(qmp)
        limit = time.monotonic() + PATIENCE
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while qemu.process.poll() is None:
                assert time.monotonic() < limit
                control.sendall(b"size 1 1\n")
                time.sleep(0.1)
        assert qemu.wait() == 3


def test_disks_have_everything_while_it_waits_for_a_reader(linux: Linux, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("first words")
    disk = linuxes.make_disk(tree, tmp_path / "disk", "8M")
    drive = ("-drive", f"if=none,id=d0,format=raw,file={disk}", "-device", "virtio-blk-device,drive=d0")
    ports = (*serial_port("microvm", tmp_path / "control"), *output_port(tmp_path))
    # The kernel's own flusher would do it after some time.
    script = "echo 0 > /proc/sys/vm/dirty_writeback_centisecs; echo out; echo -n 'last words.' 1<> /data/file; exit 0"
    configuration = shell(script, ("mount", "/dev/vda ext4 rw /data"), ("control", PORT), *OUTPUTS)
    with linux.boot(configuration, *ports, *drive):
        limit = time.monotonic() + PATIENCE
        while b"last words." not in disk.read_bytes():
            assert time.monotonic() < limit
            time.sleep(0.1)


def test_without_a_console_the_streams_are_apart_all_the_same(linux: Linux, tmp_path: Path) -> None:
    """The null device stands in its place, where a stream has no port, and stays root's."""
    out = tmp_path / "out"
    chardev = ("-chardev", f"file,id=out,path={out}", "-device", "virtserialport,chardev=out,name=out")
    records = (*OUTPUTS, ("control", PORT), ("stdin", "null"), ("uid", "1000"))
    script = "for n in 0 1 2; do busybox readlink /proc/self/fd/$n; done; busybox stat -c %u /dev/null; exit 3"
    boot_string = QUICK.replace("console=ttyS0", "console=none0")
    ports = serial_port("microvm", tmp_path / "control")
    with (
        linux.boot(shell(script, *records), *ports, *chardev, boot_string=boot_string) as qemu,
        connect(tmp_path / "control") as control,
    ):
        assert control.makefile("rb").read() == b"started\nexit 3\n"
        assert qemu.wait() == 3
    null, pipe, *rest = out.read_text().split()
    assert null == "/dev/null" and pipe.startswith("pipe:") and rest == ["/dev/null", "0"]
    assert qemu.output == b""


@contextlib.contextmanager
def controlled(linux: Linux, machine: str, script: str, *records: tuple[str, str]) -> Iterator[tuple[Qemu, Path]]:
    path = linux.folder / f"control-{zlib.crc32(script.encode())}-{machine}"
    configuration = shell(script, ("control", PORT), *records, end="reboot" if machine == "microvm" else "poweroff")
    with linux.boot(configuration, *serial_port(machine, path), machine=machine) as qemu:
        yield qemu, path


@pytest.mark.parametrize("machine", ["microvm", "q35"])
def test_signals_come_in_and_the_status_goes_out(linux: Linux, machine: str) -> None:
    script = "trap 'echo usr1' USR1; trap 'echo term; exit 42' TERM; echo up; while :; do sleep 0.05; done"
    with (
        controlled(linux, machine, script) as (qemu, path),
        connect(path) as control,
        control.makefile("rb") as lines,
    ):
        assert lines.readline() == b"started\n"
        qemu.wait_for(b"up\n")
        control.sendall(b"nonsense\nsignal\nsignal x\nsignal 99\n" + b"z" * 5000 + b"\nsignal 10\n")
        qemu.wait_for(b"usr1\n")
        control.sendall(b"sig")
        control.sendall(b"nal 15\n")
        assert lines.read() == b"exit 42\n"
        assert qemu.wait() == 43
    assert b"term\n" in qemu.output


def test_the_terminals_size_comes_in_and_is_followed(linux: Linux) -> None:
    script = """
        trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done
    """
    terminal = (("terminal", "1"), ("size", "30 100"))
    with controlled(linux, "microvm", script, *terminal) as (qemu, path), connect(path) as control:
        qemu.wait_for(b"30 100\r\n")
        control.sendall(b"size\nsize 1\nsize x y\nsize 70000 1\nsize 1 2 3\nsize 50 132\n")
        qemu.wait_for(b"50 132\r\n")
        control.sendall(b"signal 9\n")
        assert qemu.wait() == 137
    assert qemu.output.count(b"\r\n") == 2


def test_a_read_only_root_in_memory(linux: Linux) -> None:
    script = "touch /x || echo refused; touch /run/x /tmp/x && echo taken; pwd; cat /etc/resolv.conf; exit 0"
    records = (("readonly", "1"), ("mount", "mode=700,size=64k tmpfs rw /tmp"), ("dns", "10.0.0.53"))
    status, text = linux.run(shell(script, *records, ("cwd", "/made/for/it")))
    assert status == 0
    assert text.endswith("refused\ntaken\n/made/for/it\nnameserver 10.0.0.53\n")


def test_a_tmpfs_has_its_options(linux: Linux) -> None:
    script = "while read source where type options rest; do [ $where = /t ] && echo $options; done < /proc/mounts"
    status, text = linux.run(shell(f"{script}; exit 0", ("mount", "size=64k,mode=750 tmpfs ro,noexec /t")))
    assert status == 0
    assert "size=64k" in text and "mode=750" in text and "ro," in text and "noexec" in text


def test_a_panic_is_told_to_the_monitor(linux: Linux, tmp_path: Path) -> None:
    device = ("-device", "pvpanic", "-action", "panic=exit-failure")
    configuration = shell("echo c > /proc/sysrq-trigger", ("control", PORT), end="poweroff")
    port = serial_port("q35", tmp_path / "control")
    with linux.boot(configuration, *port, *device, machine="q35") as qemu:
        assert qemu.wait() == 1


def test_a_visitor_may_come_late_and_go_early(linux: Linux) -> None:
    with controlled(linux, "microvm", "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done") as (qemu, path):
        qemu.wait_for(b"up\n")
        for _ in range(2):
            with connect(path) as control:
                control.sendall(b"signal 1\n")
                qemu.wait_for(b"hup\n")
            qemu.output = b""
        with connect(path) as control:
            control.sendall(b"signal 9\n")
            assert qemu.wait() == 137


def test_without_a_port_or_a_visitor_it_runs_all_the_same(linux: Linux) -> None:
    status, text = linux.run(shell("echo ran; exit 6", ("control", PORT)))
    assert status == 7 and "ran\n" in text and f"no virtio-serial port `{PORT}`" in text
    with controlled(linux, "microvm", "exit 7") as (qemu, _):
        assert qemu.wait() == 7


NETWORK = (
    *(("nic", MAC), ("mtu", "1400"), ("addr", "10.1.2.3/32"), ("addr", "2001:db8::3/128")),
    *(("route", "default via 169.254.1.1 src 10.1.2.3"), ("route", "10.9.0.0/16 via 169.254.7.7 onlink metric 50")),
    *(("route", "169.254.1.1/32 scope link"), ("route", "default via fe80::1 metric 700")),
    *(("route", "10.8.0.0/16 via 169.254.1.1"), ("route", "10.8.0.0/16 via 169.254.7.7 onlink")),
    *(("route", "2001:db8:8::/48 via fe80::1"), ("route", "2001:db8:8::/48 via fe80::2")),
    *(("neigh", "169.254.1.1 52:54:00:aa:bb:cc"), ("neigh", "fe80::1 52:54:00:aa:bb:cc")),
)


@pytest.mark.parametrize("machine", ["microvm", "q35"])
def test_network_with_an_off_link_gateway(linux: Linux, machine: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.settimeout(PATIENCE)
    card = "virtio-net-device" if machine == "microvm" else "virtio-net-pci,romfile="
    netdev = f"dgram,id=n0,local.type=fd,local.str={theirs.fileno()}"
    arguments = ("-netdev", netdev, "-device", f"{card},netdev=n0,mac={MAC}")
    script = "ip addr; ip route; ip -6 route; ip neigh; cat /proc/net/ipv6_route; echo up; read line; exit 0"
    configuration = shell(script, *NETWORK, end="reboot" if machine == "microvm" else "poweroff")
    with ours, theirs, linux.boot(configuration, *arguments, machine=machine, fds=(theirs.fileno(),)) as qemu:
        text = qemu.wait_for(b"\nup\n").decode()
        mac, ip = bytes.fromhex(MAC.replace(":", "")), socket.inet_aton("10.1.2.3")
        ours.send(frames.ipv4(mac, ip, frames.ICMP, frames.ping(b"hello")))
        while True:
            reply = ours.recv(65536)
            if reply[12:14] == struct.pack("!H", frames.IPV4):
                break
        assert reply[:12] == frames.MAC + mac and frames.payload_of(reply)[8:] == b"hello"
        qemu.type(b"\n")
        assert qemu.wait() == 0
    assert "127.0.0.1/8" in text and "mtu 1400" in text
    assert "inet 10.1.2.3/32" in text and "inet6 2001:db8::3/128" in text and "tentative" not in text
    assert "default via 169.254.1.1 dev eth0  src 10.1.2.3" in text
    assert "10.9.0.0/16 via 169.254.7.7 dev eth0  metric 50 onlink" in text
    assert "169.254.1.1 dev eth0 scope link" in text
    assert "default via fe80::1 dev eth0  metric 700" in text
    for gateway in ("169.254.1.1", "169.254.7.7"):  # every next hop of a multipath route
        assert f"10.8.0.0/16 via {gateway} dev eth0" in text
    hops = [line.split()[4][-1] for line in text.splitlines() if line.startswith("20010db80008")]
    assert sorted(hops) == ["1", "2"]
    assert text.count("lladdr 52:54:00:aa:bb:cc") == 2 and "PERMANENT" in text


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ((("addr", "10.0.0.300/24"),), "cannot give eth0 the address `10.0.0.300/24`: invalid argument"),
        (
            (("route", "default via 192.0.2.9"),),
            "cannot give eth0 the route `default via 192.0.2.9`: network is unreach",
        ),
        ((("nic", "52:54:00:00:00:99"),), "no NIC has the address 52:54:00:00:00:99"),
    ],
)
def test_a_network_that_cannot_be_is_an_error(linux: Linux, records: tuple[tuple[str, str], ...], message: str) -> None:
    arguments = ("-netdev", "hubport,id=n0,hubid=0", "-device", f"virtio-net-device,netdev=n0,mac={MAC}")
    status, text = linux.run(shell("echo ran", ("nic", MAC), *records), *arguments)
    assert status == 125 and message in text and "ran\n" not in text


def test_a_disk_as_the_root(linux: Linux, tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox")
    tree, disk = tmp_path / "tree", tmp_path / "disk"
    (tree / "bin").mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    subprocess.run(["mkfs.ext4", "-q", "-d", str(tree), str(disk), "8M"], check=True)
    script = "PATH=/bin; busybox cat /etc/hosts /run/token /proc/mounts; echo kept > /kept; [ -e /dev/null ] && exit 0"
    drive = ("-drive", f"if=none,id=d0,format=raw,file={disk}", "-device", "virtio-blk-device,drive=d0")
    files = {"/etc/hosts": b"in the disk\n", "/run/token": b"in memory\n"}
    configuration = shell(script, ("root", "/dev/vda ext4 rw"), *(("file", name) for name in files))
    status, text = linux.run(configuration, *drive, files=files)
    assert status == 0 and "in the disk\nin memory\n" in text and "/dev/vda / ext4 rw" in text
    fsck = subprocess.run(["fsck.ext4", "-fn", str(disk)], capture_output=True, text=True, check=False)
    assert fsck.returncode == 0, fsck.stdout
    kept = subprocess.run(["debugfs", "-R", "cat /kept", str(disk)], capture_output=True, check=True)
    assert kept.stdout == b"kept\n"


@pytest.mark.parametrize(
    ("script", "faults"), [("exit 0", False), ("exit 7", True), ("echo c > /proc/sysrq-trigger", True)]
)
def test_a_triple_fault_is_the_failure_that_firecracker_understands(
    linux: Linux, tmp_path: Path, script: str, faults: bool
) -> None:
    log = tmp_path / "cpu.log"
    configuration = config(
        ("arg", "sh"), ("arg", "-c"), ("arg", script), ("env", "PATH=/bin"), ("exit", "triple-fault"), ("end", "reboot")
    )
    boot_string = QUICK.replace("reboot=t", "reboot=k")
    with linux.boot(configuration, "-d", "cpu_reset", "-D", str(log), machine="q35", boot_string=boot_string) as qemu:
        assert qemu.wait() == 0
    assert ("Triple fault" in log.read_text()) == faults


def make_drives(folder: Path, *trees: Path) -> list[str]:
    """Make disks `disk0` and so on of the trees; return QEMU's options. The first is read-only."""
    drives: list[str] = []
    for number, tree in enumerate(trees):
        disk = linuxes.make_disk(tree, folder / f"disk{number}", "8M")
        readonly = "" if number else ",readonly=on"
        drives += ["-drive", f"if=none,id=d{number},format=raw{readonly},file={disk}"]
        drives += ["-device", f"virtio-blk-device,drive=d{number}"]
    return drives


def test_volumes_and_files_on_a_read_only_root(linux: Linux, tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox")
    tree, empty = tmp_path / "tree", tmp_path / "empty"
    for name in ("bin", "etc", "the data", "scratch", "dev", "proc", "sys", "run"):
        (tree / name).mkdir(parents=True)
    empty.mkdir()
    shutil.copy(busybox, tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    for name in ("hosts", "resolv.conf"):
        (tree / "etc" / name).write_text("the image's\n")
    drives = make_drives(tmp_path, tree, empty)
    script = "PATH=/bin; busybox cat /etc/hosts /etc/resolv.conf /proc/mounts; echo kept > '/the data/kept';"
    script += "[ -b /dev/my/disk ]"
    configuration = shell(
        script,
        ("root", "/dev/vda ext4 ro"),
        ("mount", "/dev/vdb ext4 rw /the data"),
        ("mount", "tmpfs tmpfs ro /scratch"),
        ("mount", "/dev/vdb bind rw /dev/my/disk"),
        *(("file", name) for name in ("/etc/hosts", "/etc/hostname", "/no/such")),
        *(("dns", "192.0.2.53"), ("search", "one.test")),
    )
    files = {"/etc/hosts": b"the engine's\n", "/etc/hostname": b"left out\n", "/no/such": b"left out\n"}
    status, text = linux.run(configuration, *drives, files=files)
    assert status == 0, text
    for name in ("/etc/hostname", "/no/such"):
        assert f"urunc-init: `{name}` is left out: the root has no such file, and cannot be written\n" in text
    assert "nameserver 192.0.2.53\nsearch one.test\n" in text
    assert "the engine's\n" in text and "the image's" not in text
    assert "/dev/vda / ext4 ro" in text and "/dev/vdb /the\\040data ext4 rw,nosuid,nodev" in text
    assert "tmpfs /scratch tmpfs ro" in text
    assert linuxes.read_disk(tmp_path / "disk1", "/kept") == "kept\n"


def test_a_file_that_is_needed_and_has_no_place(linux: Linux, tmp_path: Path) -> None:
    """As a file of a volume is: the application does not run without it."""
    for name in ("etc", "dev", "proc", "sys", "run"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    configuration = shell("exit 0", ("root", "/dev/vda ext4 ro"), ("needed-file", "/secret"))
    status, text = linux.run(configuration, *make_drives(tmp_path, tmp_path / "tree"), files={"/secret": b"x"})
    assert status == 125, text
    assert "urunc-init: cannot place the file `/secret`: no such file or directory\n" in text


LINKS = {
    "in the root": ("/etc/real", 0, "nameserver 192.0.2.53\n"),
    "out of the root": ("/.urunc/config", 125, "cannot place the file `/etc/resolv.conf`: no such file or directory"),
    "to a device": ("/dev/null", 125, "cannot place the file `/etc/resolv.conf`: no such file or directory"),
    "dangling": ("../run/no/such", 125, "cannot place the file `/etc/resolv.conf`: no such file or directory"),
}


@pytest.mark.parametrize(("link", "status", "message"), LINKS.values(), ids=LINKS)
def test_links_of_a_read_only_root(linux: Linux, tmp_path: Path, link: str, status: int, message: str) -> None:
    """They lead to places in it; a name server that was asked for is never left out."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox")
    tree = tmp_path / "tree"
    for name in ("bin", "etc", "dev", "proc", "sys", "run"):
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    (tree / "etc/real").write_text("the image's\n")
    (tree / "etc/resolv.conf").symlink_to(link)
    (tree / "etc/hosts").symlink_to("nowhere")
    configuration = shell(
        "/bin/busybox cat /etc/resolv.conf; exit 0",
        *(("root", "/dev/vda ext4 ro"), ("file", "/etc/hosts"), ("dns", "192.0.2.53")),
    )
    got, text = linux.run(configuration, *make_drives(tmp_path, tree), files={"/etc/hosts": b""})
    assert got == status, text
    assert message in text and "urunc-init: `/etc/hosts` is left out" in text


def test_mount_points_that_a_read_only_root_lacks(linux: Linux, tmp_path: Path) -> None:
    """What was beside them is there still; the disk is mounted once, and whole at the end."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox")
    tree, empty = tmp_path / "tree", tmp_path / "empty"
    for name in ("bin", "etc", "opt/kept", "dev", "proc", "sys", "run"):
        (tree / name).mkdir(parents=True)
    (tree / "opt").chmod(0o711)
    empty.mkdir()
    shutil.copy(busybox, tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    (tree / "top").write_text("beside\n")
    (tree / "link").symlink_to("no/such")
    drives = make_drives(tmp_path, tree, empty)
    script = """PATH=/bin; cd /; busybox cat /top; busybox readlink /link
        echo kept > '/the data/kept'; echo deep > /opt/a/b/c/file; busybox cat /opt/a/b/c/file
        busybox find /opt | busybox sort; busybox stat -c '%n %a' /opt; [ -b /my/disk ] && echo block
        for name in /new /opt/new /opt/a/new; do busybox mkdir $name; done; busybox grep -c vdb /proc/mounts"""
    configuration = shell(
        script,
        ("root", "/dev/vda ext4 ro"),
        ("mount", "/dev/vdb ext4 rw /the data"),
        ("mount", "tmpfs tmpfs rw /opt/a/b"),
        ("mount", "tmpfs tmpfs rw /opt/a/b/c"),
        ("mount", "/dev/vda bind rw /my/disk"),
    )
    status, text = linux.run(configuration, *drives)
    text = text.replace("\r\n", "\n")
    assert status == 0, text
    assert "beside\nno/such\ndeep\n/opt\n/opt/a\n/opt/a/b\n/opt/a/b/c\n/opt/a/b/c/file\n/opt/kept\n/opt 711\n" in text
    assert "block\n" in text and text.endswith("1\n")
    assert text.count("Read-only file system") == 3
    assert linuxes.read_disk(tmp_path / "disk1", "/kept") == "kept\n"


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("/dev/vdz ext4 rw /data", "cannot mount the volume `/dev/vdz ext4 rw /data`: no such file"),
        ("fs1 9p rw data", "cannot mount the volume `fs1 9p rw data`: invalid argument"),
        ("tmpfs nosuchfs rw /data", "cannot mount the volume `tmpfs nosuchfs rw /data`: no such device"),
    ],
)
def test_a_volume_that_cannot_be_is_an_error(linux: Linux, mount: str, message: str) -> None:
    status, text = linux.run(shell("echo ran", ("mount", mount)))
    assert status == 125 and message in text and "ran\n" not in text
