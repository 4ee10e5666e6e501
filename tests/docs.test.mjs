// Shows that each check of docs.mjs fails on a sample, and passes on the same sample put right.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { test } from 'node:test'

import { check } from './docs.mjs'

const WHOLE = {
  'README.md': '# Sample\n\n[a page](docs/src/page.md#a-heading) ![a picture](docs/src/a.svg)\n',
  'docs/src/SUMMARY.md': '# Summary\n\n- [A page](page.md)\n',
  'docs/src/page.md': '# A page\n\n## A `heading`\n\n[back](../../README.md), [up](#a-page), [web](https://example.com/#x)\n',
  'docs/src/a.svg': '<svg xmlns="http://www.w3.org/2000/svg"/>\n',
}

/** The problems of the sample with these files changed; `null` removes one. */
function problems(t, changes) {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'docs-'))
  t.after(() => fs.rmSync(root, { recursive: true }))
  for (const [name, text] of Object.entries({ ...WHOLE, ...changes })) {
    if (text === null) continue
    fs.mkdirSync(path.join(root, path.dirname(name)), { recursive: true })
    fs.writeFileSync(path.join(root, name), text)
  }
  return check(root)
}

test('a whole sample has no problems', (t) => {
  assert.deepEqual(problems(t, {}), [])
})

const README = (text) => ({ 'README.md': `# Sample\n\n${text}\n` })
const BROKEN = [
  ['a link to a page that is not there', README('[a](docs/src/none.md)'), 'README.md:3: docs/src/none.md: there is no such file'],
  ['a link out of the repository', README('[a](../README.md)'), 'README.md:3: ../README.md: there is no such file'],
  ['an anchor that no heading has', README('[a](docs/src/page.md#none)'), 'README.md:3: docs/src/page.md#none: there is no such heading'],
  ['an anchor of its own page', README('text\n[a](#none)'), 'README.md:4: #none: there is no such heading'],
  ['an image that is not there', { 'docs/src/a.svg': null }, 'README.md:3: docs/src/a.svg: there is no such file'],
  ['an image in HTML', README('<img alt="" src="none.png">'), 'README.md:3: none.png: there is no such file'],
  ['a link with code for its text', README('[`a`](none.md)'), 'README.md:3: none.md: there is no such file'],
  ['a link over two lines', README('[a\nb](none.md)'), 'README.md:3: none.md: there is no such file'],
  ['a link that is defined elsewhere', README('[a][b]\n\n[b]: none.md'), 'README.md:5: none.md: there is no such file'],
  ['an empty link', README('[a]()'), 'README.md:3: a link without a target'],
  ['a link in a folder beside the book', { 'deploy/README.md': '[a](none.md)\n' }, 'deploy/README.md:1: none.md: there is no such file'],
  ['a page that SUMMARY.md does not list', { 'docs/src/new.md': '# New\n' }, 'docs/src/new.md:1: SUMMARY.md does not list this page'],
  ['a page that is listed twice', { 'docs/src/SUMMARY.md': '- [A](page.md)\n- [B](page.md)\n' }, 'docs/src/SUMMARY.md:1: docs/src/page.md is listed twice'],
  ['a book without SUMMARY.md', { 'docs/src/SUMMARY.md': null }, 'docs/src/SUMMARY.md:1: there is no such file'],
  ['a README that is too long', README('line\n'.repeat(219)), 'README.md:221: it has 221 lines; 220 is the limit'],
]
for (const [name, changes, expected] of BROKEN) {
  test(`found: ${name}`, (t) => assert.deepEqual(problems(t, changes), [expected]))
}

const FINE = [
  ['a README of 220 lines', README('line\n'.repeat(218))],
  ['what looks like a link in a code block', README('```toml\n[a](none.md)\n```')],
  ['what looks like a link in a code span', README('text `[a](none.md)` text')],
  ['what looks like a link in a comment', README('<!-- [a](none.md) -->')],
  ['the second of two headings that are alike', README('## A\n\n## A\n\n[a](#a-1)')],
  ['a heading in a code block is none, and needs none', README('````md\n```\n# None\n```\n````\n\n[a](#sample)')],
  ['a link to a folder', README('[a](docs/src)')],
]
for (const [name, changes] of FINE) {
  test(`let pass: ${name}`, (t) => assert.deepEqual(problems(t, changes), []))
}

test('headings in code blocks are no anchors', (t) => {
  const found = problems(t, README('```md\n# None\n```\n\n[a](#none)'))
  assert.deepEqual(found, ['README.md:7: #none: there is no such heading'])
})
