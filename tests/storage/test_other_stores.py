"""Runs in Google's and Azure's stores, against emulators that speak their protocols: the bytes of a local run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import fsspec
import numpy as np
import pytest
from runs import cluster, command, done, manifest, product
from servers import Fault, Request, Served, azure, google, once_each
from stores import PLAIN, Store, same_product, write_shards

from fairdedup.datasets import open_input
from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.object_stores import RemotePath, as_path
from fairdedup.storage.seals import is_sealed, seal
from fairdedup.storage.store_access import file_system

ROOT = Path(__file__).resolve().parents[2]
AZURITE = "azurite@3.37.0"
ACCOUNT = "devstoreaccount1"  # the emulator's own account and key, which its documentation prints
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SETTINGS = (
    "STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY",
)  # fmt: skip


@pytest.fixture(scope="session")
def azurite() -> str | None:
    """Return the program of Azure's emulator, installed by npm; None where there is no npm."""
    folder = ROOT / ".azurite"
    program = folder / "node_modules" / ".bin" / "azurite-blob"
    stamp = folder / "installed"
    if not stamp.is_file() or stamp.read_text() != AZURITE:
        npm = shutil.which("npm")
        if npm is None:
            return None
        subprocess.run([npm, "install", "--silent", "--no-audit", "--prefix", folder, AZURITE], check=True)
        stamp.write_text(AZURITE)  # last: an installation that was stopped is made again
    return str(program)


@dataclass(frozen=True)
class Clouds:
    """The stores, by protocol, and the same job done on the local disk."""

    stores: dict[str, Store]
    source: Path
    later: Path
    local: Path


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory, azurite: str | None) -> Iterator[Clouds]:
    """Start the emulators, and Dask workers that use them."""
    folder = tmp_path_factory.mktemp("clouds")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in SETTINGS:
            patch.delenv(name, raising=False)
        proxies: dict[str, Served] = {"gs": stack.enter_context(google(folder))}
        patch.setenv("STORAGE_EMULATOR_HOST", proxies["gs"].url)
        patch.setenv("NO_GCE_CHECK", "true")  # a machine of Google's would be looked for on the network
        if azurite is not None:
            proxies["az"] = stack.enter_context(azure(folder, azurite))
            patch.setenv(
                "AZURE_STORAGE_CONNECTION_STRING",
                f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
                f"BlobEndpoint={proxies['az'].url}/{ACCOUNT};",
            )
        forget_stores()
        if azurite is not None:
            file_system("az").mkdir("bucket")
        scheduler = stack.enter_context(cluster(tmp_path_factory.mktemp("dask")))
        stores = {name: Store(proxy, scheduler, f"{name}://bucket") for name, proxy in proxies.items()}
        source, later = write_shards(folder / "in", 900, 3), write_shards(folder / "later", 300, 2, 5, "n")
        first = next(iter(stores.values()))
        first.done("run", source, *PLAIN, "--out", folder / "run")
        first.done("run", later, "--against", folder / "run", "--out", folder / "day-2")
        yield Clouds(stores, source, later, folder)
        forget_stores()


def forget_stores() -> None:
    """Drop the file systems of other addresses or credentials."""
    file_system.cache_clear()
    for protocol in ("gs", "az", "abfs"):
        fsspec.get_filesystem_class(protocol).clear_instance_cache()


@pytest.fixture(params=["gs", "az"])
def store(request: pytest.FixtureRequest, clouds: Clouds) -> Store:
    """Return each store in turn."""
    if request.param not in clouds.stores:
        pytest.skip("Azure's emulator is installed by npm, which is not here")
    return clouds.stores[request.param]


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # by Azure's package
def test_objects_are_written_read_listed_copied_and_removed(store: Store, tmp_path: Path) -> None:
    folder = as_path(f"{store.bucket}/objects")
    assert isinstance(folder, RemotePath)
    big = np.random.default_rng(0).bytes(11 << 20)
    contents = {"small": b"0123456789", "empty": b"", "big": big, "x y+%25#é'(1).bin": b"odd", "sub/below": b"b"}
    for name, data in contents.items():
        (tmp_path / "file").write_bytes(data)
        for _ in range(2):  # the second time it is overwritten
            (folder / name).put(tmp_path / "file")
        known = seal(folder / name)
        assert is_sealed(folder / name, known) and known.split("-")[0] == str(len(data))
        assert (folder / name).read_bytes() == data
        assert (folder / name).stat().st_size == len(data)
    assert folder.sizes() == {name: len(data) for name, data in contents.items() if "/" not in name}
    assert {path.name for path in folder.iterdir()} == {"small", "empty", "big", "x y+%25#é'(1).bin", "sub"}
    assert (folder.is_dir(), folder.is_file(), (folder / "small").is_file()) == (True, False, True)
    small = folder / "small"
    assert [small.read_bytes(*r) for r in ((2, 5), (5, 100), (10, 20), (30, 40))] == [b"234", b"56789", b"", b""]
    assert (folder / "empty").read_bytes(0, 100) == b""
    assert small.stat().st_mtime == small.stat().st_mtime  # the store's time, not the time of the question
    (folder / "copy").copy_from(folder / "big")
    assert (folder / "copy").read_bytes() == big
    small.unlink()
    small.unlink(missing_ok=True)
    assert not small.exists()
    with pytest.raises(FileNotFoundError):
        small.read_bytes()
    folder.remove_tree()
    assert not folder.exists() and folder.sizes() == {}


