"""qcow2, the disk format of large disks: read at random, its tables read forward, written as a stream."""

from holdfast.formats.qcow2.errors import Qcow2Damaged, Qcow2Error, Qcow2TooLarge, Qcow2Truncated, Qcow2Unsupported
from holdfast.formats.qcow2.read import ClusterKind, Qcow2Cluster, Qcow2Header, Qcow2Reader
from holdfast.formats.qcow2.source import plan_qcow2_of, stream_qcow2_of
from holdfast.formats.qcow2.stream import Qcow2Head, read_qcow2_head
from holdfast.formats.qcow2.write import QCOW2_CLUSTER_BYTES, Qcow2Plan, plan_qcow2, stream_qcow2

__all__ = [
    "QCOW2_CLUSTER_BYTES",
    "ClusterKind",
    "Qcow2Cluster",
    "Qcow2Damaged",
    "Qcow2Error",
    "Qcow2Head",
    "Qcow2Header",
    "Qcow2Plan",
    "Qcow2Reader",
    "Qcow2TooLarge",
    "Qcow2Truncated",
    "Qcow2Unsupported",
    "plan_qcow2",
    "plan_qcow2_of",
    "read_qcow2_head",
    "stream_qcow2",
    "stream_qcow2_of",
]
