"""The HRNet that comes with the package. Nobody published another one, so there are no goldens;
what its weights find is tested where the weights in the package are."""

from __future__ import annotations

SMALL = {"hrnet_xs_128x96": {"size": (64, 48), "neck": 8}}
FILL = True
GOLDENS: list[str] = []
