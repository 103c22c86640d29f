// The JSON-RPC client of Xen Orchestra, driven by tests/judges/test_lab_xen_api.py.
import { createReadStream, createWriteStream, statSync } from 'node:fs'
import { pipeline } from 'node:stream/promises'

import { CancelToken } from 'promise-toolbox'
import { createClient } from 'xen-api'

import { serve } from './bridge.mjs'

const clients = new Map()
const sessions = new Map()
const cancellations = new Map()

const plain = object => ({ ...object, $ref: object.$ref, $type: object.$type, $id: object.$id })

const token = name => {
  if (name === undefined) {
    return CancelToken.none
  }
  const { cancel, token } = CancelToken.source()
  cancellations.set(name, cancel)
  return token
}

await serve({
  async connect({ name, options }) {
    const client = createClient({ allowUnauthorized: true, debounce: 20, eventPollDelay: 200, ...options })
    clients.set(name, client)
    client.on('sessionId', id => sessions.set(name, [...(sessions.get(name) ?? []), id]))
    await client.connect()
    if (options.watchEvents !== false) {
      await client.objectsFetched
    }
  },
  disconnect: ({ name }) => clients.get(name).disconnect(),
  status: ({ name }) => clients.get(name).status,
  sessions: ({ name }) => sessions.get(name),

  call: ({ name, method, args }) => clients.get(name).call(method, ...args),
  callAsync: ({ name, method, args, cancel }) => clients.get(name).callAsync(token(cancel), method, ...args),
  cancel: ({ name }) => cancellations.get(name)(),
  barrier: async ({ name, ref }) => {
    const object = await clients.get(name).barrier(ref)
    return object === undefined ? null : plain(object)
  },

  // What the client believes the pool holds, by type and reference.
  objects({ name }) {
    const byType = {}
    for (const object of Object.values(clients.get(name).objects.all)) {
      ;(byType[object.$type] ??= {})[object.$ref] = { ...object }
    }
    return byType
  },
  related: ({ name, ref, field }) => clients.get(name).getObjectByRef(ref)[field].map(plain),
  update: ({ name, ref, field, entry, value }) => clients.get(name).getObjectByRef(ref)[`update_${field}`](entry, value),
  set: ({ name, ref, field, value }) => clients.get(name).getObjectByRef(ref)[`set_${field}`](value),

  async download({ name, path, query, file, task, cancel }) {
    const response = await clients.get(name).getResource(token(cancel), path, { query, task })
    await pipeline(response.body, createWriteStream(file))
    return { status: response.statusCode, headers: response.headers, result: await response.task }
  },
  async upload({ name, path, query, file, knowsLength, task }) {
    const stream = createReadStream(file)
    if (knowsLength) {
      stream.length = statSync(file).size
    }
    return clients.get(name).putResource(CancelToken.none, stream, path, { query, task })
  },
})
