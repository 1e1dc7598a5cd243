"""Which of a kernel's modules a Linux guest needs before it can see its root: those and no others go into its initrd.

Pure: reads the text of modules.dep (modules.dep(5)), which lies in the image, and no file.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

DRIVERS = ("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_console")
SHARE_DRIVERS = ("9p", "9pnet_virtio")


def closure(dependencies: str, names: Collection[str]) -> tuple[tuple[str, ...], str]:
    """Return the files of these modules and of all that they need, and the modules.dep that is left of `dependencies`.

    A name that is not listed is built in, or not there: that is for the guest to find out.
    """
    wanted = {_plain(name) for name in names}
    needs: dict[str, tuple[str, ...]] = {}
    for line in dependencies.splitlines():
        path, colon, rest = line.partition(":")
        if colon:
            needs[path] = tuple(rest.split())
    found: dict[str, None] = {}
    for path, needed in needs.items():
        if module_name(path) in wanted:
            found.update(dict.fromkeys((path, *needed)))
    lines = [f"{path}: {' '.join(needs.get(path, ()))}".rstrip() + "\n" for path in found]
    return tuple(found), "".join(lines)


def lacks(name: str, dependencies: str, builtin: str) -> bool:
    """Return whether a kernel has a module neither as a file nor built in, by its modules.dep and modules.builtin."""
    paths = [line.partition(":")[0] for line in dependencies.splitlines()] + builtin.split()
    return _plain(name) not in {module_name(path) for path in paths}


def module_name(path: str) -> str:
    """Return `some_name` for `kernel/net/some-name.ko.xz`."""
    return _plain(path.rpartition("/")[2].partition(".")[0])


def _plain(name: str) -> str:
    return name.replace("-", "_")
