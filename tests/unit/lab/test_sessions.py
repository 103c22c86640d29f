"""Who may talk to the pool, and for how long."""

from __future__ import annotations

import hashlib
import json
import ssl
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import pytest
import XenAPI

from holdfast.core import ManualClock, Secret, SystemEntropy
from holdfast.lab import RunningLab
from holdfast.lab.database import Database
from holdfast.lab.datamodel import load_datamodel
from holdfast.lab.errors import ApiFailure
from holdfast.lab.sessions import SESSIONS_ANONYMOUS_MAX, SESSIONS_PER_ORIGINATOR_MAX, Sessions
from holdfast.lab.store import RowStore
from tests.support.lab import PASSWORD, logged_in, tiny_lab
from tests.unit.lab.talk import fetch, json_call, refusal


def test_a_wrong_password_is_refused_with_the_users_name(lab: RunningLab) -> None:
    stranger = XenAPI.Session(lab.plain_url)
    wanted = ["SESSION_AUTHENTICATION_FAILED", "root", "Authentication failure"]
    assert refusal(lambda: stranger.xenapi.login_with_password("root", "wrong")) == wanted


def test_a_session_ends_with_logout(lab: RunningLab) -> None:
    session = XenAPI.Session(lab.plain_url)
    session.xenapi.login_with_password("root", PASSWORD, "1.0", "here")
    ref = session._session
    assert session.xenapi.session.get_record(ref)["originator"] == "here"
    session.xenapi.session.logout()
    error = json_call(lab, "VM.get_all", ref)["error"]
    assert (error["message"], error["data"]) == ("SESSION_INVALID", [ref])


def _login(url: str, pem: str) -> dict[str, Any]:
    """Log in with JSON-RPC over TLS, the certificate verified."""
    document = {"jsonrpc": "2.0", "method": "session.login_with_password", "params": ["root", PASSWORD], "id": 1}
    request = urllib.request.Request(f"{url}/jsonrpc", json.dumps(document).encode())
    with urllib.request.urlopen(request, timeout=20, context=ssl.create_default_context(cadata=pem)) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def test_the_same_pool_answers_over_tls_with_its_own_certificate(lab: RunningLab) -> None:
    assert _login(lab.url, lab.certificate_pem)["result"].startswith("OpaqueRef:")
    der = ssl.get_server_certificate((str(urlsplit(lab.url).hostname), int(urlsplit(lab.url).port or 0)))
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(der)).hexdigest() == lab.fingerprint


def test_a_member_sends_a_login_to_the_master() -> None:
    with tiny_lab(hosts=2, scenario="empty") as lab:
        error = _login(lab.member_urls[0], lab.certificate_pem)["error"]
    assert (error["message"], error["data"]) == ("HOST_IS_SLAVE", ["127.0.0.1"])


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 401),
        ("session_id=OpaqueRef:bad", {}, 401),
        ("", {"Authorization": "Basic cm9vdDp3cm9uZw=="}, 401),
        ("", {"Authorization": "Basic cm9vdDpsYWJwYXNz"}, 500),
        ("session_id={good}", {}, 500),
        ("session_id=OpaqueRef:bad", {"Cookie": "session_id={good}"}, 500),
        ("session_id={good}", {"Cookie": "session_id=OpaqueRef:bad"}, 401),
        ("", {"Cookie": "a=b; session_id={good}"}, 401),
    ],
)
def test_a_handler_takes_cookie_query_or_password_in_that_order(
    lab: RunningLab, session: Any, query: str, headers: dict[str, str], status: int
) -> None:
    good = session._session
    answer = fetch(
        lab,
        "GET",
        f"/export_raw_vdi?vdi=nope&{query.format(good=good)}",
        None,
        **{name: value.format(good=good) for name, value in headers.items()},
    )
    assert answer.status == status
    assert (status == 401) == ("www-authenticate" in answer.headers)


