"""The label table checks itself, and a custom model's labels file is read or refused with its reason."""

from __future__ import annotations

import collections
import re
from pathlib import Path

import pytest

from app.errors import LabelsError
from app.model.labels import Label, class_names, imagenet_labels, read_labels, search_labels
from app.photos.folders import name_key

# Classes that a Chinese reader knows by a name without Chinese characters.
NOT_IN_CHINESE = {"iPod"}
# Chinese names that two classes share, because everyday Chinese does not tell them apart.
SHARED_CHINESE_NAMES: set[str] = set()

# Where a wrong sense of the English word, or a relative of the species, is near.
MEANINGS = [
    (1, "goldfish", "金鱼"),
    (12, "house finch", "家朱雀"),
    (21, "kite", "鸢"),
    (97, "drake", "公鸭"),
    (134, "crane bird", "鹤"),
    (148, "killer whale", "虎鲸"),
    (151, "Chihuahua", "吉娃娃"),
    (191, "Airedale", "万能梗"),
    (207, "golden retriever", "金毛寻回犬"),
    (242, "boxer", "拳师犬"),
    (254, "pug", "巴哥犬"),
    (263, "Pembroke", "彭布罗克威尔士柯基犬"),
    (281, "tabby", "虎斑猫"),
    (290, "jaguar", "美洲豹"),
    (293, "cheetah", "猎豹"),
    (312, "cricket", "蟋蟀"),
    (323, "monarch", "帝王蝶"),
    (387, "lesser panda", "小熊猫"),
    (388, "giant panda", "大熊猫"),
    (458, "brass", "纪念铜牌"),
    (474, "cardigan", "开襟毛衣"),
    (517, "crane", "起重机"),
    (553, "file", "文件柜"),
    (656, "minivan", "商务车"),
    (673, "mouse", "鼠标"),
    (681, "notebook", "笔记本电脑"),
    (714, "pick", "拨片"),
    (726, "plane", "刨子"),
    (746, "puck", "冰球"),
    (836, "sunglass", "太阳镜"),
    (837, "sunglasses", "墨镜"),
    (850, "teddy", "泰迪熊"),
    (881, "upright", "立式钢琴"),
    (968, "cup", "茶杯"),
    (989, "hip", "蔷薇果"),
    (998, "ear", "玉米棒"),
]


def test_a_name_without_letters_is_not_found_by_words() -> None:
    assert search_labels((Label(0, None, "♥", None, None),), "tabby cat") == []


def test_there_are_a_thousand_classes_in_order():
    assert [label.class_id for label in imagenet_labels()] == list(range(1000))


def test_english_names_are_torchvisions_in_its_order():
    from torchvision.models import ResNet18_Weights

    theirs = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert [label.label for label in imagenet_labels()] == theirs


def test_wordnet_ids_are_well_formed_distinct_and_in_imagenets_order():
    wnids = [label.wnid or "" for label in imagenet_labels()]
    assert [wnid for wnid in wnids if not re.fullmatch(r"n[0-9]{8}", wnid)] == []
    assert wnids == sorted(set(wnids))


@pytest.mark.parametrize("column", ["label", "label_zh"])
def test_no_name_is_blank_or_padded(column: str):
    names = [getattr(label, column) for label in imagenet_labels()]
    assert [name for name in names if not name or name != " ".join(name.split())] == []


def test_chinese_names_are_chinese():
    names = [label.label_zh or "" for label in imagenet_labels()]
    assert {name for name in names if not re.search(r"[\u4e00-\u9fff]", name)} == NOT_IN_CHINESE


@pytest.mark.parametrize(("column", "shared"), [("label", set()), ("label_zh", SHARED_CHINESE_NAMES)])
def test_names_are_distinct(column: str, shared: set[str]):
    counts = collections.Counter(getattr(label, column) for label in imagenet_labels())
    assert {name for name, count in counts.items() if count > 1} == shared


@pytest.mark.parametrize(("class_id", "english", "chinese"), MEANINGS)
def test_names_mean_the_same_thing(class_id: int, english: str, chinese: str):
    label = imagenet_labels()[class_id]
    assert (label.label, label.label_zh) == (english, chinese)


