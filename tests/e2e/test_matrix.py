"""Every engine with every guest: at the engine's own network, at two, at IPv6 alone and at both families; volumes.

What an engine takes is listed in `guests`, what it does in `drivers`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from drivers import SOURCE, TENDERS, Ctr, Driver, Pods, Verbs, addresses, by_building, by_importing, by_loading
from engines import Containerd, Docker, Podman, configured
from guests import GUESTS, IPV6, PLAIN, VARIANTS, VOLUME_PAGE, Guest, wait_answer, wait_ready
from shims import NAME, write_entry

import proofs
from world import wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

SHIM, OWN = "io.containerd.urunc.v2", "io.containerd.urunc-own.v2"
OWN_SHIM = NAME.replace("urunc", "urunc-own")


@contextmanager
def docker(request: pytest.FixtureRequest, _folder: Path) -> Iterator[Driver]:
    """Debian's Docker, by urunc as a runtime; images by `docker build`."""
    engine: Docker = request.getfixturevalue("docker")
    runtimes = (("--runtime=urunc",), ("--runtime=urunc-own",))
    yield Verbs(engine, engine, runtimes, by_building, connects=True)


@contextmanager
def newer_docker(_request: pytest.FixtureRequest, folder: Path) -> Iterator[Driver]:
    """Docker 26, by the shim; images by `docker import`."""
    import test_newer

    with test_newer.started(folder) as engine:
        configured(folder / "bin" / NAME, folder / "bin", OWN_SHIM)
        for program in filter(None, map(shutil.which, TENDERS)):
            shutil.copy(program, engine.world.path("/usr/local/bin"))
        runtimes = ((f"--runtime={SHIM}",), (f"--runtime={OWN}",))
        yield Verbs(engine, engine, runtimes, by_importing, connects=True)


@contextmanager
def podman(request: pytest.FixtureRequest, folder: Path) -> Iterator[Driver]:
    """Podman, by urunc as a runtime; images by `podman build`."""
    engine: Podman = request.getfixturevalue("podman")
    own = configured(Path(engine.runtime), folder, "urunc-own")
    parent = (f"--cgroup-parent=/{engine.world.cgroup}",)
    yield Verbs(engine, engine, (parent, parent), by_building, before=(f"--runtime={own}",), names=True)


@contextmanager
def nerdctl(_request: pytest.FixtureRequest, folder: Path) -> Iterator[Driver]:
    """nerdctl on Debian's containerd, by the shim; images by `nerdctl load`."""
    import test_nerdctl

    with test_nerdctl.started(folder) as engine:
        configured(folder / "bin" / NAME, folder / "bin", OWN_SHIM)
        yield Verbs(engine, engine.do, ((f"--runtime={SHIM}",), (f"--runtime={OWN}",)), by_loading)


@contextmanager
def ctr_runc(request: pytest.FixtureRequest, folder: Path) -> Iterator[Driver]:
    """`ctr` with containerd's own shim, by urunc as runc's binary."""
    engine: Containerd = request.getfixturevalue("containerd")
    own = configured(engine.runtime, folder, "urunc-own")
    yield Ctr(engine, (f"--runc-binary={engine.runtime}", f"--runc-binary={own}"))


@contextmanager
def ctr_shim(request: pytest.FixtureRequest, folder: Path) -> Iterator[Driver]:
    """`ctr` with urunc's shim."""
    shim = write_entry(folder / "bin")
    own = configured(shim, folder / "bin", OWN_SHIM)
    yield Ctr(request.getfixturevalue("containerd"), (f"--runtime={shim}", f"--runtime={own}"))


@contextmanager
def cri(request: pytest.FixtureRequest, _folder: Path) -> Iterator[Driver]:
    """The CRI plug-in of Debian's containerd, by the shim."""
    pytest.importorskip("grpc", reason="the CRI tests need grpcio")
    import test_cri
    from cri import Kubelet
    from test_cri_guests import handler

    temporary = request.getfixturevalue("tmp_path_factory")
    serve = contextmanager(test_cri.serve_kubelet)
    with serve(Kubelet, temporary, request.getfixturevalue("testguest")) as kubelet:
        yield Pods(kubelet, test_cri.Pod, handler)


