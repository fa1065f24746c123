"""Promises that every registered model keeps; a new model is tested by being registered."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import posezoo
from posezoo.errors import InputError
from posezoo.zoo import catalog as _registry

# one small member per family stands for it where a forward at full size is needed
RUNNABLE = [
    "uniformer_small",
    "uniformer_s_256x192",
    "tokenpose_s_v1_256x192",
    pytest.param("tmpose_b_256x192", marks=pytest.mark.slow),
    pytest.param("pct_swin_base", marks=pytest.mark.slow),
]
NAMES = posezoo.list_models()


def _first(output) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _images(model, batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *model.pretrained_cfg.input.size, generator=generator)


@pytest.fixture(scope="module", params=RUNNABLE)
def model(request):
    torch.manual_seed(0)
    return posezoo.create_model(request.param)


@pytest.mark.parametrize("name", NAMES)
def test_builds_without_memory_and_has_the_common_interface(name):
    with torch.device("meta"):
        model = _registry.build_model(name)
    assert all(t.is_meta for t in model.parameters())
    assert callable(type(model).convert_state_dict)
    again = model.convert_state_dict(model.state_dict())
    assert set(again.state) == set(model.state_dict()) and not again.is_foreign
    if model.pretrained_cfg.task == "pose":
        skeleton = posezoo.get_skeleton(model.pretrained_cfg.dataset)
        assert model.num_keypoints == skeleton.num_keypoints


def test_same_input_same_output_and_batch_members_are_independent(model):
    images = _images(model, 3)
    with torch.inference_mode():
        batch = _first(model(images))
        assert torch.equal(batch, _first(model(images)))
        single = _first(model(images[1:2]))
    torch.testing.assert_close(single[0], batch[1], rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_stays_close(model):
    images = _images(model, 1)
    with torch.inference_mode():
        full = _first(model(images))
        with torch.autocast("cpu", torch.bfloat16):
            half = _first(model(images)).float()
    assert torch.isfinite(half).all()
    assert (half - full).std() < 0.1 * full.std()


def test_compiles_without_graph_breaks(model):
    images = _images(model, 1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        torch.testing.assert_close(_first(compiled(images)), _first(model(images)))


@pytest.mark.slow
def test_compiles_with_inductor(model):
    images = _images(model, 2)
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(
            _first(compiled(images)), _first(model(images)), rtol=1e-3, atol=1e-4
        )


def test_exported_program_gives_the_same_numbers(model):
    images = _images(model, 1)
    program = torch.export.export(model, (images,))
    with torch.inference_mode():
        torch.testing.assert_close(_first(program.module()(images)), _first(model(images)))


@pytest.mark.cuda
def test_cuda_equals_cpu(model):
    images = _images(model, 2)
    with torch.inference_mode():
        cpu = _first(model(images))
        cuda = _first(model.cuda()(images.cuda())).cpu()
    model.cpu()
    torch.testing.assert_close(cuda, cpu, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((3, 64, 64), "shape"), ((1, 1, 64, 64), "shape"), ((1, 3, 50, 64), "shape|multiples")],
)
def test_wrong_images_are_refused(model, shape, words):
    with pytest.raises(InputError, match=words):
        model(torch.zeros(shape))
    with pytest.raises(InputError, match="floating point"):
        model(torch.zeros(1, 3, *model.pretrained_cfg.input.size, dtype=torch.uint8))
