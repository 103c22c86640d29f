"""Azure Blob Storage: ``azure://account/container/prefix``.

As with S3, nothing that decides where requests go is left to the environment. Invariant: credentials reach the signing
library and nothing else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import AzureStore as ObstoreAzure

from holdfast.core import mapped
from holdfast.storage.bucket_place import (
    Endpoint,
    needed_credentials,
    parse_bucket_place,
    parse_endpoint,
    prove_create_only,
    read_ca_file,
)
from holdfast.storage.errors import LocationRefused
from holdfast.storage.obstore_errors import error_of_service
from holdfast.storage.obstore_store import NO_RETRIES, BucketStore, client_options
from holdfast.storage.place import StorePlace, refuse_options
from holdfast.storage.store import ObjectStore

if TYPE_CHECKING:
    from obstore.store import AzureAccessKey, AzureConfig, AzureSASToken

__all__ = ["AzureStore", "open_azure"]

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}")


class AzureStore(BucketStore):
    """Objects in an Azure container."""


def open_azure(place: StorePlace, create: bool) -> ObjectStore:
    """Return the store of an Azure location; the service is asked nothing unless ``create`` is set.

    ``LocationRefused``, ``CredentialsMissing``; with ``create`` also what the service answers, and ``StoreOverwrites``.
    """
    refuse_options(place, except_for=frozenset({"endpoint", "ca_file"}))
    where = parse_bucket_place(place.location)
    account = where.host
    if not _ACCOUNT.fullmatch(account):
        raise LocationRefused(location=place.location, reason=f"{account!r} cannot be the name of a storage account")
    if not where.path or not _CONTAINER.fullmatch(where.path[0]):
        raise LocationRefused(location=place.location, reason="after the account, write a container's name")
    container, prefix = where.path[0], "/".join(where.path[1:])
    own = place.options.endpoint
    endpoint = parse_endpoint(place.location, own or f"https://{account}.blob.core.windows.net")
    ca_pem = read_ca_file(place)
    credential = _credential_of(place)

    description = _description(account, container, prefix, endpoint if own else None)

    def way(*, reading: bool) -> ObstoreAzure:
        config: AzureConfig = {
            "account_name": account,
            "endpoint": endpoint.url,
            "use_emulator": False,
            "skip_signature": False,
            "use_azure_cli": False,
        }
        with mapped(BaseError, to=lambda cause: error_of_service(cause, store=description, key=None, writing=False)):
            return ObstoreAzure(
                container,
                config=config,
                client_options=client_options(https=endpoint.https, ca_pem=ca_pem, reading=reading),
                retry_config=NO_RETRIES,
                credential_provider=lambda: credential,
            )

    store = AzureStore(
        reader=way(reading=True),
        writer=way(reading=False),
        prefix=prefix,
        description=description,
    )
    if create:
        prove_create_only(store)
    return store


def _credential_of(place: StorePlace) -> AzureAccessKey | AzureSASToken:
    """Return what requests are signed with: the account's key, or a signature (SAS)."""
    signature = place.credentials.get("AZURE_STORAGE_SAS_TOKEN")
    if signature is not None and place.credentials.get("AZURE_STORAGE_KEY") is None:
        return {"sas_token": signature.reveal().removeprefix("?"), "expires_at": None}
    (key,) = needed_credentials(place, "AZURE_STORAGE_KEY")
    return {"access_key": key.reveal(), "expires_at": None}


def _description(account: str, container: str, prefix: str, endpoint: Endpoint | None) -> str:
    where = f"Azure container {account}/{container}" + (f", prefix {prefix}" if prefix else "")
    return where if endpoint is None else f"{where} at {endpoint.url}"
