"""Whom each partition of a machine has sessions with, and how fast hearts beat there: decided here
once, from the coherence domains of the machine and `xpc.sessions` of its images (decision 028).

Inert data. Standing peers are looked for from boot on, and found again after a loss; a session with
anybody else begins when one of the two first uses a segment of the other.
"""

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from xpmem_emu.image import Image


@dataclass(frozen=True, slots=True)
class Peers:
    """The machine as one partition of it has to do with it."""

    standing: Sequence[int]
    """With whom it has a session whenever both run; ascending."""
    machine: Container[int]
    """Everybody, itself as well."""
    crowd: int
    """Most standing peers that anybody has: who beats and who checks must reckon with the same."""


class Neighbourhood:
    """All partitions that can have to do with each other. One serves all their kernels."""

    def __init__(self, images: Mapping[int, Image]) -> None:
        self._images = images
        self._partids = sorted(images)
        self._domains: dict[str, list[int]] = defaultdict(list)
        for partid in self._partids:
            self._domains[images[partid].domain].append(partid)
        self._crowd = max(len(self._circle(image)) for image in images.values()) - 1

    def peers_of(self, partid: int) -> Peers:
        """Those of one partition."""
        circle = self._circle(self._images[partid])
        standing = [peer for peer in circle if peer != partid]
        return Peers(standing, self._images.keys(), self._crowd)

    def _circle(self, image: Image) -> Sequence[int]:
        """Among whom sessions stand, where somebody boots `image`."""
        return self._partids if image.xpc.sessions == "all" else self._domains[image.domain]
