"""What a kernel file tells of its guest and its monitor, where the image does not name them. It never guesses.

A guest says by signs whether a kernel may be one of its own, a monitor whether it boots it: what is left must be one
pair. Imported only where something is to be inferred. Names no guest and no monitor.
"""

from __future__ import annotations

from _struct import unpack_from

from ..errors import ImageError
from . import choose, guests, monitors
from .elf import contains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .elf import ReadAt
    from .machine import KernelInfo

_MAX_SECTIONS = 1024
_MAX_NAME = 64
_MAX_NAMES = 64 * 1024


class Signs:
    """What of a kernel file is not in its `KernelInfo`, read when a guest asks for it."""

    def __init__(self, read_at: ReadAt, kernel: KernelInfo) -> None:
        self._read_at = read_at
        self._wide = {"elf64": True, "elf32": False}.get(kernel.format)
        self._sections: tuple[str, ...] | None = None
        self._found: dict[bytes, bool] = {}

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of the ELF file's sections; none where it has none, or not sound ones."""
        if self._sections is None:
            self._sections = () if self._wide is None else _section_names(self._read_at, self._wide)
        return self._sections

    def contains(self, word: bytes) -> bool:
        """Return whether `word` stands anywhere in the file."""
        if word not in self._found:
            self._found[word] = contains(self._read_at, word)
        return self._found[word]


def infer(kernel: KernelInfo, signs: Signs, guest: str | None, monitor: str | None, arch: str) -> tuple[str, str]:
    """Return the guest and the monitor on a host of that architecture; one that is given (a known name) stands.

    Raises ImageError where the kernel does not tell, where it tells more than one, and where no monitor boots it.
    """
    may_be = [guest] if guest else [name for name in guests.GUESTS if guests.load(name).may_be(kernel, signs)]
    if not may_be:
        raise ImageError(
            "the kernel does not tell which guest it is",
            hint=f"set the annotation unikernelType to one of {', '.join(guests.GUESTS)}",
        )
    pairs, reasons = _pairs(may_be, monitor, kernel, arch)
    if not pairs:
        raise ImageError(f"no monitor can run the kernel: {'; '.join(reasons)}")
    found_guests, found_monitors = (tuple(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    if len(found_guests) > 1:
        raise _undecided("the guest", found_guests, "unikernelType")
    if len(found_monitors) > 1:
        raise _undecided("the monitor", found_monitors, "hypervisor")
    return pairs[0]


def _pairs(
    may_be: list[str], monitor: str | None, kernel: KernelInfo, arch: str
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Return the pairs that are left, and why the others are not."""
    pairs: list[tuple[str, str]] = []
    reasons: dict[str, None] = {}
    for guest in may_be:
        module = guests.load(guest)
        for name in (monitor,) if monitor else module.MONITORS:
            why = f"guest `{guest}` does not run on it" if name not in module.MONITORS else _refusal(name, kernel, arch)
            if why:
                reasons[f"`{name}`: {why}"] = None
            else:
                pairs.append((guest, name))
    return pairs, tuple(reasons)


def _refusal(monitor: str, kernel: KernelInfo, arch: str) -> str:
    """Return why that monitor does not boot the kernel, "" where it does."""
    module = monitors.load(monitor)
    if arch not in dict(module.CAPABILITIES.binaries):
        return f"there is none for {arch}"
    try:
        module.check_kernel(kernel, choose.architecture(module.CAPABILITIES, kernel, arch))
    except ImageError as error:
        return str(error)
    return ""


def _undecided(what: str, names: tuple[str, ...], annotation: str) -> ImageError:
    known = ", ".join(f"`{name}`" for name in names)
    return ImageError(
        f"the kernel does not tell {what}, which may be any of {known}", hint=f"set the annotation {annotation}"
    )


def _section_names(read_at: ReadAt, wide: bool) -> tuple[str, ...]:
    """Return the sections' names. Bounded, and tolerant: a kernel boots without any."""
    head = read_at(0, 64)
    if len(head) < 64:
        return ()
    table: int = unpack_from("<Q", head, 40)[0] if wide else unpack_from("<I", head, 32)[0]
    size, count, names_index = unpack_from("<HHH", head, 58 if wide else 46)
    if size != (64 if wide else 40) or not 0 <= names_index < count <= _MAX_SECTIONS:
        return ()
    headers = read_at(table, size * count)
    if len(headers) < size * count:
        return ()
    form, at = ("<QQ", 24) if wide else ("<II", 16)  # sh_offset, sh_size
    offset, length = unpack_from(form, headers, size * names_index + at)
    texts = read_at(offset, min(length, _MAX_NAMES))
    starts = (unpack_from("<I", headers, base)[0] for base in range(0, size * count, size))
    names = (texts[start : start + _MAX_NAME].partition(b"\0")[0] for start in starts)
    return tuple(name.decode("ascii", "replace") for name in names)
