# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings of a head camera as episodes: clocks, poses, what is left out, training on them."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from pathlib import Path

from families_support import tiny_reasoner
from fixtures_bundle import standing, write_tiny_run
from fixtures_gait import walking_motion
import numpy as np
from PIL import Image
import pytest
from test_readers_datasets import write_nymeria
from test_training_stages import SIZES, TRAINING
import torch
import yaml

from egomotion_ros.body.edits import canonicalize, ground_pose, place, resample, slice_frames
from egomotion_ros.body.features import motion_to_features
from egomotion_ros.body.kinematics import forward_kinematics
from egomotion_ros.body.rotations import axis_angle_to_matrix
from egomotion_ros.body.skeleton import JOINT_INDEX
from egomotion_ros.body.smplx_io import write_npz
from egomotion_ros.bundle import Bundle
from egomotion_ros.cli import main
from egomotion_ros.data.episodes import RECORDED, EpisodeSet, write_episodes
from egomotion_ros.data.episodes_bank import load_or_make_bank
from egomotion_ros.data.looks import seen_from
from egomotion_ros.data.mapping import shipped_mappings
from egomotion_ros.data.motion_bank import MotionBank
from egomotion_ros.data.recorded import (
    Listed,
    Mount,
    Recorded,
    Sentence,
    Tally,
    mount_from_pitches,
    read_sentences,
    read_table,
    samples,
    worn_camera,
)
from egomotion_ros.data.recorded_nymeria import open_sequence
from egomotion_ros.data.recorded_picture import Chosen, horizon, way_in_picture
from egomotion_ros.data.recorded_set import write_recorded
from egomotion_ros.data.render import SceneRenderer
from egomotion_ros.data.scenes import CAMERA
from egomotion_ros.data.scenes_furnished import draw_scene
from egomotion_ros.evaluation.captions import EpisodeTexts
from egomotion_ros.models.checkpoints import load_model, save_model
from egomotion_ros.nodes.sources import Calibration, Frame
from egomotion_ros.runtimes import ort
from egomotion_ros.runtimes.ort import session_options
from egomotion_ros.text import TextEncoder
from egomotion_ros.training.generator import train_generator
from egomotion_ros.training.reasoner import train_reasoner
from egomotion_ros.training.reasoner_batches import ReasonerBatches, train_text
from egomotion_ros.types import HumanMotion, PlanarPose

MOUNT = Mount(up=0.1, pitch=0.3, yaw=0.1)


@dataclass
class Video:
    """Pictures in memory, one every 0.1 s; a damaged one has no picture."""

    pictures: list
    name: str = 'video'
    period: int = 100_000_000
    start: int = 5_000_000_000
    axis: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    calibration: Calibration = Calibration.pinhole(CAMERA.width, CAMERA.height, CAMERA.hfov)

    def frames(self, warn):
        for n, picture in enumerate(self.pictures):
            yield Frame(n * self.period, lambda picture=picture: self.read(picture))

    @staticmethod
    def read(picture):
        if picture is None:
            raise ValueError('picture cannot be decoded')
        return picture

    def device_time(self, time_code):
        return time_code + self.start + 300_000_000  # codes begin 0.3 s after the first picture


@pytest.fixture(scope='module')
def walk() -> HumanMotion:
    """Nine seconds of walking, begun somewhere else in another direction."""
    return place(walking_motion(seconds=9.0), PlanarPose(2.0, -1.0, 0.7))


def pictures(walk: HumanMotion, starts: float, count: int) -> list[np.ndarray]:
    """What the mounted camera sees of a scene, every 0.1 s; before the motion it stands still."""
    scene = draw_scene(7, 'furnished')
    seen = []
    with SceneRenderer() as renderer:
        for n in range(count):
            frame = max(round((0.1 * n - starts) * 30), 0)
            camera = worn_camera(walk, MOUNT, frame)
            seen.append(renderer.render(seen_from(scene, ground_pose(walk, frame), camera)))
    return seen


