// The backup engine of Xen Orchestra, driven by tests/judges/test_lab_xo*.py: runs a job or a restore against one pool
// and hands back the whole tree of what was done.
import { ImportVmBackup } from '@xen-orchestra/backups/ImportVmBackup.mjs'
import { RemoteAdapter } from '@xen-orchestra/backups/RemoteAdapter.mjs'
import { RestoreMetadataBackup } from '@xen-orchestra/backups/RestoreMetadataBackup.mjs'
import { createRunner } from '@xen-orchestra/backups/Backup.mjs'
import { getSyncedHandler } from '@xen-orchestra/fs'
import { Task } from '@vates/task'
import { Xapi } from '@xen-orchestra/xapi'
import vhdLib from 'vhd-lib'

import { serve } from './bridge.mjs'

// The published vhd-lib is older than the engine and drops the identities that the engine asks for, without which no
// increment knows its parent: they are entered after the disk was written.
const writeVhd = RemoteAdapter.prototype.writeVhd
RemoteAdapter.prototype.writeVhd = async function (path, disk, options = {}) {
  const size = await writeVhd.call(this, path, disk, options)
  const { dispose, value: vhd } = await vhdLib.openVhd(this.handler, path, { flags: 'r+' })
  try {
    await vhd.readBlockAllocationTable()
    vhd.footer.uuid = options.uuid ?? vhd.footer.uuid
    if (options.parentUuid !== undefined) {
      vhd.header.parentUuid = options.parentUuid
      vhd.header.parentUnicodeName = options.parentPath
    }
    await vhd.writeHeader()
    await vhd.writeFooter()
  } finally {
    await dispose()
  }
  return size
}

const CONFIG = {
  dirMode: 0o700,
  disableMergeWorker: true,
  mergeBlockConcurrency: 2,
  snapshotNameLabelTpl: '[XO Backup {job.name}] {vm.name_label}',
  writeBlockConcurrency: 16,
}

// Every pool that was connected to. A job may take from one and give to another.
const pools = []

const openFolder = async (folders, id) => {
  const { dispose, value } = await getSyncedHandler({ id, name: id, url: `file://${folders[id]}` })
  return { dispose, value: new RemoteAdapter(value, { dirMode: CONFIG.dirMode, vhdDirectoryCompression: 'brotli' }) }
}

const withFolder = async (folders, id, use) => {
  const { dispose, value } = await openFolder(folders, id)
  try {
    return await use(value)
  } finally {
    await dispose()
  }
}

const getRecord = async (type, id) => {
  const holder = pools.find(xapi => xapi.getObject(id, undefined) !== undefined)
  if (holder === undefined) {
    throw new Error(`no pool has the ${type} ${id}`)
  }
  return { dispose() {}, value: holder.getObject(id) }
}

// Returns the tree even when the work failed: the test looks at what failed.
const traced = async work => {
  const task = new Task({ properties: { name: 'run' } })
  try {
    await task.run(work)
  } catch {
    // it is in the tree
  }
  return task.tree
}

await serve({
  async connect(options) {
    const xapi = new Xapi({ allowUnauthorized: true, maxUncoalescedVdis: 1, ...options })
    await xapi.connect()
    await xapi.objectsFetched
    pools.push(xapi)
  },
  disconnect: () => Promise.all(pools.splice(0).map(xapi => xapi.disconnect())),

  run: ({ folders, job, schedule }) =>
    traced(() =>
      createRunner({
        config: CONFIG,
        getAdapter: id => openFolder(folders, id),
        getConnectedRecord: getRecord,
        job,
        schedule,
      }).run()
    ),

  points: ({ folders, folder, vm }) =>
    withFolder(folders, folder, async adapter =>
      (await adapter.listVmBackups(vm)).map(({ _filename, jobId, mode, size, timestamp, vdis }) => ({
        file: _filename,
        job: jobId,
        mode,
        size,
        timestamp,
        disks: Object.values(vdis ?? {}).map(({ name_label, uuid }) => ({ name: name_label, uuid })),
      }))
    ),

  restore: ({ folders, folder, file, sr, settings }) =>
    traced(() =>
      withFolder(folders, folder, async adapter =>
        new ImportVmBackup({
          adapter,
          metadata: await adapter.readVmBackupMetadata(file),
          settings,
          srUuid: sr,
          xapi: (await getRecord('SR', sr)).value.$xapi,
        }).run()
      )
    ),

  // Reads and merges what a folder holds as the product does in the background; says what it complained of.
  async clean({ folders, folder, vm }) {
    const complaints = []
    await withFolder(folders, folder, adapter =>
      adapter.cleanVm(`/xo-vm-backups/${vm}`, {
        fixMetadata: true,
        logInfo() {},
        logWarn: (message, data) => complaints.push({ data: String(data?.path ?? data?.error ?? ''), message }),
        merge: true,
        remove: true,
      })
    )
    return complaints
  },

  poolDumps: ({ folders, folder }) => withFolder(folders, folder, adapter => adapter.listPoolMetadataBackups()),
  restorePool: ({ folders, folder, id }) =>
    traced(() =>
      withFolder(folders, folder, async adapter => {
        const handler = adapter._handler
        return new RestoreMetadataBackup({ backupId: id, handler, xapi: pools[0] }).run()
      })
    ),
})
