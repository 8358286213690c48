"""`ServedIndex`: the index that a service searches, as it is on the disk now."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from ..errors import IndexProblem
from ..model import Model
from ..model.engines import Engine
from .embeddings import Embedding
from .library import Library

log = logging.getLogger(__name__)


class ServedIndex:
    """An index that other processes may change; any thread may call its methods.

    Raises IndexProblem if the index is missing, damaged or of a newer format.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._library = Library.open(folder)
        self._embedding: tuple[Engine, Embedding] | None = None
        self._trouble = ""

    def library(self) -> Library:
        """Return the index as it is on the disk now, without photos that were removed.

        Raises IndexProblem, which is also logged, if it cannot be read; a later call tries again.
        """
        with self._lock:
            if not self._library.is_current():
                try:
                    self._library = Library.open(self._folder)
                except IndexProblem as error:
                    self._log(str(error))
                    raise
                self._trouble = ""
            return self._library

    def check(self, model: Model) -> Library:
        """Return the index as it is now; raises IndexProblem, saying what differs, if another model made it.

        Computes a black picture for a model that was not checked before.
        """
        library = self.library()
        with self._lock:
            if self._embedding is None or self._embedding[0] is not model.engine:
                self._embedding = model.engine, Embedding.of(model)
            embedding = self._embedding[1]
        library.check(embedding)
        return library

    def _log(self, trouble: str) -> None:
        """Log a failure once, and not for each request."""
        if trouble != self._trouble:
            log.error("The index cannot be searched: %s", trouble)
        self._trouble = trouble
