"""What people wear: clothes, hair, shoes, hats, glasses. Drawn per person, then applied twice:
`dress` moves vertices (loose cloth, hair), `paint` colours pixels by where on the body they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .human import (
    ALONG_ARM, ALONG_LEG, ARM, BODY, EYE, HAIR, HEAD, LEG, SKIRT, UP_TRUNK, Body, Human,
)  # fmt: skip
from .textures import Atlas, random_colors

__all__ = ["COLORS", "SETTINGS", "Outfits", "dress", "normals", "paint", "sample_outfits"]

Array = NDArray[np.float64]

# Places are in the units of `Human.attributes`; textures are numbers in the atlas, -1 for none
SETTINGS = (
    "sleeve", "trouser", "sock", "shoe", "glove", "waist", "neckline", "v_neck", "jacket",
    "hairline", "volume", "fuzz", "beard", "brow", "glasses", "hat", "top_texture", "top_scale",
    "top_turn", "bottom_texture", "bottom_scale", "loose_top", "loose_bottom", "drape", "rough",
    "ripple", "skirt", "hem", "long_hair", "hair_end", "logo",
)  # fmt: skip
COLORS = ("skin", "hair", "top", "inner", "bottom", "shoe", "sole", "sock", "eye", "lens", "hat")
THING = 3  # a face that belongs to no body
_TONES = np.array([
    (0.80, 0.56, 0.43), (0.70, 0.45, 0.33), (0.56, 0.34, 0.22), (0.36, 0.20, 0.12),
    (0.19, 0.10, 0.06), (0.86, 0.64, 0.53), (0.11, 0.06, 0.04),
])  # fmt: skip
_HAIRS = np.array([
    (0.02, 0.016, 0.014), (0.05, 0.03, 0.02), (0.12, 0.07, 0.04), (0.28, 0.18, 0.09),
    (0.50, 0.36, 0.18), (0.22, 0.08, 0.04), (0.40, 0.40, 0.40), (0.70, 0.70, 0.68),
])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outfits:
    """`settings (N, len(SETTINGS))` and `colors (N, len(COLORS), 3)`, linear RGB."""

    settings: Tensor
    colors: Tensor


def sample_outfits(rng: np.random.Generator, traits: dict[str, Array], atlas: int) -> Outfits:
    """Draw what people with these traits (N,) wear.

    Args:
        atlas: number of textures to choose from.
    """
    n = len(traits["gender"])
    female = traits["gender"] > 0.5
    u, chance = rng.uniform, lambda p: rng.random(n) < p

    def pick(values: list[float], shares: list[float]) -> Array:
        chosen: Array = rng.choice(values, n, p=np.array(shares) / sum(shares))
        return chosen

    long_legs = chance(0.66)
    fabric = rng.integers(0, atlas // 2, n)
    busy = np.where(chance(0.7), fabric, rng.integers(0, atlas, n))
    bare = chance(0.03) & ~female
    skirt = chance(0.2) & female | chance(0.015)
    s = {
        "sleeve": pick([0.38, 0.75, 1.92, 0.0], [40, 8, 40, 12]) + rng.normal(0, 0.05, n),
        "trouser": np.where(
            long_legs, u(1.78, 2.02, n),
            pick([0.2, 0.5, 0.85, 1.15], [22, 35, 33, 10]) + rng.normal(0, 0.04, n),
        ),
        "sock": np.where(chance(0.45), 9, u(1.3, 1.85, n)),
        "shoe": pick([1.93, 1.8, 2.08, 9.0], [52, 18, 16, 14]),
        "glove": chance(0.05),
        "waist": pick([0.02, 0.12, 0.2, -0.1], [30, 35, 15, 20]) + rng.normal(0, 0.02, n),
        "neckline": np.where(bare, -5, u(0.95, 1.13, n)),
        "v_neck": np.where(chance(0.55), u(0, 1.6, n), 0),
        "jacket": np.where(chance(0.18), u(0.1, 0.24, n), 0),
        "hairline": np.where(chance(np.where(female, 0.01, 0.1)), 9, rng.normal(0.06, 0.08, n)),
        "volume": pick([0.005, 0.014, 0.03, 0.05], [30, 35, 25, 10]) * u(0.7, 1.3, n),
        "fuzz": u(0.1, 0.9, n),
        "beard": np.where(female | chance(0.62), 0, u(0.3, 1, n)),
        "brow": u(0.02, 0.045, n),
        "glasses": pick([0, 1, 2], [76, 13, 11]),
        "hat": np.where(chance(0.17), u(0.28, 0.6, n), 9),
        "top_texture": np.where(chance(0.52), -1, busy),
        "top_scale": np.exp(u(0.2, 2.4, n)),
        "top_turn": np.where(chance(0.6), 0, u(0, 6.28, n)),
        "bottom_texture": np.where(chance(0.8), -1, fabric[::-1]),
        "bottom_scale": np.exp(u(0.5, 2.4, n)),
        "loose_top": pick([0.004, 0.014, 0.028, 0.05], [18, 30, 32, 20]) * u(0.7, 1.3, n),
        "loose_bottom": pick([0.003, 0.012, 0.025, 0.045], [22, 30, 30, 18]) * u(0.7, 1.3, n),
        "drape": u(0, 1, n),
        "rough": u(0.1, 0.7, n),
        "ripple": u(9, 26, n),
        "skirt": skirt,
        "hem": pick([0.15, -0.1, -0.32, -0.62], [8, 30, 40, 22]) + rng.normal(0, 0.05, n),
        "long_hair": chance(np.where(female, 0.62, 0.04)),
        "hair_end": u(-2.6, 0.2, n),
        "logo": np.where(chance(0.2), u(0.03, 0.09, n), 0),
    }  # fmt: skip
    s["trouser"] = np.where(skirt & chance(0.7), 0.1, s["trouser"])
    s["sleeve"] = np.where(bare, -2, s["sleeve"])
    settings = np.stack([np.asarray(s[name], np.float64) for name in SETTINGS], 1)
    return Outfits(
        settings=torch.from_numpy(settings).float(),
        colors=torch.from_numpy(_sample_colors(rng, traits, n)).float(),
    )


def _sample_colors(rng: np.random.Generator, traits: dict[str, Array], n: int) -> Array:
    colors = np.stack([random_colors(rng, n) for _ in COLORS], 1).astype(np.float64)
    row = {name: i for i, name in enumerate(COLORS)}
    sets = ([2, 3, 4, 6], [0, 1, 2], [0, 1, 5])
    weights = np.stack([traits[name] for name in ("african", "asian", "caucasian")], 1)
    tone = sum(
        weights[:, i : i + 1] * _TONES[rng.choice(chosen, n)] for i, chosen in enumerate(sets)
    )
    colors[:, row["skin"]] = tone * rng.uniform(0.75, 1.25, (n, 1)) * rng.normal(1, 0.05, (n, 3))
    hair = _HAIRS[rng.choice(8, n, p=[0.28, 0.22, 0.16, 0.1, 0.08, 0.04, 0.07, 0.05])]
    colors[:, row["hair"]] = hair * rng.uniform(0.7, 1.4, (n, 1))
    dyed = rng.random(n) < 0.03
    colors[dyed, row["hair"]] = random_colors(rng, int(dyed.sum()))
    colors[:, row["eye"]] = np.array([(0.03, 0.02, 0.015), (0.08, 0.12, 0.2)])[
        rng.choice(2, n, p=[0.8, 0.2])
    ]
    jeans = rng.random(n) < 0.35
    blue = np.array([0.05, 0.075, 0.17]) * rng.uniform(0.3, 3, (n, 1))
    colors[jeans, row["bottom"]] = blue[jeans]
    whole = rng.random(n) < 0.13  # a dress, a suit, an overall
    colors[whole, row["bottom"]] = colors[whole, row["top"]]
    colors[:, row["lens"]] *= 0.3
    clipped: Array = colors.clip(0.004, 0.95)
    return clipped


def _getter(rows: Tensor) -> Callable[[str], Tensor]:
    return lambda name: rows[..., SETTINGS.index(name)]


def _on_scalp(where: Tensor, eye: Tensor, hairline: Tensor) -> Tensor:
    """Tell where hair grows: above and behind a slanted plane, not in the face."""
    x, y, z = where.unbind(-1)
    grows = z * 0.6 + y * 0.55 > hairline
    grows &= (x.abs() < 0.8) | (z > 0.3)
    return grows & (eye < 0.5) & ~((y < -0.55) & (z < 0.72))


def dress(human: Human, body: Body, outfits: Outfits, phases: Tensor) -> Tensor:
    """Return the vertices (N, V, 3) of dressed bodies.

    Args:
        phases: (N, 8) random numbers from 0 to 1, for waves in the cloth.
    """
    of = _getter(outfits.settings[:, None])  # (N, 1)
    a = human.attributes
    head, arm, leg = (a[:, i] > 0.5 for i in (HEAD, ARM, LEG))
    trunk = ~(head | arm | leg)
    up, along_arm, along_leg = a[:, UP_TRUNK], a[:, ALONG_ARM], a[:, ALONG_LEG]
    top = arm & (along_arm < of("sleeve")) | trunk & (up >= of("waist")) & (up < of("neckline"))
    bottom = leg & (along_leg < of("trouser")) | trunk & (up < of("waist"))
    is_body = human.part == BODY
    hair = head & _on_scalp(human.on_head, a[:, EYE], of("hairline")) & is_body
    cap = head & (human.on_head[:, 2] > of("hat")) & (a[:, EYE] < 0.5) & is_body
    offset = of("loose_top") * top + of("loose_bottom") * bottom
    offset = torch.where(leg & (along_leg > of("shoe")), 0.008, offset)
    offset = torch.where(hair, of("volume"), offset)
    offset = torch.where(cap, of("volume").clamp(0.012, 0.03), offset)
    waves = torch.zeros_like(offset)
    for i, (frequency, height) in enumerate(((24.0, 0.28), (45.0, 0.2))):
        directions = phases[:, 4 * i : 4 * i + 3] - 0.5
        waves += height * torch.sin(
            frequency * 2 * human.template @ directions.mT
            + 6.28 * phases[:, 4 * i + 3]
        ).mT  # (N, V)
    n = normals(human, body.vertices)
    posed = body.vertices + n * (offset * (1 + waves) * is_body)[..., None]
    loose = (top & (of("loose_top") > 0.012)) | (bottom & (of("loose_bottom") > 0.012))
    share = (loose * of("drape") * is_body)[..., None]
    for _ in range(4):  # cloth spans what the skin folds into
        posed = torch.lerp(posed, _neighbours_mean(human, posed), share)
    return posed


def normals(human: Human, vertices: Tensor) -> Tensor:
    """Return unit normals (N, V, 3) of vertices (N, V, 3)."""
    a, b, c = (vertices.index_select(1, human.faces[:, i]) for i in range(3))
    face = torch.linalg.cross(b - a, c - a)
    flat = face.transpose(0, 1).reshape(len(human.faces), -1)
    summed = (human.faces_of_vertex @ flat).reshape(-1, len(vertices), 3).transpose(0, 1)
    return torch.nn.functional.normalize(summed, dim=-1)


def _neighbours_mean(human: Human, vertices: Tensor) -> Tensor:
    flat = vertices.transpose(0, 1).reshape(vertices.shape[1], -1)
    return (human.neighbours @ flat).reshape(-1, len(vertices), 3).transpose(0, 1)


def paint(
    static: Tensor, part: Tensor, settings: Tensor, colors: Tensor, waves: Tensor, atlas: Atlas
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour P pixels of bodies; return colours (P, 3), roughness and gloss (P,).

    Args:
        static: (P, 14) template position, position on the head, attributes, see `Human`.
        part: (P,) BODY, SKIRT or HAIR.
        settings, colors: of the pixel's person, (P, …).
        waves: (P,) smooth noise of deviation about 0.6.
    """
    of = _getter(settings)
    color = {name: colors[:, i] for i, name in enumerate(COLORS)}
    rest, where, a = static[:, :3], static[:, 3:6], static[:, 6:]
    head, arm, leg = (a[:, i] > 0.5 for i in (HEAD, ARM, LEG))
    trunk = ~(head | arm | leg)
    is_body = part == BODY
    edge = 0.03 * waves
    along_leg, up = a[:, ALONG_LEG], a[:, UP_TRUNK]
    dip = of("v_neck") * (0.1 - rest[:, 0].abs()).clamp(min=0) * (rest[:, 1] < 0)
    below_neck = up < of("neckline") - dip + 0.3 * edge
    top = arm & (a[:, ALONG_ARM] < of("sleeve") + edge) & (a[:, ALONG_ARM] > -0.4) | trunk & below_neck
    bottom = leg & (along_leg < of("trouser") + edge) | trunk & (up < of("waist") + edge / 2)
    shoe, sock = leg & (along_leg > of("shoe") + edge), leg & (along_leg > of("sock"))
    top_color = _fabric(atlas, rest, of("top_texture"), of("top_scale"), of("top_turn"), color["top"])
    low_color = _fabric(
        atlas, rest, of("bottom_texture"), of("bottom_scale"), of("top_turn"), color["bottom"]
    )
    opened = (rest[:, 1] < 0) & (rest[:, 0].abs() < of("jacket") * (0.3 + up.clamp(min=0)))
    logo = (rest[:, 0].abs() < of("logo")) & ((up - 0.7).abs() < of("logo")) & (rest[:, 1] < 0)
    top_color = torch.where((opened | logo)[:, None], color["inner"], top_color)
    skin = _paint_face(where, a[:, EYE], of, color, head) * (1 + 0.1 * waves)[:, None]
    hair = head & _on_scalp(where, a[:, EYE], of("hairline") + 0.1 * waves) & is_body
    hat = head & (where[:, 2] > of("hat")) & is_body
    result = skin
    shoes = torch.where((rest[:, 2] < -0.80)[:, None], color["sole"], color["shoe"])
    strands = 1 + of("fuzz") * torch.sin(30 * where[:, 0] + 8 * where[:, 2] + 9 * waves) * 0.5
    for mask, layer in (
        (sock & is_body, color["sock"]), (top & is_body, top_color),
        (bottom & is_body, low_color), (shoe & is_body, shoes),
        (arm & (a[:, ALONG_ARM] > 1.92) & (of("glove") > 0), color["shoe"]),
        (part == SKIRT, low_color), (hair | (part == HAIR), color["hair"] * strands[:, None]),
        (hat, color["hat"]),
    ):  # fmt: skip
        result = torch.where(mask[:, None], layer, result)
    cloth = (top | bottom | shoe) & is_body | (part == SKIRT)
    rough = torch.where(cloth, of("rough"), 0.1) + 0.3 * (hair | (part == HAIR))
    gloss = torch.where(cloth, 0.03, 0.1) + 0.15 * (hair | shoe)
    return result, rough, gloss