def recorded(walk: HumanMotion, sentences, starts: float = 0.5, video=None) -> Recorded:
    video = video or Video([np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)] * 100)
    return Recorded('walk', walk, starts, video, video.calibration, tuple(sentences), MOUNT)


def listed(one: Recorded, *names: str) -> list[Listed]:
    return [Listed(name, lambda name=name: replace(one, name=name)) for name in names]


def test_the_camera_follows_the_head():
    # The body faces 0.7 rad to the left; the head looks 0.5 further left and 0.3 down.
    still = standing(3)
    rotations = still.rotations.copy()
    rotations[:, JOINT_INDEX['head']] = axis_angle_to_matrix(np.array([0.0, 0.5, 0.0])) @ \
        axis_angle_to_matrix(np.array([0.3, 0.0, 0.0]))
    turned = place(replace(still, rotations=rotations), PlanarPose(1.0, 2.0, 0.7))
    camera = worn_camera(turned, Mount(up=0.1, pitch=0.2, yaw=-0.1), 1)
    head = forward_kinematics(still.root_position, still.rotations)[0, JOINT_INDEX['head'], 2]
    assert camera.height == pytest.approx(head + 0.1)
    assert camera.pitch == pytest.approx(0.5) and camera.yaw == pytest.approx(0.4)


def test_an_episode_is_what_was_seen_said_and_done(walk):
    seen = pictures(walk, 0.5, 25)
    one = recorded(walk, [Sentence(0.95, 5.0, 'walk to the door'), Sentence(2.0, 4.0, 'go on')],
                   video=Video(seen))
    tally = Tally('walk')
    first, second = samples(one, tally)
    assert (first.text, first.begin, second.begin) == ('walk to the door', 1.0, 2.0)
    assert tally.used == 2 and not tally.left_out
    # The first picture after 0.95 s is that of 1.0 s: frame 15 of a motion that starts at 0.5 s.
    motion, _ = canonicalize(slice_frames(walk, 15, 15 + 152))
    np.testing.assert_allclose(first.features, motion_to_features(motion))
    end = ground_pose(motion, 151)
    np.testing.assert_allclose(first.goal, [end.x, end.y, end.yaw])
    assert first.goal[0] == pytest.approx(1.2 * 151 / 30, abs=0.01)
    # The canonical camera itself took the pictures: nothing is to change.
    assert np.abs(first.image.astype(int) - seen[10]).max() <= 1
    assert np.abs(second.image.astype(int) - seen[20]).max() <= 1
    assert first.camera == worn_camera(walk, MOUNT, 15)


def test_the_sheet_shows_the_way_below_the_horizon(walk):
    one = recorded(walk, [Sentence(1.0, 5.0, 'walk')])
    sample, = samples(one, Tally('walk'))
    pixels = way_in_picture(sample)
    # Straight on, seen by a camera that looks 0.1 rad to the left: right of the middle.
    assert len(pixels) > 100 and (pixels[:, 1] > horizon(sample)).all()
    assert (pixels[:, 0] >= 0.5 * CAMERA.width).all() and pixels[-1, 0] > 70
    assert (np.diff(pixels[::30, 1]) < 0).all()


def test_a_tilted_camera_is_found_out_by_what_it_does(walk):
    times = np.linspace(0.6, 8.0, 40)
    frames = np.round((times - 0.5) * 30).astype(int)
    pitches = np.array([worn_camera(walk, MOUNT, int(frame)).pitch for frame in frames])
    pitches[:5] += 1.0  # looks elsewhere for a while
    assert mount_from_pitches(walk, 0.5, times, pitches).pitch == pytest.approx(0.3, abs=1e-6)
    with pytest.raises(ValueError, match='0 poses'):
        mount_from_pitches(walk, 0.5, times + 100.0, pitches)


