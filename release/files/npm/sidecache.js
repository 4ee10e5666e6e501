#!/usr/bin/env node
// Starts the binary of this platform with the same arguments, hands signals on to it, and ends as it
// ends. A service manager had better start the binary itself: `sidecache --npm-binary` prints its
// path.
'use strict'

const { spawn } = require('node:child_process')
const os = require('node:os')
const path = require('node:path')

const { version, optionalDependencies } = require('./package.json')

// 69 is what the system's own tools say where something they need is missing (sysexits.h).
const UNAVAILABLE = 69

function fail (why) {
  process.stderr.write(`sidecache: ${why}\n`)
  process.exit(UNAVAILABLE)
}

function find () {
  const name = `@sidecache/${process.platform}-${process.arch}`
  if (!optionalDependencies[name]) {
    const known = Object.keys(optionalDependencies).map((each) => each.replace('@sidecache/', ''))
    fail(`there is no binary for ${process.platform} on ${process.arch}; there are: ${known.join(', ')}`)
  }
  let manifest
  try {
    manifest = require.resolve(`${name}/package.json`)
  } catch {
    fail(`the package ${name} is missing: install sidecache without --omit=optional, on the platform that it runs on`)
  }
  const found = require(manifest).version
  if (found !== version) fail(`${name} is version ${found}, and sidecache is ${version}: install both anew`)
  return path.join(path.dirname(manifest), 'sidecache')
}

const binary = find()
const given = process.argv.slice(2)
if (given.length === 1 && given[0] === '--npm-binary') {
  process.stdout.write(`${binary}\n`)
  process.exit(0)
}

// A terminal sends Ctrl-C and its own end to both, and a second one would stop the binary without a
// drain. All that is sent to this process alone reaches the binary by this.
const child = spawn(binary, given, { stdio: 'inherit' })
const byTerminal = process.stdin.isTTY ? ['SIGINT', 'SIGHUP'] : []
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR2']) {
  process.on(signal, () => byTerminal.includes(signal) || child.kill(signal))
}
child.on('error', (error) => fail(`${binary} did not start: ${error.message}`))
child.on('exit', (code, signal) => {
  if (signal) process.exit(128 + os.constants.signals[signal])
  process.exit(code)
})
