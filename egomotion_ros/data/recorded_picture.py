# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Recorded episodes as a contact sheet, to see whether camera and motion agree.

The dashed line is the horizon, the dots are where the pelvis stands on the floor in the five
seconds to come.  A mount or a time that is wrong shows at once: the dots do not lie where the
person goes.
"""

from __future__ import annotations

from pathlib import Path
import textwrap

import numpy as np

from egomotion_ros.data.recorded import Sample
from egomotion_ros.data.scenes import CAMERA
from egomotion_ros.data.scenes_view import project

#: Most pictures of a sheet, and how many stand in a row.
MOST, ACROSS = 16, 4


class Chosen:
    """Some of many samples, evenly spread: at least MOST where there were so many."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._every, self._seen = 1, 0

    def add(self, sample: Sample) -> None:
        """See a sample; every so many-th is kept, the fewer the more there are."""
        if self._seen % self._every == 0:
            self.samples.append(sample)
            if len(self.samples) == 2 * MOST:
                self.samples, self._every = self.samples[::2], 2 * self._every
        self._seen += 1


def save_sheet(path: Path, found: list[Sample]) -> Path:
    """Write a PNG of at most MOST samples, evenly chosen; returns where it is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = np.unique(np.linspace(0, len(found) - 1, min(len(found), MOST)).round().astype(int))
    down = -(-len(rows) // ACROSS)
    sheet = Figure(figsize=(3.0 * ACROSS, 3.5 * down), dpi=90, layout='constrained')
    FigureCanvasAgg(sheet)
    for place, row in enumerate(rows):
        sample = found[int(row)]
        axes = sheet.add_subplot(down, ACROSS, place + 1)
        axes.imshow(sample.image, interpolation='nearest')
        axes.axhline(horizon(sample), color='white', lw=1, ls='--')
        pixels = way_in_picture(sample)
        axes.scatter(pixels[:, 0], pixels[:, 1], c=np.linspace(0, 1, len(pixels)), s=9,
                     cmap='autumn')
        axes.set(xlim=(-0.5, CAMERA.width - 0.5), ylim=(CAMERA.height - 0.5, -0.5),
                 xticks=[], yticks=[])
        axes.set_title('\n'.join(textwrap.wrap(f'{sample.begin:.1f} s: {sample.text}', 36)[:3]),
                       fontsize=8, parse_math=False)
    sheet.savefig(path, format='png')
    return path


def horizon(sample: Sample) -> float:
    """Row (px) of the horizon in the middle of the picture."""
    return 0.5 * CAMERA.height - CAMERA.focal * float(np.tan(sample.camera.pitch))


def way_in_picture(sample: Sample) -> np.ndarray:
    """Pixels (N, 2) of the floor under the pelvis, of the frames that are before the camera."""
    floor = np.column_stack([sample.path, np.zeros(len(sample.path))])
    pixels, depth = project(floor, sample.camera)
    return pixels[depth > 0.1]
