"""The HRNet that comes with the package. Nobody published another one, so there are no goldens;
what its weights find is tested where the weights in the package are."""

from __future__ import annotations

SMALL = {
    "hrnet_xs_128x96": {"size": (64, 48)},
    "hrnet_s_wholebody_256x192": {"size": (64, 48)},
}
FILL = True
GOLDENS: list[str] = []
