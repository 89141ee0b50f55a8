"""Who may ask, and what is noted of it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rsir_core.endpoint.access_log import Entry
from rsir_core.endpoint.tokens import Tokens, hash_of
from rsir_core.errors import ConfigError
from tests.support.serving import ONE, local_app, serving, upload

pytestmark = pytest.mark.slow
SECRET = "a token of alice"


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return []


@pytest.fixture(scope="module")
def guarded(index: str, entries: list[Entry]) -> Iterator[str]:
    tokens = Tokens({"bob": hash_of("another"), "alice": hash_of(SECRET)})
    with serving(local_app(index, tokens=tokens, record=entries.append)) as url:
        yield url


def test_only_the_page_and_the_health_check_are_open(guarded: str) -> None:
    with httpx.Client(base_url=guarded) as client:
        for path in ("/", "/app.js", "/style.css", "/healthz"):
            assert client.get(path).status_code == 200, path
        for path in ("/index", "/images", f"/thumbnail/{ONE}", "/openapi.json", "/none", "/app.js/"):
            refused = client.get(path)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), path
            assert "token" in refused.json()["detail"]
        assert client.post("/search", json={"image_id": ONE}).status_code == 401
        assert upload(client, b"junk").status_code == 401


@pytest.mark.parametrize("header", [SECRET, f"Basic {SECRET}", f"Bearer {SECRET}x", f"Bearer {SECRET[1:]}", "Bearer"])
def test_what_is_no_token_is_refused(guarded: str, header: str) -> None:
    assert httpx.get(f"{guarded}/index", headers={"Authorization": header}).status_code == 401
    assert httpx.get(f"{guarded}/index", headers={"Cookie": f"rsir_token={header}x"}).status_code == 401


def test_letters_that_no_token_has_are_refused(guarded: str) -> None:
    for value in ("Bearer é".encode(), "Bearer é".encode("latin-1"), b"Bearer \xff"):
        assert httpx.get(f"{guarded}/index", headers=[(b"Authorization", value)]).status_code == 401
    assert Tokens({"alice": hash_of(SECRET)}).name_of("\ud800") is None


def test_a_token_lets_through_and_says_whose_it_is(guarded: str, entries: list[Entry]) -> None:
    answer = httpx.post(
        f"{guarded}/search", json={"image_id": ONE, "k": 3}, headers={"Authorization": f"bearer {SECRET}"}
    )
    assert answer.status_code == 200
    entry = entries[-1]
    assert (entry.client, entry.route, entry.status, entry.k, entry.version) == ("alice", "/search", 200, 3, 1)
    assert 0 < entry.ms["rank"] < entry.ms["total"]


def test_a_browser_exchanges_its_token_for_a_cookie(guarded: str) -> None:
    with httpx.Client(base_url=guarded) as browser:
        assert browser.post("/token", json={"token": "wrong"}).status_code == 401
        assert not browser.cookies
        given = browser.post("/token", json={"token": SECRET})
        assert given.status_code == 204
        words = given.headers["set-cookie"].lower()
        assert all(word in words for word in ("httponly", "samesite=strict", "path=/"))
        assert "secure" not in words  # else no browser would send it back, as this is plain HTTP
        assert browser.get(f"/thumbnail/{ONE}").headers["content-type"] == "image/jpeg"
    behind = httpx.post(f"{guarded}/token", json={"token": SECRET}, headers={"X-Forwarded-Proto": "https"})
    assert "secure" in behind.headers["set-cookie"].lower()


def test_requests_are_noted_without_what_they_carry(guarded: str, entries: list[Entry], client: httpx.Client) -> None:
    with httpx.Client(base_url=guarded, headers={"Authorization": f"Bearer {SECRET}"}) as asking:
        picture = client.get(f"/thumbnail/{ONE}").content
        assert upload(asking, picture).status_code == 200
        assert (entries[-1].found_object, set(entries[-1].ms)) == (True, {"describe", "rank", "total"})
        asking.get(f"/thumbnail/{ONE}?secret={SECRET}")
        assert entries[-1].route == "/thumbnail/{image_id:image_id}"
        asking.get("/no/such/place")
        assert (entries[-1].route, entries[-1].status) == ("other", 404)
        asking.post("/search", json={"image_id": "none"})
        assert entries[-1].status == 404
    assert not [entry for entry in entries if SECRET in repr(entry) or "beach" in repr(entry)]


def test_a_token_is_made_by_a_command_and_read_from_a_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.serve_tokens", "carol"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    file = tmp_path / "tokens"
    file.write_text(f"# who may ask\n\n{made.stdout}")
    token = made.stderr.split()[-1]
    assert Tokens.read(str(file)).name_of(token) == "carol"
    assert token not in made.stdout


def test_a_name_that_the_file_could_not_have_is_refused() -> None:
    for name in ("bob#1", "a:b", "a b", "-x"):
        made = subprocess.run([sys.executable, "-m", "jobs.serve_tokens", "--", name], capture_output=True, check=False)
        assert (made.returncode, made.stdout) == (2, b"") and b"a name has no" in made.stderr


def test_a_second_token_of_a_name_does_not_end_the_first_unsaid(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(2 * f"alice:{'0' * 64}\n")
    with pytest.raises(ConfigError, match=r"line 2\b.*alice"):
        Tokens.read(str(tmp_path / "tokens"))


def test_a_stranger_sends_no_more_than_a_token(guarded: str) -> None:
    assert httpx.post(f"{guarded}/token", json={"token": "x" * 5000}).status_code == 413
    assert httpx.post(f"{guarded}/token", json={"token": "x" * 3000}).status_code == 401
    for body in ("{", '{"token": 1}', '{"words": "x"}', "[]"):
        answer = httpx.post(f"{guarded}/token", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, list(answer.json())) == (422, ["detail"])


def test_a_form_of_another_site_sets_no_cookie(guarded: str) -> None:
    """Which a browser sends as text without asking; who is logged in by it would label under that name."""
    body, headers = '{"token": "secret"}', {"Content-Type": "text/plain", "Origin": "https://evil.example.org"}
    answer = httpx.post(f"{guarded}/token", content=body, headers=headers)
    assert answer.status_code == 415 and "set-cookie" not in answer.headers


@pytest.mark.parametrize("text", ["", "# none\n", "alice:secret\n", f"alice {'0' * 64}\n", "alice:" + "0" * 63])
def test_a_file_without_tokens_is_refused_and_never_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"jobs\.serve_tokens") as refused:
        Tokens.read(str(file))
    assert "secret" not in str(refused.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        Tokens.read(str(tmp_path / "none"))
