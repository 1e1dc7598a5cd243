"""What is not a unikernel is runc's: every verb, whatever annotations its pod has."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bundles import Bundle
from driver import Cli

pytestmark = pytest.mark.root


def live(cli: Cli, bundle: Bundle) -> None:
    """Take an ordinary container through its life."""
    cli.create("plain", bundle)
    assert cli.status("plain") == "created"
    cli("start", "plain")
    assert cli.status("plain") == "running"
    assert cli("exec", "plain", "echo", "from inside").stdout == "from inside\n"
    cli("pause", "plain")
    assert cli.status("plain") == "paused"
    cli("resume", "plain")
    cli("kill", "plain", "KILL")
    cli.wait_status("plain", "stopped")
    cli("delete", "plain")


def test_an_ordinary_container(cli: Cli, make_ordinary: Callable[..., Bundle]) -> None:
    live(cli, make_ordinary())


@pytest.mark.parametrize(
    "pod",
    [{"io.kubernetes.cri.container-type": "sandbox"}, {"io.kubernetes.cri-o.ContainerType": "sandbox"}],
    ids=["containerd", "cri-o"],
)
def test_a_pause_container_with_its_pods_annotations(
    cli: Cli, make_ordinary: Callable[..., Bundle], pod: dict[str, str]
) -> None:
    bundle = make_ordinary()
    bundle.annotate(unikernelType="unikraft", hypervisor="qemu", binary="/unikernel/app.elf")
    bundle.config["annotations"].update(pod)
    live(cli, bundle)


def test_dry_run_says_who_would_make_it(cli: Cli, make_ordinary: Callable[..., Bundle]) -> None:
    done = cli("create", "--dry-run", f"--bundle={make_ordinary().write()}", "plain")
    assert json.loads(done.stdout) == {"id": "plain", "delegate": "runc"}
    assert cli("state", "plain", check=False).returncode == 1


def test_output_of_the_delegate_is_the_callers(cli: Cli, make_ordinary: Callable[..., Bundle]) -> None:
    bundle = make_ordinary("sh", "-c", "echo out; exit 5")
    assert cli.to_file("plain", "run", f"--bundle={bundle.write()}", "plain", check=False) == 5
    assert cli.console("plain") == "out\n"


def test_both_kinds_live_side_by_side(
    cli: Cli, make_ordinary: Callable[..., Bundle], make_unikernel: Callable[..., Bundle]
) -> None:
    """`list` has no id to go by: it shows urunc's own, and runc's shows its own."""
    cli.create("ours", make_unikernel())
    cli.create("theirs", make_ordinary())
    assert cli("list", "--quiet").stdout.split() == ["ours"]
    assert cli.status("ours") == cli.status("theirs") == "created"
    cli("delete", "--force", "theirs")
