"""The storage manager's garbage collection: some minutes after a disk was removed it prunes and merges its tree.

One run per repository, in steps on the pool's clock, so that a merge can be seen while it goes on: what is merged, and
for how long, is decided as the real storage manager decides it. Invariant: a step looks at the tree anew and does
nothing that the tree does not allow any more; no step changes what a disk reads as.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from holdfast.core import MIB
from holdfast.lab.context import PoolCore
from holdfast.lab.disks import DiskBusy, DiskChainTooLong, DiskUnknown
from holdfast.lab.drivers import driver_of
from holdfast.lab.rules import has_vhd_disks
from holdfast.lab.space import empty_bytes, node_bytes
from holdfast.lab.trees import base_copies, forget_bases, show_base, show_parents

__all__ = ["COLLECTION_PAUSE_S", "MERGE_BYTES_PER_S", "collect_later", "resume_collections", "stop_collection"]

COLLECTION_PAUSE_S = 300.0
"""The storage manager's quiet period: who removes ten snapshots has them collected in one run."""

MERGE_BYTES_PER_S = 100 * MIB
"""A middling disk array; a merge reads and writes."""

_RELINK_S = 1.0
_LIVE_BYTES_MAX = 20 * MIB
_LIVE_S_MAX = 5
_ITERATIONS_MAX = 20
_FRUITLESS_MAX = 3
_FRUITLESS_FROM = 4
_MARKS = ("relinking", "paused", "activating")


def collect_later(pool: PoolCore, sr: str) -> None:
    """Begin a run when there is work and none goes on: a pause first, then step by step."""
    if not pool.chores.is_due(_chore(sr)) and _is_plugged(pool, sr):
        _Run(pool, sr).begin()


def stop_collection(pool: PoolCore, sr: str) -> None:
    """End a run that goes on: the repository goes away, or the pool restarts."""
    pool.chores.cancel(_chore(sr))
    _clear_marks(pool, sr)


def resume_collections(pool: PoolCore) -> None:
    """Take up what a stopped lab left: clear its marks and look at every repository again."""
    for row in pool.db.rows("SR"):
        if has_vhd_disks(pool.db, row.ref):
            stop_collection(pool, row.ref)
            collect_later(pool, row.ref)


def _chore(sr: str) -> str:
    return f"collect {sr}"


def _is_plugged(pool: PoolCore, sr: str) -> bool:
    db = pool.db
    if not db.exists("SR", sr) or not has_vhd_disks(db, sr):
        return False
    return any(db.flag("PBD", pbd, "currently_attached") for pbd in db.texts("SR", sr, "PBDs"))


def _clear_marks(pool: PoolCore, sr: str) -> None:
    db = pool.db
    with db.transaction():
        for vdi in db.texts("SR", sr, "VDIs"):
            for mark in _MARKS:
                if mark in db.mapping("VDI", vdi, "sm_config"):
                    db.drop_key("VDI", vdi, "sm_config", key=mark)


