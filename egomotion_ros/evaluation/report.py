# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""All metrics of a bundle in one plain dictionary: what ``egomotion metrics`` prints and draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from egomotion_ros.data.episodes import EpisodeSet
from egomotion_ros.data.library import MotionLibrary
from egomotion_ros.evaluation import hml3d, leaks, realism
from egomotion_ros.evaluation.physics import at_scale, human_physics, mean_of, robot_physics
from egomotion_ros.evaluation.protocols import (
    Asked,
    answers,
    autoencoder_frechet,
    draw,
    egocentric,
    reconstructed,
    text_to_motion,
    walking_frechet,
)
from egomotion_ros.pipeline import EgoMotionPipeline
from egomotion_ros.retarget.retargeter import Retargeter
from egomotion_ros.runtimes.base import Runtime
from egomotion_ros.types import HumanMotion

if TYPE_CHECKING:
    from egomotion_ros.evaluation.evaluator import Evaluator

#: Samples of a text whose diversity is stated without an evaluator.
FEW = 5


@dataclass(frozen=True)
class Counts:
    """How much is measured: the defaults are those of the protocols."""

    plans: int = 256
    texts: int = hml3d.TEXTS
    samples: int = hml3d.SAMPLES
    replications: int = hml3d.REPLICATIONS
    retargeted: int = 40


def measure(pipeline: EgoMotionPipeline, runtime: Runtime, library: MotionLibrary,
            episodes: EpisodeSet, train_texts: list[str] | None = None,
            evaluator: Evaluator | None = None, counts: Counts | None = None,
            seed: int = 0) -> dict[str, object]:
    """
    Measure a bundle on held-out episodes and against held-out recordings.

    ``runtime`` is the one ``pipeline`` works on (its autoencoder gives the features of the
    Frechet distance); ``train_texts`` instructions of training for the leak audit, which says
    that it was not done without them; without an ``evaluator`` the figures that need embeddings
    are left out.
    """
    counts = Counts() if counts is None else counts
    asked = draw(episodes, counts.plans, seed)
    made = [row[0] for row in answers(pipeline, asked, asked.rows, 1, 'answers')]
    few = asked.rows[:counts.texts]
    samples = counts.samples if evaluator is not None else min(FEW, counts.samples)
    repeated = answers(pipeline, asked, few, samples, 'samples of one instruction')
    retargeter = Retargeter(pipeline.robot)
    robot, robots = robot_physics(retargeter, made[:counts.retargeted])
    takes = realism.held_out_takes(library)
    coded = [reconstructed(pipeline, runtime, m) for m in asked.recorded()]
    out: dict[str, object] = {
        'bundle': pipeline.bundle.hash, 'episodes': len(made),
        'leaks': _leaks(library, train_texts, [episodes.instruction(int(asked.episodes.index[n]))
                                               for n in asked.rows])}
    if evaluator is not None:
        out['HumanML3D protocol'] = text_to_motion(
            evaluator, asked, [parts[0] for parts in coded], [[m] for m in made], repeated,
            counts.replications)
    out['UniEgoMotion protocol'] = egocentric(evaluator, asked, made)
    out['physics'] = {
        'generated': mean_of([human_physics(m) for m in made]),
        'recorded answers': mean_of([human_physics(m) for m in asked.recorded()]),
        'held-out recordings': mean_of([human_physics(m) for _, m in takes])}
    out['robot'] = robot
    out['diversity'] = mean_of([realism.pose_diversity(row) for row in repeated]) | {
        'instructions': len(repeated), 'samples': samples}
    out['Frechet distance on autoencoder features'] = autoencoder_frechet(
        pipeline, runtime, asked, made)
    sides = tuple([m for _, m in realism.held_out_takes(library, (split,))]
                  for split in ('val', 'test'))
    out['Frechet distance of walking to held-out recordings'] = walking_frechet(
        pipeline, runtime, {'generated': made, 'recorded answers (synthesised)': asked.recorded()},
        sides, seed)
    human = _compare_humans(pipeline, runtime, asked, coded, made, takes)
    joints = realism.linked_joints(pipeline.robot)
    same = _windows([realism.human_trace(m, name, joints) for name, m in takes])
    after = _windows([realism.robot_trace(pipeline.robot, m, str(n))
                      for n, m in enumerate(robots)])
    again = [(name, retargeter.retarget(at_scale(m, pipeline.scale))) for name, m in takes]
    out['against held-out recordings'] = human | {
        'generated, after IK': realism.compare(after, same),
        'recordings, after IK': realism.compare(
            _windows([realism.robot_trace(pipeline.robot, m, name) for name, m in again]), same)}
    return out


def _compare_humans(pipeline: EgoMotionPipeline, runtime: Runtime, asked: Asked,
                    coded: list[list[HumanMotion]], made: list[HumanMotion],
                    takes: list[tuple[str, HumanMotion]]) -> dict[str, object]:
    """Ratios before inverse kinematics: of the answers, of what was learned, of the coding."""
    real = _windows([realism.human_trace(m, name) for name, m in takes])
    answered = [(str(n), m) for n, m in enumerate(asked.recorded())]
    again = [(str(n), part) for n, parts in enumerate(coded) for part in parts]
    through = [(name, part) for name, m in takes for part in reconstructed(pipeline, runtime, m)]
    rows = {'generated, before IK': [(str(n), m) for n, m in enumerate(made)],
            'recorded answers (synthesised)': answered,
            'recorded answers through the autoencoder': again,
            'recordings through the autoencoder': through}
    return {name: realism.compare(_windows([realism.human_trace(m, clip) for clip, m in found]),
                                  real) for name, found in rows.items()}


def _windows(traces: list[realism.Trace]) -> list[realism.Window]:
    return [window for trace in traces for window in realism.windows(trace)]


def _leaks(library: MotionLibrary, train_texts: list[str] | None, asked: list[str]
           ) -> dict[str, object]:
    out = leaks.library_leaks(library)
    # A report that says nothing of leaks would read as one that found none.
    out['instructions'] = ('not audited: no instructions of training were given '
                           '(--train-episodes)' if train_texts is None
                           else leaks.text_leaks(train_texts, asked))
    return out


def draw_ratios(report: dict[str, object], path: Path) -> None:
    """Draw foot slide and jerk relative to held-out recordings, with intervals, to a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator
    rows = {name: row['groups']['all'] for name, row in
            report['against held-out recordings'].items() if row['groups']}
    figure = Figure(figsize=(10, 3.6), layout='constrained')
    for axis, name in zip(figure.subplots(1, 2, sharey=True), ('foot slide', 'jerk'),
                          strict=True):
        axis.axvspan(*realism.GOAL, color='tab:green', alpha=0.15)
        axis.axvline(1.0, color='gray', linewidth=0.8)
        for k, row in enumerate(rows.values()):
            low, high = row[name]['interval']
            axis.plot([max(low, 1e-3), max(high, 1e-3)], [k, k], color='black')
            axis.plot(max(row[name]['ratio'], 1e-3), k, 'o', color='tab:blue')
        axis.set_xscale('log')
        axis.set_xlim(0.1, 12.0)
        axis.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ['0.1', '0.2', '0.5', '1', '2', '5', '10'])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_title(f'{name}, made / recorded')
        axis.set_yticks(range(len(rows)), list(rows))
        axis.set_ylim(len(rows) - 0.5, -0.5)
    figure.savefig(path, dpi=110, format='png')
