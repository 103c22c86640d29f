"""The pool's rules: which operation may begin on which object, read by calls and by records alike."""

from holdfast.lab.rules.device import allowed_vbd_operations, allowed_vif_operations
from holdfast.lab.rules.storage import (
    CBT_METADATA,
    allowed_sr_operations,
    allowed_vdi_operations,
    check_vdi_operation,
    has_vhd_disks,
    is_in_use,
)
from holdfast.lab.rules.vm import (
    allowed_appliance_operations,
    allowed_vm_operations,
    bad_power_state,
    check_vm_operation,
)

__all__ = [
    "CBT_METADATA",
    "allowed_appliance_operations",
    "allowed_sr_operations",
    "allowed_vbd_operations",
    "allowed_vdi_operations",
    "allowed_vif_operations",
    "allowed_vm_operations",
    "bad_power_state",
    "check_vdi_operation",
    "check_vm_operation",
    "has_vhd_disks",
    "is_in_use",
]
