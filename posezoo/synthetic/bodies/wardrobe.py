"""What people wear: clothes, hair, shoes, hats, glasses. Drawn per person, then applied twice:
`dress` moves vertices (loose cloth, hair), `paint` colours pixels by where on the body they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .devices import CPU, sent
from .human import (
    ALONG_ARM,
    ALONG_LEG,
    ARM,
    BODY,
    EYE,
    HAIR,
    HEAD,
    LEG,
    UP_TRUNK,
    Body,
    Human,
    gathered,
)  # fmt: skip
from .textures import Sheet, random_colors

__all__ = ["COLORS", "SETTINGS", "Outfits", "dress", "normals", "paint", "sample_outfits"]

Array = NDArray[np.float64]

# Positions are in the units of `Human.attributes`; textures are numbers in the atlas, -1 for none
SETTINGS = (
    "sleeve", "trouser", "sock", "shoe", "glove", "waist", "neckline", "v_neck", "jacket",
    "hairline", "volume", "fuzz", "beard", "brow", "glasses", "hat", "top_texture", "top_scale",
    "top_turn", "bottom_texture", "bottom_scale", "loose_top", "loose_bottom", "drape", "rough",
    "ripple", "skirt", "hem", "long_hair", "hair_end", "logo", "hood",
)  # fmt: skip
COLORS = (
    "skin", "hair", "top", "inner", "bottom", "shoe", "sole", "sock", "glove", "eye", "lens", "hat",
)  # fmt: skip
# what is at a pixel; cloth comes last
LAYERS = (
    "skin", "beard", "brow", "lips", "white", "eye", "lens", "hair", "top", "inner", "bottom",
    "sock", "glove", "shoe", "sole", "hat",
)  # fmt: skip
THING = 3  # a face that belongs to no body
_TONES = np.array([
    (0.80, 0.56, 0.43), (0.70, 0.45, 0.33), (0.56, 0.34, 0.22), (0.36, 0.20, 0.12),
    (0.19, 0.10, 0.06), (0.86, 0.64, 0.53), (0.11, 0.06, 0.04),
])  # fmt: skip
_HAIRS = np.array([
    (0.02, 0.016, 0.014), (0.05, 0.03, 0.02), (0.12, 0.07, 0.04), (0.28, 0.18, 0.09),
    (0.50, 0.36, 0.18), (0.22, 0.08, 0.04), (0.40, 0.40, 0.40), (0.70, 0.70, 0.68),
])  # fmt: skip
_LIPS, _WHITE = np.array([(0.95, 0.62, 0.60), (0.6, 0.58, 0.55)], np.float32)


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
    u, chance, pick = rng.uniform, partial(_chance, rng, n), partial(_pick, rng, n)
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
        "glove": np.where(chance(0.16), u(0.002, 0.022, n), 0),
        "waist": pick([0.02, 0.12, 0.2, -0.1, -0.25], [30, 25, 10, 25, 10])
        + rng.normal(0, 0.02, n),
        "neckline": np.where(bare, -5, u(0.95, 1.13, n)),
        "v_neck": np.where(chance(0.55), u(0, 1.6, n), 0),
        "jacket": np.where(chance(0.18), u(0.1, 0.24, n), 0),
        "hairline": np.where(chance(np.where(female, 0.01, 0.1)), 9, rng.normal(0.06, 0.08, n)),
        "volume": pick([0.005, 0.014, 0.03, 0.05], [30, 35, 25, 10]) * u(0.7, 1.3, n),
        "fuzz": u(0.1, 0.9, n),
        "beard": np.where(female | chance(0.62), 0, u(0.3, 1, n)),
        "brow": u(0.02, 0.045, n),
        "glasses": pick([0, 1, 2, 3], [72, 12, 12, 4]),  # none, clear, dark, goggles
        "hat": np.where(chance(0.24), u(0.28, 0.6, n), 9),
        "hood": np.where(chance(0.35), pick([0.1, -0.25, -9.0], [45, 40, 15]), 9),
        "top_texture": np.where(chance(0.52), -1, busy),
        "top_scale": np.exp(u(0.2, 2.4, n)),
        "top_turn": np.where(chance(0.6), 0, u(0, 6.28, n)),
        "bottom_texture": np.where(chance(0.8), -1, fabric[::-1]),
        "bottom_scale": np.exp(u(0.5, 2.4, n)),
        "loose_top": pick([0.004, 0.016, 0.032, 0.055], [12, 28, 36, 24]) * u(0.7, 1.3, n),
        "loose_bottom": pick([0.003, 0.014, 0.028, 0.05], [20, 28, 32, 20]) * u(0.7, 1.3, n),
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
        settings=sent(settings).float(), colors=sent(_sample_colors(rng, traits, n)).float()
    )


def _chance(rng: np.random.Generator, n: int, share: float | Array) -> NDArray[np.bool_]:
    """Tell n times whether something is the case, as often as the share says."""
    drawn: NDArray[np.bool_] = rng.random(n) < share
    return drawn


def _pick(rng: np.random.Generator, n: int, values: list[float], shares: list[float]) -> Array:
    """Draw n of the values, each as often as its share says."""
    chosen: Array = rng.choice(values, n, p=np.array(shares) / sum(shares))
    return chosen


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
    for name in ("top", "bottom"):  # told from bare skin
        gap = np.abs(colors[:, row[name]] - colors[:, row["skin"]]).sum(axis=1)
        colors[gap < 0.25, row[name]] *= 0.25
    whole = rng.random(n) < 0.13  # a dress, a suit, an overall
    colors[whole, row["bottom"]] = colors[whole, row["top"]]
    colors[:, row["lens"]] *= 0.3
    clipped: Array = colors.clip(0.004, 0.95)
    return clipped


def _on_scalp(where: Tensor, eye: Tensor, hairline: Tensor) -> Tensor:
    """Tell where hair grows: above and behind a slanted plane, not in the face."""
    x, y, z = where
    grows: Tensor = z * 0.6 + y * 0.55 > hairline
    grows &= (x.abs() < 0.8) | (z > 0.3)
    grows &= (eye < 0.5) & ~((y < -0.55) & (z < 0.72))
    return grows


def _under_hat(where: Tensor, hat: Tensor, hood: Tensor) -> Tensor:
    """Tell what a hat covers: what is above it and, of a helmet or a hood, ears and neck too."""
    _, y, z = where
    covered: Tensor = (z > hat) | (hat < 9) & (z > hood) & (y > -0.3)
    return covered


def dress(human: Human, body: Body, outfits: Outfits, phases: Tensor) -> Tensor:
    """Return the vertices (N, V, 3) of dressed bodies.

    Args:
        phases: (N, 8) random numbers from 0 to 1, for waves in the cloth.
    """

    def of(name: str) -> Tensor:
        return outfits.settings[:, SETTINGS.index(name), None]

    a = human.attributes
    head, arm, leg = (a[:, i] > 0.5 for i in (HEAD, ARM, LEG))
    trunk = ~(head | arm | leg)
    up, along_arm, along_leg = a[:, UP_TRUNK], a[:, ALONG_ARM], a[:, ALONG_LEG]
    top = arm & (along_arm < of("sleeve")) | trunk & (up >= of("waist")) & (up < of("neckline"))
    bottom = leg & (along_leg < of("trouser")) | trunk & (up < of("waist"))
    is_body = human.part == BODY
    hair = head & _on_scalp(human.on_head.T, a[:, EYE], of("hairline")) & is_body
    cap = head & _under_hat(human.on_head.T, of("hat"), of("hood")) & (a[:, EYE] < 0.5) & is_body
    offset = of("loose_top") * top + of("loose_bottom") * bottom
    offset = torch.where(leg & (along_leg > of("shoe")), 0.008, offset)
    offset = torch.where(hair, of("volume"), offset)
    offset = torch.where(cap, of("volume").clamp(0.012, 0.03), offset)
    offset = torch.where(arm & (along_arm > 1.92), of("glove"), offset)
    waves = torch.zeros_like(offset)
    for i, (frequency, height) in enumerate(((24.0, 0.28), (45.0, 0.2))):
        directions = phases[:, 4 * i : 4 * i + 3] - 0.5
        waves += (
            height
            * torch.sin(
                frequency * 2 * human.template @ directions.mT + 6.28 * phases[:, 4 * i + 3]
            ).mT
        )  # (N, V)
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
    (x, y, z), (u, v, w) = (b - a).unbind(2), (c - a).unbind(2)
    face = torch.stack([y * w - z * v, z * u - x * w, x * v - y * u], 2)
    flat = face.transpose(0, 1).reshape(len(human.faces), -1)
    summed = gathered(human.faces_of_vertex, flat).reshape(-1, len(vertices), 3).transpose(0, 1)
    return torch.nn.functional.normalize(summed, dim=-1)


def _neighbours_mean(human: Human, vertices: Tensor) -> Tensor:
    flat = vertices.transpose(0, 1).reshape(vertices.shape[1], -1)
    on_cpu = flat.device == CPU  # its sums are the same every time, rounded in another way
    means = human.neighbours @ flat if on_cpu else gathered(human.neighbours, flat)
    return means.reshape(-1, len(vertices), 3).transpose(0, 1)


def paint(
    static: Tensor, part: Tensor, owner: Tensor, outfits: Outfits, waves: Tensor, atlas: Sheet
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour P pixels of bodies; return colours (3, P), roughness and gloss (P,).

    Args:
        static: (14, P) template position, position on the head, attributes, see `Human`.
        part: (P,) BODY, SKIRT or HAIR.
        owner: (P,) the pixel's person, a row of the outfits.
        waves: (P,) smooth noise of deviation about 0.6.
    """
    columns = outfits.settings.T.contiguous()

    def of(name: str) -> Tensor:
        return columns[SETTINGS.index(name)].index_select(0, owner)

    rest, where, a = static[:3], static[3:6], static[6:]
    head, arm, leg = (a[i] > 0.5 for i in (HEAD, ARM, LEG))
    trunk = ~(head | arm | leg)
    is_body = part == BODY
    edge = 0.03 * waves
    along_arm, along_leg, up, front = a[ALONG_ARM], a[ALONG_LEG], a[UP_TRUNK], rest[1] < 0
    across = rest[0].abs()
    dip = of("v_neck") * (0.1 - across).clamp(min=0) * front
    top = trunk & (up < of("neckline") - dip + 0.3 * edge)
    top |= arm & (along_arm < of("sleeve") + edge) & (along_arm > -0.4)
    bottom = leg & (along_leg < of("trouser") + edge) | trunk & (up < of("waist") + edge / 2)
    opened = front & (across < of("jacket") * (0.3 + up.clamp(min=0)))
    logo = of("logo")
    opened |= front & (across < logo) & ((up - 0.7).abs() < logo)
    shoe = leg & (along_leg > of("shoe") + edge)
    layer = _face_layers(where, a[EYE], of, head)
    for mask, name in (
        (leg & (along_leg > of("sock")), "sock"), (top, "top"), (top & opened, "inner"),
        (bottom, "bottom"), (shoe, "shoe"), (shoe & (rest[2] < -0.8), "sole"),
        (arm & (along_arm > 1.92) & (of("glove") > 0), "glove"),
        (head & _on_scalp(where, a[EYE], of("hairline") + 0.1 * waves), "hair"),
        (head & _under_hat(where, of("hat"), of("hood")), "hat"),
        (~is_body, "bottom"), (part == HAIR, "hair"),
    ):  # fmt: skip
        layer = torch.where(mask, LAYERS.index(name), layer)
    color = _palette(outfits).index_select(1, owner * len(LAYERS) + layer)
    for name in ("top", "bottom"):
        _print_on(color, layer == LAYERS.index(name), name, rest, owner, columns, atlas)
    hair = layer == LAYERS.index("hair")
    strands = 0.5 * of("fuzz") * torch.sin(30 * where[0] + 8 * where[2] + 9 * waves)
    cloth = (layer >= LAYERS.index("top")) & ~hair
    color *= 1 + torch.where(hair, strands, torch.where(cloth, 0.03, 0.1) * waves)
    rough = torch.where(cloth, of("rough"), torch.where(hair, 0.4, 0.1))
    gloss = torch.where(cloth & ~shoe, 0.03, torch.where(hair | shoe, 0.2, 0.1))
    return color, rough, gloss


