"""Howard et al. 2017, MobileNets, section 3.3: channels under a width multiplier, as the authors' code rounds them."""


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, halves up, at least one; the next one up where it is below nine tenths."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest if nearest >= 0.9 * channels else nearest + divisor
