# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Cameras that send over the network, as headsets and phones do: a URL that FFmpeg reads.

Stamps: nobody tells this machine's clock at capture.  What is known is when a picture arrived and
its time on the sender's clock.  The least time between the two, over the last pictures, is that of
an undisturbed way; what a picture took beyond it is delay on the way and is taken off its time of
arrival.  So stamps have the sender's even distances, and lie behind capture by one constant, the
shortest way from lens to here, which only the user can measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
import re
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from egomotion_ros.nodes.sources import Frame, check_size, upright

#: Protocols of FFmpeg that carry a live picture.
PROTOCOLS = ('rtsp', 'rtsps', 'rtmp', 'rtmps', 'http', 'https', 'udp', 'tcp', 'srt')
#: Containers whose pictures bear no times of their own: they count as sent when they arrive.
UNTIMED = ('mpjpeg', 'mjpeg')
#: Longest times (s) until a stream opens, and without data from an open one: so long libav cannot
#: be interrupted.
OPENING, SILENCE = 5.0, 2.0
#: Rest (s) between two attempts.
REST = 1.0
#: A picture that comes later than this (s) is the sign of a queue on the way, to be left behind.
BEHIND = 1.0
#: Seconds by which sender's and own clock may run apart in a second.
DRIFT = 1e-3
#: A stream begins with what waited on the way.  That is over when no picture was quicker than all
#: before it by more than EASED (s) for SETTLED (s).
EASED, SETTLED = 0.02, 0.3
#: How libav reads: nothing is held back; what cannot be told of a stream within a second its first
#: picture tells; RTSP over TCP, since of RTP packets that are lost in UDP libav does not tell, and
#: shows half a picture (of lost MPEG-TS it does).
OPTIONS = {'fflags': 'nobuffer', 'analyzeduration': '1000000', 'rtsp_transport': 'tcp'}
DECODER = {'flags': 'low_delay'}


def is_live(path: object) -> bool:
    """Whether ``path`` is a URL rather than a file."""
    return isinstance(path, str) and '://' in path


