"""Publishing, cards, and checking what is cached."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import constants
from safetensors.torch import load
from standins.hub import answering
from standins.weights import ORIGINAL_CASES, converted, pin_of, sha256

import posezoo
from posezoo.cli import main
from posezoo.weights.cards import variant_card
from posezoo.weights.locate import find_converted, find_weights
from posezoo.weights.pins import as_text, read_pins
from posezoo.weights.publish import golden_of, publish


@pytest.fixture(params=ORIGINAL_CASES)
def name(request, hub, tmp_path, monkeypatch):
    """Weights whose authors' file was converted into the cache; the Hub is empty."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    converted(request.param, tmp_path, monkeypatch)
    return request.param


@pytest.fixture
def publish_one(tmp_path):
    """Publish one variant to the stand-in, pinned in a file of the test's."""

    def one(name, **options):
        (report,) = publish([name], "team", pins_file=tmp_path / "pins.json", **options)
        return report

    return one


def test_published_model_comes_back_equal_to_the_last_bit(name, hub, tmp_path, publish_one):
    report = publish_one(name)
    assert report.state == "published" and report.repo_id == f"team/{name}"
    files = hub.repos[report.repo_id].files
    assert set(files) >= {"model.safetensors", "config.json", "README.md"}
    back = posezoo.create_model(f"hf-hub:team/{name}", cache_dir=tmp_path / "hub")
    local = posezoo.create_model(name, pretrained=True)
    left, right = back.state_dict(), local.state_dict()
    assert set(left) == set(right) and all(torch.equal(left[k], right[k]) for k in left)
    assert back.origin == local.origin and back.origin["origin_sha256"]
    golden, again = load(files["test/golden.safetensors"]), golden_of(back)
    assert set(golden) == set(again) >= {"input", "output.0"}
    assert all(torch.equal(golden[k], again[k]) for k in golden if k.startswith("input"))
    torch.testing.assert_close(again["output.0"], golden["output.0"], rtol=1e-3, atol=1e-4)


def test_second_run_changes_nothing_and_a_pinned_model_loads(name, hub, tmp_path, publish_one):
    assert publish_one(name).state == "published"
    text, commits = (
        (tmp_path / "pins.json").read_text(),
        dict(hub.repos[f"team/{name}"].commits),
    )
    assert publish_one(name).state == "unchanged"
    assert (tmp_path / "pins.json").read_text() == text
    assert hub.repos[f"team/{name}"].commits == commits
    pins = read_pins(tmp_path / "pins.json")
    weights = hub.repos[f"team/{name}"].files["model.safetensors"]
    assert pins[name].sha256 == sha256(weights) and pins[name].size == len(weights)
    found = find_weights(posezoo.get_pretrained_cfg(name), tmp_path / "new", pins=pins)
    assert found.path.read_bytes() == weights and found.path.is_relative_to(
        tmp_path / "new" / "hub"
    )


def test_interrupted_upload_is_finished_and_a_dry_run_asks_nothing(name, hub, publish_one):
    hub.log.clear()
    report = publish_one(name, dry_run=True)
    assert report.state == "would publish" and "MB" in report.detail and hub.log == []
    hub.faults["/commit/main"] = answering(500)
    report = publish_one(name)
    assert report.state == "failed" and "cannot be published" in report.detail
    assert "\n" not in report.detail
    hub.faults.clear()
    assert publish_one(name).state == "published"


def _check(tmp_path, *patterns):
    arguments = ["publish", *patterns, "--check", "--pins", str(tmp_path / "pins.json")]
    return CliRunner().invoke(main, arguments)


def test_check_compares_the_hub_with_the_pins(hub, tmp_path):
    weights = b"w" * 2000
    for name in ("uniformer_small.in1k", "uniformer_base.in1k"):
        commit = hub.add(f"team/{name}", {"model.safetensors": weights})
        pins = read_pins(tmp_path / "pins.json")
        pins[name] = pin_of(f"team/{name}", commit, weights)
        (tmp_path / "pins.json").write_text(as_text(pins))
    result = _check(tmp_path)
    assert result.exit_code == 0 and result.output.count("as pinned") == 2
    repo = hub.repos["team/uniformer_small.in1k"]
    hub.add("team/uniformer_small.in1k", {"model.safetensors": b"x" * 2000})
    result = _check(tmp_path, "uniformer_small")
    assert result.exit_code == 1 and "moved on" in result.output
    repo.commits[pins["uniformer_small.in1k"].revision]["model.safetensors"] = b"y" * 2000
    assert "changed" in _check(tmp_path).output
    hub.repos.clear()
    result = _check(tmp_path)
    assert result.exit_code == 1 and result.output.count("failed") == 2
    assert _check(tmp_path, "tcformer*").exit_code == 2


def test_wrong_use_exits_2_with_one_line(hub, tmp_path):
    for arguments, words in [
        (["publish", "nothing*", "--namespace", "team"], "no model matches 'nothing*'"),
        (["publish", "uniformer_smal", "--namespace", "team"], "did you mean uniformer_small"),
        (["publish", "uniformer_small"], "--namespace is needed"),
        (["verify", "nope"], "no model matches 'nope'"),
    ]:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2 and words in result.output, result.output
        assert result.output.count("\n") == 1


def test_failures_do_not_stop_the_others_and_set_the_exit_status(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    names = ["uniformer_small*", "tmpose_b_256x192"]
    result = CliRunner().invoke(main, ["publish", *names, "--namespace", "team"])
    assert result.exit_code == 1
    assert result.output.count("failed") == 3
    assert "no weights" in result.output and "published no weights" in result.output


def test_card_says_what_is_reported_and_what_is_measured():
    cfg = posezoo.get_pretrained_cfg("uniformer_s_256x192")
    card = variant_card(cfg, {"origin_file": "x.pth", "origin_sha256": "ab"})
    for words in ("license: apache-2.0", "pipeline_tag: keypoint-detection", "arxiv:2201.09450",
                  "Reported by the authors", "AP 74.0", "Nothing was measured with posezoo",
                  "Convolution in shallow stages", "## Limits", "@article{li2022uniformer",
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


def test_verify_names_damage_in_both_caches(name, hub, monkeypatch, publish_one):
    publish_one(name)
    monkeypatch.setenv("POSEZOO_HUB_NAMESPACE", "team")
    path = find_converted(posezoo.get_pretrained_cfg(name)).path
    hidden = path.rename(path.with_suffix(".hidden"))
    posezoo.create_model(name, pretrained=True)  # now from the Hub
    hidden.rename(path)
    result = _verify(name)
    assert result.exit_code == 0 and result.output.count("fine") == 2
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = _verify(name)
    assert result.exit_code == 1 and result.output.count("fine") == 1
    assert result.output.count("damaged or was replaced") == 1
    assert "nothing in the cache" in _verify("uniformer_base.in1k").output


def test_verify_knows_what_is_in_the_package():
    result = _verify("hrnet_xs_192x144")
    assert result.exit_code == 0 and "fine" in result.output and "assets" in result.output


def test_push_command_prints_the_commit_or_one_line(name, hub):
    folder = find_converted(posezoo.get_pretrained_cfg(name)).path.parent
    arguments = ["push", str(folder), "--repo", "me/mine"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and "/me/mine/commit/" in result.output
    assert set(hub.repos["me/mine"].files) == {"model.safetensors", "config.json"}
    hub.faults["/preupload/main"] = answering(403)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert result.output.startswith("posezoo: error: me/mine cannot be published")
