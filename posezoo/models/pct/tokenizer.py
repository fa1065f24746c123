"""The tokenizer: the discrete space of poses.

Frames: keypoints are (x, y) in input pixels, the 256x256 crop that the networks see.
`posezoo.geometry.image_to_input` and `input_to_image` lead from and to the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import InputError
from ...weights.keys import Conversion, rename_keys
from ...zoo.model import Tokenizer
from ..layers import check_images, without_autocast
from .checks import check_poses, check_tensors, check_values
from .keys import DERIVED, TOKENIZER_KEYS, UNWRAP, backbone_rules
from .swin import INPUT_SIZE, STRIDE, SwinBackbone
from .tokens import CODEBOOK_SIZE, NUM_KEYPOINTS, TOKEN_DIM, TokenDecoder, TokenEncoder

__all__ = ["PCTTokenizer", "TokenizerOutput"]


class TokenizerOutput(NamedTuple):
    """What a tokenizer makes of poses.

    `keypoints (B, 17, 2)` are the reconstruction in input pixels, `ids (B, 34)` rows of the
    codebook, `embeddings (B, 34, 512)` what those rows replaced.
    """

    keypoints: Tensor
    ids: Tensor
    embeddings: Tensor


class PCTTokenizer(Tokenizer):
    """The discrete space of poses: 17 keypoints <-> 34 tokens out of 2048.

    With a backbone the encoder is guided by the image: `encode`, `complete` and `nearest` then
    need `image_features`, which `forward_features(images)` gives. Without one they take
    coordinates alone. `decode` never needs an image.

    `ema_w` and `ema_cluster_size` are the running sums behind the codebook, for training.
    """

    ema_w: Tensor
    ema_cluster_size: Tensor

    def __init__(self, backbone: SwinBackbone | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.encoder = TokenEncoder(backbone.num_features if backbone else None)
        self.decoder = TokenDecoder()
        self.register_buffer("ema_w", torch.randn(CODEBOOK_SIZE, TOKEN_DIM))
        self.register_buffer("ema_cluster_size", torch.zeros(CODEBOOK_SIZE))
        self.num_keypoints = NUM_KEYPOINTS
        self.image_guided = backbone is not None

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> Conversion:
        """Rename the authors' keys; ours stay as they are.

        A file may lack the running sums: then each row of the codebook counts as assigned once.

        Raises:
            ValueError: the file is one of a pose model.
        """
        if any(key.endswith("cls_pred_layer.weight") for key in state):
            raise ValueError("it holds a pose model with a tokenizer inside")
        rules = [*UNWRAP, ("^extra_backbone", "backbone"), *backbone_rules(state), *TOKENIZER_KEYS]
        found = rename_keys(state, rules, DERIVED)
        codebook = found.state.get("decoder.codebook")
        if codebook is None or {"ema_w", "ema_cluster_size"} & set(found.state):
            return found
        sums = {"ema_w": codebook.clone(), "ema_cluster_size": torch.ones_like(codebook[:, 0])}
        return Conversion(
            state={**found.state, **sums},
            sources={**found.sources, **{key: key for key in sums}},
            ignored=found.ignored,
        )

    def encode(
        self, keypoints: Tensor, visible: Tensor, image_features: Tensor | None = None
    ) -> Tensor:
        """Return the token ids (N, 34), int64, of poses.

        Args:
            keypoints: (N, 17, 2) in input pixels, COCO order.
            visible: (N, 17), 0 or 1; at least one per pose. Coordinates of hidden keypoints
                have no effect.
            image_features: (N, 8 C, 8, 8) from `forward_features`, if and only if the
                tokenizer is guided by images.

        Raises:
            InputError: no tensors; wrong shapes, types or devices; another visibility, no visible
                keypoint, a visible one that is not finite, or features that are not.
        """
        return self._checked(keypoints, visible, image_features).ids

    def decode(self, ids: Tensor) -> Tensor:
        """Return the keypoints (N, 17, 2), input pixels, of token ids (N, 34).

        Raises:
            InputError: wrong shape or type, or ids outside the codebook.
        """
        return self.decoder.decode(ids)

    def complete(
        self, keypoints: Tensor, visible: Tensor, image_features: Tensor | None = None
    ) -> Tensor:
        """Return the poses with hidden keypoints filled in, (N, 17, 2) in input pixels.

        Visible keypoints stay as given; hidden ones are those of the pose that the tokens of
        the visible ones decode to. Arguments and errors are those of `encode`.
        """
        found = self._checked(keypoints, visible, image_features).keypoints
        return torch.where(visible.bool()[..., None], keypoints, found)  # of the wider type

    def nearest(self, keypoints: Tensor, image_features: Tensor | None = None) -> Tensor:
        """Return the closest poses of the token space, (N, 17, 2) in input pixels.

        All keypoints count as visible. Arguments and errors are those of `encode`.
        """
        check_tensors(self.decoder.codebook.device, keypoints=keypoints)
        visible = torch.ones(keypoints.shape[:-1], dtype=torch.bool, device=keypoints.device)
        return self._checked(keypoints, visible, image_features).keypoints

    def _checked(
        self, keypoints: Tensor, visible: Tensor, image_features: Tensor | None
    ) -> TokenizerOutput:
        """Check the values too, then run."""
        self._check_shapes(keypoints, visible, image_features)
        check_values(keypoints.to(self.decoder.codebook), visible, image_features)
        return self(keypoints, visible, image_features)

    def _check_shapes(self, keypoints: Tensor, visible: Tensor, features: Tensor | None) -> None:
        shape = None
        if self.backbone is not None:
            height, width = INPUT_SIZE
            shape = (self.backbone.num_features, height // STRIDE, width // STRIDE)
        check_poses(
            keypoints,
            visible,
            features,
            num_keypoints=self.num_keypoints,
            features_shape=shape,
            device=self.decoder.codebook.device,
        )

    def forward(
        self, keypoints: Tensor, visible: Tensor, image_features: Tensor | None = None
    ) -> TokenizerOutput:
        """Encode, quantise and decode, without checking values (they stay on the device).

        Under autocast this still runs in the precision of the weights: bfloat16 has no room for
        a pixel of 256, and distances in the codebook need more.

        Raises:
            InputError: wrong shapes, types or devices; image features where there should be none,
                or the reverse.
        """
        self._check_shapes(keypoints, visible, image_features)
        codebook = self.decoder.codebook
        with without_autocast(codebook):
            features = None if image_features is None else image_features.to(codebook)
            embeddings = self.encoder(keypoints.to(codebook), visible.bool(), features)
            ids = self.decoder.nearest_ids(embeddings)
            return TokenizerOutput(self.decoder(codebook[ids]), ids, embeddings)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, 3, 256, 256) -> the feature map (B, 8 C, 8, 8) that guides the encoder.

        Raises:
            InputError: wrong shape or type, or a tokenizer without image guidance.
        """
        if self.backbone is None:
            raise InputError("this tokenizer has no backbone; it takes coordinates alone")
        check_images(x, 3, INPUT_SIZE, STRIDE, like=self.backbone.patch_embed.proj.weight)
        return self.backbone(x)
