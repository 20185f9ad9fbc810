"""A real server on loopback plays the network: whole, slow, cut off, changed, absent, or a web page."""

import logging
import os
import random
import resource
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import Request

import pytest
import torch
from conftest import ROOT
from loopback import CONTENT, Hub, Page, commit, sha256

from zoo import fetch as module
from zoo.fetch import cache_folder, digest, fetch, fetch_hub

OTHER = random.Random(1).randbytes(300_000)
HTML = b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>please log in</body></html>"
SHA = sha256(CONTENT)

pytestmark = pytest.mark.usefixtures("cache")


def alone() -> dict[str, str]:
    """The environment of a process that imports the module alone, without torch, which takes seconds."""
    return os.environ | {"PYTHONPATH": str(ROOT / "zoo")}


def files(folder: Path) -> dict[str, bytes]:
    """What is in it, without the locks that filelock leaves."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


# --- where files lie --------------------------------------------------------------------------------------------


def test_files_lie_in_zoo_cache_or_else_where_torch_hub_keeps_its_own(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("ZOO_CACHE", "~/weights")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "weights"
    monkeypatch.setenv("ZOO_CACHE", "")
    assert cache_folder() == Path(torch.hub.get_dir()).absolute() / "checkpoints"


@pytest.mark.parametrize("name", [f"resnet18-{SHA[:8]}.pth", f"lite-{SHA}.th", f"nested-{SHA[:8]}.pth.tar"])
def test_a_file_that_torch_hub_downloaded_is_used_under_its_own_name_without_a_request(
    site, tmp_path, name, monkeypatch
):
    monkeypatch.delenv("ZOO_CACHE")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = Path(torch.hub.get_dir(), "checkpoints")
    folder.mkdir(parents=True)
    url = site.serve(f"/models/{name}")
    torch.hub.download_url_to_file(url, str(folder / name), SHA[:8], progress=False)
    site.requests.clear()
    assert fetch(url) == folder / name
    assert not site.requests
    assert list(folder.iterdir()) == [folder / name], "a folder that cannot be written to must do, too"


def test_a_file_of_torch_hubs_without_a_hash_in_its_name_is_used_where_a_given_hash_vouches_for_it(site, cache):
    cache.mkdir()
    (cache / "model.pth").write_bytes(CONTENT)
    assert fetch(f"{site.url}/model.pth#sha256={SHA}") == cache / "model.pth"
    assert not site.requests
    with pytest.raises(OSError, match="404"):  # without a hash it may be anybody's
        fetch(f"{site.url}/model.pth")


@pytest.mark.parametrize(
    ("path", "fragment", "options"),
    [
        ("/model.pth", "", {}),
        ("/model.pth", "", {"sha256": SHA}),
        ("/model.pth", f"#sha256={SHA[:12].upper()}", {}),
        (f"/net-{SHA[:10]}.pth", "", {}),
    ],
)
def test_a_fetched_file_is_used_without_a_request_the_second_time(site, cache, path, fragment, options):
    url = site.serve(path) + fragment
    fetched = fetch(url, **options)
    assert files(cache) == {fetched.name: CONTENT}
    assert site.agents == ["cnn-zoo"]
    site.requests.clear()
    assert fetch(url, **options) == fetched
    assert not site.requests


def test_two_urls_that_end_in_the_same_name_do_not_meet(site):
    first, second = site.serve("/a/model.pth"), site.serve("/b/model.pth?download=1", OTHER)
    for hashes in [("", ""), (sha256(CONTENT), sha256(OTHER))]:
        paths = [fetch(url, sha256=digits) for url, digits in zip((first, second), hashes, strict=True)]
        assert [path.read_bytes() for path in paths] == [CONTENT, OTHER]
        assert {path.suffix for path in paths} == {".pth"}
    site.requests.clear()
    assert fetch(first, sha256=SHA).read_bytes() == CONTENT
    assert not site.requests


# --- what cannot be asked for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "given", "told"),
    [
        ("http://example.com/model.pth", "", "not protected on its way: use https://"),
        (f"http://example.com/model-{SHA[:8]}.pth", "", "not protected on its way"),
        (
            f"http://example.com/model.pth#sha256={SHA[:16]}",
            "",
            "not protected on its way",
        ),
        ("http://127.0.0.1.example.com/model.pth", "", "not protected on its way"),
        ("http://localhost.example.com/model.pth", "", "not protected on its way"),
        ("ftp://example.com/model.pth", SHA, "is not an https:// address of a file"),
        ("file:///etc/passwd", SHA, "is not an https:// address of a file"),
        ("https:///model.pth", "", "is not an https:// address of a file"),
        ("https://example.com/model.pth", "abcdef", "8 to 64 hexadecimal digits, not 'abcdef'"),
        ("https://example.com/model.pth#sha256=xyz45678", "", "8 to 64 hexadecimal digits, not 'xyz45678'"),
        ("https://example.com/model.pth#sha256=", "", "8 to 64 hexadecimal digits, not ''"),
        ("https://example.com/model.pth", SHA + "0", "8 to 64 hexadecimal digits"),
        ("https://example.com/model.pth#md5=0123456789abcdef", "", "only #sha256=… is understood"),
        (f"https://example.com/model.pth#sha256={SHA[:16]}", SHA[1:20], "contradicts sha256="),
        ("https://example.com/", "", "does not end in a file's name"),
        ("https://example.com", "", "does not end in a file's name"),
        ("https://example.com/a/..", "", "does not end in a file's name"),
        ("https://example.com/.bashrc", "", "does not end in a file's name"),
        ("https://example.com/%2e%2e%2fmodel.pth", "", "does not end in a file's name"),
        ("https://example.com/a%5Cmodel.pth", "", "does not end in a file's name"),
        ("https://example.com/a%00.pth", "", "does not end in a file's name"),
    ],
)
def test_a_url_or_hash_that_cannot_be_used_is_refused_before_any_request(cache, url, given, told):
    with pytest.raises(ValueError, match=told) as caught:
        fetch(url, sha256=given)
    assert url.partition("#")[0] in str(caught.value)
    assert not cache.exists()


def test_a_redirect_to_an_unprotected_address_is_not_followed(site):
    away = {"Location": "http://192.0.2.1/model.pth"}
    url = site.serve("/model.pth", answers=[302], headers=away)
    with pytest.raises(
        ValueError, match=r"model\.pth redirects to http://192\.0\.2\.1/model\.pth, which is not protec"
    ):
        fetch(url)


@pytest.mark.parametrize("digits", ["", SHA[:8], SHA])
def test_a_redirect_from_the_network_to_this_machine_is_followed_only_where_a_whole_hash_is_given(digits):
    origin, there = "https://example.com/model.pth", "http://127.0.0.1/model.pth"
    redirects = module.Redirects(module.understand(origin, digits))
    if digits == SHA:
        assert redirects.redirect_request(Request(origin), None, 302, "Found", {}, there).full_url == there
        return
    with pytest.raises(ValueError, match=rf"{origin} redirects to {there}, which is not protected on its way"):
        redirects.redirect_request(Request(origin), None, 302, "Found", {}, there)
    safe = "https://127.0.0.1/model.pth"
    assert redirects.redirect_request(Request(origin), None, 302, "Found", {}, safe).full_url == safe


def test_redirects_are_followed_and_the_name_is_that_of_the_url_given(site):
    there = site.serve("/storage/8c1f")
    url = site.serve(f"/net-{SHA[:8]}.pth", answers=[302], headers={"Location": there})
    assert files(fetch(url).parent) == {f"net-{SHA[:8]}.pth": CONTENT}


def test_names_are_decoded_and_may_hold_other_letters(site):
    for path in "/mod%C3%A8le%20a.pth", "/modèle a.pth":
        url = site.url + path
        site.serve("/mod%C3%A8le%20a.pth")
        assert fetch(url, sha256=SHA).name == f"modèle a-{SHA[:8]}.pth"


# --- hashes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["argument", "prefix", "fragment", "name"])
def test_content_with_another_hash_is_refused_with_both_and_nothing_stays(site, cache, way):
    url = site.serve(f"/net-{SHA[:8]}.pth" if way == "name" else "/net.pth", OTHER)
    url += f"#sha256={SHA}" if way == "fragment" else ""
    with pytest.raises(ValueError, match=f"net.*has the SHA-256 {sha256(OTHER)}, not {SHA[:8]}") as caught:
        fetch(url, sha256={"argument": SHA, "prefix": SHA[:8]}.get(way, ""))
    assert files(cache) == {}
    assert len(site.requests) == 1
    assert ("digits in its name are not a hash" in str(caught.value)) == (way == "name")


def test_a_given_hash_counts_where_the_digits_in_the_name_are_a_date(site):
    path = fetch(site.serve("/net-20210601.pth"), sha256=SHA)
    assert (path.name, path.read_bytes()) == (f"net-20210601-{SHA[:8]}.pth", CONTENT)


def test_all_that_is_known_of_a_hash_is_checked(site):
    wrong = SHA[:8] + "0" * 56
    with pytest.raises(ValueError, match=f"not {wrong} as expected"):
        fetch(site.serve(f"/net-{SHA[:8]}.pth"), sha256=wrong)
    with pytest.raises(ValueError, match=f"not {wrong} as expected"):
        fetch(site.serve("/net.pth") + f"#sha256={wrong}", sha256=SHA[:8])


def test_a_damaged_file_in_the_cache_is_fetched_anew_with_a_warning(site, cache, caplog):
    cache.mkdir()
    name = f"net-{SHA[:8]}.pth"
    (cache / name).write_bytes(CONTENT[:-1])
    assert fetch(site.serve(f"/{name}")).read_bytes() == CONTENT
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [f"{cache / name} is damaged: its SHA-256 does not begin with {SHA[:8]}; fetching it anew"]


@pytest.mark.parametrize(("page", "error"), [({"answers": [404]}, OSError), ({"content": OTHER}, ValueError)])
def test_if_a_damaged_file_cannot_be_fetched_anew_the_error_tells_of_both(site, cache, page, error):
    cache.mkdir()
    name = f"net-{SHA[:8]}.pth"
    (cache / name).write_bytes(b"half")
    with pytest.raises(error, match=rf"\({cache / name} is there, but damaged or unreadable\)"):
        fetch(site.serve(f"/{name}", **page))
    assert files(cache) == {name: b"half"}


@pytest.mark.parametrize("content", [HTML, b"<html>\n<title>Sign in</title></html>"])
@pytest.mark.parametrize("digits", ["", SHA])
def test_a_web_page_in_place_of_weights_is_told_for_what_it_is(site, cache, content, digits):
    with pytest.raises(ValueError, match=r"net\.pth gave a web page instead of a file"):
        fetch(site.serve("/net.pth", content), sha256=digits)
    assert files(cache) == {}


# --- pieces -----------------------------------------------------------------------------------------------------


@pytest.fixture
def half(cache: Path) -> Path:
    """What an earlier process left of net-….pth."""
    cache.mkdir()
    part = cache / f"net-{SHA[:8]}.pth.part"
    part.write_bytes(CONTENT[:100_000])
    return part


def test_a_download_resumes_where_an_earlier_process_left_it(site, half):
    path = fetch(site.serve(f"/net-{SHA[:8]}.pth"))
    assert site.ranges == ["bytes=100000-"]
    assert files(path.parent) == {path.name: CONTENT}


@pytest.mark.parametrize(
    ("size", "page", "ranges"),
    [
        (100_000, {"ranges": False}, ["bytes=100000-"]),  # the server sends all of it anyway
        (400_000, {}, ["bytes=400000-", None]),  # 416
        (100_000, {"shift": 5}, ["bytes=100000-", None]),
    ],
    ids=["range ignored", "part too long", "another range"],
)
def test_a_download_restarts_where_the_server_does_not_resume_it(site, half, size, page, ranges):
    half.write_bytes((CONTENT + OTHER)[:size])
    path = fetch(site.serve(f"/net-{SHA[:8]}.pth", **page))
    assert site.ranges == ranges
    assert files(path.parent) == {path.name: CONTENT}


def test_a_part_of_something_else_is_found_out_by_the_hash_and_fetched_from_zero_once(site, half, cache):
    half.write_bytes(OTHER[:100_000])
    path = fetch(site.serve(f"/net-{SHA[:8]}.pth"))
    assert site.ranges == ["bytes=100000-", None]
    assert files(cache) == {path.name: CONTENT}
    path.unlink()
    half.write_bytes(CONTENT[:100_000])
    site.ranges.clear()
    with pytest.raises(ValueError, match="has the SHA-256"):
        fetch(site.serve(f"/net-{SHA[:8]}.pth", OTHER))
    assert site.ranges == ["bytes=100000-", None]
    assert files(cache) == {}


def test_without_a_hash_a_part_of_an_earlier_process_is_not_trusted(site, cache):
    url = site.serve("/net.pth", cuts=[70_000, 0, 0, 0])
    with pytest.raises(OSError, match="cut off"):
        fetch(url)
    (part,) = cache.glob("*.part")
    part.write_bytes(OTHER[:1000])
    site.ranges.clear()
    assert fetch(url).read_bytes() == CONTENT
    assert site.ranges == [None]


@pytest.mark.parametrize(
    ("page", "digits", "resumes"),
    [({}, SHA, True), ({"etag": '"v1"'}, "", True), ({"etag": 'W/"v1"'}, "", False), ({}, "", False)],
    ids=["hash", "ETag", "weak ETag", "neither"],
)
def test_a_connection_that_is_cut_off_is_taken_up_where_it_is_known_to_be_the_same_file(
    site, cache, page, digits, resumes
):
    path = fetch(site.serve("/net.pth", cuts=[70_000, 80_000], **page), sha256=digits)
    assert files(cache) == {path.name: CONTENT}
    assert site.ranges == ([None, "bytes=70000-", "bytes=150000-"] if resumes else [None, None, None])


def test_a_file_that_changed_on_the_server_meanwhile_is_not_mixed_with_what_came_before(site):
    url = site.serve("/net.pth", cuts=[70_000], etag='"v1"', then=Page(OTHER, etag='"v2"'))
    assert fetch(url).read_bytes() == OTHER
    assert site.ranges == [None, "bytes=70000-"]


def test_a_piece_from_elsewhere_is_not_joined_to_what_came_before(site, cache):
    path = fetch(site.serve("/net.pth", cuts=[70_000], etag='"v1"', shift=5))
    assert files(cache) == {path.name: CONTENT}
    assert site.ranges == [None, "bytes=70000-", None]


def test_a_connection_that_is_always_cut_off_is_given_up_but_the_part_stays_for_the_next_time(site, cache):
    url = site.serve("/net.pth", cuts=[10_000] * 4)
    with pytest.raises(
        OSError, match=r"net\.pth could not be fetched: .* cut off after 40000 of 300000 bytes; put net"
    ):
        fetch(url, sha256=SHA)
    assert len(site.requests) == 4
    assert fetch(url, sha256=SHA).read_bytes() == CONTENT
    assert site.ranges[-1] == "bytes=40000-"


def test_a_server_that_does_not_say_how_much_it_sends_is_believed(site):
    assert fetch(site.serve("/net.pth", length=False)).read_bytes() == CONTENT
    with pytest.raises(ValueError, match="has the SHA-256"):
        fetch(site.serve("/net.pth", length=False, cuts=[5000]), sha256=SHA)


# --- no answer --------------------------------------------------------------------------------------------------


def fails(url: str, reason: str, folder: Path) -> None:
    """One line with the URL, the reason, the file's name, the folder and ZOO_CACHE."""
    with pytest.raises(OSError, match=reason) as caught:
        fetch(url, sha256=SHA)
    told, name = str(caught.value), f"net-{SHA[:8]}.pth"
    assert told.startswith(f"{url} could not be fetched: "), told
    assert f"put {name} into {folder} by hand, or set ZOO_CACHE" in told
    assert "\n" not in told
    assert not (folder / name).exists()
    folder.joinpath(name).write_bytes(CONTENT)
    assert fetch(url, sha256=SHA).name == name, "what the error advises must work"
    folder.joinpath(name).unlink()


