"""The authors' names of tensors, and ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = [
    "BACKBONE_PREFIXES",
    "DECODER_KEYS",
    "DERIVED",
    "HEAD_KEYS",
    "NOT_FOR_INFERENCE",
    "TOKENIZER_KEYS",
    "UNWRAP",
    "backbone_rules",
]

BACKBONE_PREFIXES = ("", "backbone.", "encoder.", "extra_backbone.")  # where files keep a backbone
DERIVED = {  # reasons to leave keys out
    "relative_coords_table": "computed from the window size",
    "relative_position_index": "computed from the window size",
}
UNWRAP = [  # files whose every key was put below "backbone."
    (f"^backbone.{name}", name) for name in ("backbone", "extra_backbone", "keypoint_head")
]


def backbone_rules(state: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Return renaming rules for Swin keys, whatever is before them in the key.

    The original merges patches at the end of a stage, timm at the start of the next one.
    """
    rules = [("rpe_mlp", "cpb_mlp"), ("norm3", "norm")]
    if any(".layers.0.downsample." in f".{key}" for key in state):
        rules += [(f"layers.{i}.downsample", f"layers.{i + 1}.downsample") for i in (2, 1, 0)]
    return rules


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
HEAD_KEYS = [
    ("^keypoint_head.conv_trans", "head.reduce"),
    ("^keypoint_head.conv_head.0", "head.blocks"),
    ("^keypoint_head.mixer_trans.ff", "head.to_tokens"),
    ("^keypoint_head.mixer_head", "head.mixers"),
    ("^keypoint_head.mixer_norm_layer.ff", "head.norm"),
    ("^keypoint_head.cls_pred_layer", "head.classify"),
]
NOT_FOR_INFERENCE = {
    f"tokenizer.{name}": reason
    for reason, names in {
        "encoder of the tokenizer, no part of pose inference": (
            "start_embed", "start_img_embed", "invisible_token", "encoder", "encoder_layer_norm",
            "token_mlp", "feature_embed",
        ),
        "running sums behind the codebook, for training only": ("ema_w", "ema_cluster_size"),
    }.items()
    for name in names
}  # fmt: skip
