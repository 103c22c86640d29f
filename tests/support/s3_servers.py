"""Services with buckets on this machine: moto in the process, Ceph's radosgw and Azurite as programs of others.

Each starts when the first test asks and ends with the process; a test gets a bucket, or a prefix, of its own. Nothing
listens beyond 127.0.0.1, nothing is kept on disk but logs in a temporary folder.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import email.utils
import functools
import hashlib
import hmac
import itertools
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from holdfast.core import Secret
from holdfast.storage import LockMode, ObjectStore, StoreCredentials, StoreOptions, StorePlace, open_store
from tests.judges.azurite.install import JudgesAbsent, install_azurite
from tests.support.servers import START_S_MAX, free_port, running, wait_listening

__all__ = [
    "AZURE_ACCOUNT",
    "AZURE_KEY",
    "S3Service",
    "azure_place",
    "find_radosgw",
    "new_azurite_store",
    "new_moto_store",
    "new_radosgw_store",
    "s3_place",
    "shared_azurite",
    "shared_moto",
    "shared_radosgw",
]

_numbers = itertools.count()

NO_RADOSGW = "no radosgw on this machine (Debian: apt install radosgw ceph-mon ceph-osd ceph-common)"

AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Not a secret: the account that every Azurite has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Service:
    """An S3 service that runs here."""

    url: str
    key_id: str
    key: str

    def client(self) -> Any:
        """Return the administrator's own client."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.key_id,
            aws_secret_access_key=self.key,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1, "mode": "standard"}),
        )

    def credentials(self) -> Mapping[str, str]:
        """Return the variables that name its account."""
        return {"AWS_ACCESS_KEY_ID": self.key_id, "AWS_SECRET_ACCESS_KEY": self.key}

    @functools.cache  # noqa: B019
    def bucket(self, *, lock: bool = False, versions: bool = False) -> str:
        """Return a bucket, made once for each kind."""
        name = f"holdfast-{'lock' if lock else 'versions' if versions else 'plain'}-{os.getpid()}"
        self.client().create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if lock else {}))
        if versions:
            self.client().put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name


def s3_place(service: S3Service, *, lock: LockMode | None = None, prefix: str | None = None) -> StorePlace:
    """Return a place in a bucket of the service, below a prefix that nobody else uses unless one is given."""
    bucket = service.bucket(lock=lock not in (None, LockMode.NONE), versions=lock is LockMode.NONE)
    return StorePlace(
        location=f"s3://{bucket}/{prefix or f'place-{next(_numbers)}'}",
        options=StoreOptions(endpoint=service.url, object_lock=lock),
        credentials=_credentials(service.credentials()),
    )


def azure_place() -> StorePlace:
    """Return a place in Azurite that nobody else uses."""
    return StorePlace(
        location=f"azure://{AZURE_ACCOUNT}/{_AZURE_CONTAINER}/place-{next(_numbers)}",
        options=StoreOptions(endpoint=shared_azurite()),
        credentials=_credentials({"AZURE_STORAGE_KEY": AZURE_KEY}),
    )


def new_moto_store(*, lock: LockMode | None = None) -> ObjectStore:
    """Return a store of its own in moto."""
    return open_store(s3_place(shared_moto(), lock=lock))


def new_radosgw_store(*, lock: LockMode | None = None) -> ObjectStore:
    """Return a store of its own in radosgw; skips the test where there is none."""
    return open_store(s3_place(shared_radosgw(), lock=lock))


def new_azurite_store() -> ObjectStore:
    """Return a store of its own in Azurite; skips the test where there is none."""
    return open_store(azure_place())


@functools.cache
def shared_moto() -> S3Service:
    """Return moto's S3, served by a thread of this process until it ends."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    return S3Service(url=f"http://{host}:{port}", key_id="moto", key="moto-secret")


@functools.cache
def shared_radosgw() -> S3Service:
    """Return Ceph's S3 with all of a cluster in memory, running until this process ends; skips where it is absent."""
    if find_radosgw() is None:
        pytest.skip(NO_RADOSGW)
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-rgw-")))
    return stack.enter_context(running_radosgw(home))