def test_a_session_made_for_one_request_ends_with_it(lab: RunningLab) -> None:
    before = lab.pool.db.count("session")
    basic = {"Authorization": "Basic cm9vdDpsYWJwYXNz"}
    for path in ("/export_raw_vdi?vdi=nope", "/export_raw_vdi?vdi=nope&task_id=OpaqueRef:nope", "/services/x"):
        assert fetch(lab, "GET", path, None, **basic).status in (403, 404, 500)
    assert lab.pool.db.count("session") == before


@pytest.fixture
def clocked(tmp_path: Any) -> tuple[Sessions, ManualClock]:
    clock = ManualClock()
    db = Database(load_datamodel(), RowStore(tmp_path / "pool.db"), SystemEntropy())
    return Sessions(db, clock, user="root", password=Secret("x")), clock


def test_an_idle_session_dies_after_a_day_and_use_keeps_it(clocked: tuple[Sessions, ManualClock]) -> None:
    sessions, clock = clocked
    used = sessions.open(user="root", originator="a", host="")
    idle = sessions.open(user="root", originator="a", host="")
    for _ in range(3):
        clock.advance(20 * 3600)
        sessions.check(used)
    with pytest.raises(ApiFailure) as caught:
        sessions.check(idle)
    assert caught.value.description == ["SESSION_INVALID", idle]


def test_one_originator_loses_its_idlest_session_beyond_the_limit(clocked: tuple[Sessions, ManualClock]) -> None:
    sessions, clock = clocked
    first = sessions.open(user="root", originator="a", host="")
    other = sessions.open(user="root", originator="b", host="")
    for _ in range(SESSIONS_PER_ORIGINATOR_MAX):
        clock.advance(1)
        sessions.open(user="root", originator="a", host="")
    assert not sessions.is_valid(first)
    assert sessions.is_valid(other)


def test_sessions_without_an_originator_have_a_smaller_limit(clocked: tuple[Sessions, ManualClock]) -> None:
    sessions, clock = clocked
    first = sessions.open(user="root", originator="", host="")
    for _ in range(SESSIONS_ANONYMOUS_MAX):
        clock.advance(1)
        sessions.open(user="root", originator="", host="")
    assert not sessions.is_valid(first)


def test_a_day_without_a_call_ends_a_session_without_anybody_asking() -> None:
    with tiny_lab(scenario="empty", nbd="none") as lab, logged_in(lab) as idle:
        lab.pool.chores.advance(23 * 3600)
        assert idle.xenapi.session.get_uuid(idle._session)
        lab.pool.chores.advance(25 * 3600)
        assert not lab.pool.db.exists("session", idle._session)


def test_a_session_for_emergencies_ends_alone(lab: RunningLab) -> None:
    session = json_call(lab, "session.login_with_password", "root", PASSWORD)["result"]
    local = json_call(lab, "session.slave_local_login_with_password", "root", PASSWORD)["result"]
    json_call(lab, "session.local_logout", local)
    assert json_call(lab, "session.local_logout", local)["error"]["message"] == "SESSION_INVALID"
    json_call(lab, "session.local_logout", session)
    assert json_call(lab, "session.get_uuid", session, session)["result"]


def test_only_a_host_knows_the_secret_of_the_pool(lab: RunningLab, api: Any) -> None:
    host = api.host.get_all()[0]
    error = json_call(lab, "session.slave_login", host, "a guess")["error"]
    assert [error["message"], *error["data"]] == ["SESSION_AUTHENTICATION_FAILED", host, "Pool credentials invalid"]


def test_a_changed_password_survives_a_restart(tmp_path: Any) -> None:
    with tiny_lab(tmp_path, scenario="empty", nbd="none") as lab, logged_in(lab) as session:
        session.xenapi.session.change_password(PASSWORD, "another one")
        assert session.xenapi.pool.get_all()
    with tiny_lab(tmp_path, scenario="empty", nbd="none", password=None) as lab:
        assert json_call(lab, "session.login_with_password", "root", "another one")["result"]
        assert "error" in json_call(lab, "session.login_with_password", "root", PASSWORD)
