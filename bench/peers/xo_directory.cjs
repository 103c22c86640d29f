// Xen Orchestra's block directories, driven through its own library: one step, told on the command line.
//
//   node xo_directory.cjs MODULES STEP REPOSITORY [DISK | TARGET] [CHANGES]
//
// MODULES is a folder with node_modules in which vhd-lib and @xen-orchestra/fs are installed. A backup is a VHD directory:
// 2 MiB blocks, brotli, encrypted by the library's own handler. An increment holds the blocks that the list of changes
// touches; a restore takes each block from the newest directory that has it; deleting merges into the oldest.
'use strict'

const fs = require('node:fs')
const path = require('node:path')
const { createRequire } = require('node:module')

const BLOCK_BYTES = 2 * 1024 * 1024
const CONCURRENCY = 16 // what Xen Orchestra uses for block directories
const CHAIN = ['first', 'upgrade', 'database']

const [modules, step, repository, file, changes] = process.argv.slice(2)
const load = createRequire(path.join(path.resolve(modules), 'package.json'))
const { VhdDirectory } = load('vhd-lib')
const { createFooter, createHeader } = load('vhd-lib/_createFooterHeader.js')
const { unpackFooter, unpackHeader } = load('vhd-lib/Vhd/_utils.js')
const { DISK_TYPES } = load('vhd-lib/_constants.js')
const { asyncEach } = load('@vates/async-each')
const { getSyncedHandler } = load('@xen-orchestra/fs')

const SECTOR_BITMAP = Buffer.alloc(512, 0xff)
const ZEROS = Buffer.alloc(BLOCK_BYTES)

async function open(handler, name) {
  const { value: vhd } = await VhdDirectory.open(handler, name, { flags: 'r+' })
  await vhd.readBlockAllocationTable()
  return vhd
}

async function readChain(handler) {
  const names = (await handler.list('/')).map(each => path.basename(each))
  return Promise.all(CHAIN.filter(name => names.includes(name)).map(name => open(handler, name)))
}

async function backUp(handler) {
  const disk = fs.openSync(file, 'r')
  const size = fs.fstatSync(disk).size
  const kind = changes === undefined ? DISK_TYPES.DYNAMIC : DISK_TYPES.DIFFERENCING
  const { value: vhd } = await VhdDirectory.create(handler, step, { compression: 'brotli' })
  const geometry = { cylinders: 65535, heads: 16, sectorsPerTrackCylinder: 255 }
  vhd.footer = unpackFooter(createFooter(size, Math.floor(Date.now() / 1000), geometry, 512, kind))
  vhd.header = unpackHeader(createHeader(Math.ceil(size / BLOCK_BYTES)))
  await asyncEach(
    touched(size),
    async id => {
      const block = Buffer.alloc(SECTOR_BITMAP.length + BLOCK_BYTES)
      SECTOR_BITMAP.copy(block)
      fs.readSync(disk, block, SECTOR_BITMAP.length, BLOCK_BYTES, id * BLOCK_BYTES)
      if (changes === undefined && block.subarray(SECTOR_BITMAP.length).equals(ZEROS)) {
        return
      }
      await vhd.writeEntireBlock({ id, buffer: block })
    },
    { concurrency: CONCURRENCY }
  )
  await Promise.all([vhd.writeFooter(), vhd.writeHeader(), vhd.writeBlockAllocationTable()])
}

function touched(size) {
  if (changes === undefined) {
    return Array.from({ length: Math.ceil(size / BLOCK_BYTES) }, (_, id) => id)
  }
  const ids = new Set()
  for (const [offset, length] of JSON.parse(fs.readFileSync(changes, 'utf8'))) {
    for (let id = Math.floor(offset / BLOCK_BYTES); id * BLOCK_BYTES < offset + length; id++) {
      ids.add(id)
    }
  }
  return [...ids].sort((a, b) => a - b)
}

async function eachBlock(vhds, work) {
  const ids = Array.from({ length: vhds[0].header.maxTableEntries }, (_, id) => id)
  await asyncEach(ids, work, { concurrency: CONCURRENCY })
}

async function restore(handler) {
  const vhds = (await readChain(handler)).reverse()
  const target = fs.openSync(file, 'w')
  fs.ftruncateSync(target, vhds[0].footer.currentSize)
  await eachBlock(vhds, async id => {
    const vhd = vhds.find(each => each.containsBlock(id))
    if (vhd !== undefined) {
      const { data } = await vhd.readBlock(id)
      fs.writeSync(target, data, 0, data.length, id * BLOCK_BYTES)
    }
  })
}

async function verify(handler) {
  const vhds = await readChain(handler)
  await eachBlock(vhds, async id => {
    for (const vhd of vhds) {
      if (vhd.containsBlock(id)) {
        await vhd.readBlock(id)
      }
    }
  })
}

async function deleteOlder(handler) {
  const [base, ...children] = await readChain(handler)
  for (const child of children) {
    await eachBlock([base], async id => {
      if (child.containsBlock(id)) {
        await base.mergeBlock(child, id)
      }
    })
    base.footer.uuid = child.footer.uuid
  }
  await base.writeFooter()
  await base.writeBlockAllocationTable()
  await handler.rmtree('upgrade')
  await handler.rmtree('database')
  await handler.rename('first', 'database')
}

async function main() {
  fs.mkdirSync(repository, { recursive: true })
  // As an address with a key has it; the parser of addresses in the registry is too old to know keys.
  const remote = { url: `file://${path.resolve(repository)}`, encryptionKey: '0123456789abcdef0123456789abcdef' }
  const { value: handler, dispose } = await getSyncedHandler(remote)
  const steps = { create: () => {}, first: backUp, upgrade: backUp, database: backUp, restore, verify, delete: deleteOlder }
  await steps[step](handler)
  await dispose()
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
