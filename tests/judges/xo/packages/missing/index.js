// What the backup engine imports from packages that the registry lacks, under the names it imports them by.
//
// One package stands in for all of them (see "overrides" in ../package.json). What the tests never reach throws, so that
// a stand-in can not make a run look better than it was.
'use strict'

const { Task } = require('./task.js')

const UNIT_MS = { ms: 1, s: 1e3, sec: 1e3, m: 60e3, min: 60e3, h: 3600e3, d: 86400e3 }

const unreachable = name => {
  throw new Error(`${name} is not part of this judge`)
}

// The default export is what one of the packages is required as; the others are taken by name.
module.exports = class StreamReader {
  constructor() {
    unreachable('StreamReader')
  }
}
module.exports.Task = Task
module.exports.VM_POWER_STATE = { HALTED: 'Halted', PAUSED: 'Paused', RUNNING: 'Running', SUSPENDED: 'Suspended' }
module.exports.createCachedLookup = () => ({ patchGlobal() {} })
module.exports.diff = () => unreachable('diff')
module.exports.mount = () => unreachable('mount')
module.exports.parseDuration = given => {
  if (typeof given === 'number') {
    return given
  }
  const [, count, unit] = /^([\d.]+)\s*([a-z]+)$/.exec(given)
  return Number(count) * UNIT_MS[unit]
}