def test_what_makes_no_episode_is_counted(walk):
    broken = walk.root_position.copy()
    broken[200:] += 3.0
    pics: list = [np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)] * 60
    pics[12] = None
    tally = Tally('walk')
    told: list[str] = []
    one = recorded(replace(walk, root_position=broken), [
        Sentence(0.1, 1.0, 'before the motion'), Sentence(0.8, 1.0, 'good'),
        Sentence(1.0, 2.0, ''), Sentence(1.05, 2.0, 'x' * 300), Sentence(1.2, 2.0, 'damaged'),
        Sentence(3.0, 4.0, 'jumps'), Sentence(5.0, 6.0, 'too late in the motion'),
        Sentence(30.0, 31.0, 'after the video')], video=Video(pics))
    found = list(samples(one, tally, told.append))
    assert [sample.text for sample in found] == ['good'] and tally.used == 1
    assert tally.left_out == {
        'the motion does not cover it': 2, 'it says nothing': 1,
        'it is longer than 240 bytes': 1, 'its picture is damaged': 1, 'the motion jumps': 1,
        'the video ends before it': 1}
    assert told == ['picture cannot be decoded']
    assert tally.line().startswith('walk: 1 episodes; 2 left out: the motion does not cover it; ')


def test_a_picture_that_comes_late_is_none(walk):
    tally = Tally('walk')
    slow = Video([np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)] * 5, period=10**9)
    one = recorded(walk, [Sentence(0.6, 5.0, 'soon enough'), Sentence(1.4, 5.0, 'late')],
                   video=slow)
    assert [sample.text for sample in samples(one, tally)] == ['soon enough']
    assert tally.left_out == {'there is no picture within 0.5 s': 1}


def test_a_lens_that_bends_is_straightened(walk):
    seen = pictures(walk, 0.5, 11)
    one = recorded(walk, [Sentence(1.0, 5.0, 'walk')], video=Video(seen))
    bent = replace(one.calibration, coefficients=(0.3, 0.0, 0.0, 0.0, 0.0))
    sample, = samples(replace(one, calibration=bent), Tally('walk'))
    middle = (slice(60, 68),) * 2
    assert np.abs(sample.image[middle].astype(int) - seen[10][middle]).max() < 40
    assert np.abs(sample.image.astype(int) - seen[10]).mean() > 3


def test_a_rate_overrules_that_of_the_file(mixed):
    row = yaml.safe_load((mixed / 'table.yaml').read_text())[0]
    table = mixed / 'rate.yaml'
    table.write_text(yaml.safe_dump([row, row | {'fps': 60.0}]))
    own, double = (one.open().motion.frames for one in read_table(table, shipped_mappings()))
    assert double == pytest.approx(own / 2, abs=2)


def write_recording(folder: Path, walk: HumanMotion) -> Path:
    """A table of one recording as users have them: files on disk."""
    write_npz(folder / 'walk.npz', walk)
    (folder / 'video').mkdir()
    for n, picture in enumerate(pictures(walk, 0.5, 16)):
        Image.fromarray(picture).save(folder / 'video' / f'{n:03d}.png')
    focal = CAMERA.focal
    (folder / 'camera.yaml').write_text(yaml.safe_dump({
        'image_width': 128, 'image_height': 128, 'distortion_model': 'plumb_bob',
        'camera_matrix': {'data': [focal, 0, 63.5, 0, focal, 63.5, 0, 0, 1]},
        'distortion_coefficients': {'data': [0] * 5}}))
    (folder / 'said.csv').write_text('start,end,text\n0.8,3,walk to the door\n1.2,4,"go on, on"\n')
    table = folder / 'table.yaml'
    table.write_text(yaml.safe_dump([{
        'name': 'take-1', 'motion': 'walk.npz', 'video': 'video', 'captions': 'said.csv',
        'starts': 0.5, 'calibration': 'camera.yaml', 'mount': {'up': 0.1, 'pitch': 0.3}}]))
    return table


@pytest.fixture(scope='module')
def mixed(walk, gait_bank: MotionBank, tmp_path_factory) -> Path:
    """Simulated scenes, a bank of motions, and recorded episodes appended by the command."""
    out = tmp_path_factory.mktemp('mixed')
    write_episodes(out / 'set', 'train', 4, kind='furnished')
    gait_bank.save(out / 'set')
    table = write_recording(out, walk)
    assert main(['data', 'recorded', str(table), '--out', str(out / 'set'),
                 '--picture', str(out / 'sheet.of')]) == 0
    return out