@pytest.fixture
def labels_file(tmp_path: Path) -> Path:
    """Where a test writes a labels file."""
    return tmp_path / "labels.txt"


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ("cat\ndog\n", [Label(0, None, "cat", None), Label(1, None, "dog", None)]),
        ("cat\r\ndog", [Label(0, None, "cat", None), Label(1, None, "dog", None)]),
        ("\ufeffcat\n", [Label(0, None, "cat", None)]),
        ("  a cat, sitting \n", [Label(0, None, "a cat, sitting", None)]),
        ("猫\n", [Label(0, None, "猫", None)]),
        ("label\ncat\n", [Label(0, None, "cat", None)]),
        ("class_id,label\n0,cat\n1,dog\n", [Label(0, None, "cat", None), Label(1, None, "dog", None)]),
        ("\ufefflabel,label_zh\ncat,猫\n", [Label(0, None, "cat", "猫")]),
        ('label\n"a cat, sitting"\n', [Label(0, None, "a cat, sitting", None)]),
        ('"class_id","label"\r\n"0","cat"\r\n', [Label(0, None, "cat", None)]),
        ("class_id, label, wnid\n0, cat, n02121808\n", [Label(0, "n02121808", "cat", None)]),
        ("label,wnid,label_zh,colour\ncat, ,,grey\n", [Label(0, None, "cat", None)]),
        ("cat\n\n", [Label(0, None, "cat", None)]),
        ("cat\r\n \t\r\n\r\n", [Label(0, None, "cat", None)]),
        ("label,wnid\r\ncat,\r\n,\r\n \r\n", [Label(0, None, "cat", None)]),
    ],
)
def test_a_labels_file_is_one_name_a_line_or_csv(labels_file: Path, content: str, labels: list[Label]):
    labels_file.write_text(content, encoding="utf-8", newline="")
    assert list(read_labels(labels_file)) == labels


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"label\n", "is empty"),
        (b"cat\n\ndog\n", "has no name for class 1"),
        (b"cat\n  \ndog\n", "has no name for class 1"),
        (b"\n \n", "is empty"),
        (b"class_id,label\n0,\n1,dog\n", "has no name for class 0"),
        (b"class_id,label\n0,cat\n1,\n", "has no name for class 1"),
        (b"class_id,label\n0\n", "has no name for class 0"),
        (b"class_id,label\n1,cat\n", "has class_id 1 instead of 0"),
        (b"class_id,label\n0,cat\n2,dog\n", "has class_id 2 instead of 1"),
        (b"label,class_id\ncat\n", "has class_id None instead of 0"),
        (b"\xff\xfec\x00a\x00t\x00", "cannot be read: .*utf-8"),
        (b'label\n"' + b"cat " * 50_000, "cannot be read: field larger than"),
    ],
)
def test_a_labels_file_is_refused_with_its_reason(labels_file: Path, content: bytes, reason: str):
    labels_file.write_bytes(content)
    with pytest.raises(LabelsError, match=f"{re.escape(str(labels_file))} {reason}"):
        read_labels(labels_file)


def test_a_missing_labels_file_is_named(labels_file: Path):
    with pytest.raises(LabelsError) as refused:
        read_labels(labels_file)
    assert str(refused.value) == f"The labels file {labels_file} cannot be read: No such file or directory."


def test_a_folder_is_no_labels_file(tmp_path: Path):
    with pytest.raises(LabelsError, match="cannot be read"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("query", "class_ids"),
    [
        ("281", [281]),
        ("n02123045", [281]),
        ("N02123045", [281]),
        ("tabby", [281]),
        (" Tabby ", [281]),
        ("虎斑猫", [281]),
        ("crane", [134, 517]),
        ("熊猫", [387, 388]),
        ("shih", [155]),
        ("no such thing", []),
        ("n0212304", []),
        ("1000", []),
    ],
)
def test_labels_are_found_by_number_wordnet_id_or_part_of_a_name(query: str, class_ids: list[int]):
    assert [label.class_id for label in search_labels(imagenet_labels(), query)] == class_ids


def test_labels_of_a_custom_model_are_found_too():
    labels = (Label(0, None, "Straße", None), Label(1, None, "Weg", None))
    assert search_labels(labels, "STRASSE") == [labels[0]]


def test_each_class_is_named_by_a_folder_however_it_is_written():
    names = class_names(imagenet_labels())
    for label in imagenet_labels():
        class_id = None if label.label.casefold() == "cardigan" else label.class_id
        for written in (label.label.upper(), label.label.replace(" ", "_"), label.label.replace("'", "")):
            assert names.get(name_key(written)) == class_id
        assert names[label.wnid or ""] == label.class_id