def test_a_run_and_the_next_day_give_the_bytes_of_local_ones(store: Store, clouds: Clouds, tmp_path: Path) -> None:
    source, later = store.put(clouds.source, "in"), store.put(clouds.later, "later")
    with store.proxy.recording() as requests:
        store.done("run", source, *PLAIN, "--out", f"{store.bucket}/run")
    assert {r.method for r in requests} >= {"GET", "PUT" if store.bucket == "az://bucket" else "POST"}
    store.done("run", later, "--against", f"{store.bucket}/run", "--out", f"{store.bucket}/day-2")
    for name in ("run", "day-2"):
        same_product(store, f"{store.bucket}/{name}", clouds.local / name, tmp_path / name)
    assert manifest(tmp_path / "run")["counts"] == manifest(clouds.local / "run")["counts"]
    again = store.done("run", source, *PLAIN, "--out", f"{store.bucket}/run")  # nothing has changed
    assert again.code == 0
    assert product(store.get(f"{store.bucket}/run", tmp_path / "again")) == product(clouds.local / "run")
    done("export", f"{store.bucket}/run", "--to", "txt", "--dest", tmp_path / "kept.txt", "--quiet")
    assert len((tmp_path / "kept.txt").read_text().splitlines()) == manifest(tmp_path / "run")["counts"]["kept"]


def test_an_input_in_a_store_has_changed_only_if_its_bytes_have(store: Store, clouds: Clouds, tmp_path: Path) -> None:
    url = store.put(clouds.later, "input")
    shard, again = (open_input(url).shards[0].fingerprint() for _ in range(2))
    assert shard == again
    write_shards(tmp_path / "other", 310, 2, 6, "n")
    store.put(tmp_path / "other", "input")
    assert open_input(url).shards[0].fingerprint() != shard


def test_credentials_that_are_refused_are_one_line(store: Store, clouds: Clouds) -> None:
    path = as_path(f"{store.bucket}/none")
    with (
        store.proxy.failing(lambda request: "forbidden"),
        pytest.raises(
            FairdedupError, match=r"^cannot read (gs|az)://bucket/none .*: check the credentials .*(GOOGLE|AZURE)"
        ),
    ):
        path.read_bytes()


def test_a_bucket_that_does_not_exist_is_one_line(store: Store, tmp_path: Path) -> None:
    url = store.bucket.replace("bucket", "nowhere")
    (tmp_path / "file").write_bytes(b"x")
    path = as_path(f"{url}/x")
    assert isinstance(path, RemotePath)
    with pytest.raises(FairdedupError, match=rf"^cannot write {url}/x .*: check that the bucket exists"):
        path.put(tmp_path / "file")
    with pytest.raises(UserError, match=f"^no such file or folder: '{url}/in'"):
        open_input(f"{url}/in")


def test_azure_without_an_account_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    forget_stores()
    for arguments in (("run", "az://box/in", "--out", tmp_path / "run"), ("run", "in", "--out", "abfs://box/run")):
        finished = command(*arguments, "--keep", 0.5)
        assert finished.code == 2 and finished.err.count("\n") == 1, finished.err
        assert "AZURE_STORAGE_ACCOUNT_NAME" in finished.err


def test_the_account_in_a_url_of_azure_is_refused_with_the_url_that_works() -> None:
    with pytest.raises(UserError, match=r"set AZURE_STORAGE_ACCOUNT_NAME=me and give abfs://box/photos/in$"):
        as_path("abfs://box@me.dfs.core.windows.net/photos/in")
    with pytest.raises(UserError, match=r"give az://box$"):
        open_input("az://box@me.blob.core.windows.net")


def test_requests_that_fail_once_change_nothing_in_google_s_store(clouds: Clouds, tmp_path: Path) -> None:
    store = clouds.stores["gs"]
    check_faults(clouds, store, tmp_path, of=lambda r: "/vectors" in unquote(r.path), least=2)


@pytest.mark.soak
def test_any_request_may_fail_once(store: Store, clouds: Clouds, tmp_path: Path) -> None:
    """Google's package waits for a second before it tries again, Azure's for 15."""
    check_faults(clouds, store, tmp_path, of=lambda r: r.method in ("GET", "PUT", "POST"), least=20)


def check_faults(clouds: Clouds, store: Store, folder: Path, of: Callable[[Request], bool], least: int) -> None:
    """Run while some requests fail once; the result is that of the local run."""
    url = store.put(clouds.source, "faults-in")
    fault = once_each(
        "drop", "slow down", "internal", of=lambda r: "/upload/" in r.path or ("faults" in r.path and of(r))
    )
    failed: list[Request] = []

    def count(request: Request) -> Fault:
        found = fault(request)
        failed.extend([request] * (found is not None))
        return found

    with store.proxy.failing(count):
        store.done("run", url, *PLAIN, "--out", f"{store.bucket}/faults")
    assert len(failed) >= least, failed
    same_product(store, f"{store.bucket}/faults", clouds.local / "run", folder / "got")


def test_a_store_that_refuses_everything_ends_the_run_in_one_line(clouds: Clouds) -> None:
    store = clouds.stores["gs"]
    url = store.put(clouds.later, "refused-in")
    with store.proxy.failing(lambda r: "forbidden" if "refused/" in r.path or "refused%2F" in r.path else None):
        finished = store.command("run", url, *PLAIN, "--out", "gs://bucket/refused")
    assert finished.code in (1, 2) and finished.err.count("\n") == 1, finished.err
    assert "check the credentials" in finished.err and os.environ["STORAGE_EMULATOR_HOST"] not in finished.err