class _Run:
    """One run over one repository."""

    def __init__(self, pool: PoolCore, sr: str) -> None:
        self._pool = pool
        self._db = pool.db
        self._sr = sr
        self._task = ""
        self._failed: set[str] = set()
        self._starved: set[str] = set()
        self._sizes: dict[str, list[int]] = {}
        """Per leaf that is too large to be merged at once: what it held after each try."""
        self._speeds: list[float] = []

    def begin(self) -> None:
        """Wait for the quiet period to pass, if there is anything to do after it."""
        if self._has_work():
            uuid = self._db.text("SR", self._sr, "uuid")
            description = f"Garbage collection for SR {uuid}"
            self._task = self._pool.tasks.create(
                "Garbage Collection", host=self._pool.master_ref, description=description
            )
            self._after(COLLECTION_PAUSE_S, self._step)

    # -- what there is to do

    def _garbage(self) -> list[str]:
        """Base copies on which nothing stands, and those that only such stand on."""
        disks = self._pool.disks
        idle: set[str] = set()
        bases = self._bases()
        while True:
            more = {base for base in bases if base not in idle and not set(disks.children(base)) - idle}
            if not more:
                return sorted(idle)
            idle |= more

    def _bases(self) -> list[str]:
        uuids = (self._db.text("VDI", vdi, "uuid") for vdi in base_copies(self._pool, self._sr))
        return [uuid for uuid in uuids if self._pool.disks.exists(uuid)]

    def _only_children(self) -> list[str]:
        """Whatever stands alone on a base copy, but for what failed in this run."""
        disks = self._pool.disks
        kids = (disks.children(base) for base in self._bases())
        return [str(each[0]) for each in kids if len(each) == 1 and str(each[0]) not in self._failed]

    def _inner_nodes(self) -> list[str]:
        """Base copies to merge into the one below, those of the tallest tree first."""
        if self._switch("coalesce") == "false":
            return []
        disks = self._pool.disks
        found = [uuid for uuid in self._only_children() if disks.is_base_copy(uuid) and disks.children(uuid)]
        return sorted(found, key=self._height, reverse=True)

    def _height(self, uuid: str) -> int:
        disks = self._pool.disks
        above, level = 0, [uuid]
        while level:
            level = [str(child) for each in level for child in disks.children(each)]
            above += 1
        return above + disks.depth(uuid)

    def _leaves(self) -> list[str]:
        """Disks to merge into the base copy that they alone stand on."""
        if "false" in (self._switch("coalesce"), self._switch("leaf-coalesce")):
            return []
        found = [uuid for uuid in self._only_children() if not self._pool.disks.is_base_copy(uuid)]
        return [uuid for uuid in found if self._is_leaf_mergeable(uuid)]

    def _is_leaf_mergeable(self, uuid: str) -> bool:
        if not self._db.has_uuid("VDI", uuid):
            return False
        fields = self._db.row("VDI", self._db.by_uuid("VDI", uuid)).fields
        return fields["on_boot"] != "reset" and not fields["allow_caching"] and self._wish(uuid) != "false"

    def _wish(self, uuid: str) -> str:
        return self._db.mapping("VDI", self._db.by_uuid("VDI", uuid), "other_config").get("leaf-coalesce", "")

    def _switch(self, name: str) -> str:
        return self._db.mapping("SR", self._sr, "other_config").get(name, "")

    def _has_work(self) -> bool:
        return bool(self._garbage() or self._inner_nodes() or self._leaves())

    # -- the steps

    def _after(self, delay_s: float, work: object) -> None:
        assert callable(work)
        self._pool.chores.after(_chore(self._sr), delay_s, work)

    def _step(self) -> None:
        """Prune, then begin the next merge, or end the run."""
        if not _is_plugged(self._pool, self._sr) or self._switch("gc") == "false" or self._is_busy():
            return self._end()
        garbage = self._garbage()
        if garbage:
            forget_bases(self._pool, self._sr, self._pool.disks.prune(garbage))
            self._tell_space()
        for uuid in self._inner_nodes():
            if self._has_room(uuid, extra_bytes=0):
                return self._begin_inner(uuid)
        for uuid in self._leaves():
            if self._begin_leaf(uuid):
                return None
        return self._end()

    def _is_busy(self) -> bool:
        fields = self._db.row("SR", self._sr).fields
        names = (self._sr, str(fields["uuid"]), str(fields["name_label"]))
        return self._pool.faults.take("coalesce-busy", sr=names) is not None

    def _has_room(self, uuid: str, *, extra_bytes: int) -> bool:
        """Whether the repository can hold what the base copy below will grow to."""
        disks = self._pool.disks
        parent = disks.parent(uuid)
        grown_bytes = disks.merged_bytes(uuid) - disks.used_bytes(parent) if parent is not None else 0
        has_room = grown_bytes + extra_bytes <= self._pool.space.free_bytes(self._sr)
        self._note_room(uuid, has_room=has_room)
        return has_room

    def _begin_inner(self, uuid: str) -> None:
        self._after(self._pool.disks.used_bytes(uuid) / MERGE_BYTES_PER_S, partial(self._tag_children, uuid))

    def _tag_children(self, uuid: str) -> None:
        """The data is below now; whoever stands on the node is about to be told."""
        if uuid in self._inner_nodes():
            self._mark([str(child) for child in self._pool.disks.children(uuid)], "relinking")
            return self._after(_RELINK_S, partial(self._finish, uuid))
        return self._step()

    def _begin_leaf(self, uuid: str) -> bool:
        """Begin to merge a disk: at once when that takes a moment, else by way of a helper that holds what it has."""
        driver = driver_of(self._db.text("SR", self._sr, "type"))
        size_bytes = self._pool.disks.size_bytes(uuid)
        if not self._has_room(uuid, extra_bytes=empty_bytes(size_bytes, driver=driver)):
            return False
        used_bytes = self._pool.disks.used_bytes(uuid)
        if self._is_quick(uuid, used_bytes):
            self._mark([uuid], "paused")
            self._after(used_bytes / MERGE_BYTES_PER_S, partial(self._finish, uuid))
            return True
        if self._gives_up(uuid, used_bytes):
            return False
        try:
            made = self._pool.disks.freeze(uuid)
        except (DiskChainTooLong, DiskUnknown):
            self._failed.add(uuid)
            return False
        with self._db.transaction():
            show_base(self._pool, str(made.base_uuid), like=self._db.by_uuid("VDI", uuid))
            show_parents(self._pool, [uuid])
            self._tell_space()
        self._begin_inner(str(made.base_uuid))
        return True

    def _is_quick(self, uuid: str, used_bytes: int) -> bool:
        if self._wish(uuid) == "force":
            return True
        if self._speeds:
            return used_bytes // (sum(self._speeds) / len(self._speeds)) < _LIVE_S_MAX
        return used_bytes < _LIVE_BYTES_MAX

    def _gives_up(self, uuid: str, used_bytes: int) -> bool:
        """Whether the guest writes as fast as its disk is merged, so that the end is not in sight."""
        sizes = self._sizes.setdefault(uuid, [])
        sizes.append(used_bytes)
        late = sizes[_FRUITLESS_FROM - 1 :]
        fruitless = sum(after > before for before, after in pairwise(late))
        if len(sizes) <= _ITERATIONS_MAX and fruitless <= _FRUITLESS_MAX:
            return False
        self._failed.add(uuid)
        return True

    def _finish(self, uuid: str) -> None:
        """Merge for good, and say on the records how the tree stands now."""
        disks = self._pool.disks
        if uuid in (*self._inner_nodes(), *self._leaves()):
            is_inner = disks.is_base_copy(uuid)
            below = str(disks.parent(uuid))
            standing = [str(child) for child in disks.children(uuid)] if is_inner else [uuid]
            try:
                disks.coalesce(uuid)
            except (DiskBusy, DiskUnknown):
                self._failed.add(uuid)
            else:
                self._speeds.append(float(MERGE_BYTES_PER_S))
                self._show_merged(uuid if is_inner else below, [*standing, *([below] if is_inner else [])])
        _clear_marks(self._pool, self._sr)
        self._step()

    def _show_merged(self, gone: str, remaining: list[str]) -> None:
        db, disks = self._db, self._pool.disks
        with db.transaction():
            forget_bases(self._pool, self._sr, [gone])
            show_parents(self._pool, remaining)
            for uuid in remaining:
                if db.has_uuid("VDI", uuid):
                    vdi = db.by_uuid("VDI", uuid)
                    db.drop_key("VDI", vdi, "other_config", key="leaf-coalesce")
                    if not db.flag("VDI", vdi, "managed"):
                        db.set("VDI", vdi, "virtual_size", disks.size_bytes(uuid))
                    self._pool.space.measure(vdi)
                    db.set("VDI", vdi, "physical_utilisation", node_bytes(db, disks, vdi))
            self._tell_space()

    # -- what others see of it

    def _mark(self, uuids: list[str], mark: str) -> None:
        with self._db.transaction():
            for uuid in uuids:
                if self._db.has_uuid("VDI", uuid):
                    self._db.put_key("VDI", self._db.by_uuid("VDI", uuid), "sm_config", key=mark, value="true")

    def _tell_space(self) -> None:
        self._db.set("SR", self._sr, "physical_utilisation", self._pool.space.used_bytes(self._sr))

    def _note_room(self, uuid: str, *, has_room: bool) -> None:
        db = self._db
        vdi = db.by_uuid("VDI", uuid)
        if has_room:
            self._starved.discard(uuid)
            if "gc_no_space" in db.mapping("VDI", vdi, "sm_config"):
                db.drop_key("VDI", vdi, "sm_config", key="gc_no_space")
        else:
            self._starved.add(uuid)

    def _end(self) -> None:
        if self._db.exists("SR", self._sr):
            self._tell_starvation()
        self._pool.tasks.succeed(self._task, "")

    def _tell_starvation(self) -> None:
        """Raise a message while something cannot be merged for lack of space, and take it back afterwards."""
        db = self._db
        with db.transaction():
            message = db.mapping("SR", self._sr, "sm_config").get("gc_no_space", "")
            if self._starved:
                if not db.exists("message", message):
                    message = self._no_space_message()
                    db.put_key("SR", self._sr, "sm_config", key="gc_no_space", value=message)
                for uuid in self._starved:
                    if db.has_uuid("VDI", uuid):
                        vdi = db.by_uuid("VDI", uuid)
                        db.put_key("VDI", vdi, "sm_config", key="gc_no_space", value=message)
            elif message:
                db.drop_key("SR", self._sr, "sm_config", key="gc_no_space")
                if db.exists("message", message):
                    db.destroy("message", message)

    def _no_space_message(self) -> str:
        uuid = self._db.text("SR", self._sr, "uuid")
        return self._db.create(
            "message",
            {
                "name": "SM_GC_NO_SPACE",
                "priority": 3,
                "cls": "SR",
                "obj_uuid": uuid,
                "timestamp": self._pool.now(),
                "body": f"Repository {uuid} has too little free space to merge the layers of its disks.",
            },
        )