def test_the_command_appends_to_a_simulated_set(mixed, gait_bank, walk, capsys):
    bank = gait_bank
    held = EpisodeSet.open(mixed / 'set')
    rows = np.flatnonzero(held.action == RECORDED)
    assert len(held.images) == 6 and len(rows) == 2 and (held.scene[rows] == [4, 5]).all()
    assert [held.instruction(int(row)) for row in rows] == ['walk to the door', 'go on, on']
    assert (held.motion[rows] == len(bank.features) + np.arange(2)).all()
    motion, _ = canonicalize(slice_frames(walk, 9, 9 + 152))
    np.testing.assert_allclose(held.motion_features(int(rows[0])), motion_to_features(motion),
                               atol=0.02)
    # What was simulated is as it was, and the scenes know of no objects there.
    assert (held.bank.features[:len(bank.features)] == bank.features).all()
    assert (held.objects[4:] == 0).all() and (held.scene_seed[4:] < 0).all()
    assert Image.open(mixed / 'sheet.of').size[0] > 500
    with pytest.raises(ValueError, match='no simulated episode has a motion'):
        EpisodeTexts(held)
    again = ['data', 'recorded', str(mixed / 'table.yaml'), '--out', str(mixed / 'set')]
    assert main(again) == 1 and 'is there already' in capsys.readouterr().err
    assert main([*again, '--picture', str(mixed)]) == 1
    assert 'is a folder' in capsys.readouterr().err
    first, rest = held.shared_out(0.5)
    assert sorted([*first, *rest]) == list(range(6)) and sorted(first) == [0, 1, 4]
    assert len(EpisodeSet.open(mixed / 'set').images) == 6


def test_shards_of_both_kinds_have_numbers_of_their_own(mixed, tmp_path):
    assert {path.name for path in (mixed / 'set').glob('shard-*')} == {
        'shard-00000', 'shard-recorded-00000'}


def test_scenes_cannot_be_built_around_recorded_motions(walk, gait_library, tmp_path):
    write_recorded(tmp_path, listed(recorded(walk, [Sentence(1.0, 5.0, 'walk')]), 'c'))
    with pytest.raises(ValueError, match='draw the scenes first'):
        load_or_make_bank(tmp_path, gait_library, 'train', 100, 0, 1, 'furnished')


@pytest.mark.parametrize('moment', ['opening', 'columns', 'renaming', 'marking', 'clearing'])
def test_what_interrupts_leaves_the_set_as_it_was_or_whole(walk, tmp_path, monkeypatch, moment):
    monkeypatch.setattr('egomotion_ros.data.recorded_set.SHARD', 1)
    one = recorded(walk, [Sentence(1.0, 5.0, 'walk'), Sentence(1.1, 5.0, 'on')])
    write_recorded(tmp_path / 'set', listed(one, 'c'))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    coming = listed(one, 'e')
    with monkeypatch.context() as patch:
        if moment == 'opening':
            coming.append(Listed('take-1', interrupt))
        elif moment == 'columns':
            patch.setattr(MotionBank, 'save_columns', interrupt)
        elif moment == 'renaming':
            patch.setattr(Path, 'rename', interrupt)
        elif moment == 'marking':
            patch.setattr('egomotion_ros.data.recorded_set._mark', lambda folder, bank: (
                None if bank.name == 'bank-00000' else interrupt()))
        else:
            patch.setattr('egomotion_ros.data.recorded_set.shutil.rmtree', lambda path, *a, **k: (
                interrupt() if Path(path).name == 'bank-00000' else None))
        with pytest.raises(KeyboardInterrupt):
            write_recorded(tmp_path / 'set', coming)
    before = EpisodeSet.open(tmp_path / 'set')
    assert len(before) == (4 if moment == 'clearing' else 2)
    # The next one finds either nothing of it or all, and goes on.
    told: list[str] = []
    write_recorded(tmp_path / 'set', listed(one, 'e', 'take-1'), warn=told.append)
    held = EpisodeSet.open(tmp_path / 'set')
    assert held.motion.tolist() == list(range(6)) and len(held.bank.features) == 6
    assert held.bank.performance.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(told) == (moment in ('marking', 'clearing'))
    motion, _ = canonicalize(slice_frames(walk, 18, 18 + 152))  # the last one, seen at 1.1 s
    np.testing.assert_allclose(held.motion_features(5), motion_to_features(motion), atol=0.02)


