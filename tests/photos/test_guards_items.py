"""What an AVIF or a HEIC costs is that of all pictures it is made of, and of the frames in their streams."""

from __future__ import annotations

import struct

import pytest
from bomb_pictures import (
    ALPHA,
    DRAWN_HEIC,
    HeifFile,
    av1_frames,
    av1_sequence_header,
    box,
    full_box,
    grid,
    hevc_sps,
    hevc_unit,
    hvcc,
    ispe,
    overlay,
)
from pictures import MAX_PIXELS
from samples import SAMPLES

from app.errors import BrokenImage, TooCostly, TooManyPixels
from app.photos.guards import examine


def seconds(data: bytes) -> float:
    return examine(data, max_pixels=MAX_PIXELS).seconds


def heic(*parts: tuple[bytes, bytes, list[int]], size: tuple[int, int] = (320, 240)) -> HeifFile:
    """Begin with one coded picture, and go on with what is made of it."""
    file = HeifFile()
    file.add(b"hvc1", b"", ispe(*size))
    for kind, content, made_of in parts:
        file.add(kind, content, made_of=made_of)
    return file


def test_items_that_refer_to_each_other_are_refused():
    file = HeifFile()
    photo = file.add(b"hvc1", b"", ispe(320, 240))
    identity = file.add(b"iden", b"", ALPHA, made_of=[photo])
    file.refer(b"auxl", identity, photo)
    with pytest.raises(TooCostly, match="refer to each other in a circle"):
        examine(file.data(primary=photo), max_pixels=MAX_PIXELS)


def test_an_auxiliary_picture_that_is_no_alpha_is_not_followed():
    file = HeifFile()
    photo = file.add(b"hvc1", b"", ispe(320, 240))
    depth = file.add(b"iden", b"", made_of=[photo])
    file.refer(b"auxl", depth, photo)
    assert examine(file.data(primary=photo), max_pixels=MAX_PIXELS).width == 320


@pytest.mark.parametrize("size", [(1, 1), (320, 240)], ids=["pictures", "pixels"])
def test_overlays_of_overlays_double_with_each_level(size: tuple[int, int]):
    def nested(levels: int) -> bytes:
        return heic(
            *[(b"iovl", overlay(*size, 2), [level, level]) for level in range(1, levels + 1)], size=size
        ).data()

    assert seconds(nested(3)) < 0.1
    with pytest.raises(TooCostly):
        examine(nested(14), max_pixels=MAX_PIXELS)


