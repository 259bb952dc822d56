# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every family behind one interface: what Hugging Face computes, cut at a layer, two decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from families_support import FAMILIES, IMAGE, pretrained_folder, tiny_prompt, tiny_reasoner
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from egomotion_ros.models.reasoner import Reasoner


def whole_model(family: str, reasoner: Reasoner) -> Any:
    """Hugging Face's own model, all three layers, with the reasoner's weights in the lower two."""
    settings = dict(FAMILIES[family])
    config = AutoConfig.for_model(settings.pop('model_type'), **settings)
    whole = AutoModelForImageTextToText.from_config(config).eval()
    missing, unexpected = whole.load_state_dict(reasoner.vlm.state_dict(), strict=False)
    assert not unexpected and missing and all('layers.2.' in name for name in missing)
    return whole


def image_and_text(family: str, whole: Any, pixels: torch.Tensor, text: torch.Tensor
                   ) -> tuple[torch.Tensor, torch.Tensor]:
    """Hugging Face's image tokens, and its hidden states by layer of [image, text]."""
    model = whole.model
    if family == 'paligemma2':
        features = model.get_image_features(pixels).pooler_output
        ids = torch.cat([torch.full((1, features.shape[1]), 63), text], 1)
        out = model(input_ids=ids, pixel_values=pixels, output_hidden_states=True,
                    token_type_ids=torch.zeros_like(ids))
    elif family == 'smolvlm2':
        features = torch.stack(model.get_image_features(pixels[:, None]).pooler_output)
        ids = torch.cat([torch.full((1, features.shape[1]), 63), text], 1)
        out = model(input_ids=ids, pixel_values=pixels[:, None], output_hidden_states=True)
    else:
        side, p, m = IMAGE // 4, 4, 2
        film = pixels[0].expand(2, -1, -1, -1).reshape(1, 2, 3, side // m, m, p, side // m, m, p)
        flat = film.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(side * side, -1)
        grid = torch.tensor([[1, side, side]])
        seen = model.visual(flat, grid_thw=grid)
        features = torch.cat([seen.pooler_output, *seen.deepstack_features], -1)[None]
        ids = torch.cat([torch.full((1, features.shape[1]), 60), text], 1)
        out = model(input_ids=ids, pixel_values=flat, image_grid_thw=grid,
                    mm_token_type_ids=(ids == 60).int(), output_hidden_states=True)
    return features, out.hidden_states


@pytest.mark.parametrize('family', ['paligemma2', 'qwen3_vl', 'smolvlm2'])
def test_states_are_those_of_hugging_face_at_the_stated_layer(family: str) -> None:
    reasoner = tiny_reasoner(family)
    assert len(reasoner.family.language(reasoner.vlm).layers) == 2
    whole = whole_model(family, reasoner)
    pixels, text, *_ = tiny_prompt(1)
    with torch.no_grad():
        expected, layers = image_and_text(family, whole, pixels, text)
        features = reasoner.image_features(pixels)
        torch.testing.assert_close(features, expected, atol=2e-4, rtol=1e-4)
        tokens = torch.cat([features, reasoner._widen(whole.get_input_embeddings()(text))], 1)
        rows = tokens.shape[1]
        mask = torch.ones(1, rows, dtype=torch.bool)
        found = reasoner.run(tokens, reasoner.bias(mask, rows), torch.arange(rows)[None])
        norm = reasoner.family.language(whole).norm
        torch.testing.assert_close(found, reasoner.norm(norm(layers[2])), atol=2e-3, rtol=1e-3)
        # The layer above would have said something else.
        assert (found - reasoner.norm(layers[3])).abs().max() > 0.05


@pytest.mark.parametrize('family', FAMILIES)
def test_decoding_with_a_cache_equals_one_teacher_forced_pass(family: str) -> None:
    reasoner = tiny_reasoner(family)
    codes, _, out = reasoner.generate(*tiny_prompt())
    with torch.no_grad():
        taught = reasoner(*tiny_prompt(), codes[..., 0])
    torch.testing.assert_close(taught.states, out.states, atol=2e-3, rtol=0)
    torch.testing.assert_close(taught.base, out.base, atol=2e-3, rtol=0)
    assert taught.grounding.objectness.shape == (2, reasoner.family.grid ** 2)


@pytest.mark.parametrize('family', FAMILIES)
def test_refined_to_the_end_the_parallel_decoder_answers_as_the_other(family: str) -> None:
    reasoner = tiny_reasoner(family, decoder='both')
    expected, _, out = reasoner.generate(*tiny_prompt())
    first, _, _ = reasoner.generate(*tiny_prompt(), decoder='parallel')
    found, _, parallel = reasoner.generate(*tiny_prompt(), decoder='parallel', refinements=19)
    assert torch.equal(found, expected) and not torch.equal(first, expected)
    torch.testing.assert_close(parallel.states, out.states, atol=2e-3, rtol=0)


def test_queries_in_training_are_the_queries_of_decoding() -> None:
    reasoner = tiny_reasoner('qwen3_vl', decoder='parallel')
    codes, _, out = reasoner.generate(*tiny_prompt())
    with torch.no_grad():
        taught = reasoner(*tiny_prompt(), codes[..., 0])
        other = reasoner(*tiny_prompt(), (codes[..., 0] + 1) % 16)
    torch.testing.assert_close(taught.parallel, out.base, atol=2e-3, rtol=0)
    torch.testing.assert_close(taught.parallel, other.parallel)
    torch.testing.assert_close(taught.states, out.states, atol=2e-3, rtol=0)
    without = tiny_reasoner('qwen3_vl')
    assert without.queries is None
    with pytest.raises(ValueError, match='autoregressively only'):
        without.generate(*tiny_prompt(), decoder='parallel')


def test_causal_families_read_forward_and_the_others_both_ways() -> None:
    for family in FAMILIES:
        reasoner = tiny_reasoner(family)
        pixels, text, mask, camera = tiny_prompt(1)
        said = text.clone()
        said[:, 3] = (said[:, 3] + 1) % 59
        base = torch.zeros(1, 0, dtype=torch.long)
        with torch.no_grad():
            a, b = (reasoner(pixels, ids, mask, camera, base).states for ids in (text, said))
        image = reasoner.family.grid ** 2
        changed = (a - b)[:, :image].abs().max() > 1e-5
        assert bool(changed) == reasoner.family.bidirectional == (
            family in ('default', 'paligemma2'))
        assert (a - b)[:, -1].abs().max() > 1e-5


def test_attention_soft_capping_of_gemma_2_changes_the_answer() -> None:
    reasoner = tiny_reasoner('paligemma2')
    with torch.no_grad():
        for layer in reasoner.family.language(reasoner.vlm).layers:
            layer.self_attn.q_proj.weight.mul_(60.0)  # scores near the cap, as trained ones
        capped = reasoner(*tiny_prompt(), torch.zeros(2, 19, dtype=torch.long)).states
        for layer in reasoner.family.language(reasoner.vlm).layers:
            assert layer.self_attn.attn_logit_softcapping == 50.0
            layer.self_attn.attn_logit_softcapping = None
        plain = reasoner(*tiny_prompt(), torch.zeros(2, 19, dtype=torch.long)).states
    assert (capped - plain).abs().max() > 1e-3


def test_small_pictures_are_enlarged_and_large_ones_refused() -> None:
    reasoner = tiny_reasoner('smolvlm2')
    assert reasoner.image_features(torch.zeros(1, 3, 16, 16)).shape == (1, 16, 32)
    with pytest.raises(ValueError, match='pictures of 64 pixels, the model reads 32'):
        reasoner.image_features(torch.zeros(1, 3, 64, 64))


def test_pixels_are_normalised_as_the_processor_says() -> None:
    plain = tiny_reasoner('paligemma2')
    told = tiny_reasoner('paligemma2', image_mean=[0.48, 0.45, 0.40], image_std=[0.2, 0.3, 0.1])
    pixels = tiny_prompt(1)[0]
    mean, std = (torch.tensor(value).reshape(3, 1, 1) for value in (
        (0.48, 0.45, 0.40), (0.2, 0.3, 0.1)))
    by_hand = ((pixels + 1) / 2 - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(told.image_features(pixels), plain.image_features(by_hand))


@pytest.mark.parametrize(('change', 'words'), [
    ({'layer': 4}, 'layer 4: the model has 3'), ({'decoder': 'guess'}, "decoder 'guess'"),
    ({'image_size': 30}, 'multiples of 8'), ({'text_vocabulary': 99}, 'the model knows 64'),
    ({'vlm': {'model_type': 'bert'}}, "model_type 'bert'"),
    ({'vlm': {'model_type': 'no_such'}}, 'vlm configuration'),
    ({'vlm': {}}, 'vlm configuration'),
    ({'lora': {'rank': 0}}, 'rank')])
def test_sizes_that_do_not_fit_are_refused(change: dict, words: str) -> None:
    from egomotion_ros.models.reasoner import ReasonerConfig
    settings = {'vlm': FAMILIES['qwen3_vl'], 'layer': 2, 'codes': 16, 'levels': 3,
                'text_tokens': 6, 'text_vocabulary': 60, 'image_size': 32}
    with pytest.raises(ValueError, match=words):
        Reasoner(ReasonerConfig(**(settings | change)))


def test_lora_trains_adapters_alone_and_merges_without_a_trace() -> None:
    pytest.importorskip('peft')
    reasoner = tiny_reasoner('qwen3_vl', lora={'rank': 2, 'alpha': 4})
    learning = {name for name, p in reasoner.vlm.named_parameters() if p.requires_grad}
    assert learning and all('lora_' in name and 'language_model' in name for name in learning)
    assert reasoner.primitives.weight.requires_grad and reasoner.base_head.weight.requires_grad
    base = torch.zeros(2, 19, dtype=torch.long)
    with torch.no_grad():
        before = reasoner(*tiny_prompt(), base).states
        for name, weight in reasoner.vlm.named_parameters():
            if 'lora_B' in name:
                weight.normal_(std=0.2)
        trained = reasoner(*tiny_prompt(), base).states
        assert (trained - before).abs().max() > 1e-2
        merged = reasoner.merge()
        torch.testing.assert_close(merged(*tiny_prompt(), base).states, trained, atol=2e-3,
                                   rtol=1e-3)
    assert merged.config.lora is None
    assert set(merged.state_dict()) == set(tiny_reasoner('qwen3_vl').state_dict())


@pytest.mark.parametrize('family', ['paligemma2', 'qwen3_vl', 'smolvlm2'])
def test_pretrained_weights_tokenizer_and_processor_come_from_a_folder(family: str,
                                                                       tmp_path: Path) -> None:
    from egomotion_ros.models.checkpoints import load_model, save_model
    from egomotion_ros.models.pretrained import start_reasoner
    from egomotion_ros.text import TextEncoder
    whole = pretrained_folder(FAMILIES[family], tmp_path)
    settings = {'pretrained': str(tmp_path), 'layer': 2, 'codes': 16, 'levels': 3,
                'text_tokens': 6}
    if family == 'qwen3_vl':
        settings['image_size'] = IMAGE
    reasoner, text = start_reasoner(settings, 'both')
    assert reasoner.config.image_mean == [0.4, 0.5, 0.6]
    assert reasoner.config.text_vocabulary == text.size == 6
    for name, weight in reasoner.vlm.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), name
    # The bundle's file is read without transformers, and says the same.
    text.save(tmp_path / 'text.json')
    again = TextEncoder.open(tmp_path / 'text.json', 6)
    ids, mask = again.encode('Walk to the  BALL')
    assert list(ids) == [1, 2, 3, 4, 5, 5] and list(mask) == [True] * 4 + [False] * 2
    save_model(reasoner, 'reasoner', tmp_path / 'checkpoint')
    loaded = load_model(tmp_path / 'checkpoint', 'reasoner')
    expected, _, _ = reasoner.eval().generate(*tiny_prompt(), decoder='parallel')
    assert torch.equal(loaded.generate(*tiny_prompt(), decoder='parallel')[0], expected)


def test_a_source_without_a_model_is_refused_in_one_line(tmp_path: Path) -> None:
    from egomotion_ros.models.pretrained import start_reasoner
    with pytest.raises(ValueError, match='no model with tokenizer and processor'):
        start_reasoner({'pretrained': str(tmp_path), 'layer': 2})
    with pytest.raises(ValueError, match='reasoner configuration'):
        start_reasoner({'vlm': FAMILIES['default'], 'wheels': 4})
