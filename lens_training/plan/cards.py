"""What a device can do by its maker's data sheet, and what part of that is counted on."""

import os
from dataclasses import dataclass
from typing import Final, Literal

DeviceKind = Literal["h100", "h200", "cpu"]


@dataclass(frozen=True)
class Card:
    """A device."""

    name: str
    memory: float
    """Bytes."""
    half: float
    """Dense bfloat16 operations per second."""
    full: float
    """Float32 operations per second."""
    bandwidth: float
    """Of its memory, bytes per second."""
    link: float
    """Between the devices of a node, bytes per second and direction."""
    efficiency: float
    """Part of the peak that passes over many tokens reach."""
    reading: float
    """Part of the bandwidth that a decode step reaches."""
    per_block: float
    """Seconds that starting the work of one block takes at least, in eager mode."""


def card(kind: DeviceKind) -> Card:
    """A kind of device; of this machine's processor, what is known without measuring."""
    if kind == "cpu":
        memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        return Card("one thread of this processor", memory, 25e9, 25e9, 20e9, 1e9, 1.0, 1.0, 3e-4)
    return CARDS[kind]


CARDS: Final = {
    # Bandwidth, peak and memory: NVIDIA's data sheets (SXM). Public trainers of this size reach 33 to 44 % of the peak.
    # The time per block is that of some twenty kernels at about 10 µs each, which eager mode needs.
    "h100": Card("H100 SXM 80 GB", 80e9, 989e12, 67e12, 3.35e12, 450e9, 0.40, 0.60, 2.5e-4),
    "h200": Card("H200 SXM 141 GB", 141e9, 989e12, 67e12, 4.8e12, 450e9, 0.40, 0.60, 2.5e-4),
}
USABLE: Final = 0.92
"""Part of a device's memory that tensors may take: the rest is the driver's context and what the allocator wastes."""
DISK: Final = 1e9
"""Bytes per second that shards are written with."""
