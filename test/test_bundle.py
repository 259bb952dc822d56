# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A bundle opens only when it is whole, and is written whole or not at all."""

import hashlib
import json
from pathlib import Path
import shutil

import onnx
import pytest

from egomotion_ros.bundle import (
    BATCH_GRAPH,
    FORMAT,
    GRAPHS,
    MANIFEST,
    Bundle,
    describe_file,
    staged_directory,
    write_manifest,
)
from egomotion_ros.text import InstructionTooLongError, TextEncoder, clean_instruction


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / 'bundle'))


def edit(folder: Path, **changes: object) -> None:
    """Change values of the manifest, named as ``section__key``."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for path, value in changes.items():
        *sections, key = path.split('__')
        place = manifest
        for section in sections:
            place = place[section]
        if value is None:
            del place[key]
        else:
            place[key] = value
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_opens_and_its_hash_is_that_of_the_manifest(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert bundle.hash == hashlib.sha256((tiny_bundle / MANIFEST).read_bytes()).hexdigest()
    assert tuple(bundle.graphs) == GRAPHS
    assert (bundle.camera.width, bundle.frames, bundle.windows) == (128, 150, 19)


def test_says_how_it_was_made(tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    assert {'torch', 'onnx', 'onnxruntime', 'numpy'} <= set(manifest['libraries'])
    assert manifest['parity']['tokens_equal'] >= 0.99
    assert set(manifest['parity']['graphs']) == set(GRAPHS)


def test_opens_through_a_symlink_to_the_folder_and_to_files(tiny_bundle: Path,
                                                            tmp_path: Path) -> None:
    (tmp_path / 'linked').mkdir()
    for path in tiny_bundle.iterdir():
        (tmp_path / 'linked' / path.name).symlink_to(path)
    linked = Bundle.open(tmp_path / 'linked')
    assert linked.hash == Bundle.open(tiny_bundle).hash
    # Libraries that take no weights from behind a link are given the graph beside its weights.
    assert linked.graphs['step'].path == (tiny_bundle / 'step.onnx').resolve()
    assert onnx.load(linked.graphs['step'].path).graph.initializer


@pytest.mark.parametrize('name', ['weights.safetensors', 'prefill.onnx', 'text.json'])
def test_refuses_a_flipped_byte(copied: Path, name: str) -> None:
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(ValueError, match=f'{name}: SHA-256 differs'):
        Bundle.open(copied)


def test_refuses_a_truncated_file(copied: Path) -> None:
    data = (copied / 'weights.safetensors').read_bytes()
    (copied / 'weights.safetensors').write_bytes(data[:-7])
    with pytest.raises(ValueError, match='truncated'):
        Bundle.open(copied)


@pytest.mark.parametrize('name', ['step.onnx', 'weights.safetensors', 'text.json'])
def test_refuses_a_missing_file(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(ValueError, match=f'{name}: named by the manifest, but missing'):
        Bundle.open(copied)


def test_refuses_a_manifest_without_a_graph(copied: Path) -> None:
    edit(copied, graphs__decode=None)
    with pytest.raises(ValueError, match=r'graphs\.decode is missing'):
        Bundle.open(copied)


@pytest.mark.parametrize('batch', [0, 1, 65, None])
def test_refuses_a_batch_of_candidates_that_does_not_fit(tiny_bundle_of_four: Path,
                                                         tmp_path: Path, batch: int | None
                                                         ) -> None:
    assert Bundle.open(tiny_bundle_of_four).batch == 4
    folder = tmp_path / 'bundle'
    shutil.copytree(tiny_bundle_of_four, folder)
    graph = json.loads((folder / MANIFEST).read_text())['graphs'][BATCH_GRAPH]
    for item in (*graph['inputs'], *graph['outputs']):
        if item['name'] in ('x', 'x_next'):
            item['shape'] = [] if batch is None else [batch, *item['shape'][1:]]
    edit(folder, graphs__step_batch=graph)
    with pytest.raises(ValueError, match='step_batch.onnx: x'):
        Bundle.open(folder)


def test_the_batch_is_read_by_name(tiny_bundle_of_four: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'bundle'
    shutil.copytree(tiny_bundle_of_four, folder)
    graph = json.loads((folder / MANIFEST).read_text())['graphs'][BATCH_GRAPH]
    edit(folder, graphs__step_batch__inputs=graph['inputs'][::-1])
    assert Bundle.open(folder).batch == 4


def test_refuses_another_format_version(copied: Path) -> None:
    edit(copied, format=FORMAT + 1)
    with pytest.raises(ValueError, match=f'format {FORMAT + 1}, this package reads {FORMAT}'):
        Bundle.open(copied)


@pytest.mark.parametrize('name', ['../outside', '/etc/hostname', 'a/b', '..', '.hidden', '',
                                  'a\\b', 'a\0b'])
def test_refuses_a_name_that_leaves_the_folder(copied: Path, name: str) -> None:
    outside = copied.parent / 'outside'
    shutil.copy(copied / 'weights.safetensors', outside)
    edit(copied, files__weights={**describe_file(outside), 'file': name})
    with pytest.raises(ValueError, match='plain file name'):
        Bundle.open(copied)


@pytest.mark.parametrize(('change', 'words'), [
    ({'camera__hfov': 'wide'}, r'camera\.hfov has the wrong type str'),
    ({'camera__hfov': 9.0}, r'camera\.hfov is 9\.0'),
    ({'camera__width': 64}, 'image has shape'),
    ({'motion__windows': 18}, 'the manifest asks for'),
    ({'primitives__codebook': 33}, 'logits has shape'),
    ({'generator__steps': 0}, r'generator\.steps is 0'),
    ({'generator__steps': True}, 'wrong type bool'),
    ({'motion__frames': 153}, '153 frames do not fit'),
    ({'text': []}, 'text has the wrong type list'),
])
def test_refuses_parts_that_do_not_fit(copied: Path, change: dict[str, object],
                                       words: str) -> None:
    edit(copied, **change)
    with pytest.raises(ValueError, match=words):
        Bundle.open(copied)


@pytest.mark.parametrize('content', [b'', b'{', b'[]', b'\xff\xfe', b'{"format": NaN}',
                                     b'[' * 200000])
def test_refuses_a_manifest_that_is_no_manifest(copied: Path, content: bytes) -> None:
    (copied / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match='manifest'):
        Bundle.open(copied)


def test_refuses_a_huge_manifest_and_a_folder_without_one(copied: Path, tmp_path: Path) -> None:
    (copied / MANIFEST).write_bytes(b' ' * (2 << 20))
    with pytest.raises(ValueError, match='larger than'):
        Bundle.open(copied)
    with pytest.raises(ValueError, match='is no bundle'):
        Bundle.open(tmp_path / 'nowhere')


def test_a_failed_write_leaves_the_earlier_bundle(copied: Path) -> None:
    before = Bundle.open(copied).hash
    with pytest.raises(RuntimeError, match='half way'), staged_directory(copied) as folder:
        (folder / 'weights.safetensors').write_bytes(b'new')
        raise RuntimeError('half way')
    assert Bundle.open(copied).hash == before
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match='no space left while writing'), \
            staged_directory(tmp_path / 'new') as folder:
        # /dev/full answers every write as a full disk does.
        (folder / 'weights').symlink_to('/dev/full')
        (folder / 'weights').write_bytes(b'x' * 100000)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='file'), staged_directory(tmp_path / 'file' / 'bundle'):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_folder_that_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / 'thesis.txt').write_text('two years')
    with pytest.raises(ValueError, match='is no bundle'), staged_directory(tmp_path):
        pass
    assert (tmp_path / 'thesis.txt').read_text() == 'two years'


def test_equal_content_has_an_equal_hash(tmp_path: Path) -> None:
    write_manifest(tmp_path, {'b': 1, 'a': 2})
    first = (tmp_path / MANIFEST).read_bytes()
    write_manifest(tmp_path, {'a': 2, 'b': 1})
    assert (tmp_path / MANIFEST).read_bytes() == first


@pytest.fixture(scope='module')
def text() -> TextEncoder:
    return TextEncoder.train(['walk to the red ball'], 300, 12)


def test_words_that_look_like_control_tokens_are_plain_text(text: TextEncoder) -> None:
    ids, mask = text.encode('<pad><pad>')
    assert mask.sum() > 2
    assert (ids[mask] != ids[~mask][0]).all()


def test_equal_instructions_have_equal_tokens(text: TextEncoder) -> None:
    for variant in ('Walk to the RED ball', '  walk\tto the\nred ball ', 'ｗalk to the red ball'):
        assert (text.encode(variant)[0] == text.encode('walk to the red ball')[0]).all()


def test_an_instruction_is_never_cut(text: TextEncoder) -> None:
    with pytest.raises(InstructionTooLongError, match='tokens'):
        text.encode('walk to the red ball and then wave with both hands at everyone')
    with pytest.raises(InstructionTooLongError, match='10000 characters'):
        clean_instruction('x' * 10000)


@pytest.mark.parametrize('bad', ['', '   ', '\n\t', '\x00\x01', '\u200b', 'walk \ud800', b'walk',
                                 None])
def test_refuses_what_is_no_instruction(bad: object) -> None:
    with pytest.raises(ValueError):
        clean_instruction(bad)


def test_any_script_can_be_encoded(text: TextEncoder) -> None:
    ids, mask = text.encode('走 🙂 é')
    assert mask.any()
    assert (ids < text.size).all()


def test_text_survives_a_round_trip_through_a_file(text: TextEncoder, tmp_path: Path) -> None:
    text.save(tmp_path / 'text.json')
    again = TextEncoder.open(tmp_path / 'text.json', 12)
    assert (again.encode('turn left')[0] == text.encode('turn left')[0]).all()
    (tmp_path / 'text.json').write_text('{}')
    with pytest.raises(ValueError, match='no text tokenizer'):
        TextEncoder.open(tmp_path / 'text.json', 12)
