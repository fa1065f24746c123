"""UniFormer beyond parity: training, intermediate maps, heads."""

from __future__ import annotations

import pytest
import torch

import posezoo
from posezoo.errors import InputError


@pytest.fixture(scope="module")
def pose():
    torch.manual_seed(0)
    return posezoo.create_model("uniformer_s_256x192")


def _gradients(model, images):
    model.zero_grad()
    model(images).square().mean().backward()
    return {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


def test_gradient_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    model = posezoo.create_model("uniformer_small").train()
    images = torch.randn(2, 3, 64, 64)
    plain = _gradients(model, images)
    model.set_grad_checkpointing()
    again = _gradients(model, images)
    assert set(plain) == set(again) == {k for k, _ in model.named_parameters()}
    for key in plain:
        torch.testing.assert_close(again[key], plain[key], rtol=1e-4, atol=1e-6)


def test_folding_in_evaluation_equals_the_plain_layers():
    """Evaluation folds BatchNorm; frozen statistics in training mode are the reference."""
    torch.manual_seed(0)
    model = posezoo.create_model("uniformer_small").double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()
            module.bias.data.normal_()
    image = torch.randn(1, 3, 64, 64).double()
    folded = model(image)
    for module in model.modules():  # keep the running statistics but take the training path
        if isinstance(module, torch.nn.BatchNorm2d):
            module.training = True
            module.forward = lambda x, m=module: torch.nn.functional.batch_norm(
                x, m.running_mean, m.running_var, m.weight, m.bias, False, 0.0, m.eps
            )
    torch.testing.assert_close(model(image), folded, rtol=1e-9, atol=1e-9)


def test_drop_path_drops_in_training_only():
    torch.manual_seed(0)
    model = posezoo.create_model("uniformer_small", drop_path_rate=0.9)
    image = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(image), model(image))
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    torch.manual_seed(1)
    first = model(image)
    assert not torch.equal(first, model(image))
    torch.manual_seed(1)
    assert torch.equal(first, model(image))


def test_drop_path_rates_rise_linearly_to_the_given_one():
    model = posezoo.create_model("uniformer_small", drop_path_rate=0.34)
    rates = [b.drop_path_rate for stage in model.backbone.stages for b in stage.blocks]
    assert rates == pytest.approx([0.34 * j / 17 for j in range(18)])


def test_intermediate_maps_have_the_strides_they_should(pose):
    image = torch.randn(1, 3, 256, 192)
    with torch.inference_mode():
        maps = pose.forward_intermediates(image)
        normed = pose.forward_intermediates(image, norm=True)
        assert torch.equal(normed[3], pose.forward_features(image))
    assert [tuple(m.shape) for m in maps] == [
        (1, 64, 64, 48), (1, 128, 32, 24), (1, 320, 16, 12), (1, 512, 8, 6),
    ]  # fmt: skip
    assert not torch.equal(maps[0], normed[0])


def test_head_is_replaced_on_request():
    model = posezoo.create_model("uniformer_s_256x192", num_keypoints=21)
    assert model(torch.randn(1, 3, 256, 192)).shape == (1, 21, 64, 48)
    model.reset_head(4)
    assert model.num_keypoints == 4
    assert model(torch.randn(1, 3, 256, 192)).shape == (1, 4, 64, 48)
    classifier = posezoo.create_model("uniformer_small", num_classes=0)
    assert classifier(torch.randn(1, 3, 64, 64)).shape == (1, 512)


def test_other_channel_counts():
    model = posezoo.create_model("uniformer_small_plus", in_chans=1)
    assert model(torch.randn(1, 1, 64, 64)).shape == (1, 1000)
    with pytest.raises(InputError, match="1, H, W"):
        model(torch.randn(1, 3, 64, 64))


def test_pose_model_takes_its_own_size_only(pose):
    with pytest.raises(InputError, match=r"\(B, 3, 256, 192\), got \(1, 3, 384, 288\)"):
        pose(torch.zeros(1, 3, 384, 288))


def test_classifier_takes_multiples_of_32():
    model = posezoo.create_model("uniformer_small")
    assert model(torch.zeros(1, 3, 96, 64)).shape == (1, 1000)
    with pytest.raises(InputError, match="multiples of 32"):
        model(torch.zeros(1, 3, 100, 64))