@pytest.mark.parametrize("code", [404, 403, 401, 410])
def test_a_refusal_is_told_at_once_with_where_to_put_the_file(site, cache, code):
    fails(site.serve("/net.pth", answers=[code]), f"the server answered {code} [A-Z]", cache)
    assert len(site.requests) == 1


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_trouble_of_the_server_that_passes_is_sat_out_and_one_that_stays_is_told(site, cache, code):
    fails(site.serve("/net.pth", answers=[code] * 4), f"the server answered {code} [A-Z]", cache)
    assert len(site.requests) == 4
    assert fetch(site.serve("/net.pth", answers=[code, code])).read_bytes() == CONTENT


def test_an_unreachable_host_is_told_with_where_to_put_the_file(cache):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    fails(f"http://127.0.0.1:{port}/net.pth", "the connection was refused", cache)
    fails("https://host.invalid/net.pth", "the host's name was not found", cache)


def test_a_silent_server_is_given_up(site, cache, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    site.open.clear()
    try:
        fails(site.serve("/net.pth"), r"nothing came for 0\.05 s", cache)
    finally:
        site.open.set()


def test_an_empty_answer_is_not_a_file(site, cache):
    with pytest.raises(OSError, match="the server sent an empty file"):
        fetch(site.serve("/net.pth", b""))
    assert not list(cache.glob("*.pth"))


# --- the folder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "weights"])
def test_a_cache_folder_that_cannot_be_is_named(site, tmp_path, monkeypatch, below):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / below
    monkeypatch.setenv("ZOO_CACHE", str(folder))
    with pytest.raises(OSError, match=f"the cache folder {folder} cannot be used: .*; set ZOO_CACHE"):
        fetch(site.serve("/net.pth"))
    assert not site.requests


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_cache_folder_is_named_and_what_it_holds_is_used(site, cache):
    cache.mkdir()
    (cache / f"net-{SHA[:8]}.pth").write_bytes(CONTENT)
    cache.chmod(0o500)
    with pytest.raises(OSError, match=f"the cache folder {cache} cannot be used: Permission denied; set ZOO_CACHE"):
        fetch(site.serve("/other.pth"))
    assert fetch(site.serve("/net.pth"), sha256=SHA).name == f"net-{SHA[:8]}.pth"
    assert not site.requests


def test_a_disk_without_room_is_told_as_the_folders_fault(site, cache):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=f"the cache folder {cache} cannot be used: File too large; set ZOO_CACHE"):
            fetch(site.serve("/net.pth"), sha256=SHA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(cache.glob("*.pth"))


TWICE = """
import sys
from fetch import fetch
print("ready", flush=True)
sys.stdin.readline()
print(fetch(sys.argv[1]))
"""


def test_two_processes_that_want_the_same_file_download_it_once(site, cache):
    url = site.serve("/net.pth", pause=0.2)
    command = [sys.executable, "-c", TWICE, url]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=alone())
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
        both = (first, second)
        assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
        for process in both:
            process.stdin.write("go\n")
            process.stdin.flush()
        ended = [process.communicate(timeout=60) for process in both]
    (path,) = cache.glob("*.pth")
    assert ended == [(f"{path}\n", "")] * 2
    assert path.read_bytes() == CONTENT
    assert len(site.requests) == 1


