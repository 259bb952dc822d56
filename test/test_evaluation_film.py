# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of an evaluation: drawn by seed, showing what happened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
from fixtures_bundle import standing
import numpy as np
from PIL import Image
import pytest

from egomotion_ros.evaluation.film import BAR, FIRST, FRAME_RATE, THIRD, choose_pairs, write_film
from egomotion_ros.evaluation.goals import GoalScore
from egomotion_ros.evaluation.scenes import Question, held_out_questions
from egomotion_ros.evaluation.sheet import draw_sheet
from egomotion_ros.retarget.description import RobotDescription
from egomotion_ros.retarget.retargeter import Retargeter


@pytest.fixture(scope='module')
def questions() -> list[Question]:
    """Two questions; standing still answers the second, whose goal is where it stands."""
    first, second = held_out_questions(2)
    return [first, replace(second, goal=np.zeros(3))]


def test_pairs_are_drawn_by_seed_alone():
    scores = [GoalScore(n % 3 > 0, 0.1, 0.0, 0.0) for n in range(30)]
    pairs = choose_pairs(scores, 4, 1)
    assert pairs == choose_pairs(scores, 4, 1) != choose_pairs(scores, 4, 2)
    assert len(pairs) == 4
    assert all(hit % 3 > 0 and miss % 3 == 0 for hit, miss in pairs)
    alone = choose_pairs(scores[1:3], 4)
    assert [miss for _, miss in alone] == [None, None]
    with pytest.raises(ValueError, match='count'):
        choose_pairs(scores, 0)


def test_the_film_shows_a_hit_above_a_miss(questions, tmp_path: Path):
    motions = [standing(16), standing(16)]
    path = tmp_path / 'film.mp4'
    write_film(path, questions, motions, Retargeter(RobotDescription.load('unitree_g1')))
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    assert len(frames) == int(15 / 30 * FRAME_RATE) + 1
    picture = frames[-1]
    assert picture.shape == (2 * (FIRST + BAR), FIRST + THIRD[0], 3)
    # The head of who stands still sees what it saw when it was asked: the hit is on top.
    for top, question in ((BAR, questions[1]), (FIRST + 2 * BAR, questions[0])):
        seen = Image.fromarray(picture[top:top + FIRST, :FIRST]).resize((128, 128))
        gap = np.abs(np.asarray(seen, float) - question.image).mean()
        assert gap < 12.0


def test_the_sheet_shows_as_many_scenes_as_asked(questions, tmp_path: Path):
    path = tmp_path / 'sheet.png'
    draw_sheet(questions, [standing(10), standing(10)], path, count=2)
    assert Image.open(path).size[0] > 1000
