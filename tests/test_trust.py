"""A run folder is trusted when this user made it on this machine, with just this configuration."""

import stat
import threading

import pytest

from lifelong import trust
from lifelong.trust import SIGNATURE, made_here, sign


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A user who has no key yet."""
    home = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    return home


def run_folder(path, config="stream: x\n"):
    path.mkdir(parents=True)
    sign(path, config)
    (path / "config.yaml").write_text(config, encoding="utf-8")
    return path


def test_a_folder_that_was_signed_is_made_here(state, tmp_path):
    assert made_here(run_folder(tmp_path / "run", "stream: Größe\n"))


def test_a_folder_that_was_never_signed_is_not(state, tmp_path):
    (tmp_path / "config.yaml").write_text("stream: x\n")
    assert not made_here(tmp_path)
    assert not made_here(tmp_path / "nowhere")


def test_a_changed_configuration_is_not_the_one_that_was_signed(state, tmp_path):
    folder = run_folder(tmp_path / "run")
    (folder / "config.yaml").write_text("stream: evil.py:f\n")
    assert not made_here(folder)


def test_a_signature_of_another_folder_with_another_configuration_does_not_help(state, tmp_path):
    first, second = run_folder(tmp_path / "one"), run_folder(tmp_path / "two", "stream: y\n")
    (second / SIGNATURE).write_bytes((first / SIGNATURE).read_bytes())
    assert not made_here(second)


def test_another_users_folder_is_not_made_here(state, tmp_path, monkeypatch):
    folder = run_folder(tmp_path / "run")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    assert not made_here(folder)
    run_folder(tmp_path / "own")  # now the other user has a key too
    assert not made_here(folder)


@pytest.mark.parametrize("content", [b"", b"Gr\xc3\xb6\xc3\x9fe", b"\xff\xfe\x00", b"0" * 64])
def test_a_forged_signature_is_simply_wrong(content, state, tmp_path):
    folder = run_folder(tmp_path / "run")
    (folder / SIGNATURE).write_bytes(content)
    assert not made_here(folder)


def test_the_key_is_secret_and_made_once(state, tmp_path):
    run_folder(tmp_path / "one")
    key = state / "lifelong" / "key"
    content = key.read_bytes()
    assert len(content) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    run_folder(tmp_path / "two")
    assert key.read_bytes() == content
    assert [path.name for path in key.parent.iterdir()] == ["key"]


def test_without_a_place_for_the_key_a_folder_stays_unsigned(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "below"))
    folder = run_folder(tmp_path / "run")
    assert not made_here(folder)
    assert not (folder / SIGNATURE).exists()


def test_runs_that_begin_at_once_share_one_key(state, tmp_path, monkeypatch):
    count = 8
    together, folders = threading.Barrier(count), [tmp_path / f"run{number}" for number in range(count)]
    draw = trust.secrets.token_bytes

    def slowly(size):
        together.wait(timeout=10)  # all of them have seen that there is no key
        return draw(size)

    monkeypatch.setattr(trust.secrets, "token_bytes", slowly)
    threads = [threading.Thread(target=run_folder, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(made_here(folder) for folder in folders)
