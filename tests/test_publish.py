"""Publishing, cards, and checking what is cached."""

from __future__ import annotations

import io

import pytest
import torch
from click.testing import CliRunner
from goldens.fill import make_state, manifests
from safetensors.torch import load

import posezoo
from posezoo.cli.commands import main
from posezoo.weights import cards as _cards
from posezoo.weights import convert as _convert
from posezoo.weights import publish as _publish

# one variant per family -> its manifest
VARIANTS = {
    "uniformer_small.in1k": ("uniformer", "uniformer_small"),
    "tcformer_light.in1k": ("tcformer", "tcformer_light"),
}
LARGE = {
    "pct_swin_base.coco": ("pct", "pct_swin_base"),
    "tcformer_mta_256x192.coco_wholebody": ("tcformer", "tcformer_mta_256x192"),
    "pct_tokenizer_swin_base.coco": ("pct", "pct_tokenizer_swin_base"),
}


@pytest.fixture(params=[*VARIANTS, *(pytest.param(n, marks=pytest.mark.slow) for n in LARGE)])
def converted(request, hub, tmp_path, monkeypatch):
    """A variant whose authors' file was converted into the cache; the Hub is empty."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    family, variant = (VARIANTS | LARGE)[request.param]
    torch.save({"state_dict": make_state(manifests(family)[variant])}, tmp_path / "original.pth")
    _convert.convert_file(tmp_path / "original.pth", request.param)
    return request.param


def _publish_one(name, **options):
    return list(_publish.publish([name], "team", **options))


def test_published_model_comes_back_equal_to_the_last_bit(converted, hub, tmp_path):
    (report,) = _publish_one(converted)
    assert report.state == "published" and report.repo_id == f"team/{converted}"
    files = hub.repos[report.repo_id].files
    assert {"model.safetensors", "config.json", "README.md", "test/golden.safetensors"} <= set(
        files
    )
    back = posezoo.create_model(f"hf-hub:team/{converted}", cache_dir=tmp_path / "hub")
    local = posezoo.create_model(converted, pretrained=True)
    left, right = back.state_dict(), local.state_dict()
    assert set(left) == set(right) and all(torch.equal(left[k], right[k]) for k in left)
    assert back.origin == local.origin and back.origin["origin_sha256"]
    golden = load(files["test/golden.safetensors"])
    with torch.inference_mode():
        output = back(*(golden[k] for k in sorted(golden) if k.startswith("input")))
    first = output if isinstance(output, torch.Tensor) else output[0]
    torch.testing.assert_close(first, golden["output.0"], rtol=1e-3, atol=1e-4)


def test_publishing_twice_changes_nothing(converted, hub):
    _publish_one(converted)
    commits = dict(hub.repos[f"team/{converted}"].commits)
    (report,) = _publish_one(converted)
    assert report.state == "unchanged"
    assert hub.repos[f"team/{converted}"].commits == commits


def test_dry_run_uploads_nothing(converted, hub):
    (report,) = _publish_one(converted, dry_run=True)
    assert report.state == "would publish" and "MB" in report.detail
    assert not hub.repos


def test_interrupted_upload_is_finished_by_the_next_run(converted, hub):
    def broken(handler, body):
        handler._answer(500)
        return True

    hub.faults["/commit/main"] = broken
    (report,) = _publish_one(converted)
    assert report.state == "failed"
    hub.faults.clear()
    (report,) = _publish_one(converted)
    assert report.state == "published"


def test_variant_without_weights_is_reported_as_such(hub):
    (report,) = _publish_one("tmpose_b_256x192.coco")
    assert report.state == "no weights" and "published no weights" in report.detail


def test_one_failure_does_not_stop_the_others_and_sets_the_exit_code(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = CliRunner().invoke(main, ["publish", "uniformer_small*", "--namespace", "team"])
    assert result.exit_code == 1
    assert result.output.count("failed") == 3


def test_card_says_what_is_reported_and_what_is_measured():
    cfg = posezoo.get_pretrained_cfg("uniformer_s_256x192")
    card = _cards.variant_card(cfg, {"origin_file": "x.pth", "origin_sha256": "ab"})
    for words in ("license: apache-2.0", "pipeline_tag: keypoint-detection", "arxiv:2201.09450",
                  "Reported by the authors", "AP 74.0", "Not measured with posezoo yet",
                  "0 nose", "origin file: x.pth", "keys renamed"):  # fmt: skip
        assert words in card, words
    record = {
        "statistics": {"AP": 0.741},
        "dataset": "coco",
        "box_source": "det56.4",
        "command": "posezoo eval x",
        "date": "2026-11-21",
        "environment": {"device": "cpu"},
    }
    assert "Measured with posezoo (coco, bbox=det56.4): AP 74.1" in _cards.variant_card(
        cfg, {}, [record]
    )


@pytest.mark.parametrize("name", posezoo.list_models(tags=True))
def test_every_variant_has_a_card(name):
    cfg = posezoo.get_pretrained_cfg(name)
    card = _cards.variant_card(cfg, {})
    assert card.startswith("---\nlibrary_name: posezoo\nlicense: ") and f"# {name}" in card


def test_verify_names_damaged_weights(converted, capsys):
    result = CliRunner().invoke(main, ["verify", converted])
    assert result.exit_code == 0 and "fine" in result.output
    path = _convert.find_converted(posezoo.get_pretrained_cfg(converted))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = CliRunner().invoke(main, ["verify", converted])
    assert result.exit_code == 1 and "damaged" in result.output


def test_verify_looks_at_the_hub_cache_too(converted, hub):
    _publish_one(converted)
    files = hub.repos[f"team/{converted}"].files
    hub.add(f"posezoo/{converted}", files)
    cfg = posezoo.get_pretrained_cfg(converted)
    posezoo.weights.hub.fetch_from_hub(posezoo.weights.hub.hub_id(cfg), "model.safetensors")
    assert CliRunner().invoke(main, ["verify", converted]).output.count("fine") == 2


def test_push_command_prints_the_commit(converted, hub):
    folder = _convert.find_converted(posezoo.get_pretrained_cfg(converted)).parent
    result = CliRunner().invoke(main, ["push", str(folder), "--repo", "me/mine"])
    assert result.exit_code == 0 and "/me/mine/commit/" in result.output
    assert not any(p.startswith(".") for p in hub.repos["me/mine"].files)


def test_golden_depends_on_nothing_but_the_weights(converted):
    model = posezoo.create_model(converted, pretrained=True)
    first, second = _publish.golden_of(model), _publish.golden_of(model)
    assert all(torch.equal(first[k], second[k]) for k in first)
    buffer = io.BytesIO()
    torch.save(first, buffer)
    assert set(first) >= {"input", "output.0"}
