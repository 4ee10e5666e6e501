#!/usr/bin/env node
// Packs a binary in every way, installs each package into a clean place, and does there what somebody
// new does: version, init in front of an app, a miss and a hit on the route that init wrote, the demo.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { once } from 'node:events'
import { parseArgs } from 'node:util'
import { fileURLToPath } from 'node:url'

import { documentOf, INSTALLS, run } from './packages/installs.mjs'
import { freePorts, start } from './tools.mjs'

const USAGE = `usage: tests/packages.mjs --binary BINARY --folder FOLDER [--only KIND]

  --binary  the static release build that release/build has made
  --folder  where packages are made and installed: target/packages
  --only    one of: ${Object.keys(INSTALLS).join(', ')}
`

const TOP = path.join(path.dirname(fileURLToPath(import.meta.url)), '..')
const PACKAGES = path.join(TOP, 'release/packages')
const DEADLINE_MS = 600_000

function readArguments () {
  try {
    const options = { binary: { type: 'string' }, folder: { type: 'string' }, only: { type: 'string' } }
    const { values } = parseArgs({ options })
    if (values.binary && values.folder && (!values.only || INSTALLS[values.only])) return values
  } catch (error) {
    process.stderr.write(`${error.message}\n`)
  }
  process.stderr.write(USAGE)
  process.exit(64)
}

// Two packings of one binary are the same bytes. The kinds that take longest to compress are made by
// the same functions as the others, or by dpkg-deb, and are not made again.
function pack (binary, dist) {
  fs.rmSync(dist, { recursive: true, force: true })
  process.stdout.write(run(PACKAGES, ['--binary', binary, '--output', dist]))
  run('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: dist })
  const again = `${dist}-again`
  fs.rmSync(again, { recursive: true, force: true })
  run(PACKAGES, ['--binary', binary, '--output', again, '--only', 'wheel,npm,sbom,chart'])
  const sums = (folder) => fs.readFileSync(path.join(folder, 'SHA256SUMS'), 'utf8').trim().split('\n')
  const repeated = sums(again)
  assert.equal(repeated.length, 5)
  for (const sum of repeated) assert.ok(sums(dist).includes(sum), `another packing gives other bytes: ${sum}`)
  fs.rmSync(again, { recursive: true })
}

function refusesOthers (binary, folder) {
  const needsLibraries = path.join(folder, 'needs-libraries')
  const told = run(binary, ['version', '--json'])
  fs.writeFileSync(`${needsLibraries}.c`, `#include <stdio.h>\nint main(void) { puts(${JSON.stringify(told)}); return 0; }\n`)
  run('gcc', ['-o', needsLibraries, `${needsLibraries}.c`])
  assert.throws(() => run(PACKAGES, ['--binary', needsLibraries, '--output', path.join(folder, 'refused')]), /needs shared libraries/)
}

function hasDocuments ({ documents, manual }) {
  for (const name of ['LICENSE-MIT', 'LICENSE-APACHE']) {
    assert.equal(documentOf(documents, name), fs.readFileSync(path.join(TOP, name), 'utf8'), name)
  }
  const notices = documentOf(documents, 'THIRD-PARTY.txt')
  for (const part of [/^ring \d/m, /^hyper \d/m, /jemalloc source distribution/, /GNU LESSER GENERAL PUBLIC LICENSE/]) {
    assert.match(notices, part)
  }
  if (manual) assert.match(documentOf(manual, 'sidecache-purge.1'), /\.TH /)
}

// The file as init writes it, with the route on and on ports that are free.
async function writeRules (install, port) {
  const { program, site, host = 'localhost' } = install
  run(program, ['init', '--upstream', `http://${host}:${port}`], { cwd: site })
  const file = path.join(site, 'proxy.toml')
  const [listen, admin] = await freePorts(2)
  const changes = { '127.0.0.1:8080': `127.0.0.1:${listen}`, '127.0.0.1:9090': `127.0.0.1:${admin}`, 'mode = "shadow"': 'mode = "on"' }
  let rules = fs.readFileSync(file, 'utf8')
  for (const [before, after] of Object.entries(changes)) {
    assert.ok(rules.includes(before), `init writes ${before}:\n${rules}`)
    rules = rules.replaceAll(before, after)
  }
  fs.writeFileSync(file, rules)
  run(program, ['check', '--deny-warnings'], { cwd: site })
}

async function missThenHit (install, port, log) {
  await writeRules(install, port)
  const listening = (line) => / listening .*\baddress=(\S+)/.exec(line)?.[1]
  const { child, found } = await start('sidecache', log, [install.program], { cwd: install.site }, listening)
  const ended = once(child, 'close')
  const get = async () => {
    const response = await fetch(`http://${found}/api/items/1`)
    return [response.status, response.headers.get('x-cache'), await response.text()]
  }
  const [status, cache, body] = await get()
  assert.deepEqual([status, cache], [200, 'MISS'], body)
  assert.deepEqual(await get(), [200, 'HIT', body])
  child.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null], `how it ends at SIGTERM; see ${log}`)
}

async function tryOut (name, dist, folder, binary, port) {
  const began = Date.now()
  // Nothing of an earlier run: pip keeps what has the same version.
  fs.rmSync(folder, { recursive: true, force: true })
  fs.mkdirSync(folder, { recursive: true })
  const install = INSTALLS[name](dist, folder)
  assert.equal(run(install.program, ['version', '--json']), run(binary, ['version', '--json']))
  hasDocuments(install)
  await missThenHit(install, port, path.join(folder, 'sidecache.log'))
  run(process.execPath, [path.join(TOP, 'tests/demo.mjs'), '--sidecache', install.program])
  install.end?.()
  process.stdout.write(`${name}: installed; version, licences, miss, hit, demo (${((Date.now() - began) / 1000).toFixed(1)} s)\n`)
}

async function main () {
  const { binary, folder, only } = readArguments()
  setTimeout(() => {
    process.stderr.write(`tests/packages.mjs: not done within ${DEADLINE_MS / 1000} s\n`)
    process.exit(1)
  }, DEADLINE_MS).unref()
  const [program, home] = [path.resolve(binary), path.resolve(folder)]
  const dist = path.join(home, 'dist')
  fs.mkdirSync(home, { recursive: true })
  pack(program, dist)
  refusesOthers(program, home)
  const app = await start('the app', path.join(home, 'app.log'), ['python3', path.join(TOP, 'tests/packages/app.py')], {}, (line) => /^port (\d+)$/.exec(line)?.[1])
  const names = Object.keys(INSTALLS).filter((name) => !only || name === only)
  for (const name of names) await tryOut(name, dist, path.join(home, name), program, app.found)
}

main().then(
  () => process.exit(0),
  (error) => {
    const said = [error.stdout, error.stderr].filter(Boolean).join('\n')
    process.stderr.write(`tests/packages.mjs: ${error.message}\n${said}\n`)
    process.exit(1)
  }
)
