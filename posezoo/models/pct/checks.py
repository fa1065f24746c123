"""Checks of what a tokenizer is given; each raises InputError and says what to do."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError

__all__ = ["check_features", "check_ids", "check_poses", "check_tensors", "check_values"]


def check_tensors(device: torch.device, **given: Tensor) -> None:
    """Check that what is given are tensors on the device of the tokenizer."""
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


def check_poses(
    keypoints: Tensor,
    visible: Tensor,
    features: Tensor | None,
    *,
    num_keypoints: int,
    features_shape: tuple[int, int, int] | None,
    device: torch.device,
) -> None:
    """Check types, shapes and devices of poses; values stay unread on the device.

    Args:
        keypoints: should be (N, num_keypoints, 2), floating point.
        visible: should be (N, num_keypoints).
        features: should be (N, *features_shape), or None where `features_shape` is.
    """
    given = {"keypoints": keypoints, "visible": visible}
    check_tensors(device, **given, **({} if features is None else {"image_features": features}))
    if keypoints.ndim != 3 or tuple(keypoints.shape[1:]) != (num_keypoints, 2):
        raise InputError(
            f"keypoints must have shape (N, {num_keypoints}, 2), x and y in input pixels in "
            f"COCO order; got {tuple(keypoints.shape)}"
        )
    if not keypoints.is_floating_point():
        raise InputError(f"keypoints must be floating point, got {keypoints.dtype}")
    if visible.shape != keypoints.shape[:2]:
        raise InputError(
            f"visible must have shape {tuple(keypoints.shape[:2])}, got {tuple(visible.shape)}"
        )
    check_features(features, keypoints.shape[0], features_shape)


def check_features(features: Tensor | None, count: int, shape: tuple[int, int, int] | None) -> None:
    """Check that image features are given if, and only if, the tokenizer needs them."""
    if shape is None:
        if features is not None:
            raise InputError("this tokenizer is not guided by images; leave image_features out")
        return
    want = (count, *shape)
    if features is None or tuple(features.shape) != want:
        got = "none" if features is None else f"shape {tuple(features.shape)}"
        raise InputError(
            f"this tokenizer needs image_features of shape {want}, got {got}; "
            "make them with forward_features(images)"
        )


def check_ids(ids: Tensor, num_tokens: int, codebook: Tensor) -> None:
    """Check that token ids are (N, num_tokens) integers inside the codebook."""
    check_tensors(codebook.device, ids=ids)
    if ids.ndim != 2 or ids.shape[1] != num_tokens:
        raise InputError(f"ids must have shape (N, {num_tokens}), got {tuple(ids.shape)}")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputError(f"ids must be integers, got {ids.dtype}; encode() returns them")
    ids = ids.long()  # the size of the codebook is beyond the range of a byte
    outside = (ids < 0) | (ids >= len(codebook))
    if outside.any():
        raise InputError(
            f"token id {int(ids[outside][0])} is outside the codebook; "
            f"valid: 0 to {len(codebook) - 1}"
        )


def check_values(keypoints: Tensor, visible: Tensor, features: Tensor | None) -> None:
    """Check the values of poses; this waits for a CUDA device once.

    Visibility is 0 or 1, every pose has a visible keypoint, and what is visible is finite.
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
