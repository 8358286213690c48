"""A ResNet-18 file and labelled photos that may not be part of this repository, where they are."""

from __future__ import annotations

import os

import pytest

TEST_WEIGHTS = os.environ.get("TOPTHREE_TEST_WEIGHTS")
SHARED_PHOTOS = os.environ.get("TOPTHREE_TEST_PHOTOS")
needs_test_weights = pytest.mark.skipif(
    not (TEST_WEIGHTS and SHARED_PHOTOS),
    reason="needs TOPTHREE_TEST_WEIGHTS, a ResNet-18 file, and TOPTHREE_TEST_PHOTOS, labelled photos",
)
