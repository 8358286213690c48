"""Clutter: files that file managers and storage systems keep beside photos, such as thumbnails and metadata."""

from __future__ import annotations

from collections.abc import Sequence

# Windows, macOS, KDE and Picasa, in lower case.
_FILES = frozenset(
    [
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        ".ds_store",
        ".localized",
        "icon\r",
        ".directory",
        ".picasa.ini",
        "picasa.ini",
    ]
)
# macOS and its servers, Synology, Android and GNOME, and folders of the file system, which are often unreadable.
_FOLDERS = frozenset(
    [
        "__macosx",
        ".appledouble",
        ".spotlight-v100",
        ".fseventsd",
        ".trashes",
        "@eadir",
        ".thumbnails",
        "system volume information",
        "lost+found",
    ]
)
# AppleDouble: what macOS keeps of `x.jpg` on a disk of another system, as `._x.jpg`.
_APPLE_DOUBLE = "._"


def is_clutter(parts: Sequence[str]) -> bool:
    """Return whether a file, given as its folders and its name, is clutter."""
    *folders, name = (part.lower() for part in parts)
    return name in _FILES or name.startswith(_APPLE_DOUBLE) or any(is_clutter_folder(folder) for folder in folders)


def is_clutter_folder(name: str) -> bool:
    """Return whether all that a folder of this name holds is clutter."""
    return name.lower() in _FOLDERS