def _palette(outfits: Outfits) -> Tensor:
    """Return the colours of all layers of all people, (3, N * len(LAYERS))."""
    c = {name: outfits.colors[:, i] for i, name in enumerate(COLORS)}
    skin, hair = c["skin"], c["hair"]
    share = outfits.settings[:, SETTINGS.index("beard"), None]
    made = {
        "brow": hair * 0.5 + skin * 0.25, "lips": skin * sent(_LIPS),
        "beard": hair * share + skin * (1 - share),
        "white": sent(_WHITE).expand_as(skin),
    }  # fmt: skip
    rows = torch.stack([made[n] if n in made else c[n] for n in LAYERS], 1)
    return rows.reshape(-1, 3).T.contiguous()


def _print_on(
    color: Tensor,
    mask: Tensor,
    name: str,
    rest: Tensor,
    owner: Tensor,
    columns: Tensor,
    atlas: Sheet,
) -> None:
    """Put the textures of a garment into colours (3, P), laid over the body from the front."""
    texture = columns[SETTINGS.index(f"{name}_texture")]
    chosen = (mask & (texture >= 0).index_select(0, owner)).nonzero()[:, 0]
    who = owner.index_select(0, chosen)
    turn = columns[SETTINGS.index("top_turn")].index_select(0, who)
    scale = columns[SETTINGS.index(f"{name}_scale")].index_select(0, who)
    x, y, z = rest.index_select(1, chosen)
    c, s, x = torch.cos(turn), torch.sin(turn), x + 0.5 * y
    u, v = scale * (c * x - s * z), -scale * (s * x + c * z)
    color[:, chosen] = atlas.look_up(texture.long().index_select(0, who), u, v)


