#!/usr/bin/env node
// Checks the whole proxy.toml that each page of docs/src/frameworks has, by `sidecache check
// --deny-warnings`. Needs node and the program under test.
//
//   node tests/samples.mjs --sidecache BINARY [FOLDER]
//
// A sample is whole if it has `[upstream]`. A page needs one of at most 18 lines that are neither
// blank nor a comment: about fifteen. Prints each problem, and exits with 1 if there are any.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const LINES = 18
const SECRET = 'a-secret-of-no-app-at-all-of-32-bytes'
const SECRETS = { FLASK_SECRET: SECRET, JWT_SECRET: SECRET, SESSION_SECRET: SECRET }
const ROOT = path.join(path.dirname(fileURLToPath(import.meta.url)), '..')

/** The whole samples of a page. */
function samplesOf (text) {
  const blocks = [...text.matchAll(/^```toml\n([\s\S]*?)^```/gm)].map(([, block]) => block)
  return blocks.filter((block) => /^\[upstream\]/m.test(block))
}

/** What is wrong with a page, as lines of text. */
function problemsOf (text, sidecache, folder) {
  const samples = samplesOf(text)
  if (samples.length === 0) return ['it has no whole proxy.toml']
  return samples.flatMap((sample) => {
    const lines = sample.split('\n').filter((line) => line.trim() && !line.trim().startsWith('#'))
    const found = lines.length > LINES ? [`a proxy.toml of ${lines.length} lines; ${LINES} is the limit`] : []
    const file = path.join(folder, 'proxy.toml')
    fs.writeFileSync(file, sample)
    const command = ['check', '--offline', '--deny-warnings', '--config', file]
    const { status, stdout, stderr } = spawnSync(sidecache, command, { env: { ...process.env, ...SECRETS }, encoding: 'utf8' })
    return status === 0 ? found : [...found, `${stdout}${stderr}`]
  })
}

function main () {
  const { values, positionals } = parseArgs({ options: { sidecache: { type: 'string' } }, allowPositionals: true })
  if (!values.sidecache) {
    process.stderr.write('usage: tests/samples.mjs --sidecache BINARY [FOLDER]\n')
    return 64
  }
  const pages = positionals[0] ?? path.join(ROOT, 'docs/src/frameworks')
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'sidecache-samples-'))
  try {
    const sidecache = path.resolve(values.sidecache)
    // First that this can fail: a key that does not exist, a warning, no sample, one that is too long.
    const whole = '[upstream]\nurl = "http://127.0.0.1:1"\n'
    const page = (toml) => `# A page\n\n\`\`\`toml\n${toml}\`\`\`\n`
    const unused = '[fields]\na = { header = "x-a" }\n'
    for (const bad of [page(`${whole}nonsense = 1\n`), page(whole + unused), '# A page\n', page(whole + 'fronts = []\n'.repeat(20))]) {
      if (problemsOf(bad, sidecache, folder).length === 0) throw new Error(`no problem is found in:\n${bad}`)
    }
    const names = fs.readdirSync(pages).filter((name) => name.endsWith('.md') && name !== 'README.md').sort()
    const found = names.flatMap((name) => {
      const text = fs.readFileSync(path.join(pages, name), 'utf8')
      return problemsOf(text, sidecache, folder).map((problem) => `${name}: ${problem}`)
    })
    for (const problem of found) process.stderr.write(`${problem}\n`)
    process.stdout.write(`${names.length} pages with a proxy.toml, ${found.length} problems\n`)
    return found.length === 0 && names.length > 0 ? 0 : 1
  } finally {
    fs.rmSync(folder, { recursive: true })
  }
}

process.exitCode = main()
