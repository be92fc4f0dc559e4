"""A real WHIP server, made of aiortc: `whip_server.py PORT`, prints what it receives.

It answers POST /whip with a description (RFC 9725), and prints a line for each decoded picture
(`video WIDTHxHEIGHT LEVEL`) and each block of sound (`audio SAMPLES`).
"""

from __future__ import annotations

import asyncio
import sys

from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

PEERS: list[RTCPeerConnection] = []
TASKS: list[asyncio.Task[None]] = []


async def receive(track: MediaStreamTrack) -> None:
    try:
        while True:
            frame = await track.recv()
            if track.kind == "video":
                level = int(frame.to_ndarray(format="gray").mean())
                print(f"video {frame.width}x{frame.height} {level}", flush=True)
            else:
                print(f"audio {frame.samples}", flush=True)
    except MediaStreamError:
        print("end", flush=True)


async def answered(offer: str) -> str:
    peer = RTCPeerConnection()
    PEERS.append(peer)
    peer.on("track", lambda track: TASKS.append(asyncio.ensure_future(receive(track))))
    await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await peer.setLocalDescription(await peer.createAnswer())
    return peer.localDescription.sdp


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = (await reader.readline()).decode().split()
    length, token = 0, ""
    while (line := (await reader.readline()).decode().strip()) != "":
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
        if name.lower() == "authorization":
            token = value.strip()
    body = (await reader.readexactly(length)).decode()
    if request[0] == "POST" and len(sys.argv) > 2 and token != f"Bearer {sys.argv[2]}":
        head, answer = "401 Unauthorized", ""
    elif request[0] == "POST":
        head, answer = "201 Created", await answered(body)
    else:
        head, answer = "200 OK", ""
        for peer in PEERS:
            await peer.close()
    writer.write(
        f"HTTP/1.1 {head}\r\nContent-Type: application/sdp\r\nLocation: /whip/1\r\n"
        f"Content-Length: {len(answer)}\r\nConnection: close\r\n\r\n{answer}".encode()
    )
    await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