def test_a_long_chain_of_identities_is_too_costly():
    file = heic(*[(b"iden", b"", [level]) for level in range(1, 30)])
    with pytest.raises(TooCostly, match="over more than 16 levels"):
        examine(file.data(), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("content", [grid(2, 1, 9000, 9000), overlay(9000, 9000, 2)], ids=["grid", "overlay"])
def test_the_output_of_a_grid_or_an_overlay_is_held_to_the_limit(content: bytes):
    kind = b"grid" if len(content) == 8 else b"iovl"
    with pytest.raises(TooManyPixels):
        examine(heic((kind, content, [1, 1])).data(), max_pixels=MAX_PIXELS)


def test_tiles_may_have_no_more_pixels_than_a_photo():
    tiles = heic((b"grid", grid(2, 2, 64, 64), [1] * 4), size=(4500, 4500))
    with pytest.raises(TooManyPixels):
        examine(tiles.data(), max_pixels=MAX_PIXELS)
    fitting = heic((b"grid", grid(2, 2, 7990, 7990), [1] * 4), size=(4096, 4096))
    assert examine(fitting.data(), max_pixels=MAX_PIXELS).width == 7990


def test_a_grid_costs_what_its_tiles_cost():
    one, many = heic(size=(512, 512)), heic((b"grid", grid(8, 8, 4096, 4096), [1] * 64), size=(512, 512))
    assert 50 * 512 * 512 * 20e-9 < seconds(many.data()) < 80 * seconds(one.data())


@pytest.mark.parametrize("where", ["configuration", "stream"])
def test_the_frame_of_a_heic_counts_where_it_is_larger(where: str):
    def lying(width: int, height: int) -> bytes:
        file, sps = HeifFile(), hevc_sps(width, height)
        in_stream = hevc_unit(sps) if where == "stream" else b""
        sets = () if where == "stream" else (sps,)
        file.add(b"hvc1", in_stream + hevc_unit(b"\x26\x01\x80"), ispe(64, 64), hvcc(*sets))
        return file.data()

    assert examine(lying(4000, 3000), max_pixels=MAX_PIXELS).width == 4000
    with pytest.raises(TooManyPixels):
        examine(lying(9000, 9000), max_pixels=MAX_PIXELS)


def avif(*stream: bytes, properties: tuple[bytes, ...] = ()) -> bytes:
    """Write an AVIF that says 64x64, of this stream."""
    file = HeifFile(b"avif")
    file.add(b"av01", b"".join(stream), ispe(64, 64), *properties)
    return file.data()


def test_the_frame_of_an_avif_counts_where_it_is_larger():
    assert examine(avif(av1_sequence_header(4000, 3000)), max_pixels=MAX_PIXELS).width == 4000
    with pytest.raises(TooManyPixels):
        examine(avif(av1_sequence_header(9000, 9000)), max_pixels=MAX_PIXELS)
    second = (av1_sequence_header(64, 64), av1_frames(1), av1_sequence_header(9000, 9000))
    with pytest.raises(TooManyPixels):
        examine(avif(*second), max_pixels=MAX_PIXELS)
    configured = box(b"av1C", b"\x81\x3f\x00\x00", av1_sequence_header(9000, 9000))
    with pytest.raises(TooManyPixels):
        examine(avif(properties=(configured,)), max_pixels=MAX_PIXELS)


def test_every_frame_of_a_still_picture_is_decoded():
    header = av1_sequence_header(4000, 3000)
    assert seconds(avif(header, av1_frames(5))) > 4 * seconds(avif(header, av1_frames(1)))
    with pytest.raises(TooCostly):
        examine(avif(header, av1_frames(1000)), max_pixels=MAX_PIXELS)
    with pytest.raises(TooCostly, match="more than 3,000 parts"):
        examine(avif(av1_frames(3100)), max_pixels=MAX_PIXELS)


def test_every_picture_of_a_heic_is_decoded():
    def pictures(count: int) -> bytes:
        file = HeifFile()
        file.add(b"hvc1", hevc_unit(b"\x26\x01\x80") * count, ispe(4000, 3000), hvcc(hevc_sps(4000, 3000)))
        return file.data()

    assert seconds(pictures(5)) > 4 * seconds(pictures(1))
    with pytest.raises(TooCostly):
        examine(pictures(1000), max_pixels=MAX_PIXELS)


def test_parts_of_an_item_may_not_repeat_the_file():
    file = HeifFile()
    file.repeated[file.add(b"hvc1", bytes(5000), ispe(64, 64))] = 100
    with pytest.raises(TooCostly, match="its parts lie over each other"):
        examine(file.data(), max_pixels=MAX_PIXELS)


def test_a_sequence_is_held_to_the_limit_by_its_track():
    entry = box(b"av01", bytes(24), struct.pack(">HH", 9000, 9000), bytes(50))
    table = box(b"stbl", full_box(b"stsd", struct.pack(">I", 1), entry))
    track = box(b"trak", box(b"mdia", box(b"minf", table)))
    with pytest.raises(TooManyPixels):
        examine(SAMPLES["AVIF"] + box(b"moov", track), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("name", [b"meta", b"iprp"])
def test_boxes_that_decoders_choose_from_differently_are_refused(name: bytes):
    data = DRAWN_HEIC.read_bytes()
    start = data.index(name) - 4
    twice = data[start : start + int.from_bytes(data[start : start + 4], "big")]
    meta = data.index(b"meta") - 4
    size = int.from_bytes(data[meta : meta + 4], "big")
    inside = data[:meta] + struct.pack(">I", size + len(twice)) + data[meta + 4 : meta + size] + twice
    with pytest.raises(BrokenImage):
        examine(data + twice if name == b"meta" else inside + data[meta + size :], max_pixels=MAX_PIXELS)


def test_the_size_that_a_property_says_is_held_to_the_limit():
    with pytest.raises(TooManyPixels):
        examine(heic(size=(10_000, 10_000)).data(), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize(
    ("what", "count"), [("items", 2100), ("parts", 3100), ("properties", 6100), ("references", 6100)]
)
def test_lists_by_the_thousand_are_too_costly(what: str, count: int):
    file = HeifFile()
    number = file.add(b"hvc1", b"", *[ispe(64, 64)] * (127 if what == "properties" else 1))
    if what == "parts":
        file.repeated[number] = count
    elif what == "references":
        file.refer(b"cdsc", number, *[number] * count)
    data = file.data()
    if what == "properties":
        # Each entry gives the one item the same 127 properties again.
        entries = data[data.index(b"ipma") + 12 : data.index(b"idat") - 4]
        links = full_box(b"ipma", struct.pack(">I", 50), entries * 50)
        start, end = data.index(b"ipma") - 4, data.index(b"idat") - 4
        data = resized(data[:start] + links + data[end:], len(links) - (end - start), b"meta", b"iprp")
    elif what == "items":
        locations = struct.pack(">H", count) + b"".join(struct.pack(">HHHH", item, 1, 0, 0) for item in range(count))
        links = full_box(b"iloc", b"\x44\x00", locations, version=1)
        start, end = data.index(b"iloc") - 4, data.index(b"iinf") - 4
        data = resized(data[:start] + links + data[end:], len(links) - (end - start), b"meta")
    with pytest.raises(TooCostly, match=f"more than .*000 {what}"):
        examine(data, max_pixels=MAX_PIXELS)


def resized(data: bytes, more: int, *kinds: bytes) -> bytes:
    """Say in boxes' headers that they have grown."""
    for kind in kinds:
        place = data.index(kind) - 4
        data = (
            data[:place] + struct.pack(">I", int.from_bytes(data[place : place + 4], "big") + more) + data[place + 4 :]
        )
    return data
