"""The tokenizer of PCT, Human Pose as Compositional Tokens (arXiv 2303.11638).

Original: Gengzigang/PCT (MIT). A pose of 17 keypoints becomes 34 discrete tokens, each one of
2048 rows of a codebook, and back. Here the token space has an interface of its own: encode,
decode, complete, nearest. The mixer blocks are timm's. Written from the paper and measured
behaviour; hidden keypoints are left out by selection instead of multiplication, so that their
coordinates may be anything.

Frames: keypoints are (x, y) in input pixels, the 256x256 crop that the networks see.
`posezoo.geometry.image_to_input` and `input_to_image` lead from and to the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...weights.keys import Conversion, rename_keys
from ...zoo.config import InputCfg, PretrainedCfg, SourceCfg
from ...zoo.model import Tokenizer
from ...zoo.registry import register_model
from ..layers import check_images
from .swin import (
    DERIVED,
    INPUT_SIZE,
    UNWRAP,
    SwinBackbone,
    backbone_rules,
    pct_source,
    without_autocast,
)

__all__ = ["PCTTokenizer", "TokenDecoder", "TokenEncoder", "TokenizerOutput"]

NUM_KEYPOINTS = 17
NUM_TOKENS = 34
CODEBOOK_SIZE = 2048
TOKEN_DIM = 512
STRIDE = 32  # input pixels per cell of the feature map


def mixers(count: int, dim: int, length: int, ratios: tuple[float, float]) -> nn.Sequential:
    """MLP-Mixer blocks (arXiv 2105.01601) on (B, length, dim).

    Args:
        ratios: widths of the hidden layers, over tokens and over channels, relative to `dim`.
    """
    from timm.models.mlp_mixer import MixerBlock

    blocks = (MixerBlock(dim, length, ratios, norm_layer=nn.LayerNorm) for _ in range(count))
    return nn.Sequential(*blocks)


def features_at(features: Tensor, keypoints: Tensor) -> Tensor:
    """Read the feature map (B, C, h, w) at keypoints (B, K, 2) -> (B, K, C).

    Quirk: the cell is trunc(x / 32 + 1 / 2), not the one under the pixel; weights depend on it.
    """
    height, width = features.shape[2:]
    cells = keypoints / STRIDE + 0.5
    x, y = cells[..., 0].clamp(0, width - 1).long(), cells[..., 1].clamp(0, height - 1).long()
    index = (y * width + x)[:, None].expand(-1, features.shape[1], -1)  # (B, C, K)
    return features.flatten(2).gather(2, index).transpose(1, 2)  # (B, K, C)


class TokenEncoder(nn.Module):
    """Keypoints (B, 17, 2) in input pixels -> token embeddings (B, 34, 512), continuous.

    Args:
        feature_dim: channels of the feature map that guides it, None for coordinates alone.
    """

    def __init__(self, feature_dim: int | None) -> None:
        super().__init__()
        guided = feature_dim is not None
        self.start_embed = nn.Linear(2, TOKEN_DIM // 2 if guided else TOKEN_DIM)
        self.start_img_embed = nn.Linear(feature_dim, TOKEN_DIM // 2) if guided else None
        self.invisible_token = nn.Parameter(torch.empty(1, 1, TOKEN_DIM))
        self.mixers = mixers(4, TOKEN_DIM, NUM_KEYPOINTS, (0.125, 1.0))
        self.norm = nn.LayerNorm(TOKEN_DIM)
        self.token_mlp = nn.Linear(NUM_KEYPOINTS, NUM_TOKENS)
        self.feature_embed = nn.Linear(TOKEN_DIM, TOKEN_DIM)
        nn.init.trunc_normal_(self.invisible_token, std=0.02, a=-0.02, b=0.02)

    def forward(self, keypoints: Tensor, visible: Tensor, features: Tensor | None) -> Tensor:
        """Embed; `visible` (B, 17) is boolean, `features` (B, C, 8, 8)."""
        keypoints = keypoints.masked_fill(~visible[..., None], 0.0)  # hidden ones may be NaN
        with without_autocast(keypoints):  # bfloat16 has no room for a pixel of 256
            x = self.start_embed(keypoints)  # (B, 17, 512), or 256 of it
        if self.start_img_embed is not None and features is not None:
            guide = self.start_img_embed(features_at(features, keypoints))
            x = torch.cat([x, guide], dim=-1)  # (B, 17, 512)
        x = torch.where(visible[..., None], x, self.invisible_token)
        x = self.norm(self.mixers(x))
        x = self.token_mlp(x.transpose(1, 2)).transpose(1, 2)  # (B, 34, 512)
        return self.feature_embed(x)


class TokenDecoder(nn.Module):
    """The codebook, and tokens (B, 34, 512) -> keypoints (B, 17, 2) in input pixels.

    Tokens are rows of the codebook, or mixtures of them weighted by class probabilities.
    """

    codebook: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.randn(CODEBOOK_SIZE, TOKEN_DIM))
        self.token_mlp = nn.Linear(NUM_TOKENS, NUM_KEYPOINTS)
        self.start = nn.Linear(TOKEN_DIM, 32)
        self.mixers = mixers(1, 32, NUM_KEYPOINTS, (2.0, 2.0))
        self.norm = nn.LayerNorm(32)
        self.recover = nn.Linear(32, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token_mlp(tokens.transpose(1, 2)).transpose(1, 2)  # (B, 17, 512)
        x = self.mixers(self.start(x))  # (B, 17, 32)
        return self.recover(self.norm(x))  # (B, 17, 2)

    def nearest_ids(self, embeddings: Tensor) -> Tensor:
        """Return the row of the codebook closest to each embedding, (B, 34, 512) -> (B, 34)."""
        # squared distances without |z|^2, which moves no minimum
        squares = self.codebook.square().sum(1)
        distances = torch.addmm(squares, embeddings.flatten(0, 1), self.codebook.t(), alpha=-2)
        return distances.argmin(-1).unflatten(0, embeddings.shape[:2])

    def decode(self, ids: Tensor) -> Tensor:
        """Return the keypoints (N, 17, 2), input pixels, of token ids (N, 34).

        Raises:
            InputError: wrong shape or type, or ids outside the codebook.
        """
        check_tensors(self.codebook.device, ids=ids)
        if ids.ndim != 2 or ids.shape[1] != NUM_TOKENS:
            raise InputError(f"ids must have shape (N, {NUM_TOKENS}), got {tuple(ids.shape)}")
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise InputError(f"ids must be integers, got {ids.dtype}; encode() returns them")
        ids = ids.long()  # 2048 is beyond the range of a byte
        outside = (ids < 0) | (ids >= CODEBOOK_SIZE)
        if outside.any():
            raise InputError(
                f"token id {int(ids[outside][0])} is outside the codebook; "
                f"valid: 0 to {CODEBOOK_SIZE - 1}"
            )
        return self(self.codebook[ids])


class TokenizerOutput(NamedTuple):
    """What a tokenizer makes of poses.

    `keypoints (B, 17, 2)` reconstruction in input pixels; `ids (B, 34)` rows of the codebook;
    `embeddings (B, 34, 512)` before they were replaced by those rows.
    """

    keypoints: Tensor
    ids: Tensor
    embeddings: Tensor


class PCTTokenizer(Tokenizer):
    """The discrete space of poses: 17 keypoints <-> 34 tokens out of 2048.

    With a backbone the encoder is guided by the image: `encode`, `complete` and `nearest` then
    want `image_features`, which `forward_features(images)` gives. Without one they take
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

    @staticmethod
    def convert_state_dict(state: Mapping[str, Tensor]) -> Conversion:
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
        """Look at the values, then run."""
        self._check_shapes(keypoints, visible, image_features)
        check_values(keypoints.to(self.decoder.codebook), visible, image_features)
        return self(keypoints, visible, image_features)

    def forward(
        self, keypoints: Tensor, visible: Tensor, image_features: Tensor | None = None
    ) -> TokenizerOutput:
        """Encode, quantise and decode, without looking at values (they stay on the device).

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
        check_images(x, 3, INPUT_SIZE, STRIDE)
        return self.backbone(x)

    def _check_shapes(self, keypoints: Tensor, visible: Tensor, features: Tensor | None) -> None:
        given = {"keypoints": keypoints, "visible": visible}
        given |= {} if features is None else {"image_features": features}
        check_tensors(self.decoder.codebook.device, **given)
        if keypoints.ndim != 3 or tuple(keypoints.shape[1:]) != (NUM_KEYPOINTS, 2):
            raise InputError(
                f"keypoints must have shape (N, {NUM_KEYPOINTS}, 2), x and y in input pixels in "
                f"COCO order; got {tuple(keypoints.shape)}"
            )
        if not keypoints.is_floating_point():
            raise InputError(f"keypoints must be floating point, got {keypoints.dtype}")
        if visible.shape != keypoints.shape[:2]:
            raise InputError(
                f"visible must have shape {tuple(keypoints.shape[:2])}, got {tuple(visible.shape)}"
            )
        if self.backbone is None:
            if features is not None:
                raise InputError("this tokenizer is not guided by images; leave image_features out")
            return
        side = INPUT_SIZE[0] // STRIDE
        want = (len(keypoints), self.backbone.num_features, side, side)
        if features is None or tuple(features.shape) != want:
            got = "none" if features is None else f"shape {tuple(features.shape)}"
            raise InputError(
                f"this tokenizer needs image_features of shape {want}, got {got}; "
                "make them with forward_features(images)"
            )


def check_tensors(device: torch.device, **given: Tensor) -> None:
    """Refuse what is no tensor, or lies on another device.

    Raises:
        InputError: it names which.
    """
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"{name} must be a torch tensor, got {type(value).__name__}; "
                "torch.as_tensor makes one"
            )
        if value.device != device:
            raise InputError(
                f"{name} must be on the device of the tokenizer, {device}, got {value.device}"
            )


def check_values(keypoints: Tensor, visible: Tensor, features: Tensor | None) -> None:
    """Refuse values that make no tokens; a CUDA device is waited for once.

    Raises:
        InputError: see `PCTTokenizer.encode`.
    """
    shown = visible.bool()
    strange = visible != shown
    alone = ~shown.any(1)
    bad = shown & ~keypoints.isfinite().all(-1)
    wrong = strange.any() | alone.any() | bad.any()
    if features is not None:
        wrong = wrong | ~features.isfinite().all()
    if not wrong:
        return
    if strange.any():
        raise InputError(
            f"visible must be 0 or 1, got {visible[strange][0].item()}; of COCO's flags 0, 1, 2 "
            "give `flags > 0`"
        )
    if alone.any():
        index = int(alone.nonzero()[0])
        raise InputError(f"pose {index} has no visible keypoint; at least one is needed")
    if bad.any():
        pose, joint = bad.nonzero()[0].tolist()
        raise InputError(
            f"keypoint {joint} of pose {pose} is {keypoints[pose, joint].tolist()}; "
            "a visible keypoint must be finite, mark it hidden otherwise"
        )
    raise InputError("image_features hold NaN or infinity; do the images?")


MIXER_KEYS = [
    ("layernorm1", "norm1"),
    ("layernorm2", "norm2"),
    *(
        (f"{theirs}.ff.{i}", f"{ours}.fc{n}")
        for theirs, ours in (("MLP_token", "mlp_tokens"), ("MLP_channel", "mlp_channels"))
        for i, n in ((0, 1), (3, 2))
    ),
]
_TOKENIZER = "^keypoint_head.tokenizer"
DECODER_KEYS = [
    (f"{_TOKENIZER}.codebook", "decoder.codebook"),
    (f"{_TOKENIZER}.decoder_token_mlp", "decoder.token_mlp"),
    (f"{_TOKENIZER}.decoder_start", "decoder.start"),
    (f"{_TOKENIZER}.decoder", "decoder.mixers"),
    (f"{_TOKENIZER}.decoder_layer_norm", "decoder.norm"),
    (f"{_TOKENIZER}.recover_embed", "decoder.recover"),
    *MIXER_KEYS,
]
TOKENIZER_KEYS = [
    *DECODER_KEYS,
    (f"{_TOKENIZER}.ema_w", "ema_w"),
    (f"{_TOKENIZER}.ema_cluster_size", "ema_cluster_size"),
    (f"{_TOKENIZER}.encoder", "encoder.mixers"),
    (f"{_TOKENIZER}.encoder_layer_norm", "encoder.norm"),
    (_TOKENIZER, "encoder"),
]


# ------------------------------------------------------------------------------- configurations


def _cfg(what: str, source: SourceCfg, *, params: int, gmacs: float) -> PretrainedCfg:
    return PretrainedCfg(
        task="tokenizer",
        dataset="coco",
        description=f"pose tokenizer, 34 tokens out of 2048, {what}",
        source=source,
        input=InputCfg(size=INPUT_SIZE, bbox_padding=1.12, geometry="mmpose0"),
        params=params,
        macs=round(gmacs * 1e9),
    )


def _guided_cfg(size: str, *, params: int, gmacs: float) -> PretrainedCfg:
    folder = "Esvcc0LSurFLjhPGRJ-ZbSAB61A1q2rFWgePjHygbdwMLA?e=pXgisB"
    what = f"guided by the image through Swin-V2-{size}"
    return _cfg(what, pct_source(folder, size), params=params, gmacs=gmacs)


def _build(size: str | None, /) -> PCTTokenizer:
    return PCTTokenizer(SwinBackbone(size) if size else None)


@register_model(_build, coco=_guided_cfg("base", params=89_563_974, gmacs=22.06))
def pct_tokenizer_swin_base(**model_args: Any) -> PCTTokenizer:
    """PCT tokenizer guided by Swin-V2-Base, COCO 17 keypoints."""
    return _build("base", **model_args)


@register_model(_build, coco=_guided_cfg("large", params=198_004_162, gmacs=47.83))
def pct_tokenizer_swin_large(**model_args: Any) -> PCTTokenizer:
    """PCT tokenizer guided by Swin-V2-Large, COCO 17 keypoints."""
    return _build("large", **model_args)


@register_model(_build, coco=_guided_cfg("huge", params=652_413_758, gmacs=164.40))
def pct_tokenizer_swin_huge(**model_args: Any) -> PCTTokenizer:
    """PCT tokenizer guided by Swin-V2-Huge, COCO 17 keypoints."""
    return _build("huge", **model_args)


@register_model(
    _build,
    coco=_cfg(
        "from coordinates alone",
        SourceCfg(
            license="mit",
            dataset_license="COCO: annotations CC BY 4.0, images under mixed Flickr licences",
            paper="arXiv:2303.11638",
            unavailable="no confirmed file: the authors mention one, their list does not have it",
        ),
        params=2_408_526,
        gmacs=0.086,
    ),
    rendered=_cfg(
        "from coordinates alone, trained on rendered people only; for demos and tests",
        SourceCfg(
            packaged="pct_tokenizer_swin_base_woimgguide.rendered.safetensors",
            sha256="80a0bfad30b54155face0c2934e310a174fe5b240e68766a7b0c9d623ba98754",
            license="apache-2.0",
            dataset_license="rendered by posezoo.synthetic, no terms",
            paper="arXiv:2303.11638",
        ),
        params=2_408_526,
        gmacs=0.086,
    ),
)
def pct_tokenizer_swin_base_woimgguide(**model_args: Any) -> PCTTokenizer:
    """PCT tokenizer without image guidance, COCO 17 keypoints."""
    return _build(None, **model_args)
