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
  'docs/src/page.md':
    '# A page\n\n## A `heading`\n\n[back](../../README.md), [up](#a-page), [web](https://e.com)\n',
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

const readme = (text) => ({ 'README.md': `# Sample\n\n${text}\n` })

const BROKEN = {
  'a link to a page that is not there': [
    readme('[a](docs/src/none.md)'),
    'README.md:3: docs/src/none.md: there is no such file',
  ],
  'a link out of the repository': [
    readme('[a](../README.md)'),
    'README.md:3: ../README.md: there is no such file',
  ],
  'an anchor that no heading has': [
    readme('[a](docs/src/page.md#none)'),
    'README.md:3: docs/src/page.md#none: there is no such heading',
  ],
  'an anchor of its own page': [
    readme('text\n[a](#none)'),
    'README.md:4: #none: there is no such heading',
  ],
  'an anchor of a heading in a code block': [
    readme('```md\n# None\n```\n\n[a](#none)'),
    'README.md:7: #none: there is no such heading',
  ],
  'an image that is not there': [
    { 'docs/src/a.svg': null },
    'README.md:3: docs/src/a.svg: there is no such file',
  ],
  'an image in HTML': [
    readme('<img alt="" src="none.png">'),
    'README.md:3: none.png: there is no such file',
  ],
  'an image in a link': [
    readme('[![a](none.png)](docs/src/page.md)'),
    'README.md:3: none.png: there is no such file',
  ],
  'a link with code for its text': [
    readme('[`a`](none.md)'),
    'README.md:3: none.md: there is no such file',
  ],
  'a link over two lines': [
    readme('[a\nb](none.md)'),
    'README.md:3: none.md: there is no such file',
  ],
  'a link that is defined elsewhere': [
    readme('[a][b]\n\n[b]: none.md'),
    'README.md:5: none.md: there is no such file',
  ],
  'an empty link': [readme('[a]()'), 'README.md:3: a link without a target'],
  'a link in a folder beside the book': [
    { 'deploy/README.md': '[a](none.md)\n' },
    'deploy/README.md:1: none.md: there is no such file',
  ],
  'a page that SUMMARY.md does not list': [
    { 'docs/src/new.md': '# New\n' },
    'docs/src/new.md:1: SUMMARY.md does not list this page',
  ],
  'a page that is listed twice': [
    { 'docs/src/SUMMARY.md': '- [A](page.md)\n- [B](page.md)\n' },
    'docs/src/SUMMARY.md:1: docs/src/page.md is listed twice',
  ],
  'a book without SUMMARY.md': [
    { 'docs/src/SUMMARY.md': null },
    'docs/src/SUMMARY.md:1: there is no such file',
  ],
  'a README that is too long': [
    readme('line\n'.repeat(219).trim()),
    'README.md:221: it has 221 lines; 220 is the limit',
  ],
}
for (const [name, [changes, expected]] of Object.entries(BROKEN)) {
  test(`found: ${name}`, (t) => assert.deepEqual(problems(t, changes), [expected]))
}

const FINE = {
  'a README of 220 lines': readme('line\n'.repeat(218).trim()),
  'what looks like a link in a code block': readme('```toml\n[a](none.md)\n```'),
  'what looks like a link in a code span': readme('text `[a](none.md)` text'),
  'what looks like a link in a comment': readme('<!-- [a](none.md) -->'),
  'the second of two headings that are alike': readme('## A\n\n## A\n\n[a](#a-1)'),
  'a block of code in a longer one': readme('````md\n```\n# A\n```\n````\n\n[a](#sample)'),
  'a link to a folder': readme('[a](docs/src)'),
}
for (const [name, changes] of Object.entries(FINE)) {
  test(`let pass: ${name}`, (t) => assert.deepEqual(problems(t, changes), []))
}
