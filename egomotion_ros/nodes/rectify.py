# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
From the camera at hand to the bundle's canonical camera.

The canonical camera is a pinhole without distortion and with square pixels.  A pixel of it is a
ray; the ray is turned by the camera's mounting (0, 90, 180 or 270 degrees) and projected through
the model of ``sensor_msgs/CameraInfo`` into the picture as it came.  The table of pixels is made
once per CameraInfo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from egomotion_ros.types import CameraIntrinsics

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo

#: Distortion models, with the counts of coefficients each may have.
MODELS = {
    '': (0,),
    'plumb_bob': (4, 5),
    'rational_polynomial': (8, 12, 14),
    'equidistant': (4,),
    'fisheye': (4,),
}


@dataclass(frozen=True)
class Lens:
    """
    How a camera maps rays to pixels.

    ``width``, ``height`` of its picture; ``matrix`` (3, 3) focal lengths and principal point in
    pixels, whose centres lie at whole numbers; ``distortion`` (N,) coefficients of ``model``, a
    key of :data:`MODELS`.
    """

    width: int
    height: int
    matrix: np.ndarray
    distortion: np.ndarray
    model: str

    @classmethod
    def from_field_of_view(cls, width: int, height: int, hfov: float) -> Lens:
        """Lens without distortion; ``hfov`` (rad) across ``width``."""
        if not 0.05 < hfov < 3.0:
            raise ValueError(f'camera.hfov: expected 0.05..3.0 rad, got {hfov}')
        focal = 0.5 * width / np.tan(0.5 * hfov)
        matrix = np.array(
            [[focal, 0.0, 0.5 * width - 0.5], [0.0, focal, 0.5 * height - 0.5], [0.0, 0.0, 1.0]]
        )
        return cls(width, height, matrix, np.zeros(0), '')

    @classmethod
    def from_camera_info(cls, info: CameraInfo, rectified: bool = False) -> Lens:
        """
        Lens of a CameraInfo, binning and region of interest included.

        ``rectified`` takes the projection matrix P and no distortion (the topic image_rect).
        Raises ValueError for an uncalibrated camera (focal length 0), numbers that are not
        finite, an unknown model or a wrong count of coefficients.
        """
        if rectified:
            matrix, distortion, model = np.array(info.p).reshape(3, 4)[:, :3], np.zeros(0), ''
        else:
            matrix, distortion = np.array(info.k).reshape(3, 3), np.array(info.d, dtype=float)
            model = info.distortion_model
            if model not in MODELS:
                known = ', '.join(m for m in MODELS if MODELS[m] and m)
                raise ValueError(f'CameraInfo: distortion model {model!r} is not one of {known}')
            if not distortion.any():
                distortion, model = np.zeros(0), ''
            elif len(distortion) not in MODELS[model]:
                raise ValueError(
                    f'CameraInfo: {model!r} takes {MODELS[model]} coefficients, '
                    f'got {len(distortion)}'
                )
        if not (np.isfinite(matrix).all() and np.isfinite(distortion).all()):
            raise ValueError('CameraInfo: numbers must be finite')
        if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
            raise ValueError('CameraInfo: focal length is 0, the camera is not calibrated')
        matrix = matrix.astype(float).copy()
        width, height = info.width, info.height
        region = info.roi
        if region.width and region.height:
            matrix[0, 2] -= region.x_offset
            matrix[1, 2] -= region.y_offset
            width, height = region.width, region.height
        bins = np.array([max(info.binning_x, 1), max(info.binning_y, 1)])
        matrix[:2] /= bins[:, None]
        return cls(int(width // bins[0]), int(height // bins[1]), matrix, distortion, model)

    def project(self, rays: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) of ``rays`` (N, 3) in optical axes; NaN where a ray cannot be seen."""
        zero = np.zeros(3)
        flat = np.ascontiguousarray(rays, dtype=np.float64).reshape(-1, 1, 3)
        if self.model in ('equidistant', 'fisheye'):
            pixels, _ = cv2.fisheye.projectPoints(flat, zero, zero, self.matrix, self.distortion)
        else:
            pixels, _ = cv2.projectPoints(flat, zero, zero, self.matrix, self.distortion)
        pixels = pixels.reshape(-1, 2)
        return np.where(rays[:, 2:] > 1e-3, pixels, np.nan)


def canonical_rays(camera: CameraIntrinsics, rotate: int = 0) -> np.ndarray:
    """
    Rays (H * W, 3) of the canonical camera's pixels, in the optical axes of the mounted camera.

    ``rotate`` degrees clockwise that turn the picture as it came upright.
    """
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    x = (u - 0.5 * camera.width) / camera.focal
    y = (v - 0.5 * camera.height) / camera.focal
    if rotate == 90:
        x, y = y, -x
    elif rotate == 180:
        x, y = -x, -y
    elif rotate == 270:
        x, y = -y, x
    elif rotate != 0:
        raise ValueError(f'camera.rotate: expected 0, 90, 180 or 270 degrees, got {rotate}')
    return np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)


class Rectifier:
    """Pictures of one :class:`Lens` as the canonical ``camera`` would see them."""

    def __init__(self, lens: Lens, camera: CameraIntrinsics, rotate: int = 0) -> None:
        """Make the table of pixels; raises ValueError where the two see nothing in common."""
        self.lens, self.camera = lens, camera
        pixels = lens.project(canonical_rays(camera, rotate))
        inside = (
            (pixels >= -0.5).all(axis=1)
            & (pixels[:, 0] <= lens.width - 0.5)
            & (pixels[:, 1] <= lens.height - 0.5)
        )
        #: Share of the canonical picture that the camera fills; the rest stays black.
        self.coverage = float(inside.mean())
        if self.coverage < 0.1:
            raise ValueError(
                f'the camera fills {self.coverage:.0%} of the canonical picture: wrong calibration'
            )
        # Shrinking happens first, by area, so that remap does not skip pixels.
        self._shrink = max(int(min(lens.matrix[0, 0], lens.matrix[1, 1]) / camera.focal), 1)
        table = (pixels.reshape(camera.height, camera.width, 2) + 0.5) / self._shrink - 0.5
        table = np.where(np.isfinite(table), table, -10.0).astype(np.float32)
        self._table = cv2.convertMaps(table, None, cv2.CV_16SC2)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Turn ``image`` (H, W, 3) uint8 into the canonical picture, same kind."""
        if image.shape[:2] != (self.lens.height, self.lens.width):
            raise ValueError(
                f'the image is {image.shape[1]}x{image.shape[0]}, CameraInfo speaks of '
                f'{self.lens.width}x{self.lens.height}'
            )
        if self._shrink > 1:
            size = (self.lens.width // self._shrink, self.lens.height // self._shrink)
            crop = image[: size[1] * self._shrink, : size[0] * self._shrink]
            image = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        return cv2.remap(
            image, *self._table, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )
