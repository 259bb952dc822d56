# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras on the network of this machine: what FFmpeg sends, an RTSP server, a web camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import http.server
import io
import socket
import threading
import time

import av
import numpy as np
from PIL import Image

RATE = 30
WIDTH, HEIGHT = 320, 240


def picture(count: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Picture number ``count``: what its left half says its right half says inverted."""
    level = 40 + 7 * (count * 5 % 26)
    image = np.full((height, width, 3), level, np.uint8)
    image[:, width // 2:] = 255 - level
    return image


def is_whole(image: np.ndarray) -> bool:
    """Whether ``image`` is one of :func:`picture`, not a mixture of two."""
    half = image.shape[1] // 2
    left, right = image[:, :half - 8].astype(int), image[:, half + 8:].astype(int)
    return bool(left.max() - left.min() <= 12 and right.max() - right.min() <= 12
                and abs(left.mean() + right.mean() - 255) <= 8)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


class Background:
    """Does ``_run`` in a thread, until :meth:`close`."""

    def __init__(self) -> None:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError


class Sender(Background):
    """H.264 of :func:`picture` to a URL of FFmpeg, at 30 Hz, in a thread, until :meth:`close`."""

    def __init__(self, url: str, container: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
        self._url, self._container, self._size = url, container, size
        self.problem: Exception | None = None
        super().__init__()

    def _run(self) -> None:
        try:
            with av.open(self._url, 'w', format=self._container) as out:
                stream = out.add_stream('libx264', rate=RATE)
                stream.width, stream.height = self._size
                stream.pix_fmt = 'yuv420p'
                stream.options = {'tune': 'zerolatency', 'preset': 'ultrafast', 'g': '15'}
                begun, count = time.monotonic(), 0
                while not self._ending.wait(max(begun + count / RATE - time.monotonic(), 0.0)):
                    frame = av.VideoFrame.from_ndarray(picture(count, *self._size), 'rgb24')
                    for packet in stream.encode(frame):
                        out.mux(packet)
                    count += 1
        except Exception as problem:
            self.problem = problem


@contextmanager
def sending(url: str, container: str = 'mpegts', **options) -> Iterator[Sender]:
    sender = Sender(url, container, **options)
    try:
        yield sender
    finally:
        sender.close()


class Relay(Background):
    """Hands UDP packets on to another port of this machine; ``passes`` says which, by number."""

    def __init__(self, port: int, passes: Callable[[int], bool]) -> None:
        self._in = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._in.bind(('127.0.0.1', 0))
        self._in.settimeout(0.2)
        self.port, self._to, self._passes = self._in.getsockname()[1], port, passes
        self.kept_back = 0
        super().__init__()

    def close(self) -> None:
        super().close()
        self._in.close()

    def _run(self) -> None:
        count = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not self._ending.is_set():
                try:
                    data = self._in.recv(65536)
                except TimeoutError:
                    continue
                count += 1
                if self._passes(count):
                    out.sendto(data, ('127.0.0.1', self._to))
                else:
                    self.kept_back += 1


class RtspServer(Background):
    """
    An RTSP server (RFC 2326) of one H.264 camera, RTP in its TCP connection.

    Whoever does not send ``credentials`` (user:password, basic) gets 401.
    """

    def __init__(self, credentials: str = '') -> None:
        self._credentials = credentials
        self._server = socket.create_server(('127.0.0.1', 0))
        self._server.settimeout(0.2)
        self.port = self._server.getsockname()[1]
        self.methods: list[str] = []
        super().__init__()

    def close(self) -> None:
        super().close()
        self._server.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                connection, _ = self._server.accept()
            except TimeoutError:
                continue
            with connection:
                try:
                    self._serve(connection)
                except OSError:
                    pass

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(5.0)
        stream = connection.makefile('rb')
        while not self._ending.is_set():
            request = stream.readline().decode().split()
            if not request:
                return
            headers = {}
            while line := stream.readline().decode().strip():
                name, _, value = line.partition(':')
                headers[name.lower()] = value.strip()
            method, url = request[:2]
            self.methods.append(method)
            more, body = {}, ''
            status = '200 OK'
            if self._credentials and 'authorization' not in headers:
                status, more = '401 Unauthorized', {'WWW-Authenticate': 'Basic realm="test"'}
            elif method == 'OPTIONS':
                more = {'Public': 'OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN'}
            elif method == 'DESCRIBE':
                body = ('v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n'
                        'm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n'
                        'a=fmtp:96 packetization-mode=1\r\na=control:track1\r\n')
                more = {'Content-Type': 'application/sdp', 'Content-Base': f'{url}/'}
            elif method == 'SETUP':
                more = {'Transport': 'RTP/AVP/TCP;unicast;interleaved=0-1', 'Session': '1'}
            elif method == 'PLAY':
                more = {'Session': '1'}
            lines = [f'RTSP/1.0 {status}', f'CSeq: {headers["cseq"]}',
                     *(f'{name}: {value}' for name, value in more.items()),
                     f'Content-Length: {len(body)}', '', body]
            connection.sendall('\r\n'.join(lines).encode())
            if method == 'PLAY':
                self._play(connection)
                return

    def _play(self, connection: socket.socket) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp:
            rtp.bind(('127.0.0.1', 0))
            rtp.settimeout(0.2)
            with sending(f'rtp://127.0.0.1:{rtp.getsockname()[1]}', 'rtp'):
                while not self._ending.is_set():
                    try:
                        data = rtp.recv(65536)
                    except TimeoutError:
                        continue
                    connection.sendall(b'$\0' + len(data).to_bytes(2, 'big') + data)


class WebCamera:
    """Pictures as phones' web cameras send them: JPEG after JPEG in one HTTP answer, at 20 Hz."""

    def __init__(self) -> None:
        ending = self._ending = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=next')
                self.end_headers()
                count = 0
                while not ending.wait(0.05):
                    data = io.BytesIO()
                    Image.fromarray(picture(count)).save(data, 'JPEG')
                    try:
                        self.wfile.write(b'--next\r\nContent-Type: image/jpeg\r\nContent-Length: '
                                         b'%d\r\n\r\n%s\r\n' % (data.tell(), data.getvalue()))
                    except OSError:
                        return
                    count += 1

            def log_message(self, *unused) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
