"""`topthree index` in a process of its own, with a fake engine and a commit after every four photos."""

from __future__ import annotations

import sys

from fakes import be_patient, fake_model
from indexes import ColourEngine

import app.classifier
import app.search.indexing
from app.commands import cli
from app.model.served import Served

if __name__ == "__main__":
    app.classifier.load_served = lambda *_: Served(fake_model(ColourEngine()))
    app.search.indexing.COMMIT_PHOTOS = 4
    be_patient()
    cli(["index", *sys.argv[1:]])
