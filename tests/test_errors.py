"""One class for each failure, drawn as a tree where they are defined; slugs that never change."""

from __future__ import annotations

import re

import pytest

from app.errors import PROBLEMS, Problem, TopthreeError

# A client may depend on these: a slug is added, never changed or taken away.
STATUS_OF_SLUG = {
    "no-photo": 400,
    "too-many-photos": 400,
    "bad-parameter": 400,
    "bad-request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "no-right": 403,
    "foreign-origin": 403,
    "not-found": 404,
    "unknown-model": 404,
    "unknown-project": 404,
    "teaching-off": 404,
    "no-index": 404,
    "method-not-allowed": 405,
    "request-timeout": 408,
    "not-taught": 409,
    "name-taken": 409,
    "too-large": 413,
    "address-too-long": 414,
    "unsupported-content-type": 415,
    "unsupported-image": 415,
    "broken-image": 422,
    "unreadable-archive": 422,
    "too-many-pixels": 422,
    "too-costly": 422,
    "no-heat-map": 422,
    "bad-project-file": 422,
    "no-embedding": 422,
    "rate-limited": 429,
    "header-too-large": 431,
    "internal-error": 500,
    "client-closed-request": 499,
    "overloaded": 503,
    "model-unavailable": 503,
    "draining": 503,
    "projects-unavailable": 503,
    "index-unavailable": 503,
    "deadline-exceeded": 504,
    "project-full": 507,
}


def test_slugs_keep_their_status():
    assert {problem.slug: problem.status for problem in PROBLEMS} == STATUS_OF_SLUG


def test_no_slug_is_used_twice():
    assert len(PROBLEMS) == len(STATUS_OF_SLUG)


def test_problems_stand_in_the_order_of_their_statuses():
    statuses = [problem.status for problem in PROBLEMS]
    assert statuses == sorted(statuses)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.slug)
def test_a_problem_is_written_as_rfc_9457_says(problem: type[Problem]):
    assert problem("The reason.").as_dict() == {
        "type": f"/problems/{problem.slug}",
        "title": problem.title,
        "status": problem.status,
        "detail": "The reason.",
    }


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.slug)
def test_a_problem_is_raised_with_its_detail(problem: type[Problem]):
    with pytest.raises(TopthreeError, match=r"^The reason\.$") as raised:
        raise problem("The reason.")
    assert raised.value.detail == "The reason."


def test_slugs_follow_from_the_names_of_their_classes():
    words = {problem: re.sub(r"(?<!^)(?=[A-Z])", "-", problem.__name__).lower() for problem in PROBLEMS}
    assert {problem: problem.slug for problem in PROBLEMS} == words


def test_titles_differ():
    assert len({problem.title for problem in PROBLEMS}) == len(PROBLEMS)


def test_what_passes_by_itself_says_when_to_try_again():
    assert {problem.slug for problem in PROBLEMS if problem.retry_after_seconds} == {
        "rate-limited",
        "overloaded",
        "model-unavailable",
        "projects-unavailable",
        "index-unavailable",
        "draining",
    }
