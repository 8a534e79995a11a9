"""The memory that a process holds."""

from __future__ import annotations


def host_bytes(figure: str) -> int | None:
    """A figure of Linux about this process, such as VmRSS, in bytes; None on other systems."""
    try:
        with open("/proc/self/status") as file:
            (line,) = (line for line in file if line.startswith(f"{figure}:"))
    except (OSError, ValueError):
        return None
    return int(line.split()[1]) * 1024


class HostMemory:
    """The most memory that this process holds, where Linux tells."""

    def forget_peak(self) -> None:
        """Begin to watch anew."""
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass

    def peak_bytes(self) -> int | None:
        """Bytes since then, or since the process began; None where the system does not tell."""
        return host_bytes("VmHWM")
