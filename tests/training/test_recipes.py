"""Recipes: every one can start, and what is changed on the command line is checked."""

from __future__ import annotations

import pytest
import torch
from families import on_meta

import posezoo
from posezoo.errors import InputError, UnknownModelError
from posezoo.training import RECIPES, Augmentation, ClassAugmentation, get_recipe
from posezoo.training.optimizers import make_optimizer, make_schedule
from posezoo.training.recipes import override
from posezoo.zoo.catalog import model_arguments


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_names_a_model_of_its_kind_and_a_known_start(name):
    recipe = RECIPES[name]
    cfg = posezoo.get_pretrained_cfg(recipe.model)
    if recipe.objective == "heatmap":
        assert cfg.decode is not None and cfg.decode.heatmap_size is not None
    kind = ClassAugmentation if recipe.objective == "classes" else Augmentation
    assert type(recipe.augmentation) is kind
    assert set(recipe.model_args) <= set(model_arguments(recipe.model))
    assert recipe.start in (None, "scratch", "imagenet") or posezoo.is_model(recipe.start)
    assert list(recipe.milestones) == sorted(recipe.milestones)
    assert not recipe.milestones or recipe.milestones[-1] < recipe.epochs


def test_every_heatmap_model_has_a_recipe():
    missing = []
    for name in posezoo.list_models(task="pose"):
        cfg = posezoo.get_pretrained_cfg(name)
        assert cfg.decode is not None
        if cfg.decode.codec == "heatmap" and name not in RECIPES:
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("name", RECIPES)
def test_optimizer_holds_every_parameter_once(name):
    recipe = RECIPES[name]
    model = on_meta(recipe.model, **recipe.model_args)
    optimizer = make_optimizer(recipe, model)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in held}) == len(held) == len(list(model.parameters()))


def test_step_schedule_warms_up_and_falls_twice():
    recipe = get_recipe("uniformer_s_256x192")
    optimizer = make_optimizer(recipe, torch.nn.Linear(1, 1))
    schedule = make_schedule(recipe, optimizer, 2100, 10)
    rates = {}
    for step in (0, 250, 500, 1699, 1700, 1999, 2000):
        schedule.step_update(step)
        rates[step] = optimizer.param_groups[0]["lr"]
    assert rates[0] == pytest.approx(2e-6) and rates[250] == pytest.approx(1e-3, rel=2e-3)
    assert rates[500] == rates[1699] == 2e-3
    assert rates[1700] == rates[1999] == pytest.approx(2e-4)
    assert rates[2000] == pytest.approx(2e-5)


def test_cosine_schedule_ends_at_its_floor():
    recipe = get_recipe("hmp_swin_base")
    optimizer = torch.optim.AdamW(torch.nn.Linear(1, 1).parameters(), lr=recipe.lr)
    for group in optimizer.param_groups:
        group["initial_lr"] = recipe.lr
    schedule = make_schedule(recipe, optimizer, 2000, 10)
    schedule.step_update(2000)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-9)


def test_classifiers_warm_up_for_five_epochs_from_1e_6_and_end_at_1e_5():
    for name in ("uniformer_base", "tcformer"):
        recipe = get_recipe(name)
        optimizer = make_optimizer(recipe, torch.nn.Linear(1, 1))
        schedule = make_schedule(recipe, optimizer, 3000, 10)
        rates = {}
        for step in (0, 25, 50, 3000):
            schedule.step_update(step)
            rates[step] = optimizer.param_groups[0]["lr"]
        assert rates[0] == pytest.approx(1e-6) and rates[3000] == pytest.approx(1e-5)
        assert rates[25] == pytest.approx((recipe.lr + 1e-6) / 2)
        assert rates[50] == pytest.approx(recipe.lr, rel=1e-3)


def test_swin_rates_decay_towards_the_input():
    recipe = get_recipe("hmp_swin_base")
    model = on_meta("hmp_swin_base")
    names = {id(p): n for n, p in model.named_parameters()}
    scales = {
        names[id(p)]: (group["lr_scale"], group["weight_decay"])
        for group in make_optimizer(recipe, model).param_groups
        for p in group["params"]
    }
    expected = {  # number of the group of 29, decayed or not
        "backbone.patch_embed.proj.weight": (0, True),
        "backbone.layers.0.blocks.0.mlp.fc1.weight": (1, True),
        "backbone.layers.0.blocks.1.mlp.fc1.bias": (2, False),
        "backbone.layers.1.downsample.reduction.weight": (3, True),
        "backbone.layers.1.blocks.0.attn.qkv.weight": (4, True),
        "backbone.layers.2.blocks.17.attn.cpb_mlp.0.weight": (24, False),
        "backbone.layers.3.downsample.norm.weight": (25, False),
        "backbone.layers.3.blocks.1.attn.logit_scale": (27, False),
        "backbone.norm.weight": (28, False),
        "head.final_layer.weight": (28, True),
    }
    for name, (number, decayed) in expected.items():
        assert scales[name] == (pytest.approx(0.9 ** (28 - number)), 0.05 if decayed else 0.0), name