def _fabric(
    atlas: Atlas, rest: Tensor, texture: Tensor, scale: Tensor, turn: Tensor, plain: Tensor
) -> Tensor:
    """Return the plain colour, or that of a texture laid over the body from the front."""
    c, s = torch.cos(turn), torch.sin(turn)
    x = rest[:, 0] + 0.5 * rest[:, 1]
    u, v = scale * (c * x - s * rest[:, 2]), -scale * (s * x + c * rest[:, 2])
    printed = atlas.look_up(texture.clamp(min=0).long(), u, v)
    return torch.where((texture >= 0)[:, None], printed, plain)


def _paint_face(
    where: Tensor, eye: Tensor, of: Callable[[str], Tensor], color: dict[str, Tensor], head: Tensor
) -> Tensor:
    """Return the colour of skin, eyes, brows, lips, beard and glasses."""
    x, y, z = where[:, 0].abs(), where[:, 1], where[:, 2]
    skin, hair = color["skin"], color["hair"]
    front = head & (y < -0.45)
    iris = (x - 0.305) ** 2 + (z - 0.19) ** 2 < 0.004
    brow = front & ((z - 0.40 - 0.1 * (x - 0.3).abs()).abs() < of("brow")) & (x > 0.12) & (x < 0.5)
    lips = front & ((z + 0.52).abs() < 0.075) & (x < 0.24)
    beard = head & (y < -0.1) & (z < -0.33 - 0.2 * (0.5 - x)) & (z > -1.2) & ~lips
    frame = (x < 0.1) | (x > 0.53) | ((z - 0.2).abs() > 0.12) | (of("glasses") > 1.5)
    glasses = front & (of("glasses") > 0) & (x > 0.06) & (x < 0.58) & ((z - 0.2).abs() < 0.15)
    share = (of("beard") * beard)[:, None]
    result = hair * share + skin * (1 - share)
    result = torch.where(brow[:, None], hair * 0.5 + skin * 0.25, result)
    result = torch.where(lips[:, None], skin * skin.new_tensor([0.95, 0.62, 0.60]), result)
    white = torch.where(iris[:, None], color["eye"], skin.new_tensor([0.6, 0.58, 0.55]))
    result = torch.where((eye > 0.5)[:, None], white, result)
    return torch.where((glasses & frame)[:, None], color["lens"], result)
