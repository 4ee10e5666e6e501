// What the results of the suite mean. Pure: tests, results and expectations in, a verdict out.

// The share of the required tests that count which must pass, whatever is listed.
const SHARE = 0.97

const LISTS = ['fails', 'superseded', 'unsupported']

// The kind of a test: required, optimal or check. The suite leaves out the first.
function kindOf (test) {
  return test.kind ?? 'required'
}

/**
 * Judges a run. `tests` are the suite's, `results` are by id: `true`, or the kind of failure and its message.
 * `expected` is the content of expected.json.
 */
export function judge (tests, results, expected) {
  const problems = []
  const run = tests.filter((test) => test.browser_only !== true)
  const required = run.filter((test) => kindOf(test) === 'required')
  const [listed, excluded] = [listOf(['fails'], expected), listOf(['superseded', 'unsupported'], expected)]

  for (const test of run) {
    if (!(test.id in results)) problems.push(`${test.id} did not run`)
  }
  if (required.length !== expected.required) {
    problems.push(`the suite has ${required.length} required tests, and expected.json is about ${expected.required}`)
  }
  problems.push(...wrongLists(expected, required))

  const counted = required.filter((test) => !(test.id in excluded))
  const passed = counted.filter((test) => results[test.id] === true)
  for (const test of counted) {
    const result = results[test.id]
    if (result === undefined) continue
    if (result !== true && !(test.id in listed)) problems.push(`${test.id} must pass: ${result.join(': ')}`)
    if (result === true && test.id in listed) problems.push(`${test.id} passes: take it off the list of expected failures`)
  }
  const share = counted.length === 0 ? 0 : passed.length / counted.length
  if (share < SHARE) {
    problems.push(`${percent(share)} of the required tests pass, and ${percent(SHARE)} must`)
  }
  return { problems, kinds: countKinds(run, results), counted: counted.length, passed: passed.length, listed, excluded }
}

function listOf (names, expected) {
  return Object.assign({}, ...names.map((name) => expected[name]))
}

// What is wrong with the lists themselves: they are to name required tests, each once and with a reason.
function wrongLists (expected, required) {
  const problems = []
  const ids = new Set(required.map((test) => test.id))
  const seen = new Set()
  for (const name of LISTS) {
    for (const [id, reason] of Object.entries(expected[name])) {
      if (!ids.has(id)) problems.push(`${name} lists ${id}, which is no required test of the suite`)
      if (seen.has(id)) problems.push(`${id} is listed twice`)
      if (typeof reason !== 'string' || reason.trim() === '') problems.push(`${name} gives no reason for ${id}`)
      seen.add(id)
    }
  }
  return problems
}

function countKinds (run, results) {
  const kinds = {}
  for (const test of run) {
    const count = (kinds[kindOf(test)] ??= { passed: 0, all: 0 })
    count.all += 1
    if (results[test.id] === true) count.passed += 1
  }
  return kinds
}

function percent (share) {
  return `${(Math.floor(share * 1000) / 10).toFixed(1)} %`
}

/** The verdict in lines for people. */
export function summary (verdict) {
  const lines = Object.entries(verdict.kinds).map(([kind, { passed, all }]) => `${kind}: ${passed} of ${all}`)
  const listed = Object.keys(verdict.listed).length
  const excluded = Object.keys(verdict.excluded).length
  const share = verdict.counted === 0 ? 0 : verdict.passed / verdict.counted
  lines.push(`required, without ${excluded} that do not count: ${verdict.passed} of ${verdict.counted}, ${percent(share)}; ${listed} are expected to fail`)
  lines.push(...verdict.problems.map((problem) => `wrong: ${problem}`))
  return `${lines.join('\n')}\n`
}
