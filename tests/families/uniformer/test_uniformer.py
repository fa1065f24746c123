"""UniFormer's own: folding, stochastic depth, maps."""

from __future__ import annotations

import pytest
import torch
from goldens.compare import Golden
from goldens.fill import golden_path, make_input, make_state, manifests

import posezoo
from families import small
from posezoo.errors import InputError

POSE, CLASSIFIER = "uniformer_s_256x192", "uniformer_small_plus"


def test_wrong_block_epsilon_is_visible():
    """The two code bases differ in one epsilon only; the comparison with goldens must see it."""
    model = posezoo.create_model(POSE, block_eps=1e-6)
    posezoo.load_checkpoint(model, make_state(manifests("uniformer")[POSE]))
    image = make_input("image", (1, 3, 256, 192)).double()
    with torch.inference_mode():
        heatmaps = model.double()(image)
    golden = Golden(golden_path("uniformer", f"{POSE}.safetensors"))
    assert golden.distance("heatmaps", heatmaps) > 3e-7


def test_folding_in_evaluation_equals_the_plain_layers():
    """Evaluation folds BatchNorm; frozen statistics in training mode are the reference."""
    model = small(CLASSIFIER).double()
    image = torch.randn(1, 3, 64, 64).double()
    folded = model(image)
    for module in model.modules():  # keep the running statistics but take the training path
        if isinstance(module, torch.nn.BatchNorm2d):
            module.training = True
            module.forward = lambda x, m=module: torch.nn.functional.batch_norm(
                x, m.running_mean, m.running_var, m.weight, m.bias, False, 0.0, m.eps
            )
    torch.testing.assert_close(model(image), folded, rtol=1e-9, atol=1e-9)


def test_drop_path_drops_in_training_only_with_rates_rising_to_the_given_one():
    model = small(CLASSIFIER, drop_path_rate=0.9)
    rates = [block.drop_path_rate for stage in model.backbone.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.3, 0.6, 0.9])
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


def test_intermediate_maps_have_the_strides_they_should():
    pose, image = small(POSE), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        maps = pose.forward_intermediates(image)
        normed = pose.forward_intermediates(image, norm=True)
        assert torch.equal(normed[3], pose.forward_features(image))
    assert [tuple(m.shape) for m in maps] == [
        (1, 64, 16, 16), (1, 128, 8, 8), (1, 320, 4, 4), (1, 512, 2, 2),
    ]  # fmt: skip
    assert not torch.equal(maps[0], normed[0])


def test_training_reaches_every_parameter_but_norms_that_lead_nowhere():
    model = small(POSE).train()
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {
        f"backbone.stages.{i}.norm.{n}" for i in range(3) for n in ("weight", "bias")
    }


def test_pose_model_takes_its_own_size_and_a_classifier_multiples_of_32():
    with pytest.raises(InputError, match=r"\(B, 3, 64, 64\), got \(1, 3, 96, 64\)"):
        small(POSE)(torch.zeros(1, 3, 96, 64))
    classifier = small(CLASSIFIER)
    assert classifier(torch.zeros(1, 3, 96, 64)).shape == (1, 1000)
    with pytest.raises(InputError, match="multiples of 32"):
        classifier(torch.zeros(1, 3, 100, 64))