@contextmanager
def crio(request: pytest.FixtureRequest, folder: Path) -> Iterator[Driver]:
    """CRI-O, by urunc as a runtime."""
    pytest.importorskip("grpc", reason="the CRI tests need grpcio")
    import test_crio
    from test_cri import Pod
    from test_cri_guests import handler

    with test_crio.started(folder, request.getfixturevalue("runtime"), request.getfixturevalue("testguest")) as kubelet:
        yield Pods(kubelet, Pod, handler)


ENGINES = (docker, newer_docker, podman, nerdctl, ctr_runc, ctr_shim, cri, crio)
PODS = ("cri", "crio")
"""Their plain cases are test_cri_guests' and test_crio's."""
IPV6_ALONE = ("podman", "ctr_runc", "ctr_shim", "cri")


PLAIN_IPV4 = ("0.0.0.0/0",)
OF_A_LARGE_RING = "Guest says index"
"""What a newer QEMU says of Unikraft's requests by 9p."""


def cases() -> Iterator[tuple[str, Guest]]:
    """Yield what is tried: what no engine makes, and what another test does, is not."""
    for engine in ENGINES:
        name = engine.__name__
        for guest in VARIANTS if name in PODS else GUESTS + VARIANTS:
            if name == "crio" and guest.networks != (PLAIN,):
                continue  # there is one network for all pods
            if IPV6 not in guest.networks or name in IPV6_ALONE:
                yield name, guest


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, runtime: Path) -> Iterator[Driver]:
    """One engine after the other."""
    if runtime.name == "runc":
        pytest.skip("runc has no unikernels")
    make = next(make for make in ENGINES if make.__name__ == request.param)
    with make(request, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
def driver(engine: Driver) -> Iterator[Driver]:
    """The engine, which must hold nothing of the guest afterwards."""
    before = engine.held()
    yield engine
    engine.remove()
    try:
        wait_for("nothing left", lambda: not engine.held() - before, 15)
    except AssertionError:
        pytest.fail(f"left behind: {engine.held() - before}")


def check_volume(driver: Driver, guest: Guest) -> None:
    """A volume that the guest may write on has what it wrote there; one that it may not is as it was."""
    files = {path.name: path.read_text() for path in driver.world.path(SOURCE).iterdir()}
    assert files == dict.fromkeys(("page", "index.html") if guest.volume == "rw" else ("page",), VOLUME_PAGE)


def wait_answers(driver: Driver, guest: Guest) -> None:
    """Wait until it answers at all of its addresses."""
    hosts = addresses(driver.world)
    families = [":" in subnet for net in guest.networks for subnet in net.subnets or PLAIN_IPV4]
    assert sorted(":" in host for host in hosts) == sorted(families), hosts
    for host in hosts[: guest.nics]:
        try:
            wait_answer(guest, driver.world, host)
        except AssertionError as failure:
            raise AssertionError(f"{failure}; its console is\n{driver.console()}") from None


@pytest.mark.parametrize(
    ("engine", "guest"),
    [pytest.param(*case, id=f"{case[0]}-{case[1].name}") for case in cases()],
    indirect=["engine"],
    scope="module",  # the engine's: without it, every guest had an engine of its own
)
def test_a_guest(driver: Driver, guest: Guest, testguest: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    image = driver.load(guest.image(testguest, tmp_path), tmp_path)
    driver.start(guest, image)
    try:
        wait_ready(guest, driver.console)
    except AssertionError:
        untried = (request.node.callspec.params["engine"], guest.name) in proofs.UNTRIED
        if untried and OF_A_LARGE_RING in driver.console():
            pytest.xfail("Unikraft has a ring of 128 for 9p, and this QEMU's has 1024: see docs/guests/unikraft.md")
        raise
    if guest.answers is None:
        wait_for("its end", driver.has_ended)
        assert driver.status() == 0
        return
    wait_answers(driver, guest)
    if guest.volume:
        check_volume(driver, guest)
    driver.stop()
    assert driver.has_ended()
    if driver.restarts:
        driver.again()
        wait_answers(driver, guest)
