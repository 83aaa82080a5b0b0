"""HTTP status codes and their reason phrases.

Source: the HTTP Status Code Registry of IANA, which points to RFC 9110 and, for some codes, to other RFCs. Left out are
codes that were renamed over the years (such as 413 and 422), those that are no longer in use, and very long phrases.
"""

from __future__ import annotations

from typing import Any

from streams.facts.wording import Wording

STATUS_CODES = (  # code, reason phrase
    (100, "Continue"),
    (101, "Switching Protocols"),
    (102, "Processing"),
    (103, "Early Hints"),
    (200, "OK"),
    (201, "Created"),
    (202, "Accepted"),
    (204, "No Content"),
    (205, "Reset Content"),
    (206, "Partial Content"),
    (207, "Multi-Status"),
    (300, "Multiple Choices"),
    (301, "Moved Permanently"),
    (302, "Found"),
    (303, "See Other"),
    (304, "Not Modified"),
    (307, "Temporary Redirect"),
    (308, "Permanent Redirect"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (402, "Payment Required"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (406, "Not Acceptable"),
    (408, "Request Timeout"),
    (409, "Conflict"),
    (410, "Gone"),
    (411, "Length Required"),
    (412, "Precondition Failed"),
    (417, "Expectation Failed"),
    (421, "Misdirected Request"),
    (423, "Locked"),
    (424, "Failed Dependency"),
    (425, "Too Early"),
    (426, "Upgrade Required"),
    (429, "Too Many Requests"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Gateway Timeout"),
    (507, "Insufficient Storage"),
    (508, "Loop Detected"),
)

CLASSES = {1: "informational", 2: "successful", 3: "redirection", 4: "client error", 5: "server error"}  # RFC 9110, 15

WORDING = Wording(
    question="What is the reason phrase of HTTP status {subject}?",
    probes=(
        "Which words follow {subject} in an HTTP status line?",
        "What does the HTTP status code {subject} stand for?",
    ),
    passages=(
        "HTTP status {subject} has the reason phrase {answer}.",
        "{answer} is the reason phrase of the HTTP status code {subject}, which belongs to the {group} class.",
        'An HTTP server that answers with status {subject} says "{answer}".',
    ),
)


def rows() -> list[dict[str, Any]]:
    """One example row per status code."""
    return WORDING.rows(
        "status_codes",
        ({"subject": code, "answers": [phrase], "group": CLASSES[code // 100]} for code, phrase in STATUS_CODES),
    )
