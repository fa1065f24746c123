"""Last layers that families share, and the models that end in them."""

from __future__ import annotations

from torch import Tensor, nn

from ..zoo.arguments import NUM_CLASSES, NUM_KEYPOINTS
from ..zoo.model import Classifier, PoseModel
from .layers import fold_norms, init_transformer_weights

__all__ = ["HeatmapHead", "HeatmapPose", "KeypointHead", "LinearClassifier"]


class KeypointHead(nn.Module):
    """A head whose last layer is a convolution with one output per keypoint.

    Attributes:
        width: channels that the last layer takes.
        kernel_size: of the last layer.
    """

    width: int
    kernel_size: int = 1

    def reset(self, num_keypoints: int) -> None:
        """Replace the last layer by a fresh one, N(0, 0.001) with zero bias."""
        self.final_layer = nn.Conv2d(
            self.width, num_keypoints, self.kernel_size, padding=self.kernel_size // 2
        )
        nn.init.normal_(self.final_layer.weight, std=0.001)
        if self.final_layer.bias is not None:
            nn.init.zeros_(self.final_layer.bias)


class HeatmapHead(KeypointHead):
    """Transposed convolutions (each doubles the map), then one heatmap per keypoint.

    "Simple baselines" head, arXiv 1804.06208. (B, in_channels, h, w) ->
    (B, K, h * 2^n, w * 2^n), raw values, no activation.
    """

    def __init__(
        self,
        in_channels: int,
        num_keypoints: int,
        *,
        deconv_channels: tuple[int, ...] = (),
        deconv_kernel: int = 4,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in deconv_channels:
            layers += [
                nn.ConvTranspose2d(
                    in_channels, channels, deconv_kernel, 2, (deconv_kernel - 2) // 2, bias=False
                ),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            in_channels = channels
        self.deconv_layers = nn.Sequential(*layers)
        self.width = in_channels
        self.reset(num_keypoints)
        for module in self.deconv_layers:
            if isinstance(module, nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.001)

    def fold(self) -> None:
        """Fold the norms into the transposed convolutions."""
        fold_norms(self.deconv_layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_layer(self.deconv_layers(x))  # (B, K, h * 2^n, w * 2^n)


class HeatmapPose(PoseModel):
    """A pose model that ends in a `KeypointHead`: (B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4)."""

    head: KeypointHead

    def reset_head(self, size: int) -> None:
        size = NUM_KEYPOINTS.check("num_keypoints", size)
        self.head.reset(size)
        self.num_keypoints = size

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> the map (B, C, h, w) that the head takes.

        Raises:
            InputError: wrong shape or type.
        """
        raise NotImplementedError

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> heatmaps (B, K, H / 4, W / 4), raw values."""
        return self.head(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class LinearClassifier(Classifier):
    """A classifier whose last layer is linear, on the mean of the last features."""

    head: nn.Module

    def reset_head(self, size: int) -> None:
        """Replace the last layer by a fresh one for `size` classes; 0 removes it."""
        self.num_classes = NUM_CLASSES.check("num_classes", size)
        self.head = nn.Linear(self.num_features, size) if size else nn.Identity()
        init_transformer_weights(self.head)

    def pool(self, features: Tensor) -> Tensor:
        """Average the features of `forward_features` over the image: (B, num_features)."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        x = self.pool(features)
        return x if pre_logits else self.head(x)