def _face_layers(where: Tensor, eye: Tensor, of: Callable[[str], Tensor], head: Tensor) -> Tensor:
    """Return which of skin, eyes, brows, lips, beard and glasses is at pixels, (P,)."""
    x, y, z = where[0].abs(), where[1], where[2]
    front = head & (y < -0.45)
    iris = (x - 0.305) ** 2 + (z - 0.19) ** 2 < 0.004
    brow = front & ((z - 0.40 - 0.1 * (x - 0.3).abs()).abs() < of("brow")) & (x > 0.12) & (x < 0.5)
    lips = front & ((z + 0.52).abs() < 0.075) & (x < 0.24)
    beard = head & (y < -0.1) & (z < -0.33 - 0.2 * (0.5 - x)) & (z > -1.2) & ~lips
    kind = of("glasses")
    frame = (x < 0.1) | (x > 0.53) | ((z - 0.2).abs() > 0.12) | (kind > 1.5)
    glasses = front & (kind > 0) & (x > 0.06) & (x < 0.58) & ((z - 0.2).abs() < 0.15)
    glasses |= head & (y < -0.2) & (kind > 2.5) & ((z - 0.2).abs() < 0.24)
    layer = torch.zeros_like(x, dtype=torch.long)
    for mask, name in (
        (beard, "beard"), (brow, "brow"), (lips, "lips"), (eye > 0.5, "white"),
        ((eye > 0.5) & iris, "eye"), (glasses & frame, "lens"),
    ):  # fmt: skip
        layer = torch.where(mask, LAYERS.index(name), layer)
    return layer
