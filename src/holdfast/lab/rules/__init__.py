"""The pool's rules: which operation may begin on which object, read by calls and by records alike."""

from holdfast.lab.rules.appliance import allowed_appliance_operations, check_appliance_operation
from holdfast.lab.rules.device import (
    allowed_vbd_operations,
    allowed_vif_operations,
    check_vbd_operation,
    check_vif_operation,
)
from holdfast.lab.rules.estate import (
    allowed_host_operations,
    allowed_pool_operations,
    check_host_operation,
    check_pool_operation,
)
from holdfast.lab.rules.guest import has_feature, has_tools
from holdfast.lab.rules.repository import allowed_sr_operations, check_sr_operation, driver_features
from holdfast.lab.rules.storage import (
    CBT_METADATA,
    allowed_vdi_operations,
    check_vdi_managed,
    check_vdi_operation,
    has_vhd_disks,
    is_in_use,
    type_text,
)
from holdfast.lab.rules.vm import (
    allowed_vm_operations,
    allowed_vtpm_operations,
    bad_power_state,
    check_power_state,
    check_vm_operation,
    is_live,
)

__all__ = [
    "CBT_METADATA",
    "allowed_appliance_operations",
    "allowed_host_operations",
    "allowed_pool_operations",
    "allowed_sr_operations",
    "allowed_vbd_operations",
    "allowed_vdi_operations",
    "allowed_vif_operations",
    "allowed_vm_operations",
    "allowed_vtpm_operations",
    "bad_power_state",
    "check_appliance_operation",
    "check_host_operation",
    "check_pool_operation",
    "check_power_state",
    "check_sr_operation",
    "check_vbd_operation",
    "check_vdi_managed",
    "check_vdi_operation",
    "check_vif_operation",
    "check_vm_operation",
    "driver_features",
    "has_feature",
    "has_tools",
    "has_vhd_disks",
    "is_in_use",
    "is_live",
    "type_text",
]
