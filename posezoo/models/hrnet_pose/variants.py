"""HRNet-XS at two sizes, with the weights that come with the package."""

from __future__ import annotations

from ...zoo.arguments import IN_CHANS, NUM_KEYPOINTS
from ...zoo.config import DecodeCfg, InputCfg, PretrainedCfg, SourceCfg
from ...zoo.registry import register

_CARTOONS = "narrow HRNet trained on rendered people only, for demos and tests, no photos"


def rendered_cfg(
    crop: InputCfg,
    decode: DecodeCfg,
    *,
    packaged: str,
    sha256: str,
    macs: int,
    description: str = _CARTOONS,
    params: int = 725_129,
) -> PretrainedCfg:
    return PretrainedCfg(
        task="pose",
        dataset="coco",
        description=description,
        source=SourceCfg(
            packaged=packaged,
            sha256=sha256,
            license="apache-2.0",
            dataset_license="rendered by posezoo.synthetic, no terms",
            paper="Deep High-Resolution Representation Learning, CVPR 2019, arXiv:1902.09212",
        ),
        input=crop,
        decode=decode,
        params=params,
        macs=macs,
    )


XS_128 = rendered_cfg(
    InputCfg(size=(128, 96), bbox_padding=1.25, geometry="mmpose1"),
    DecodeCfg(
        codec="heatmap", heatmap_size=(32, 24), refine="dark", blur_kernel=7, shift_heatmap=True
    ),
    packaged="hrnet_xs_128x96.rendered.safetensors",
    sha256="c1af4a34a5f5b73a77a58fa120efda4bd35cf7c58038f91ea99baa8ab8755049",
    macs=151_000_000,
)
XS_192 = rendered_cfg(
    InputCfg(size=(192, 144), bbox_padding=1.35, geometry="tokenpose"),
    DecodeCfg(codec="heatmap", heatmap_size=(48, 36), refine="dark", blur_kernel=9),
    packaged="hrnet_xs_192x144.rendered.safetensors",
    sha256="b63d97535502fe8e84e99399bd32a691fb24364f517ba1b47e021cd553f42674",
    macs=340_000_000,
)

S_128 = rendered_cfg(
    XS_128.input, DecodeCfg(
        codec="heatmap", heatmap_size=(32, 24), refine="dark", blur_kernel=7, shift_heatmap=True
    ), description="", params=1_771_817, macs=1,
    packaged="hrnet_s_128x96.bodies.safetensors", sha256="0" * 64,
)  # fmt: skip
S_192 = rendered_cfg(
    InputCfg(size=(192, 144), bbox_padding=1.25, geometry="mmpose1"),
    DecodeCfg(
        codec="heatmap", heatmap_size=(48, 36), refine="dark", blur_kernel=9, shift_heatmap=True
    ),
    description="", params=1_771_817, macs=1,
    packaged="hrnet_s_192x144.bodies.safetensors", sha256="0" * 64,
)  # fmt: skip

for _name, _trunk, _size, _tag, _cfg in (
    ("hrnet_xs_128x96", "hrnet_xs", "128x96", "rendered", XS_128),
    ("hrnet_xs_192x144", "hrnet_xs", "192x144", "rendered", XS_192),
    ("hrnet_s_128x96", "hrnet_s", "128x96", "bodies", S_128),
    ("hrnet_s_192x144", "hrnet_s", "192x144", "bodies", S_192),
):
    register(
        _name,
        summary=f"HRNet-{_trunk[6:].upper()}, {_size}, COCO 17 keypoints, rendered people.",
        build="posezoo.models.hrnet_pose.network:build_pose",
        fixed={"trunk": _trunk, "input_size": _cfg.input.size},
        args={"num_keypoints": NUM_KEYPOINTS, "in_chans": IN_CHANS},
        cfgs={_tag: _cfg},
    )
