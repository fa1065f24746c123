"""Publishing, cards, and checking what is cached."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from goldens.fill import make_state, manifests
from safetensors.torch import load
from standins.hub import answering

import posezoo
from posezoo.cli import main
from posezoo.weights.cards import variant_card
from posezoo.weights.convert import convert_file
from posezoo.weights.locate import find_converted
from posezoo.weights.publish import golden_of, publish

# one variant of each kind -> its manifest
VARIANTS = {
    "uniformer_small.in1k": ("uniformer", "uniformer_small"),
    "tcformer_light.in1k": ("tcformer", "tcformer_light"),
    "pct_swin_base.coco": ("pct", "pct_swin_base"),
    "tcformer_mta_256x192.coco_wholebody": ("tcformer", "tcformer_mta_256x192"),
    "pct_tokenizer_swin_base.coco": ("pct", "pct_tokenizer_swin_base"),
}
FIRST, *LARGE = VARIANTS


@pytest.fixture(params=[FIRST, *(pytest.param(n, marks=pytest.mark.slow) for n in LARGE)])
def converted(request, hub, tmp_path, monkeypatch):
    """A variant whose authors' file was converted into the cache; the Hub is empty."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    family, variant = VARIANTS[request.param]
    torch.save({"state_dict": make_state(manifests(family)[variant])}, tmp_path / "original.pth")
    convert_file(tmp_path / "original.pth", posezoo.get_pretrained_cfg(request.param))
    return request.param


def _publish_one(name, **options):
    (report,) = publish([name], "team", **options)
    return report


def test_published_model_comes_back_equal_to_the_last_bit(converted, hub, tmp_path):
    report = _publish_one(converted)
    assert report.state == "published" and report.repo_id == f"team/{converted}"
    files = hub.repos[report.repo_id].files
    assert set(files) >= {"model.safetensors", "config.json", "README.md"}
    back = posezoo.create_model(f"hf-hub:team/{converted}", cache_dir=tmp_path / "hub")
    local = posezoo.create_model(converted, pretrained=True)
    left, right = back.state_dict(), local.state_dict()
    assert set(left) == set(right) and all(torch.equal(left[k], right[k]) for k in left)
    assert back.origin == local.origin and back.origin["origin_sha256"]
    golden, again = load(files["test/golden.safetensors"]), golden_of(back)
    assert set(golden) == set(again) >= {"input", "output.0"}
    assert all(torch.equal(golden[k], again[k]) for k in golden if k.startswith("input"))
    torch.testing.assert_close(again["output.0"], golden["output.0"], rtol=1e-3, atol=1e-4)


def test_interrupted_upload_is_finished_and_a_second_one_changes_nothing(converted, hub):
    report = _publish_one(converted, dry_run=True)
    assert report.state == "would publish" and "MB" in report.detail and not hub.repos
    hub.faults["/commit/main"] = answering(500)
    assert _publish_one(converted).state == "failed"
    hub.faults.clear()
    assert _publish_one(converted).state == "published"
    commits = dict(hub.repos[f"team/{converted}"].commits)
    assert _publish_one(converted).state == "unchanged"
    assert hub.repos[f"team/{converted}"].commits == commits


def test_failures_do_not_stop_the_others_and_set_the_exit_status(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    names = ["uniformer_small*", "tmpose_b_256x192"]
    result = CliRunner().invoke(main, ["publish", *names, "--namespace", "team"])
    assert result.exit_code == 1
    assert result.output.count("failed") == 3
    assert "no weights" in result.output and "published no weights" in result.output


def test_card_says_what_is_reported_and_what_is_measured():
    cfg = posezoo.get_pretrained_cfg("uniformer_s_256x192")
    card = variant_card(cfg, {"origin_file": "x.pth", "origin_sha256": "ab"})
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
    measured = variant_card(cfg, {}, [record])
    assert "Measured with posezoo (coco, bbox=det56.4): AP 74.1" in measured


def test_every_variant_has_a_card():
    for name in posezoo.list_models(tags=True):
        card = variant_card(posezoo.get_pretrained_cfg(name), {})
        assert card.startswith("---\nlibrary_name: posezoo\nlicense: ") and f"# {name}" in card


def _verify(name):
    return CliRunner().invoke(main, ["verify", name])


def test_verify_names_damage_in_both_caches(converted, hub):
    _publish_one(converted)
    hub.add(f"posezoo/{converted}", hub.repos[f"team/{converted}"].files)
    path = find_converted(posezoo.get_pretrained_cfg(converted))
    hidden = path.rename(path.with_suffix(".hidden"))
    posezoo.create_model(converted, pretrained=True)  # now from the Hub
    hidden.rename(path)
    result = _verify(converted)
    assert result.exit_code == 0 and result.output.count("fine") == 2
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = _verify(converted)
    assert result.exit_code == 1 and result.output.count("fine") == 1
    assert result.output.count("damaged or was replaced") == 1
    assert "nothing in the cache" in _verify("uniformer_base.in1k").output


def test_push_command_prints_the_commit(converted, hub):
    folder = find_converted(posezoo.get_pretrained_cfg(converted)).parent
    result = CliRunner().invoke(main, ["push", str(folder), "--repo", "me/mine"])
    assert result.exit_code == 0 and "/me/mine/commit/" in result.output
    assert set(hub.repos["me/mine"].files) == {"model.safetensors", "config.json"}
