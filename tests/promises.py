"""What every model promises, as a class of tests; a model is put to them by a fixture `model`.

The model has random weights and is registered while the tests run.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import posezoo
from posezoo.errors import InputError
from posezoo.zoo.catalog import build_model, model_arguments
from posezoo.zoo.model import Classifier, PoseModel, Tokenizer, ZooModel

TASKS = {"pose": PoseModel, "classification": Classifier, "tokenizer": Tokenizer}


@contextmanager
def _set(setter: Any, value: Any, usual: Any) -> Iterator[None]:
    setter(value)
    try:
        yield
    finally:
        setter(usual)


TORCH_STATES = {
    "bfloat16": lambda: _set(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "float64": lambda: _set(torch.set_default_dtype, torch.float64, torch.float32),
    "meta": lambda: _set(torch.set_default_device, "meta", None),
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "deterministic": lambda: _set(torch.use_deterministic_algorithms, True, False),
}


def tensors(output: Any) -> list[Tensor]:
    """The tensors of an output, floating point ones first."""
    found = [output] if isinstance(output, Tensor) else list(output)
    return sorted(found, key=lambda t: not t.is_floating_point())


def run(model: Any, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        return tensors(model(*inputs))


def inputs_of(model: ZooModel, batch: int = 1) -> tuple[Tensor, ...]:
    return model.example_inputs(batch, torch.Generator().manual_seed(0))


def assert_close(found: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    for left, right in zip(found, expected, strict=True):
        if right.is_floating_point():
            torch.testing.assert_close(left, right, **tolerance)
        else:
            assert torch.equal(left, right)


def check_compiled_once(model: Any, like: ZooModel, dtype: torch.dtype, backend: str) -> None:
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for batch in (3, 2):
        inputs = tuple(x.to(dtype) for x in inputs_of(like, batch))
        for x in inputs:
            torch._dynamo.mark_dynamic(x, 0)
        assert_close(run(compiled, inputs), run(model, inputs), rtol=1e-4, atol=1e-5)
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] == 1


def check_traced_on_cuda(model: ZooModel, dtype: torch.dtype) -> None:
    """One graph without breaks for any batch size, of a model that is on CUDA as far as its trace
    can tell: no such device is needed."""
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())

    def far(tensor: Tensor) -> Tensor:
        with mode:
            return torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda"
            )

    given, model = inputs_of(model, 4), copy.deepcopy(model)
    for module in model.modules():
        for name, weight in [*module.named_parameters(recurse=False)]:
            setattr(module, name, torch.nn.Parameter(far(weight), requires_grad=False))
        for name, buffer in [*module.named_buffers(recurse=False)]:
            setattr(module, name, far(buffer))
    inputs = tuple(map(far, given))
    shapes = tuple({0: torch.export.Dim("batch", min=2, max=64)} for _ in inputs)
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        program = torch.export.export(model, inputs, dynamic_shapes=shapes, strict=True)
    made = [node.meta["val"] for node in program.graph.nodes if node.op == "call_function"]
    assert {x.device.type for x in made if isinstance(x, Tensor)} == {"cuda"}


class Promises:
    """Inherit, and give a fixture `model`."""

    def test_same_input_gives_same_output_and_batch_members_are_independent(self, model):
        inputs = inputs_of(model, 3)
        batch = run(model, inputs)
        assert all(torch.equal(a, b) for a, b in zip(batch, run(model, inputs), strict=True))
        single = run(model, tuple(x[1:2] for x in inputs))
        assert_close(single, [x[1:2] for x in batch], rtol=1e-4, atol=1e-5)

    def test_empty_batch_gives_empty_output(self, model):
        assert all(len(x) == 0 for x in run(model, tuple(x[:0] for x in inputs_of(model))))

    def test_runs_without_memory(self, model):
        """Benchmarks count multiply-adds on the meta device."""
        on_meta = copy.deepcopy(model).to("meta")
        found = run(on_meta, tuple(x.to("meta") for x in inputs_of(model, 2)))
        expected = run(model, inputs_of(model, 2))
        assert [x.shape for x in found] == [x.shape for x in expected]

    def test_saved_model_comes_back_equal(self, model, tmp_path):
        """Built without memory and filled from the file: buffers that no file has are there."""
        folder = posezoo.save_pretrained(model, tmp_path)
        again = posezoo.create_model(f"local-dir:{folder}")
        assert again.current_args() == model.current_args()
        assert again.pretrained_cfg == model.pretrained_cfg
        inputs = inputs_of(model)
        assert all(torch.equal(a, b) for a, b in zip(run(again, inputs), run(model, inputs)))

    def test_last_layer_is_replaced_where_there_is_one(self, model, tmp_path):
        model = copy.deepcopy(model)
        if model.head_argument is None:
            with pytest.raises(InputError, match="no head to replace"):
                model.reset_head(5)
            return
        for size in (-1, 1.5, "5", True):
            with pytest.raises(InputError, match=f"{model.head_argument} is {size!r}"):
                model.reset_head(size)
        before = model.state_dict()
        model.reset_head(5)
        assert getattr(model, model.head_argument) == 5
        assert run(model, inputs_of(model))[0].shape[1] == 5
        changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
        assert 1 <= len(changed) <= 2  # weight and bias
        again = posezoo.create_model(f"local-dir:{posezoo.save_pretrained(model, tmp_path)}")
        assert getattr(again, model.head_argument) == 5

    def test_classifier_gives_logits_or_what_is_before_them(self, model):
        if not isinstance(model, Classifier):
            return
        inputs = inputs_of(model)
        with torch.no_grad():
            features = model.forward_features(*inputs)
            before = model.forward_head(features, pre_logits=True)
            assert torch.equal(model.forward_head(features), model(*inputs))
        assert before.shape == (1, model.num_features)
        model = copy.deepcopy(model)
        model.reset_head(0)
        assert torch.equal(run(model, inputs)[0], before)

    def test_bfloat16_autocast_stays_close(self, model):
        inputs = inputs_of(model)
        full = run(model, inputs)[0]
        with torch.autocast("cpu", torch.bfloat16):
            half = run(model, inputs)[0].float()
        assert torch.isfinite(half).all()
        assert (half - full).std() < 0.1 * full.std()

    def test_compiles_once_for_any_batch_without_graph_breaks(self, model):
        check_compiled_once(model, model, torch.float32, backend="eager")

    @pytest.mark.slow
    def test_folded_model_compiles_once_for_any_batch_without_graph_breaks(self, model):
        folded = posezoo.optimize(model, dtype=torch.float64)  # where no layer is packed
        check_compiled_once(folded, model, torch.float64, backend="aot_eager")

    @pytest.mark.slow
    def test_compiles_with_inductor(self, model):
        torch._dynamo.reset()
        inputs = inputs_of(model, 2)
        compiled = torch.compile(model, fullgraph=True)
        assert_close(run(compiled, inputs), run(model, inputs), rtol=1e-3, atol=1e-3)

    @pytest.mark.slow
    def test_exported_program_gives_the_same_numbers_for_any_batch(self, model):
        batch = torch.export.Dim("batch", min=1, max=64)
        inputs = inputs_of(model, 2)
        shapes = tuple({0: batch} for _ in inputs)
        program = torch.export.export(model, inputs, dynamic_shapes=shapes).module()
        other = inputs_of(model, 3)
        assert_close(run(program, other), run(model, other), rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_is_one_graph_on_cuda_too(self, model, dtype):
        check_traced_on_cuda(model, dtype)

    def test_recomputing_blocks_keeps_less_and_changes_no_gradient(self, model):
        inputs, found, kept = inputs_of(model, 2), [], []
        for enable in (False, True):
            trained = copy.deepcopy(model).train()
            try:
                trained.set_grad_checkpointing(enable)
            except InputError as error:
                assert "cannot recompute" in str(error)
                return
            torch.manual_seed(1)
            sizes: list[int] = []

            def pack(x: Tensor, sizes: list[int] = sizes) -> Tensor:
                sizes.append(x.numel())
                return x

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
                output = tensors(trained(*inputs))
            kept.append(sum(sizes))
            sum(x.square().mean() for x in output if x.is_floating_point()).backward()
            found.append({n: p.grad for n, p in trained.named_parameters() if p.grad is not None})
        assert kept[1] < kept[0] or isinstance(model, Tokenizer)  # whose blocks made the inputs
        assert found[0] and set(found[0]) == set(found[1])
        for name, gradient in found[0].items():
            torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)

    def test_wrong_images_are_refused(self, model):
        if isinstance(model, Tokenizer):
            return  # takes poses
        channels, (height, width) = model.in_chans, model.pretrained_cfg.input.size
        for shape, words in (
            ((channels, height, width), "shape"),
            ((1, channels + 1, height, width), "shape"),
            ((1, channels, height - 14, width), "shape|multiples|or more"),
        ):
            if words.startswith("shape|") and isinstance(model, Classifier):
                shape = (1, channels, 15, width)
            with pytest.raises(InputError, match=words):
                model(torch.zeros(shape))
        with pytest.raises(InputError, match="floating point"):
            model(torch.zeros(1, channels, height, width, dtype=torch.uint8))

    def test_images_of_another_type_or_device_are_refused(self, model):
        if isinstance(model, Tokenizer):
            return
        (images,) = inputs_of(model, 2)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            with pytest.raises(InputError, match=f"images are {dtype}, the model torch.float32"):
                model(images.to(dtype))
        with pytest.raises(InputError, match="images are on meta, the model on cpu"):
            model(images.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.isfinite(tensors(model(images.bfloat16()))[0]).all()
            with pytest.raises(InputError, match="images are torch.float64"):
                model(images.double())
        with pytest.raises(InputError, match="images are torch.float32, the model torch.float64"):
            copy.deepcopy(model).double()(images)

    def test_what_torch_is_set_to_changes_nothing(self, model, tmp_path):
        inputs, name = inputs_of(model), model.pretrained_cfg.name

        def build() -> list[ZooModel]:
            torch.manual_seed(0)
            folder = posezoo.save_pretrained(model, tmp_path)
            return [
                posezoo.create_model(name, **model.model_args),
                posezoo.create_model(f"local-dir:{folder}"),
            ]

        expected, output = build(), run(model, inputs)
        for state, setting in TORCH_STATES.items():
            with setting():
                found = build()
                assert_close(run(model, inputs), output, rtol=0, atol=0)
                assert_close(list(inputs_of(model)), list(inputs), rtol=0, atol=0)
            for left, right in zip(found, expected):
                for one, other in zip(left.state_dict().values(), right.state_dict().values()):
                    assert one.dtype == other.dtype and torch.equal(one, other), state
                    assert not one.is_inference(), state
            assert_close(run(found[1], inputs), output, rtol=0, atol=0)

    def test_maps_after_stages_are_given_or_refused(self, model):
        if isinstance(model, Tokenizer) or "tcformer" in model.pretrained_cfg.architecture:
            return
        (images,) = inputs_of(model)
        with pytest.raises(InputError, match="no tokens that are regions.*TCFormer's"):
            model.forward_intermediates(images, tokens=True)
        try:
            maps = model.forward_intermediates(images)
        except InputError as error:
            assert "no stages with maps" in str(error)
        else:
            assert [images.shape[2] // x.shape[2] for x in maps] == [4, 8, 16, 32]

    def test_token_regions_cover_the_image_or_are_refused(self, model):
        if not isinstance(model, PoseModel):
            return
        if not model.has_token_regions:
            with pytest.raises(InputError, match="no tokens that are regions"):
                model.token_regions(*inputs_of(model))
            return
        for cells in model.token_regions(*inputs_of(model, 2)):
            assert cells.dtype == torch.int64 and cells.shape[0] == 2
            assert cells.unique().tolist() == list(range(int(cells.max()) + 1))

    @pytest.mark.cuda
    def test_cuda_equals_cpu(self, model):
        inputs = inputs_of(model, 2)
        cpu = run(copy.deepcopy(model).double(), tuple(x.double() for x in inputs))
        on_gpu = copy.deepcopy(model).double().cuda()
        found = run(on_gpu, tuple(x.double().cuda() for x in inputs))
        assert_close([x.cpu() for x in found], cpu, rtol=1e-6, atol=1e-6)


def check_without_memory(model: ZooModel) -> None:
    """What needs no numbers: `model` was built on the meta device with its defaults."""
    cfg = model.pretrained_cfg
    assert isinstance(model, TASKS[cfg.task])
    assert all(t.is_meta for t in [*model.parameters(), *model.buffers()])
    if cfg.params is not None:
        assert sum(p.numel() for p in model.parameters()) == cfg.params
    # keys that begin with these names are taken out of wrappers
    assert not {"model", "module"} & {name for name, _ in model.named_children()}
    own = model.convert_state_dict(model.state_dict())
    assert set(own.state) == set(model.state_dict()) and not own.is_foreign
    if not isinstance(model, Classifier):
        assert model.num_keypoints == cfg.skeleton.num_keypoints
    if model.head_argument is not None:
        assert model.head_argument in model_arguments(cfg.name)
    assert set(model.current_args()) <= set(model_arguments(cfg.name))


def check_arguments(name: str) -> None:
    """Defaults are valid; anything else is refused before a network is built."""
    with pytest.raises(TypeError, match=f"{name} takes no argument 'colour'; valid: "):
        build_model(name, colour=1)
    architecture, _ = posezoo.zoo.catalog.find(name)
    for key, argument in architecture.args.items():
        assert argument.help
        for cfg in architecture.cfgs.values():
            value = model_arguments(cfg.name)[key]
            assert argument.check(key, value) == value
        bad: list[Any] = [None, object()] if "none" not in argument.choices else [object()]
        if argument.choices:
            bad += ["", *argument.choices[0][:1]]
        elif not isinstance(argument.default, bool):
            bad += ["1", True, math.nan]
            bad += [] if argument.low is None else [argument.low - 1]
            bad += [] if argument.above is None else [argument.above]
            bad += [] if argument.high is None else [argument.high + 1]
        for value in bad:
            with pytest.raises(InputError, match=f"^{key} is .*, expected "):
                build_model(name, **{key: value})
