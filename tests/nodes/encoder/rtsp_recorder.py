"""A real RTSP server that takes what is pushed to it: `rtsp_recorder.py PORT`, prints what comes.

`rtsp_recorder.py PORT PATH USER PASSWORD` takes it under another path than `/live`, and only from
that user. It needs the system's Python, which has GStreamer. For each access unit it prints `key`
or `delta` and its size in bytes.
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


def permit(
    server: GstRtspServer.RTSPServer,
    factory: GstRtspServer.RTSPMediaFactory,
    user: str,
    password: str,
) -> None:
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "publisher")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for what in ("access", "construct"):
        permissions.add_permission_for_role("publisher", f"media.factory.{what}", True)
    factory.set_permissions(permissions)


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
    path, *user = sys.argv[2:] or ["/live"]
    if user:
        permit(server, factory, *user)
    server.get_mount_points().add_factory(path, factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


main()