def test_rates_of_a_plain_transformer_decay_towards_the_input():
    recipe = get_recipe("vitpose_b_256x192")
    model = on_meta(recipe.model)
    names = {id(p): n for n, p in model.named_parameters()}
    scales = {
        names[id(p)]: (group["lr_scale"], group["weight_decay"])
        for group in make_optimizer(recipe, model).param_groups
        for p in group["params"]
    }
    expected = {  # number of the group of 14, decayed or not
        "patch_embed.weight": (0, True),
        "pos_embed": (0, False),
        "blocks.0.attn.qkv.weight": (1, True),
        "blocks.11.mlp.fc2.bias": (12, False),
        "norm.weight": (13, False),
        "head.final_layer.weight": (13, True),
    }
    for name, (number, decayed) in expected.items():
        assert scales[name] == (pytest.approx(0.75 ** (13 - number)), 0.1 if decayed else 0.0), name


def test_settings_change_fields_of_their_type():
    changed = override(
        get_recipe("hmp_swin_base"),
        {"lr": "1e-4", "epochs": "3", "milestones": "1,2", "dtype": "bfloat16",
         "decay_all": "true", "layer_decay": "none", "augmentation.flip": "0"},
    )  # fmt: skip
    assert (changed.lr, changed.epochs, changed.milestones) == (1e-4, 3, (1, 2))
    assert changed.dtype == "bfloat16" and changed.decay_all and changed.layer_decay is None
    assert changed.augmentation.flip == 0 and changed.augmentation.scale == 0.5


def test_settings_of_classes_are_their_own():
    changed = override(get_recipe("tcformer"), {"augmentation.mixup": "0", "ema": "0.999"})
    assert changed.augmentation.mixup == 0 and changed.ema == 0.999
    with pytest.raises(InputError, match="auto_augment, erase, mixup"):
        override(get_recipe("tcformer"), {"augmentation.flip": "0"})
    with pytest.raises(InputError, match="augmentation.mixup is -1.0"):
        override(get_recipe("tcformer"), {"augmentation.mixup": "-1"})
    with pytest.raises(InputError, match="augmentation.erase is 3.0"):
        override(get_recipe("tcformer"), {"augmentation.erase": "3"})


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [("speed", "1", "no setting 'speed'"), ("epochs", "many", "epochs is 'many'"),
     ("dtype", "float8", "dtype is 'float8'; valid: float32"),
     ("augmentation.spin", "1", "augmentation.spin"),
     ("model", "x", "no setting 'model'"), ("epochs", "0", "epochs is 0; it must be at least 1"),
     ("batch_size", "-4", "batch_size is -4"), ("accumulate", "0", "accumulate is 0"),
     ("accumulate", "99", "more parts than the 16"), ("eval_every", "0", "eval_every is 0"),
     ("lr", "nan", "lr is nan; it must be a finite number above 0"), ("lr", "-1", "lr is -1.0"),
     ("sigma", "0", "sigma is 0.0"), ("weight_decay", "inf", "weight_decay is inf"),
     ("clip_norm", "0", "clip_norm is 0.0"), ("ema", "1", "ema is 1.0"),
     ("layer_decay", "0", "layer_decay is 0.0"), ("final_lr", "2", "final_lr is 2.0"),
     ("milestones", "5,3", r"milestones is \(5, 3\); it must be epochs from 1 on, ascending"),
     ("warmup_steps", "-1", "warmup_steps is -1"), ("seed", "-1", "seed is -1"),
     ("augmentation.flip", "2", "augmentation.flip is 2.0; it must be from 0 to 1"),
     ("augmentation.rotation", "nan", "augmentation.rotation is nan")],
)  # fmt: skip
def test_wrong_setting_is_named(key, text, message):
    with pytest.raises(InputError, match=message):
        override(get_recipe("hrnet_xs_128x96"), {key: text})


def test_unknown_recipe_suggests_close_ones():
    with pytest.raises(UnknownModelError, match="uniformer_s_256x192"):
        get_recipe("uniformer_s_256x191")
