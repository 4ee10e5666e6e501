#!/usr/bin/env node
// Starts the demo as a person would, and takes the first steps of its tour: a miss, a hit, a write,
// a miss with the new data. Then Ctrl-C, which must end it with a summary and exit code 0.
//
// The suite sends the other steps of the tour, without the demo's own `main`.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'

import { freePorts, start } from './tools.mjs'

const USAGE = `usage: tests/demo.mjs --demo BINARY | --sidecache BINARY

  --demo       the demo under test, such as target/debug/examples/demo
  --sidecache  the program whose command \`demo\` is under test
`

const DEADLINE_MS = 60_000
const LIST = '/api/v1/campaigns?page=1&limit=3'

function readArguments () {
  try {
    const { values: { demo, sidecache } } = parseArgs({ options: { demo: { type: 'string' }, sidecache: { type: 'string' } } })
    if (demo) return [path.resolve(demo)]
    if (sidecache) return [path.resolve(sidecache), 'demo']
  } catch (error) {
    process.stderr.write(`${error.message}\n`)
  }
  process.stderr.write(USAGE)
  process.exit(64)
}

async function send (base, method, body) {
  const headers = { 'x-tenant-id': 'acme', authorization: 'Bearer alice-0001' }
  if (body) headers['content-type'] = 'application/json'
  const target = method === 'PUT' ? '/api/v1/campaigns/1' : LIST
  const response = await fetch(`${base}${target}`, { method, headers, body })
  return [response.status, response.headers.get('x-cache'), await response.text()]
}

// The demo prints its tour before it listens.
async function isListening (port) {
  for (let tries = 0; tries < 300; tries++) {
    const socket = net.connect(port, '127.0.0.1')
    const connected = await once(socket, 'connect').then(() => true, () => false)
    socket.destroy()
    if (connected) return
    await sleep(50)
  }
  throw new Error(`the demo does not listen on port ${port}`)
}

async function takeTour (base) {
  const [status, cache, before] = await send(base, 'GET')
  assert.deepEqual([status, cache], [200, 'MISS'], before)
  assert.deepEqual(await send(base, 'GET'), [200, 'HIT', before])

  const campaign = { name: 'a name from the test', status: 'live' }
  const written = await send(base, 'PUT', JSON.stringify(campaign))
  assert.deepEqual(written.slice(0, 2), [200, 'BYPASS'], written[2])

  const [, again, after] = await send(base, 'GET')
  assert.equal(again, 'MISS', after)
  assert.notEqual(after, before)
  assert.match(after, /a name from the test/)
  assert.deepEqual(await send(base, 'GET'), [200, 'HIT', after])
}

// The last lines of a process may be written to its log after it has ended.
async function says (log, pattern, what) {
  for (let tries = 0; tries < 100; tries++) {
    if (pattern.test(fs.readFileSync(log, 'utf8'))) return
    await sleep(50)
  }
  throw new Error(`the demo does not say that ${what}; see ${log}`)
}

async function main () {
  const program = readArguments()
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'sidecache-demo-'))
  const log = path.join(folder, 'demo.log')
  const [proxy, app, admin] = await freePorts(3)
  const address = (port) => `127.0.0.1:${port}`
  const places = ['--listen', address(proxy), '--app', address(app), '--admin', address(admin)]
  setTimeout(() => {
    process.stderr.write(`tests/demo.mjs: not done within ${DEADLINE_MS / 1000} s; see ${log}\n`)
    process.exit(1)
  }, DEADLINE_MS).unref()

  const base = `http://${address(proxy)}`
  const command = [...program, ...places]
  const isTour = (line) => line.includes(`${base}${LIST}`)
  const { child } = await start('the demo', log, command, {}, isTour)
  const ended = once(child, 'close')
  await isListening(proxy)
  await takeTour(base)

  child.kill('SIGINT')
  const [code, signal] = await ended
  assert.deepEqual([code, signal], [0, null], `how the demo ended; see ${log}`)
  await says(log, /^ +2 {2}GET \/api\/v1\/campaigns$/m, 'two reads reached the app')
  await says(log, /^ +1 {2}PUT \/api\/v1\/campaigns\/1$/m, 'one write reached the app')
  fs.rmSync(folder, { recursive: true })
  process.stdout.write('the demo: miss, hit, write, miss, hit, and an orderly end\n')
}

main().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(`tests/demo.mjs: ${error.message}\n`)
    process.exit(1)
  }
)
