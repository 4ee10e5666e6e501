// The judge must be able to say no.

import assert from 'node:assert/strict'
import test from 'node:test'

import { judge, summary } from './judge.mjs'

const FAILED = ['Assertion', 'Response 2 comes from cache']

// A hundred required tests, one of each other kind, and one for browsers; and a run in which all pass.
function good () {
  const tests = Array.from({ length: 100 }, (_, index) => ({ id: `r${index}` }))
  tests.push({ id: 'optimal', kind: 'optimal' }, { id: 'check', kind: 'check' }, { id: 'browser', browser_only: true })
  const results = Object.fromEntries(tests.filter((one) => !one.browser_only).map((one) => [one.id, true]))
  return { tests, results, expected: { required: 100, fails: {}, superseded: {}, unsupported: {} } }
}

function problems ({ tests, results, expected }) {
  return judge(tests, results, expected).problems
}

test('a run in which everything passes is good', () => {
  assert.deepEqual(problems(good()), [])
  assert.match(summary(judge(...Object.values(good()))), /100 of 100, 100\.0 %/)
})

test('what is not required may fail', () => {
  const run = good()
  Object.assign(run.results, { optimal: FAILED, check: FAILED })
  assert.deepEqual(problems(run), [])
})

test('a required test that fails is a problem unless it is listed with a reason', () => {
  const run = good()
  run.results.r7 = FAILED
  assert.deepEqual(problems(run), ['r7 must pass: Assertion: Response 2 comes from cache'])
  run.expected.fails.r7 = ' '
  assert.deepEqual(problems(run), ['fails gives no reason for r7'])
  run.expected.fails.r7 = 'because'
  assert.deepEqual(problems(run), [])
})

test('a listed test that passes is a problem', () => {
  const run = good()
  run.expected.fails.r7 = 'because'
  assert.match(problems(run).join(), /^r7 passes/)
})

test('a list that is too long is a problem', () => {
  const run = good()
  for (const id of ['r0', 'r1', 'r2', 'r3']) {
    assert.deepEqual(problems(run), [], `before ${id}`)
    run.results[id] = FAILED
    run.expected.fails[id] = 'because'
  }
  assert.deepEqual(problems(run), ['96.0 % of the required tests pass, and 97.0 % must'])
})

test('what does not count is neither passed nor failed', () => {
  const run = good()
  run.results.r0 = FAILED
  Object.assign(run.expected, { superseded: { r0: 'because' }, unsupported: { r1: 'because' } })
  assert.deepEqual(problems(run), [])
  assert.equal(judge(run.tests, run.results, run.expected).counted, 98)
})

test('a suite that did not run, or not as a whole, is a problem', () => {
  const run = good()
  delete run.results.check
  assert.deepEqual(problems(run), ['check did not run'])
  run.results = {}
  assert.ok(problems(run).includes('r99 did not run'))
  assert.ok(problems(run).some((problem) => problem.startsWith('0.0 %')))
  assert.ok(problems({ ...good(), tests: [] }).length > 1)
})

test('a suite of another size and lists of tests that it does not have are problems', () => {
  const run = good()
  run.expected.required = 101
  Object.assign(run.expected, { superseded: { gone: 'because', optimal: 'because', r1: 'because' }, unsupported: { r1: 'because' } })
  assert.equal(problems(run).length, 4)
})
