"""The configuration file is found, decoded once, remembered, and never remembered wrongly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from urunc import jsonio
from urunc.errors import ConfigError
from urunc.oci.config import Config
from urunc.runtime import settings

SOURCE = Path(__file__).resolve().parent.parent.parent / "src"
TEXT = '[monitors.qemu]\naccel = "tcg"\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file that URUNC_CONFIG_FILE names, old enough to be remembered."""
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    monkeypatch.setenv(settings.VARIABLE, str(path))
    monkeypatch.setattr(settings, "SETTLED_NS", 0)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "config.json"


def load(cache: Path) -> Config:
    return settings.load(str(cache.parent))


def test_the_named_file_is_read(file: Path) -> None:
    assert settings.load().monitor("qemu").accel == "tcg"


def test_no_file_at_the_default_place_means_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.delenv(settings.VARIABLE, raising=False)
    for missing in (tmp_path / "none.toml", tmp_path / "none" / "none.toml"):
        monkeypatch.setattr(settings, "DEFAULT_FILE", str(missing))
        assert load(cache) == Config()
    assert not cache.parent.exists()


def test_the_default_file_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(settings.VARIABLE)
    monkeypatch.setattr(settings, "DEFAULT_FILE", str(file))
    assert settings.load().monitor("qemu").accel == "tcg"


def test_the_callers_file_is_preferred(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('[runtime]\ndelegate = "crun"\n')
    assert settings.load(None, str(other)).delegate == "crun"
    with pytest.raises(ConfigError, match="no such file") as caught:
        settings.load(None, "/no/such.toml")
    assert caught.value.hint is None


def test_a_named_file_that_is_missing_is_an_error(file: Path) -> None:
    file.unlink()
    with pytest.raises(ConfigError) as caught:
        settings.load()
    assert caught.value.message == f"{file}: no such file or directory"
    assert caught.value.hint == "URUNC_CONFIG_FILE names this file"


def test_a_folder_is_an_error(file: Path) -> None:
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigError, match="is a directory"):
        settings.load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[log]\nlevel = \n", ":2: invalid value"),
        (b"[log\n", ":1: expected"),
        (b"a = 1\na = 2", ": cannot overwrite a value"),
        (b"[log]\nlevel = 'x'\n", ":2: log.level: want one of "),
        (b"a = 1\n# \xff\n", ":2: not UTF-8"),
        (b"x = " + b"[" * 5000, ": nested too deeply"),
        (b"#" * (settings.MAX_BYTES + 1), f": larger than {settings.MAX_BYTES} bytes"),
    ],
)
def test_a_bad_file_is_an_error_and_is_not_remembered(file: Path, cache: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            load(cache)
        assert caught.value.message.startswith(f"{file}{message}")
    assert not cache.exists()


def test_it_is_remembered(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(cache)
    assert cache.stat().st_mode & 0o777 == 0o600
    assert os.listdir(cache.parent) == ["config.json"]
    monkeypatch.setattr(settings, "_decode", None)
    assert load(cache) == first


def test_another_content_size_or_time_is_another_file(file: Path, cache: Path) -> None:
    load(cache)
    before = file.stat()
    file.write_text(TEXT.replace("tcg", "kvm"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load(cache).monitor("qemu").accel == "kvm"
    other = file.with_name("other.toml")
    other.write_text(TEXT)
    os.rename(other, file)
    assert load(cache).monitor("qemu").accel == "tcg"


def test_a_file_of_this_moment_is_not_remembered(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SETTLED_NS", 10**12)
    load(cache)
    assert not cache.exists()


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
def test_a_cache_that_others_can_touch_is_not_believed(file: Path, cache: Path, mode: int) -> None:
    load(cache)
    forge(cache)
    cache.chmod(mode)
    assert load(cache).delegate == "runc"


@pytest.mark.root
def test_a_cache_of_another_owner_is_not_believed(file: Path, cache: Path) -> None:
    load(cache)
    forge(cache)
    os.chown(cache, 65534, 65534)
    assert load(cache).delegate == "runc"


def test_a_cache_behind_a_link_is_not_believed(file: Path, cache: Path) -> None:
    load(cache)
    forge(cache)
    os.rename(cache, cache.with_name("elsewhere"))
    cache.symlink_to("elsewhere")
    assert load(cache).delegate == "runc"


def test_a_cache_that_is_its_owners_is_believed(file: Path, cache: Path) -> None:
    load(cache)
    forge(cache)
    assert load(cache).delegate == "forged"


def forge(cache: Path) -> None:
    document = jsonio.loads(cache.read_bytes())
    document["config"]["delegate"] = "forged"
    cache.write_bytes(jsonio.dumps(document))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"key":[],"config":{}}', b"\xff", b"5"])
def test_rubbish_in_the_cache_is_replaced(file: Path, cache: Path, content: bytes) -> None:
    want = load(cache)
    cache.write_bytes(content)
    assert load(cache) == want
    assert cache.read_bytes() != content


def test_a_cache_of_another_version_is_replaced(file: Path, cache: Path) -> None:
    want = load(cache)
    document = jsonio.loads(cache.read_bytes())
    document["config"]["odd"] = 1
    cache.write_bytes(jsonio.dumps(document))
    assert load(cache) == want


def test_a_cache_that_cannot_be_written_is_no_error(file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert settings.load(str(tmp_path / "file" / "cache")).monitor("qemu").accel == "tcg"
    taken = tmp_path / "taken"
    (taken / "config.json").mkdir(parents=True)
    assert settings.load(str(taken)).monitor("qemu").accel == "tcg"
    assert os.listdir(taken) == ["config.json"]


def test_without_a_file_nothing_of_toml_is_imported() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from urunc.runtime import settings; "
        "settings.DEFAULT_FILE = '/nonexistent'; settings.load(); "
        "print(sorted({'tomllib', 'json', 're', 'urunc.oci.parse_config', 'urunc.vm'} & set(sys.modules)))"
    )
    environment = {key: value for key, value in os.environ.items() if key != settings.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"
