// Shows that the checks of tests/workflows.mjs and of release/notes can fail.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

import { problemsOf } from './workflows.mjs'

const TOP = path.join(path.dirname(fileURLToPath(import.meta.url)), '..')
const COMMIT = 'de0fac2e4500dabe0009e67214ff5f5447ce83dd'
const GOOD = `name: good
on: push
permissions:
  contents: read
jobs:
  one:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    steps:
      - uses: actions/checkout@${COMMIT} # v6.0.2
        with:
          persist-credentials: false
      - run: tests/run --all
`

const problems = (before, after) => problemsOf(GOOD.replace(before, after), (file) => file === 'tests/run')

test('a good workflow has no problems', () => {
  assert.deepEqual(problemsOf(GOOD, () => true), [])
})

for (const [what, before, after, found] of [
  ['an action by its tag', `@${COMMIT} # v6.0.2`, '@v6', /commit of an action/],
  ['a commit without its version', ' # v6.0.2', '', /version as a comment/],
  ['a checkout that keeps credentials', 'persist-credentials: false', 'fetch-depth: 0', /keeps no credentials/],
  ['a command that is no script', 'tests/run --all', 'cargo test', /run a script/],
  ['several commands', 'tests/run --all', '|', /run a script/],
  ['a script that is missing', 'tests/run', 'tests/runs', /no such program/],
  ['a command with a value of an event', '--all', '${{ github.head_ref }}', /into the environment/],
  ['more rights for all', 'contents: read', 'contents: write', /may read the repository/],
  ['a job without an end', '    timeout-minutes: 5\n', '', /one has no timeout/]
]) {
  test(`${what} is a problem`, () => assert.match(problems(before, after).join('\n'), found))
}

function notes (changelog, tag) {
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'sidecache-notes-')), 'CHANGELOG.md')
  fs.writeFileSync(file, changelog)
  const done = spawnSync(path.join(TOP, 'release/notes'), [tag, '--changelog', file], { encoding: 'utf8' })
  fs.rmSync(path.dirname(file), { recursive: true })
  return done
}

const VERSION = /^version = "(.+)"$/m.exec(fs.readFileSync(path.join(TOP, 'Cargo.toml'), 'utf8'))[1]
const CHANGELOG = `# Changelog\n\n## [Unreleased]\n\n- new\n\n## [${VERSION}] - 2026-01-02\n\n### Fixed\n\n- it\n\n## [0.0.1] - 2025-01-01\n\n- old\n\n[0.0.1]: x\n`

test('the notes of a release are its section of the changelog', () => {
  const { status, stdout } = notes(CHANGELOG, `v${VERSION}`)
  assert.deepEqual([status, stdout], [0, '### Fixed\n\n- it\n'])
})

test('another tag than the version has no notes', () => {
  const { status, stderr } = notes(CHANGELOG, 'v99.0.0')
  assert.equal(status, 1)
  assert.match(stderr, new RegExp(`the tag has to be v${VERSION}`))
})

test('a version without a section has no notes', () => {
  const { status, stderr } = notes('# Changelog\n\n## [Unreleased]\n\n- new\n', `v${VERSION}`)
  assert.equal(status, 1)
  assert.match(stderr, /has no section/)
})
