"""A bundle is read only if it is, to the last bit, what `topthree bundle` writes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundling import rewrite, small_bundle

from app.errors import BundleError
from app.model.bundle import DESCRIPTION, END, LABELS, MEMBERS, SUMS, padding, read_bundle, tar_header, write_sums
from app.model.digests import bytes_sha256, file_sha256
from app.model.records import RECORDS

RESNET18 = RECORDS["resnet18"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A whole bundle of a few hundred bytes a file."""
    return small_bundle(tmp_path)


def refusal(path: Path, sha256: str | None = None) -> str:
    """Return the sentence that a bundle is refused with."""
    with pytest.raises(BundleError) as caught:
        read_bundle(path, sha256)
    assert str(path) in str(caught.value)
    return str(caught.value).removeprefix(f"{path} ")


def test_a_bundle_says_what_it_holds(bundle: Path) -> None:
    found = read_bundle(bundle)
    made = found.description
    assert found.sha256 == file_sha256(bundle)
    assert (made.format, made.precision, made.classes, made.fallback) == (1, "fp32", 3, False)
    assert found.record == RESNET18
    assert found.obstacle is None
    assert [member.name for member in found.members] == list(MEMBERS)


def test_any_tar_opens_it_and_its_sums_are_those_of_sha256sum(bundle: Path) -> None:
    with tarfile.open(bundle) as archive:
        assert archive.getnames() == list(MEMBERS)
        assert {(member.mtime, member.uid, member.mode) for member in archive} == {(0, 0, 0o644)}
        content = {name: archive.extractfile(name).read() for name in MEMBERS}
    sums = dict(reversed(line.split("  ")) for line in content[SUMS].decode().splitlines())
    assert sums == {name: bytes_sha256(data) for name, data in content.items() if name != SUMS}


def test_every_changed_byte_is_noticed(bundle: Path) -> None:
    whole = bundle.read_bytes()
    used = [
        place for member in read_bundle(bundle).members for place in range(member.offset, member.offset + member.size)
    ]
    headers = [member.offset - 512 + place for member in read_bundle(bundle).members for place in range(512)]
    for place in [*used, *headers]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        bundle.write_bytes(damaged)
        refusal(bundle)


@pytest.mark.parametrize("kept", [0, 1, 511, 512, 1000, -1, -1025])
def test_a_bundle_cut_short_is_refused(bundle: Path, kept: int) -> None:
    bundle.write_bytes(bundle.read_bytes()[:kept])
    assert "damaged" in refusal(bundle) or "is not a bundle of topthree" in refusal(bundle)


def test_what_follows_the_end_is_refused(bundle: Path) -> None:
    bundle.write_bytes(bundle.read_bytes() + b"x")
    assert refusal(bundle) == "is damaged: it does not end where it should."


@pytest.mark.parametrize("data", [b"", b"text", bytes(10_240), b"PK\x03\x04" * 500, b"\xff" * 5000])
def test_other_files_are_no_bundles(bundle: Path, data: bytes) -> None:
    bundle.write_bytes(data)
    assert refusal(bundle) == "is not a bundle of topthree."