def without_secrets(url: str) -> str:
    """``url`` without user, password and query, for logs."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition('@')[2], query='', fragment='').geturl()


class Undelayed:
    """Takes what pictures were delayed on the way off their times of arrival."""

    def __init__(self) -> None:
        self._least = self._before = self._eased = float('inf')

    def late(self, arrived: float, sent: float) -> float | None:
        """
        Seconds that a picture took longer than the quickest of late; None while not known yet.

        ``arrived`` on the own steady clock, ``sent`` on the sender's (s).  The least time slowly
        grows, so that clocks may run apart.
        """
        took = arrived - sent
        if took < self._least - EASED:
            self._eased = arrived
        drift = DRIFT * max(arrived - self._before, 0.0)
        self._least, self._before = min(took, self._least + drift), arrived
        return took - self._least if arrived - self._eased >= SETTLED else None


def await_picture(url: str, seconds: float = 3.0 * OPENING) -> np.ndarray:
    """
    Return the first picture of a live camera, (H, W, 3) uint8 RGB.

    Raises ValueError, with what was wrong, where none comes within ``seconds``.
    """
    stream, said = LiveStream(url), []
    watch = threading.Timer(seconds, stream.end)
    watch.start()
    try:
        for frame in stream.frames(said.append):
            return frame.read()
    finally:
        watch.cancel()
    raise ValueError(said[-1] if said else f'no pictures from {stream.name} in {seconds:g} s')


class LiveStream:
    """
    The newest pictures of a URL, for as long as they are asked for.

    Raises ValueError where ``url`` is of no protocol of :data:`PROTOCOLS` or PyAV is missing.
    Whether anybody sends shows only in :meth:`frames`, which tries for ever.
    """

    calibration = None

    def __init__(self, url: str) -> None:
        try:
            self.name, protocol = without_secrets(url), urlsplit(url).scheme.lower()
        except ValueError as error:
            raise ValueError(f'not a URL: {error}') from error
        if protocol not in PROTOCOLS:
            raise ValueError(f'{self.name}: expected a file or a URL of {", ".join(PROTOCOLS)}')
        try:
            import av
        except ImportError as error:
            raise ValueError('reading a stream needs the package "av" (pip install av)') from error
        self._av, self._url = av, url
        self._news = threading.Condition()
        self._newest: Frame | None = None
        self._ended = False
        #: Pictures that a newer one replaced before anybody took them, and damaged ones.
        self.passed_over = self.damaged = 0

    def end(self) -> None:
        """End :meth:`frames`, from any thread; where nobody sends that takes up to OPENING s."""
        with self._news:
            self._ended = True
            self._news.notify_all()

    def frames(self, warn: Callable[[str], None],
               inform: Callable[[str], None] = lambda text: None) -> Iterator[Frame]:
        """
        Yield the newest picture whenever there is one, until :meth:`end`.

        ``Frame.time`` is the steady clock (:func:`time.monotonic_ns`) when the picture would have
        come without delay.  Where the stream breaks off it is opened again, every second; ``warn``
        hears why, once for every reason, ``inform`` that pictures come.
        """
        # Python must wait for it: a process that ends while libav runs crashes.
        thread = threading.Thread(target=self._read, args=(warn, inform), name='stream')
        thread.start()
        try:
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._ended or self._newest is not None)
                    if self._ended:
                        return
                    frame, self._newest = self._newest, None
                yield frame
        finally:
            self.end()
            thread.join()

    # The reading thread -----------------------------------------------------------------------
    def _read(self, warn: Callable[[str], None], inform: Callable[[str], None]) -> None:
        told = ''
        while not self._ended:
            try:
                self._follow(inform)
                why = 'the sender ended it'
            except (self._av.error.FFmpegError, OSError, ValueError) as error:
                why = self._reason(error)
            if self._ended:
                return
            if why != told:
                warn(f'no pictures from {self.name}: {why}; trying again every {REST:g} s')
            told = why
            with self._news:
                self._news.wait_for(lambda: self._ended, REST)

    def _reason(self, error: Exception) -> str:
        """What went wrong, without the address, which may hold a password."""
        text = getattr(error, 'strerror', None) or str(error)
        return re.sub(r'\s+', ' ', text.replace(self._url, self.name)).strip()

    def _follow(self, inform: Callable[[str], None]) -> None:
        """Open the stream and keep its newest picture until it breaks off."""
        with self._av.open(self._url, options=OPTIONS, timeout=(OPENING, SILENCE)) as container:
            if not container.streams.video:
                raise ValueError('it holds no video')
            stream = container.streams.video[0]
            stream.codec_context.options = DECODER
            timed = not set(container.format.name.split(',')) & set(UNTIMED)
            undelayed, whole, told, arrived = Undelayed(), False, False, time.monotonic()
            for packet in container.demux(stream):
                if self._ended:
                    return
                before, arrived = arrived, time.monotonic()
                if not packet.size:  # nothing more will come
                    if arrived - before > 0.5 * SILENCE:
                        raise ValueError(f'nothing came for {arrived - before:.1f} s')
                    return
                # What follows damage is built upon it, until a picture that stands for itself.
                whole = (whole or packet.is_keyframe) and not packet.is_corrupt
                frames, sound = self._decode(packet)
                whole = whole and sound
                for frame in frames:
                    if not whole:
                        self.damaged += 1
                        continue
                    late = 0.0
                    if timed and frame.time is not None:
                        late = undelayed.late(arrived, frame.time)
                    if late is None:
                        continue
                    if late > BEHIND:
                        raise ValueError(f'pictures come {late:.1f} s late')
                    if not told:
                        check_size(frame.width, frame.height, 'the stream')
                        inform(f'{frame.width} x {frame.height} px from {self.name}')
                        told = True
                    self._keep(Frame(round(1e9 * (arrived - late)), partial(upright, frame)))

    def _decode(self, packet: Any) -> tuple[list, bool]:
        try:
            frames = packet.decode()
        except self._av.error.InvalidDataError:
            return [], False
        return frames, not any(frame.is_corrupt for frame in frames)

    def _keep(self, frame: Frame) -> None:
        with self._news:
            self.passed_over += self._newest is not None
            self._newest = frame
            self._news.notify_all()
