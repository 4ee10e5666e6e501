// Shows that each check of tests/crates.mjs can fail.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { compare, unsafeIn } from './crates.mjs'

const HYPER = { name: 'hyper', version: '1.2.3', unsafe: 4, isLinked: true, hasBuildScript: false }
const RING = { name: 'ring', version: '0.1.2', unsafe: 5, isLinked: true, hasBuildScript: true }
const CC = { name: 'cc', version: '1.0.0', unsafe: 0, isLinked: false, hasBuildScript: false }
const CRATES = [HYPER, RING, CC]
const PAGE = `# Supply chain

| crate | version | unsafe | reads |
|---|---|---|---|
| \`hyper\` | 1.2.3 | 4 | heads |

<!-- build scripts -->

\`ring\`.
`

const OTHERS = ['ring']

const problems = (page, crates = CRATES, others = OTHERS) => compare(page, others, crates).problems
const written = (page, crates) => compare(page, OTHERS, crates).text

test('a page that says what is so is fine, and is not changed', () => {
  assert.deepEqual(compare(PAGE, OTHERS, CRATES), { problems: [], text: PAGE })
})

test('another version or number is told, and written', () => {
  for (const changed of [{ version: '1.2.4' }, { unsafe: 6 }]) {
    const crates = [{ ...HYPER, ...changed }, RING, CC]
    assert.equal(problems(PAGE, crates).length, 1)
    assert.deepEqual(problems(written(PAGE, crates), crates), [])
  }
})

test('two versions of a crate are one row', () => {
  const crates = [...CRATES, { ...HYPER, version: '2.0.0', unsafe: 0 }]
  assert.match(written(PAGE, crates), /\| `hyper` \| 1\.2\.3, 2\.0\.0 \| 4, 0 \| heads \|/)
})

test('a crate that nobody has placed is told, also after a write', () => {
  const crates = [...CRATES, { ...HYPER, name: 'h2' }]
  assert.match(problems(PAGE, crates).join(), /^h2: nobody has said/)
  assert.match(problems(written(PAGE, crates), crates).join(), /^h2: nobody has said/)
})

test('a crate that is gone or stands twice is told', () => {
  assert.match(problems(PAGE.replace('`hyper`', '`hype`')).join(), /^hype: the binary is not linked/)
  assert.match(problems(PAGE, CRATES, ['ring', 'cc']).join(), /^cc: the binary is not linked/)
  assert.match(problems(PAGE, CRATES, ['ring', 'hyper']).join(), /^hyper: .* twice$/)
})

test('another build script is told, and written', () => {
  const crates = [HYPER, RING, { ...CC, hasBuildScript: true }]
  assert.match(problems(PAGE, crates).join(), /^build scripts: those of cc, ring$/)
  const page = written(PAGE, crates)
  assert.match(page, /<!-- build scripts -->\n\n`cc`, `ring`\.\n$/)
  assert.deepEqual(problems(page, crates), [])
})

test('rows of other tables are left alone', () => {
  const page = `${PAGE}\n| module | reads | holds by |\n|---|---|---|\n| \`config\` | a file | 1 |\n`
  assert.deepEqual(compare(page, OTHERS, CRATES), { problems: [], text: page })
})

test('only code counts', () => {
  assert.equal(unsafeIn('unsafe { a() } unsafe fn b() {} unsafe impl<\'a> C<\'a> for D {}'), 3)
  assert.equal(unsafeIn('#![forbid(unsafe_code)] // unsafe\n/* unsafe */ /// unsafe\n'), 0)
  assert.equal(unsafeIn('"unsafe \\" unsafe" r#"unsafe " unsafe"# b"unsafe" \'"\' '), 0)
  assert.equal(unsafeIn('f(\'"\', "\\\\"); unsafe {}; g::<\'static>("x")'), 1)
})