def test_two_writers_do_not_meet(walk, tmp_path):
    one = recorded(walk, [Sentence(1.0, 5.0, 'walk')])

    def meanwhile() -> Recorded:
        with pytest.raises(ValueError, match='another process'):
            write_recorded(tmp_path, listed(one, 'e'))
        return one

    assert len(write_recorded(tmp_path, [Listed('c', meanwhile)])) == 1


def test_a_recording_that_cannot_be_seen_costs_no_other(walk, tmp_path):
    one = recorded(walk, [Sentence(1.0, 5.0, 'walk')])
    narrow = replace(one, calibration=Calibration.pinhole(128, 128, 0.1))
    other = replace(one, calibration=Calibration.pinhole(320, 240, 1.4))
    told: list[str] = []
    tallies = write_recorded(tmp_path, [
        Listed('b', lambda: narrow), Listed('e', lambda: other), *listed(one, 'c', 'c')],
        'train', told.append)
    assert [tally.used for tally in tallies] == [1]
    assert 'wrong calibration' in told[0] and 'pictures of 128 x 128' in told[1]
    assert "'c' is there already" in told[2]


def test_a_calibration_of_the_same_lens_at_another_size_will_do(walk):
    one = recorded(walk, [Sentence(1.0, 5.0, 'walk')], video=Video(pictures(walk, 0.5, 11)))
    large = Calibration.pinhole(512, 512, CAMERA.hfov)
    sample, = samples(replace(one, calibration=large), Tally('walk'))
    assert np.abs(sample.image.astype(int) - one.video.pictures[10]).max() <= 1


def test_few_of_many_are_drawn(walk):
    sample, = samples(recorded(walk, [Sentence(1.0, 5.0, 'walk')]), Tally('walk'))
    chosen = Chosen()
    for n in range(1000):
        chosen.add(replace(sample, begin=float(n)))
    begins = [one.begin for one in chosen.samples]
    assert 16 <= len(begins) < 32 and len(set(np.diff(begins))) == 1 and begins[-1] > 900


def test_all_stages_train_on_recordings_alone(walk, tmp_path, capsys):
    one = recorded(walk, [Sentence(0.6 + 0.1 * n, 5.0, 'fetch the jar' + ' of it' * n)
                          for n in range(10)])
    folder = tmp_path / 'train'
    write_recorded(folder, listed(one, 'take-1', 'b', 'c', 'e'))
    run = write_tiny_run(tmp_path / 'run')
    sizes = SIZES | {'text_tokens': 24, 'vlm': {
        'model_type': 'egomotion_vlm', 'image_size': 128, 'stem': [8, 8, 8, 8],
        'stem_blocks': [0, 0, 0, 0], 'text_config': {
            'vocab_size': 300, 'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 1,
            'num_attention_heads': 2, 'num_key_value_heads': 2}}}
    config = tmp_path / 'reasoner.yaml'
    config.write_text(yaml.safe_dump({'model': sizes, 'training': TRAINING,
                                      'data': {'questions': 2}}))
    first, rest = EpisodeSet.open(folder).shared_out(0.75)
    train_reasoner(config, folder, tmp_path / 'out' / 'reasoner', run / 'tokenizer', folder,
                   scenes=first)
    assert 'longer than 24 tokens and left out' in capsys.readouterr().out
    config.write_text(yaml.safe_dump({
        'model': {'width': 32, 'heads': 2, 'layers': 1, 'hidden': 32}, 'training': TRAINING,
        'data': {}}))
    model = train_generator(config, folder, run / 'tokenizer', run / 'autoencoder',
                            tmp_path / 'out' / 'reasoner', tmp_path / 'out' / 'generator',
                            scenes=rest)
    assert model.outward.weight.abs().max() > 0
    # Three recordings of four for stage 1; of the fourth the sentences that can be told.
    states = np.load(tmp_path / 'out' / 'generator' / 'states' / 'states.npy', mmap_mode='r')
    source = ReasonerBatches(EpisodeSet.open(folder), TextEncoder.open(
        tmp_path / 'out' / 'reasoner' / 'text.json', 24), None, 8)
    told = int(source.told.reshape(4, 10)[3].sum())
    assert 0 < told < 10 and len(states) == told
    # The walk is under way from the first frame: of a recording all is said nevertheless.
    assert source.episodes.bank.under_way().all() and source.spoken.all()


