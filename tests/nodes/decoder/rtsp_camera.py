"""A real RTSP camera, to be run by the system's Python: rtsp_camera.py PORT [OPTIONS]."""

import argparse
import array

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

RATE = 30
LOUD = 4096


def picture(options):
    pattern = "black" if options.clapper else "ball"
    width, height = options.size.split("x")
    return (
        f"videotestsrc name=picture is-live=true pattern={pattern}"
        f" ! video/x-raw,width={width},height={height},framerate={RATE}/1"
        f" ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={options.gop}"
        " ! rtph264pay name=pay0 pt=96"
    )


def sound(options):
    wave = "ticks" if options.clapper else "sine"
    return f"audiotestsrc name=sound is-live=true wave={wave} ! alawenc ! rtppcmapay name=pay1 pt=8"


def clap(media):
    """Makes one picture a second white, and prints when that and each tick really happen."""
    bin = media.get_element()
    picture, sound = bin.get_by_name("picture"), bin.get_by_name("sound")
    count, quiet = 0, -1.0

    def pictured(pad, info):
        nonlocal count
        if count % RATE == 0:
            print("flash", info.get_buffer().pts / 1e9, flush=True)
        count += 1
        picture.set_property("pattern", "white" if count % RATE == 0 else "black")
        return Gst.PadProbeReturn.OK

    def sounded(pad, info):
        nonlocal quiet
        buffer = info.get_buffer()
        samples = array.array("h", buffer.extract_dup(0, buffer.get_size()))
        for number, sample in enumerate(samples):
            if abs(sample) > LOUD:
                time = buffer.pts / 1e9 + number / 8000
                if time - quiet > 0.3:
                    print("tick", time, flush=True)
                quiet = time
        return Gst.PadProbeReturn.OK

    picture.set_property("pattern", "white")
    picture.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, pictured)
    sound.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, sounded)


def protect(server, factory, login):
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*login.split(":")), token)
    server.set_auth(auth)
    grant = "user, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
    factory.add_role_from_structure(Gst.Structure.new_from_string(grant))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("--login", help="USER:PASSWORD")
    parser.add_argument("--size", default="160x120")
    parser.add_argument("--gop", type=int, default=15, help="pictures between two keyframes")
    parser.add_argument("--udp", action="store_true", help="refuse RTP within the connection")
    parser.add_argument("--clapper", action="store_true", help="a flash and a tick every second")
    parser.add_argument("--silent", action="store_true", help="no sound")
    options = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(options.port)
    factory = GstRtspServer.RTSPMediaFactory()
    sounds = "" if options.silent else sound(options)
    factory.set_launch(f"( {picture(options)} {sounds} )")
    factory.set_shared(True)
    if options.udp:
        factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
    if options.clapper:
        factory.connect("media-configure", lambda _, media: clap(media))
    if options.login:
        protect(server, factory, options.login)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


main()
