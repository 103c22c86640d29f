"""Azurite, Microsoft's own emulator of Azure Storage, from npm."""
