"""prctl(PR_SET_CHILD_SUBREAPER), for a process that makes no other such call and stays.

`libc` has it as well, at the price of what every system call needs: 0.3 MiB in each of a host's shims.
"""

from __future__ import annotations

PR_SET_CHILD_SUBREAPER = 36


def become() -> None:
    """Have the orphans among this process's descendants become its children. Raises OSError."""
    import _ctypes

    prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]  # None: this program
    if _ctypes.call_function(prctl, (PR_SET_CHILD_SUBREAPER, 1, None, None, None)):  # None: a word of zeros
        raise OSError("prctl: cannot become a subreaper")