def test_words_of_recordings_are_learned():
    said = ['fetch the marmalade from the pantry'] * 9000
    plain, taught = (train_text(300, 40, recorded=words) for words in ((), said))
    assert taught.encode(said[0])[1].sum() < plain.encode(said[0])[1].sum()


def test_a_recording_belongs_to_one_split(walk, tmp_path):
    one = recorded(walk, [Sentence(1.0, 5.0, 'walk')])
    told: list[str] = []
    counts = [len(write_recorded(tmp_path / split, listed(one, 'walk'), split, told.append))
              for split in ('train', 'val', 'test')]
    assert sorted(counts) == [0, 0, 1] and len(told) == 2
    with pytest.raises(ValueError, match='holds a'):
        write_recorded(tmp_path / ('train', 'val', 'test')[counts.index(1)], [],
                       ('train', 'val', 'test')[counts.index(1) - 1])


def test_a_nymeria_sequence_is_put_on_one_clock(walk, tmp_path):
    sequence = tmp_path / '20230607_s0_someone_act0'
    write_nymeria(sequence, resample(walk, 240.0), timestamps_us=np.arange(9 * 240) * 4167.0)
    (sequence / 'narration').mkdir()
    # The columns of the data set; times on the glasses' clock, which stood at 5 s at first.
    (sequence / 'narration/atomic_action.csv').write_text(
        'request_id,gaia_id,start_time,end_time,annotator,creation_time,'
        'Describe my atomic actions\n'
        '1,2,6.3,11.3,x,y,"C walks to the door, looking down."\n')
    (sequence / 'recording_head/data').mkdir(parents=True)
    (sequence / 'recording_head/data/data.vrs').touch()
    slam = sequence / 'recording_head/mps/slam'
    slam.mkdir(parents=True)
    with (slam / 'closed_loop_trajectory.csv').open('w', newline='') as file:
        out = csv.writer(file)
        out.writerow(['graph_uid', 'tracking_timestamp_us', 'tx_world_device', 'qx_world_device',
                      'qy_world_device', 'qz_world_device', 'qw_world_device'])
        for n in range(8000):  # looks straight on and 0.4 rad down: Z of the device is forward
            turn = 0.25 * np.pi + 0.2
            out.writerow(['', 5_300_000 + n * 1000, 0, 0, np.sin(turn), 0, np.cos(turn)])
    one = open_sequence(sequence, shipped_mappings(), lambda path: Video([]))
    assert one.name == sequence.name and one.starts == pytest.approx(0.3)
    assert one.motion.fps == 30 and one.motion.frames == pytest.approx(270, abs=2)
    assert one.sentences == (Sentence(pytest.approx(1.3), pytest.approx(6.3),
                                      'C walks to the door, looking down.'),)
    head = np.median([worn_camera(one.motion, Mount(), n).pitch for n in range(0, 240, 15)])
    assert one.mount.pitch == pytest.approx(0.4 - head, abs=0.01)
    (sequence / 'narration/atomic_action.csv').unlink()
    with pytest.raises(ValueError, match='nothing says what is done'):
        open_sequence(sequence, shipped_mappings(), lambda path: Video([]))


