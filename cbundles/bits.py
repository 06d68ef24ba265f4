"""Headroom as a number of bits: the range in which it is looked for, and how it is told.

How it is found stands in `bundles.headroom`. Nothing here imports JAX, so that tables and figures
may tell it, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from cbundles.wording import counted

LOWEST, HIGHEST, STEP = -10.0, 14.0, 0.5  # bits
SCALES = round((HIGHEST - LOWEST) / STEP) + 1  # learning rates at which layers are looked at
SCANNED_ROWS = 512  # enough for a conflict rate, which does not depend on how many there are

# After which epochs the networks of a sweep are looked at for it.
OFF, LAST, ALL = "off", "last", "all"
CHOICES = (OFF, LAST, ALL)


@dataclass(frozen=True)
class Headroom:
    """How far a layer is from conflicting (a measure of our own).

    Attributes:
        bits: how often the learning rate can be halved before the layer conflicts, from -10 to 14
            in steps of a half; 14 is so much or more, and what is below -10 is less than that.
        learning_rate: with which the network is trained.

    >>> print(Headroom(bits=5.0, learning_rate=1e-3))
    conflicts below a learning rate of 3.1e-05: 5 bits of headroom
    """

    bits: float
    learning_rate: float

    @property
    def lowest_learning_rate(self) -> float:
        """The lowest one that was tried before the layer conflicts."""
        return self.learning_rate * 2.0**-self.bits

    @property
    def conflicting(self) -> bool:
        """Whether it conflicts already."""
        return self.bits < 0

    def __str__(self) -> str:
        if self.bits >= HIGHEST:
            return f"{HIGHEST:g} bits of headroom or more"
        if self.bits < LOWEST:
            return f"conflicts already, by more than {-LOWEST:g} bits"
        if self.conflicting:
            return f"conflicts already, by {counted(-self.bits, 'bit', 'g')}"
        return (
            f"conflicts below a learning rate of {self.lowest_learning_rate:.2g}: "
            f"{counted(self.bits, 'bit', 'g')} of headroom"
        )


def in_short(bits: float) -> str:
    """Headroom as the cell of a table.

    >>> in_short(5.0), in_short(HIGHEST), in_short(LOWEST - STEP)
    ('5', '>=14', '<-10')
    """
    if bits >= HIGHEST:
        return f">={HIGHEST:g}"
    return f"<{LOWEST:g}" if bits < LOWEST else f"{bits:g}"


def can_be(bits: float) -> bool:
    """Whether a layer can have so much of it: half bits, up to half a bit below the range.

    >>> can_be(-10.5), can_be(-11.0), can_be(0.25)
    (True, False, False)
    """
    return LOWEST - STEP <= bits <= HIGHEST and bits % STEP == 0
