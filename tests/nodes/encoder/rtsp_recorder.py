"""A real RTSP server that takes what is pushed to it: `rtsp_recorder.py PORT`, prints what comes.

It needs the system's Python, which has GStreamer. For each access unit it prints `key` or `delta`
and its size in bytes.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def came(_sink: object, buffer: Gst.Buffer, _pad: object) -> None:
    delta = buffer.get_flags() & Gst.BufferFlags.DELTA_UNIT
    print("delta" if delta else "key", buffer.get_size(), flush=True)


def configured(_factory: object, media: GstRtspServer.RTSPMedia) -> None:
    sink = media.get_element().get_by_name("out")
    sink.connect("handoff", came)


def main() -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_launch(
        "( rtph264depay name=depay0 ! h264parse ! video/x-h264,alignment=au ! "
        "fakesink name=out signal-handoffs=true async=false )"
    )
    factory.connect("media-configure", configured)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


main()
