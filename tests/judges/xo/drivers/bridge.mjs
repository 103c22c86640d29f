// Lets a test speak with a JavaScript client: one JSON request per line on standard input, one answer per line on
// standard output. A request is {id, verb, given}; its answer carries the same id and either "result" or "error".
// Requests run side by side, so a test can wait for one while it makes another. What a client prints goes to standard
// error, where a failing test finds it.
import { createInterface } from 'node:readline'

for (const level of ['debug', 'info', 'log', 'warn']) {
  console[level] = console.error
}

const told = cause => ({
  code: cause?.code === undefined ? undefined : String(cause.code),
  message: String(cause?.message ?? cause),
  params: cause?.params,
  stack: cause?.stack,
})

export const serve = async verbs => {
  const answer = line => process.stdout.write(JSON.stringify(line) + '\n')

  const handle = async ({ id, verb, given }) => {
    try {
      answer({ id, result: (await verbs[verb](given)) ?? null })
    } catch (cause) {
      answer({ id, error: told(cause) })
    }
  }

  // A rejection that a client forgot to handle is its own affair, but a test that waits should hear of it.
  process.on('unhandledRejection', cause => console.error('unhandled rejection', cause))
  for await (const line of createInterface({ input: process.stdin })) {
    handle(JSON.parse(line))
  }
  process.exit(0)
}
