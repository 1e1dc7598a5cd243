"""A pod through the CRI plug-in of a containerd built from its repository, 2.x: what test_cri asks of Debian 12's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("grpc", reason="the CRI tests need grpcio")

import test_cri as debian
import test_cri_guests
import test_cri_options
from cri import Kubelet
from test_built_containerd import VARIABLE, Built
from test_cri import pods
from test_cri_options import shim_cgroup

__all__ = ["pods", "shim_cgroup"]

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

test_a_pod = test_cri_guests.test_a_pod
test_a_configuration_of_the_handlers_own = test_cri_options.test_a_configuration_of_the_handlers_own
test_a_table_of_options = test_cri_options.test_a_table_of_options
test_a_pod_of_three = debian.test_a_pod_of_three
test_a_guest_that_ends_by_itself = debian.test_a_guest_that_ends_by_itself
test_pod_annotations_alone_make_no_unikernel = debian.test_pod_annotations_alone_make_no_unikernel
test_a_broken_guest_is_said = debian.test_a_broken_guest_is_said
test_containerd_restarts_and_no_request_is_lost = debian.test_containerd_restarts_and_no_request_is_lost


class BuiltKubelet(Built, Kubelet):
    """The built containerd, which takes the configuration of 1.6 over."""


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory, testguest: Path) -> Iterator[Kubelet]:
    """The built containerd with its plug-in, in the place of the machine's."""
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} names no folder with a built containerd and ctr")
    yield from debian.serve_kubelet(BuiltKubelet, tmp_path_factory, testguest)