def test_what_cannot_be_read_is_told_with_its_reason(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.tar").endswith("gone.tar cannot be read: No such file or directory.")
    assert refusal(tmp_path).endswith("cannot be read: Is a directory.")


def member(name: str, /, **fields: object) -> Callable[[tarfile.TarInfo], tarfile.TarInfo]:
    """Make a change of one member's header, as a hostile archive would have it."""

    def change(found: tarfile.TarInfo) -> tarfile.TarInfo:
        if found.name == name:
            for field, value in fields.items():
                setattr(found, field, value)
        return found

    return change


HOSTILE = {
    "path that leads out": member(LABELS, name="../labels.csv"),
    "absolute path": member(LABELS, name="/etc/labels.csv"),
    "path through a link's place": member(LABELS, name="model/../labels.csv"),
    "symbolic link": member(LABELS, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": member(LABELS, type=tarfile.LNKTYPE, linkname="bundle.json"),
    "device": member(LABELS, type=tarfile.CHRTYPE),
    "folder": member(LABELS, type=tarfile.DIRTYPE),
    "sparse file": member(LABELS, type=tarfile.GNUTYPE_SPARSE),
    "program": member(LABELS, mode=0o4755),
    "renamed": member(LABELS, name="other.csv"),
    "given away": member(LABELS, uid=1000),
    "extended header": member(LABELS, pax_headers={"path": "../labels.csv"}),
    "long name": member(LABELS, name="a" * 200),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_members_that_are_no_plain_files_of_ours_are_refused(
    bundle: Path, change: Callable[[tarfile.TarInfo], tarfile.TarInfo]
) -> None:
    with tarfile.open(bundle) as archive:
        members = [(found, archive.extractfile(found).read()) for found in archive]
    with tarfile.open(bundle, "w", format=tarfile.PAX_FORMAT) as archive:
        for found, data in members:
            archive.addfile(change(found), io.BytesIO(data))
    assert refusal(bundle) == "is damaged: labels.csv is not where it belongs."


@pytest.mark.parametrize("name", MEMBERS[1:])
def test_a_missing_member_is_named(bundle: Path, name: str) -> None:
    rewrite(bundle, {name: None})
    assert refusal(bundle) == f"is damaged: {name} is not where it belongs."


def test_a_member_that_claims_more_than_the_file_has_is_refused(bundle: Path) -> None:
    bundle.write_bytes(tar_header(DESCRIPTION, 8**11 - 1) + b"{}")
    assert refusal(bundle) == "is damaged: it is cut short."


def test_texts_of_megabytes_are_not_read_into_memory(bundle: Path) -> None:
    rewrite(bundle, {DESCRIPTION: b" " * (1024 * 1024 + 1)})
    assert refusal(bundle) == "is damaged: bundle.json is far too large."


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null", b"9" * 5000])
def test_a_description_that_is_no_json_object_is_refused(bundle: Path, text: bytes) -> None:
    rewrite(bundle, {DESCRIPTION: text})
    assert refusal(bundle) == "is damaged: bundle.json cannot be read."


@pytest.mark.parametrize(
    "change", [{"classes": "3"}, {"model": []}, {"accuracy": 1}, {"more": 1}, {"precision": None}]
)
def test_a_description_of_other_fields_or_types_is_refused(bundle: Path, change: dict[str, object]) -> None:
    rewrite(bundle, {DESCRIPTION: change})
    assert refusal(bundle) == "is damaged: bundle.json does not say what it should."


@pytest.mark.parametrize("change", [{"precision": "int8"}, {"classes": 4}, {"weights_sha256": "0" * 64}])
def test_a_description_that_its_model_contradicts_is_refused(bundle: Path, change: dict[str, object]) -> None:
    rewrite(bundle, {DESCRIPTION: change})
    assert refusal(bundle) == "is damaged: model/manifest.json does not fit bundle.json."


def test_a_model_that_its_own_manifest_does_not_know_is_refused(bundle: Path) -> None:
    rewrite(bundle, {"model/model.bin": b"other weights"})
    assert refusal(bundle) == "is damaged: model/manifest.json does not fit bundle.json."


def test_wrong_sums_are_refused(bundle: Path) -> None:
    rewrite(bundle, {SUMS: write_sums(dict.fromkeys(MEMBERS, "0" * 64))})
    assert refusal(bundle) == "is damaged: its files are not those of its SHA256SUMS."


def test_a_bundle_of_a_later_format_is_told_from_a_damaged_one(bundle: Path) -> None:
    text = json.dumps({"format": 4}).encode()
    bundle.write_bytes(
        tar_header(DESCRIPTION, len(text)) + text + bytes(padding(len(text))) + tar_header("x", 0) + END
    )
    assert refusal(bundle) == (
        "is a bundle of format 4, and this version of topthree reads formats 1 to 3: "
        "make the bundle again with this version."
    )


def test_a_sum_for_the_whole_file_can_be_demanded(bundle: Path) -> None:
    digest = file_sha256(bundle)
    assert read_bundle(bundle, digest).sha256 == digest
    assert refusal(bundle, "a" * 64) == f"has SHA-256 {digest}, but TOPTHREE_BUNDLE_SHA256 demands {'a' * 64}."


def test_a_bundle_for_another_openvino_says_what_to_do(bundle: Path) -> None:
    rewrite(bundle, {DESCRIPTION: {"openvino": "2020.1.0"}})
    obstacle = read_bundle(bundle).obstacle
    assert "serves with OpenVINO 2020.1.0, and this is " in obstacle
    assert "install openvino==2020.1.0, or make the bundle again with this one." in obstacle


@pytest.mark.parametrize("change", [{"model": {"name": "resnet18"}}, {"prepare_version": 99}])
def test_a_bundle_of_another_way_to_prepare_says_what_to_do(bundle: Path, change: dict[str, object]) -> None:
    rewrite(bundle, {DESCRIPTION: change | {"topthree": "9.9.9"}})
    assert (
        "was made by topthree 9.9.9 for a model that this version prepares in another" in read_bundle(bundle).obstacle
    )
