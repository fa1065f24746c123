"""The heatmap head that UniFormer, TCFormer + MTA and the Swin heatmap models share."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["HeatmapHead"]


class HeatmapHead(nn.Module):
    """Transposed convolutions (each doubles the map), then one heatmap per keypoint.

    "Simple baselines" head, arXiv 1804.06208. (B, in_channels, h, w) ->
    (B, num_keypoints, h * 2^n, w * 2^n), raw values, no activation.
    """

    def __init__(
        self,
        in_channels: int,
        num_keypoints: int,
        *,
        deconv_channels: tuple[int, ...] = (),
        kernel_size: int = 4,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in deconv_channels:
            layers += [
                nn.ConvTranspose2d(
                    in_channels, channels, kernel_size, 2, (kernel_size - 2) // 2, bias=False
                ),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            in_channels = channels
        self.deconv_layers = nn.Sequential(*layers)
        self.reset(in_channels, num_keypoints)
        for module in self.deconv_layers:
            if isinstance(module, nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.001)

    def reset(self, in_channels: int, num_keypoints: int) -> None:
        """Put a fresh last layer in place, N(0, 0.001) with zero bias."""
        self.final_layer = nn.Conv2d(in_channels, num_keypoints, 1)
        nn.init.normal_(self.final_layer.weight, std=0.001)
        nn.init.zeros_(self.final_layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_layer(self.deconv_layers(x))  # (B, K, h * 2^n, w * 2^n)
