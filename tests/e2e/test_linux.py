"""A Linux microVM with a real web server, by Docker: pages, arguments, signals, exit status."""

from __future__ import annotations

import subprocess
from pathlib import Path

import images
import pytest
from engines import Docker

from guest import linux_guest
from world import wait_for, which

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

MEMORY = "--memory=320m"
BUSYBOX_LINKS = ("sh", "httpd", "cat", "id", "pwd", "env", "sleep", "printf", "ip", "hostname", "trap")

NGINX_CONF = """
daemon off;
error_log stderr;
pid /tmp/nginx.pid;
events {}
http {
    access_log off;
    server { listen 80; location / { root /www; } }
}
"""


def closure(program: str) -> list[str]:
    """Return a program and the libraries that it needs."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    words = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    return [program, *words]


def image(name: str, files: dict[str, tuple[int, bytes]]) -> images.Image:
    """Return an image of Debian's kernel and an initrd with its drivers, busybox and these files."""
    kernel = linux_guest.find_kernel()
    entries = {path: (0o100644, content) for path, content in linux_guest.kernel_modules(kernel).items()}
    entries["/bin/busybox"] = (0o100755, images.BUSYBOX.read_bytes())
    entries |= {f"/bin/{link}": (0o120777, b"busybox") for link in BUSYBOX_LINKS}
    entries |= {"/tmp/.keep": (0o100644, b""), "/etc/passwd": (0o100644, b"root:x:0:0::/:/bin/sh\n"), **files}
    initrd = linux_guest.cpio((path, mode, content) for path, (mode, content) in entries.items())
    keys = {"unikernelType": "linux", "hypervisor": "qemu", "initrd": "/boot/initrd"}
    made = images.unikernel(name, kernel, keys, {"boot/initrd": initrd})
    made.config["Cmd"] = ["/bin/sh"]
    return made


@pytest.fixture(scope="module")
def web(docker: Docker, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with busybox, its web server and a page."""
    if runtime.name == "runc":
        pytest.skip("runc has no unikernels")
    files = {"/www/index.html": (0o100644, b"a page from a microVM\n")}
    return docker.load(image("test/web:1", files), tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="module")
def nginx(docker: Docker, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with Debian's nginx."""
    if runtime.name == "runc":
        pytest.skip("runc has no unikernels")
    program = which("nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    files = {path: (0o100755, Path(path).read_bytes()) for path in closure(program)}
    files["/etc/nginx.conf"] = (0o100644, NGINX_CONF.encode())
    files["/www/index.html"] = (0o100644, b"a page by nginx\n" * 4096)
    for folder in ("/var/lib/nginx", "/var/log/nginx"):
        files[f"{folder}/.keep"] = (0o100644, b"")
    files["/etc/passwd"] = (0o100644, b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    files["/etc/group"] = (0o100644, b"root:x:0:\nnogroup:x:65534:\n")
    return docker.load(image("test/nginx:1", files), tmp_path_factory.mktemp("nginx"))


def fetch(docker: Docker, url: str) -> str:
    """Return the page, once there is one."""
    return str(
        wait_for(url, lambda: docker.world.run("curl", "-sf", "--max-time", "3", url, check=False).stdout, seconds=60)
    )


def run(docker: Docker, image: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a guest to its end."""
    return docker("run", "--rm", "--runtime=urunc", MEMORY, *options, image, *command, check=False)


def test_busybox_serves_a_page_by_bridge_and_published_port(docker: Docker, web: str) -> None:
    docker("run", "--detach", "--name=web", "--runtime=urunc", MEMORY, "--publish=8090:80", web,
           "/bin/httpd", "-f", "-h", "/www")  # fmt: skip
    address = docker.inspect("web")["NetworkSettings"]["IPAddress"]
    assert fetch(docker, f"http://{address}/") == "a page from a microVM\n"
    assert fetch(docker, "http://127.0.0.1:8090/") == "a page from a microVM\n"


def test_nginx_serves_a_large_page_and_stops_by_itself(docker: Docker, nginx: str) -> None:
    docker("run", "--detach", "--name=nginx", "--runtime=urunc", MEMORY, nginx, which("nginx") or "", "-c",
           "/etc/nginx.conf")  # fmt: skip
    address = docker.inspect("nginx")["NetworkSettings"]["IPAddress"]
    assert fetch(docker, f"http://{address}/") == "a page by nginx\n" * 4096
    docker("stop", "--time=15", "nginx")
    assert docker.inspect("nginx")["State"]["ExitCode"] == 0, docker("logs", "nginx").stderr


def test_arguments_and_environment_arrive_whole(docker: Docker, web: str) -> None:
    words = ("a b", "", "'quotes\" \\", "new\nline", "ü€", "$HOME", "--", "-x")
    script = 'printf "<%s>" "$@"; printf "[%s]" "$ODD" "$(pwd)" "$(hostname)"'
    options = ("--env=ODD=x  y\nz'\"", "--workdir=/www", "--hostname=odd")
    done = run(docker, web, "/bin/sh", "-c", script, "name", *words, options=options)
    expected = "".join(f"<{word}>" for word in words) + "[x  y\nz'\"][/www][odd]"
    assert done.stdout.replace("\r\n", "\n") == expected


def test_the_user_is_the_containers(docker: Docker, web: str) -> None:
    done = run(docker, web, "/bin/id", options=("--user=1234:2345",))
    assert "uid=1234 gid=2345" in done.stdout


def test_a_failing_program_is_a_failing_container(docker: Docker, web: str) -> None:
    assert run(docker, web, "/bin/sh", "-c", "exit 0").returncode == 0
    assert run(docker, web, "/bin/sh", "-c", "exit 3").returncode != 0


def test_a_stop_signal_reaches_the_program(docker: Docker, web: str) -> None:
    script = "trap 'echo heard; exit 0' TERM; echo waiting; while :; do sleep 0.1; done"
    docker("run", "--detach", "--name=trap", "--runtime=urunc", MEMORY, web, "/bin/sh", "-c", script)
    docker.wait_log("trap", "waiting", 60)
    docker("stop", "--time=20", "trap")
    assert "heard" in docker("logs", "trap").stdout
    assert docker.inspect("trap")["State"]["ExitCode"] == 0