def test_a_download_is_announced_with_size_and_folder_and_tells_the_hash_of_what_had_none(site, cache, caplog):
    caplog.set_level(logging.INFO, "zoo")
    fetch(site.serve(f"/net-{SHA[:8]}.pth"))
    path = fetch(site.serve("/net.pth"))
    assert [record.message for record in caplog.records] == [
        f"fetching net-{SHA[:8]}.pth (0.3 MB) to {cache}",
        f"fetched net-{SHA[:8]}.pth",
        f"fetching {path.name} (0.3 MB) to {cache}",
        f"fetched {path.name}, which had no hash to check; SHA-256: {digest(path)}",
    ]


# --- the hub ----------------------------------------------------------------------------------------------------

SMALL = b'{"architecture": "lenet5"}'


@pytest.fixture
def hub(hub: Hub) -> Hub:
    """With one repository of two files, one that is locked and one that is out of order."""
    hub.hold("org/net", {"model.safetensors": CONTENT, "config.json": SMALL})
    hub.serve("/org/gated/resolve/main/model.safetensors", answers=[403] * 9, headers={"X-Error-Code": "GatedRepo"})
    hub.serve("/org/sick/resolve/main/model.safetensors", answers=[500] * 9)
    return hub


@pytest.mark.parametrize(("name", "content"), [("model.safetensors", CONTENT), ("config.json", SMALL)])
def test_a_file_of_the_hub_is_fetched_once_and_then_used_without_a_request(hub, name, content):
    path = fetch_hub("org/net", name)
    assert (path.name, path.read_bytes()) == (name, content)
    assert [request for request in hub.requests if request[0] == "GET" and name in request[1]]
    hub.requests.clear()
    assert fetch_hub("org/net", name) == fetch_hub("org/net", name, revision="main") == path
    assert fetch_hub("org/net", name, revision=commit("org/net")) == path
    assert not hub.requests