@pytest.mark.parametrize('row, message', [
    ({'motion': 'walk.npz'}, 'are needed'),
    ({'speed': 1}, "unknown key 'speed'"),
    ({'starts': 'soon'}, 'starts must be a number'),
    ({'starts': float('nan')}, 'starts must be a number'),
    ({'mount': {'roll': 1}}, 'mount takes'),
    ({'mount': {'pitch': 9}}, 'mount.pitch must be'),
    ({'video': 'nowhere'}, 'no camera recording'),
    ({'motion': 'nowhere.bvh'}, 'nowhere.bvh'),
    ({'captions': 'camera.yaml'}, 'expected columns'),
    ({'calibration': None}, 'no calibration'),
    ('walk', 'are needed'),
])
def test_a_broken_entry_is_named_and_the_others_are_read(mixed, tmp_path, row, message):
    good = yaml.safe_load((mixed / 'table.yaml').read_text())[0]
    if isinstance(row, dict) and 'video' not in row and row != {'motion': 'walk.npz'}:
        row = {key: value for key, value in (good | row).items() if value is not None}
    elif isinstance(row, dict) and 'video' in row:
        row = good | row
    table = mixed / 'broken.yaml'
    table.write_text(yaml.safe_dump([row, good]))
    first, second = read_table(table, shipped_mappings())
    with pytest.raises(ValueError, match='broken.yaml, recording 1: ') as error:
        first.open()
    assert message in str(error.value)
    assert second.name == 'take-1' and second.open().sentences[0].text == 'walk to the door'


def test_a_broken_table_or_times_that_are_none_are_refused(tmp_path):
    table = tmp_path / 'table.yaml'
    for text in ('a: b', '[]', '{', '\x00', '- 2026-13-01', '[' * 5000):
        table.write_text(text)
        with pytest.raises(ValueError, match='table'):
            list(read_table(table, []))
    said = tmp_path / 'said.csv'
    for line in ('x,2,walk', '3,2,walk', 'nan,2,walk', ',,', '1', '1,2,walk, then turn'):
        said.write_text(f'start,end,text\n{line}\n')
        with pytest.raises(ValueError, match='said.csv'):
            read_sentences(said)
    said.write_bytes('\ufeffstart,end,text\r\n3,4,"go on, caf\u00e9"\r\n1,2,walk\r\n'.encode())
    assert read_sentences(said) == (Sentence(1.0, 2.0, 'walk'),
                                    Sentence(3.0, 4.0, 'go on, caf\u00e9'))


def test_graphs_of_large_bundles_read_weights_from_the_file(tiny_bundle, monkeypatch):
    bundle, asked = Bundle.open(tiny_bundle), session_options(1)
    plain = ort.OrtRuntime({'time': bundle.graphs['time']}, 1)
    monkeypatch.setattr(ort, 'IN_MEMORY', 0)
    mapped = ort.OrtRuntime({'time': bundle.graphs['time']}, options=asked)
    assert asked.get_session_config_entry('session.disable_prepacking') == '1'
    given = {item.name: np.full(item.shape, 0.5, item.dtype)
             for item in bundle.graphs['time'].inputs}
    for name, value in plain.run('time', **given).items():
        np.testing.assert_allclose(mapped.run('time', **given)[name], value, atol=1e-6)


def test_large_checkpoints_are_mapped_and_tables_that_are_one_stay_one(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = tiny_reasoner('paligemma2')
    save_model(model, 'reasoner', tmp_path)
    loaded = []
    for size in (2**30, 0):
        monkeypatch.setattr('egomotion_ros.models.checkpoints.MAPPED', size)
        loaded.append(load_model(tmp_path, 'reasoner'))
        assert loaded[-1].vlm.lm_head.weight is loaded[-1].vlm.get_input_embeddings().weight
    for name, value in loaded[0].state_dict().items():
        assert torch.equal(loaded[1].state_dict()[name], value), name