@functools.cache
def shared_azurite() -> str:
    """Return the address of an Azurite that runs until this process ends; skips the test where it is absent."""
    try:
        program = install_azurite()
    except JudgesAbsent as absent:
        pytest.skip(f"no Azurite here: {absent}")
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(_running_azurite(program))


def find_radosgw() -> str | None:
    """Return the path of radosgw, None where it or a part of its cluster is missing."""
    if any(shutil.which(name) is None for name in ("ceph-mon", "ceph-osd", "ceph", "monmaptool", "radosgw-admin")):
        return None
    return shutil.which("radosgw")


_CEPH_CONFIG = """[global]
fsid = {fsid}
mon_host = 127.0.0.1:{mon_port}
public_network = 127.0.0.0/8
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_warn = 1
mon_data_avail_crit = 1
mon_data = {home}/mon
osd_data = {home}/osd
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = 6442450944
run_dir = {home}/run
admin_socket = {home}/run/$name.asok
log_file = {home}/$name.log
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_enable_usage_log = false
rgw_gc_obj_min_wait = 2
rgw_gc_processor_period = 2
ms_mon_client_mode = crc
"""


@contextlib.contextmanager
def running_radosgw(home: Path) -> Iterator[S3Service]:
    """Run a monitor, one store in memory and the gateway in an empty folder until the block ends."""
    fsid, osd = "8f2d3c52-7d1c-4f0e-9d5e-0a4a6f0d6b11", "51c5d1a4-6c7e-4c25-b5b1-3f0a0a7d2c22"
    port, mon_port = free_port(), free_port()
    for name in ("mon", "osd", "run"):
        (home / name).mkdir()
    config = home / "ceph.conf"
    config.write_text(_CEPH_CONFIG.format(fsid=fsid, mon_port=mon_port, home=home, port=port))
    monmap = str(home / "monmap")
    with contextlib.ExitStack() as stack:
        _run("monmaptool", "--create", "--fsid", fsid, "--add", "a", f"127.0.0.1:{mon_port}", monmap)
        _run("ceph-mon", "-c", str(config), "-i", "a", "--mkfs", "--monmap", monmap)
        stack.enter_context(running("ceph-mon", "-f", "-c", str(config), "-i", "a", output=home / "ceph-mon.out"))
        _run("ceph", "-c", str(config), "--connect-timeout", "30", "osd", "new", osd, "0")
        _run("ceph-osd", "-c", str(config), "-i", "0", "--mkfs", "--osd-uuid", osd)
        stack.enter_context(running("ceph-osd", "-f", "-c", str(config), "-i", "0", output=home / "ceph-osd.out"))
        gateway = stack.enter_context(
            running("radosgw", "-f", "-c", str(config), "-n", "client.rgw", output=home / "radosgw.out")
        )
        wait_listening(gateway, port)
        key_id, key = "holdfast-test", "holdfast/test+secret"
        user = ("--uid=test", "--display-name=test", f"--access-key={key_id}", f"--secret-key={key}")
        _run("radosgw-admin", "-c", str(config), "user", "create", *user)
        yield S3Service(url=f"http://127.0.0.1:{port}", key_id=key_id, key=key)


_AZURE_CONTAINER = "holdfast-tests"


@contextlib.contextmanager
def _running_azurite(program: Path) -> Iterator[str]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="holdfast-azurite-") as folder:
        command = ["node", str(program), "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence"]
        command += ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
        with running(*command, output=Path(folder) / "azurite.out") as server:
            wait_listening(server, port)
            url = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
            _make_container(url)
            yield url


def _make_container(url: str) -> None:
    """Make the container that tests share: Holdfast itself makes none, and no client of Azure's is installed."""
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    resource = f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{_AZURE_CONTAINER}\nrestype:container"
    signed = "PUT" + "\n" * 12 + "".join(f"{name}:{text}\n" for name, text in headers.items()) + resource
    digest = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"
    request = urllib.request.Request(
        f"{url}/{_AZURE_CONTAINER}?restype=container", method="PUT", headers={**headers, "Content-Length": "0"}
    )
    with urllib.request.urlopen(request, timeout=START_S_MAX) as answer:
        assert answer.status == 201


def _credentials(values: Mapping[str, str]) -> StoreCredentials:
    return StoreCredentials(MappingProxyType({name: Secret(text) for name, text in values.items()}))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_S_MAX, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-1500:]}"