def test_a_damaged_file_of_the_hub_is_refused_until_what_the_error_names_is_deleted(hub):
    path = fetch_hub("org/net", "model.safetensors")
    path.resolve().write_bytes(OTHER)
    told = f"of org/net is damaged: its SHA-256 is {sha256(OTHER)}, not {SHA}; delete {path.resolve()} and"
    for _ in range(2):
        with pytest.raises(ValueError, match=told):
            fetch_hub("org/net", "model.safetensors")
    path.resolve().unlink()
    assert fetch_hub("org/net", "model.safetensors").read_bytes() == CONTENT


@pytest.mark.parametrize("links", [True, False])
def test_a_file_of_the_hub_that_arrives_wrong_is_refused(hub, monkeypatch, links):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", not links)
    hub.pages["/org/net/resolve/main/model.safetensors"].content = OTHER
    with pytest.raises(ValueError, match="is damaged"):
        fetch_hub("org/net", "model.safetensors")


def test_a_link_of_the_hubs_cache_into_a_store_that_repositories_share_is_not_taken_for_a_hash(hub, tmp_path):
    blob = fetch_hub("org/net", "model.safetensors").resolve()
    (tmp_path / ("ab" * 32)).write_bytes(CONTENT)  # called by a hash of another kind
    blob.unlink()
    blob.symlink_to(tmp_path / ("ab" * 32))
    assert fetch_hub("org/net", "model.safetensors").read_bytes() == CONTENT


