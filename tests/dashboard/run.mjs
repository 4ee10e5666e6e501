#!/usr/bin/env node
// Drives the dashboard of a real sidecar in Debian's Chromium, and then its rarer looks in front of a listener that plays one (mock.mjs).
// Needs node 18 or newer, npm and chromium; the first run fetches the packages, later ones find them in the work folder.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { parseArgs } from 'node:util'

import { install } from '../tools.mjs'
import { launch, open } from './browser.mjs'
import { LIVE, withToken } from './live.mjs'
import { LOOKS } from './looks.mjs'
import { Scene } from './scene.mjs'
import { screenshots } from './screenshot.mjs'

const USAGE = `usage: tests/dashboard/run.mjs --sidecache BINARY --folder FOLDER [--only live|token|looks] [--pictures FOLDER]

  --sidecache  the binary under test; not needed with --only looks
  --folder     where the packages are installed and logs are written; best below the target folder of cargo
  --only       runs one part
  --pictures   makes the pictures of the manual (docs/src/images) in a folder, in about a minute, and tests nothing
`

const PACKAGES = {
  'playwright-core': ['1.60.0', 'sha512-9bW6zvX/m0lEbgTKJ6YppOKx8H3VOPBMOCFh2irXFOT4BbHgrx5hPjwJYLT40Lu+4qtD36qKc/Hn56StUW57IA=='],
  'axe-core': ['4.14.1', 'sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==']
}

// A minute and a half on a machine with nothing else to do.
const DEADLINE_MS = 480_000
const TOKEN = 'a-token-for-the-dashboard-test'

function readArguments () {
  const text = { type: 'string' }
  try {
    const { values } = parseArgs({ options: { sidecache: text, folder: text, only: text, pictures: text } })
    const isKnown = values.only === undefined || ['live', 'token', 'looks'].includes(values.only)
    if (values.folder && isKnown && (values.sidecache || (values.only === 'looks' && !values.pictures))) return values
  } catch (error) {
    process.stderr.write(`${error.message}\n`)
  }
  process.stderr.write(USAGE)
  process.exit(64)
}

async function check (name, body) {
  const began = Date.now()
  try {
    await body()
  } catch (error) {
    error.message = `${name}: ${error.message}`
    throw error
  }
  process.stdout.write(`  ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)\n`)
}

async function live (chromium, folder, binary) {
  const scene = await Scene.start(folder, binary, 'live')
  const options = { permissions: ['clipboard-read', 'clipboard-write'] }
  // The test that kills the sidecar makes the browser log that it does not answer.
  const opened = await open(chromium, scene.url, { options, allowed: [/net::ERR_/] })
  scene.axe = chromium.axe
  try {
    for (const [name, test] of Object.entries(LIVE)) {
      await check(name, async () => {
        await test({ ...opened, scene })
        assert.deepEqual(opened.complaints, [])
      })
    }
  } catch (error) {
    const picture = path.join(folder, 'failed.png')
    await opened.page.screenshot({ path: picture, fullPage: true }).catch(() => {})
    error.message += `\nthe page as it was then: ${picture}`
    throw error
  }
  await opened.context.close()
  await scene.end()
}

async function token (chromium, folder, binary) {
  const scene = await Scene.start(folder, binary, 'token', TOKEN)
  await check('with a token', () => withToken(chromium, scene))
  await scene.end()
}

async function main () {
  const options = readArguments()
  const folder = path.resolve(options.folder)
  const binary = options.sidecache && path.resolve(options.sidecache)
  install(folder, PACKAGES)
  const chromium = await launch(folder)
  setTimeout(() => {
    process.stderr.write(`tests/dashboard: not done within ${DEADLINE_MS / 1000} s\n`)
    process.exit(1)
  }, DEADLINE_MS).unref()
  try {
    if (options.pictures) {
      fs.mkdirSync(options.pictures, { recursive: true })
      for (const file of await screenshots(chromium, await Scene.start(folder, binary, 'pictures'), options.pictures)) {
        process.stdout.write(`${file}: ${Math.ceil(fs.statSync(file).size / 1024)} KiB\n`)
      }
      return
    }
    const wants = (part) => options.only === undefined || options.only === part
    if (wants('live')) await live(chromium, folder, binary)
    if (wants('token')) await token(chromium, folder, binary)
    if (wants('looks')) for (const [name, test] of Object.entries(LOOKS)) await check(name, () => test(chromium))
  } finally {
    await chromium.browser.close()
  }
}

main().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(`tests/dashboard: ${error.message}\n${error.stack?.split('\n').filter((line) => line.includes('/tests/')).join('\n')}\n`)
    process.exit(1)
  }
)
