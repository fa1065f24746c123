"""Promises that every registered model keeps; a new model is tested by being registered."""

from __future__ import annotations

import pytest
from families import FAMILIES, SMALL, family_of, on_meta, registered, small, smaller
from promises import Promises, check_arguments, check_without_memory, run

import posezoo
from posezoo.zoo.catalog import find

NAMES = posezoo.list_models()


@pytest.fixture(scope="module", params=SMALL)
def model(request):
    with registered(smaller(request.param, **SMALL[request.param])):
        yield small(request.param)


# the dearer promises are put to one model of each family; the example is one like HRNet
QUICK = {
    "hmp_swin_base", "tcformer_mta_256x192", "tokenpose_t_256x192", "uniformer_s_256x192",
    "vitpose_plus_s_256x192",
}  # fmt: skip
few = pytest.mark.parametrize(
    "model",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SMALL],
    indirect=True,
)


class TestSmallModels(Promises):
    """One small model for every way to build one."""

    @few
    def test_compiles_once_for_any_batch_without_graph_breaks(self, model):
        super().test_compiles_once_for_any_batch_without_graph_breaks(model)

    @few
    def test_what_torch_is_set_to_changes_nothing(self, model, tmp_path):
        super().test_what_torch_is_set_to_changes_nothing(model, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_builds_without_memory_and_has_the_common_interface(name):
    check_without_memory(on_meta(name))


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_checked(name):
    check_arguments(name)


@pytest.mark.parametrize("name", SMALL)
def test_channels_and_outputs_can_be_others(name):
    given = {"in_chans": 1, "num_keypoints": 5, "num_classes": 7}
    valid = find(name)[0].args
    model = small(name, **{key: value for key, value in given.items() if key in valid})
    if "in_chans" in valid:
        inputs = model.example_inputs(2)
        assert inputs[0].shape[1] == 1
        (output,) = run(model, inputs)
        assert output.shape[:2] == (2, given[model.head_argument])


def test_every_family_has_a_folder_and_every_builder_a_small_model():
    assert set(FAMILIES) == {family_of(name) for name in NAMES}
    builders = {find(name)[0].build for name in NAMES}
    assert builders == {find(name)[0].build for name in SMALL}