def test_a_file_that_a_repository_does_not_have_is_not_found_so_that_another_name_can_be_tried(hub):
    with pytest.raises(FileNotFoundError, match=r"absent\.bin of org/net \(revision main\) does not exist"):
        fetch_hub("org/net", "absent.bin")


@pytest.mark.parametrize(
    ("repo", "revision", "reason"),
    [
        ("org/none", None, "there is no such repository, or it is private"),
        ("org/net", "v9", "the repository has no such revision"),
        ("org/gated", None, "its terms must be accepted at https://huggingface.co/org/gated"),
        ("org/sick", None, "500 Internal Server Error"),
    ],
)
def test_what_the_hub_does_not_give_is_told_on_one_line_with_how_to_fetch_it_by_hand(hub, repo, revision, reason):
    with pytest.raises(OSError, match=reason) as caught:
        fetch_hub(repo, "model.safetensors", revision=revision)
    told, branch = str(caught.value), revision or "main"
    assert told.startswith(f"model.safetensors of {repo} (revision {branch}) could not be fetched: ")
    address = f"https://huggingface.co/{repo}/resolve/{branch}/model.safetensors"
    assert told.endswith(f"; by hand: download {address} and give the file's path instead")
    assert "\n" not in told
    assert not isinstance(caught.value, FileNotFoundError), "another name would not help"


