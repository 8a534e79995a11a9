"""The most memory that a process holds while something is measured."""

from __future__ import annotations

from m4m_jax.memory import resident


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
        found = resident()
        return None if found is None else found.most
