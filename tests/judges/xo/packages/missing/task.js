// Nested units of work that remember how each ended: the whole tree is what a test looks at after a run.
'use strict'

const { AsyncLocalStorage } = require('node:async_hooks')

const current = new AsyncLocalStorage()

const described = cause =>
  cause instanceof Error
    ? { message: cause.message, code: cause.code, call: cause.call?.method, stack: cause.stack }
    : cause

class Task {
  #ended = false
  #started = false

  constructor({ properties = {} } = {}) {
    this.parent = current.getStore()
    this.tree = { ...properties, status: 'pending', infos: [], warnings: [], tasks: [] }
  }

  static run(options, work) {
    return new Task(options).run(work)
  }

  static wrap(options, work) {
    return function (...given) {
      const chosen = typeof options === 'function' ? options.apply(this, given) : options
      return Task.run(chosen, () => work.apply(this, given))
    }
  }

  static info(message, data) {
    current.getStore()?.info(message, data)
  }

  static warning(message, data) {
    current.getStore()?.warning(message, data)
  }

  static set(name, value) {
    current.getStore()?.set(name, value)
  }

  static get abortSignal() {
    return undefined
  }

  get status() {
    return this.tree.status
  }

  start() {
    if (!this.#started) {
      this.#started = true
      this.parent?.tree.tasks.push(this.tree)
    }
    return this
  }

  success(result) {
    this.#end('success', result)
  }

  failure(cause) {
    this.#end('failure', described(cause))
  }

  info(message) {
    this.tree.infos.push(message)
  }

  warning(message, data) {
    this.tree.warnings.push([message, described(data?.error ?? data?.message)])
  }

  set(name, value) {
    this.tree[name] = value
  }

  wrap(work) {
    const task = this
    return function (...given) {
      return task.run(() => work.apply(this, given))
    }
  }

  wrapInside(work) {
    const task = this
    return function (...given) {
      return task.runInside(() => work.apply(this, given))
    }
  }

  async runInside(work, ...given) {
    this.start()
    try {
      return await current.run(this, () => work(...given))
    } catch (cause) {
      this.failure(cause)
      throw cause
    }
  }

  async run(work, ...given) {
    const result = await this.runInside(work, ...given)
    this.success(result)
    return result
  }

  #end(status, result) {
    this.start()
    if (!this.#ended) {
      this.#ended = true
      Object.assign(this.tree, { status, result })
    }
  }
}

exports.Task = Task