def test_a_hub_that_changes_its_mind_is_not_taken_for_one_without_the_file(hub):
    hub.pages["/org/net/resolve/main/config.json"].answers = [200] + [403] * 9
    with pytest.raises(OSError, match=r"could not be fetched: .*403.*; by hand") as caught:
        fetch_hub("org/net", "config.json")
    assert not isinstance(caught.value, FileNotFoundError)


def test_a_hub_that_is_switched_off_or_out_of_reach_is_told_unless_the_file_is_there(hub, monkeypatch):
    from huggingface_hub import constants

    path = fetch_hub("org/net", "model.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert fetch_hub("org/net", "model.safetensors") == path
        with pytest.raises(OSError, match="HF_HUB_OFFLINE forbids requests") as caught:
            fetch_hub("org/net", "config.json")
    assert not isinstance(caught.value, FileNotFoundError)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:{port}/{{repo_id}}/{{filename}}")
    assert fetch_hub("org/net", "model.safetensors") == path
    with pytest.raises(OSError, match=r"could not be fetched: .*refused; by hand") as caught:
        fetch_hub("org/net", "config.json")
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize(("repo", "name"), [("a/b/c", "model.safetensors"), ("org/net", "../../model.safetensors")])
def test_a_malformed_name_on_the_hub_is_a_value_error(hub, repo, name):
    with pytest.raises(ValueError, match="cannot be asked for") as caught:
        fetch_hub(repo, name)
    assert "\n" not in str(caught.value)
    assert not hub.requests


def test_a_cache_folder_of_the_hub_that_cannot_be_is_named_with_its_variable(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(OSError, match=r"the cache folder .*file/hub cannot be used: .* \(HF_HOME sets another\)"):
        fetch_hub("org/net", "model.safetensors")


ONCE = """
from fetch import fetch_hub
print(fetch_hub("org/net", "config.json").read_text())
"""


def test_the_hubs_own_environment_variables_say_where_it_is_and_where_its_files_lie(hub, tmp_path):
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment = {key: value for key, value in alone().items() if not key.startswith("HF_")} | own
    command = [sys.executable, "-c", ONCE]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, SMALL.decode()), ended.stderr
    assert list((tmp_path / "home" / "hub").rglob("config.json"))
