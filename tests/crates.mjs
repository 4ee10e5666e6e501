#!/usr/bin/env node
// Compares docs/src/internals/supply-chain.md with Cargo.lock and with the sources of all crates.
//
//   node tests/crates.mjs [--write]
//
// - Tables whose first columns are `crate`, `version` and `unsafe` have what is locked, and how
//   often the word `unsafe` stands in the sources of the crate: outside of comments and texts,
//   whatever features and platforms it is for.
// - Every crate that the binary is linked from is in one of these tables or in tests/crates.txt,
//   and no other crate is.
// - The list below `<!-- build scripts -->` names the crates whose code runs in a build.
//
// Prints each problem, and exits with 1 if there are any. `--write` puts in versions, numbers and
// build scripts; where a new crate belongs is for people to say. The sources must be in cargo's home,
// where tests/deny puts them.
// tests/crates.test.mjs shows that each check can fail.

import fs from 'node:fs'
import path from 'node:path'
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const TOP = path.join(path.dirname(fileURLToPath(import.meta.url)), '..')
const PAGE = 'docs/src/internals/supply-chain.md'
const OTHERS = 'tests/crates.txt'
const OWN = 'sidecache'
const TARGET = 'x86_64-unknown-linux-gnu'
const WIDTH = 100
const TESTS = new Set(['tests', 'benches', 'examples', 'tests.rs', 'test.rs'])
const SCRIPTS = /(<!-- build scripts -->\n\n)([\s\S]*?)(?=\n\n|\n*$)/
// Comments, raw texts, texts and characters. A lifetime is none of them.
const NO_CODE =
  /\/\/[^\n]*|\/\*[\s\S]*?\*\/|\b[bc]?r(#*)"[\s\S]*?"\1|"(?:\\[\s\S]|[^"\\])*"|'(?:\\[^\n]{1,10}?|[^\\'\n])'/g

/** How often the word `unsafe` stands in code. */
export function unsafeIn(source) {
  return (source.replace(NO_CODE, ' ').match(/\bunsafe\b/g) ?? []).length
}

/**
 * What the page should say, and what is wrong with it. `others`: the names of tests/crates.txt.
 * `crates`: name, version, `unsafe` and `hasBuildScript` of each; those that are linked have
 * `isLinked`.
 */
export function compare(page, others, crates) {
  const linked = crates.filter((crate) => crate.isLinked)
  const problems = []
  const placed = new Set()
  let isTable = false
  const rows = page.split('\n').map((line) => {
    isTable = line.startsWith('| crate | version | unsafe |') || (isTable && line.startsWith('|'))
    const row = isTable && /^\| `([a-z0-9_-]+)` \| ([^|]*) \| ([^|]*) \|/i.exec(line)
    if (!row) return line
    const [start, name, version, count] = row
    const found = linked.filter((crate) => crate.name === name)
    if (found.length === 0) problems.push(`${name}: the binary is not linked from it`)
    if (placed.has(name)) problems.push(`${name}: it stands there twice`)
    placed.add(name)
    const versions = found.map((crate) => crate.version).join(', ')
    const counts = found.map((crate) => crate.unsafe).join(', ')
    if (found.length === 0 || (version === versions && count === counts)) return line
    problems.push(`${name}: ${version} with ${count} is now ${versions} with ${counts}`)
    return `| \`${name}\` | ${versions} | ${counts} |${line.slice(start.length)}`
  })
  let text = rows.join('\n')

  const names = new Set(linked.map((crate) => crate.name))
  for (const name of others) {
    if (!names.has(name)) problems.push(`${name}: the binary is not linked from it`)
    if (placed.has(name)) problems.push(`${name}: it stands there twice`)
    placed.add(name)
  }
  for (const name of names) {
    if (!placed.has(name)) problems.push(`${name}: nobody has said who chooses its bytes`)
  }

  const withScript = crates.filter((crate) => crate.hasBuildScript).map(({ name }) => name)
  const scripts = [...new Set(withScript)].sort()
  const [, , list = ''] = SCRIPTS.exec(text) ?? []
  const named = [...list.matchAll(/`([^`]+)`/g)].map(([, crate]) => crate)
  if (named.join() !== scripts.join()) {
    problems.push(`build scripts: those of ${scripts.join(', ')}`)
    text = text.replace(SCRIPTS, (_, mark) => mark + listOf(scripts))
  }
  return { problems, text }
}

function listOf(crates) {
  const lines = ['']
  crates.forEach((crate, at) => {
    const word = `\`${crate}\`${at + 1 < crates.length ? ',' : '.'}`
    const longer = `${lines.at(-1)} ${word}`.trimStart()
    if (longer.length > WIDTH) lines.push(word)
    else lines[lines.length - 1] = longer
  })
  return lines.join('\n')
}

/** All crates of a build for Linux, with what their sources have. */
function cratesOf(top) {
  const cargo = (command, ...flags) => {
    const options = { cwd: top, encoding: 'utf8', maxBuffer: 1 << 28 }
    return execFileSync('cargo', [command, '--locked', '--offline', ...flags], options)
  }
  const tree = (edges) => {
    const flags = ['--target', TARGET, '--prefix', 'none', '--format', '{p}', '--edges', edges]
    const lines = cargo('tree', ...flags).split('\n')
    return new Set(lines.map((line) => line.split(' ').slice(0, 2).join(' ')).filter(Boolean))
  }
  const linked = tree('normal,no-proc-macro')
  const built = tree('normal,build')
  const flags = ['--format-version', '1', '--filter-platform', TARGET]
  const { packages } = JSON.parse(cargo('metadata', ...flags))
  return packages
    .map((crate) => ({ ...crate, id: `${crate.name} v${crate.version}` }))
    .filter((crate) => built.has(crate.id) && crate.name !== OWN)
    .map((crate) => ({
      name: crate.name,
      version: crate.version.replace(/\+.*/, ''),
      isLinked: linked.has(crate.id),
      hasBuildScript: crate.targets.some(({ kind }) => kind.includes('custom-build')),
      unsafe: unsafeBelow(path.join(path.dirname(crate.manifest_path), 'src')),
    }))
    .sort((a, b) => (a.id < b.id ? -1 : 1))
}

function unsafeBelow(folder) {
  if (!fs.existsSync(folder)) return 0
  return fs.readdirSync(folder, { withFileTypes: true }).reduce((sum, entry) => {
    if (TESTS.has(entry.name)) return sum
    const file = path.join(folder, entry.name)
    if (entry.isDirectory()) return sum + unsafeBelow(file)
    return entry.name.endsWith('.rs') ? sum + unsafeIn(fs.readFileSync(file, 'utf8')) : sum
  }, 0)
}

function main(flags) {
  if (flags.some((flag) => flag !== '--write')) {
    console.error('usage: tests/crates.mjs [--write]')
    return 64
  }
  const file = path.join(TOP, PAGE)
  const lines = fs.readFileSync(path.join(TOP, OTHERS), 'utf8').split('\n')
  const others = lines.filter((line) => line !== '' && !line.startsWith('#'))
  const crates = cratesOf(TOP)
  const compared = () => compare(fs.readFileSync(file, 'utf8'), others, crates)
  if (flags.length > 0) fs.writeFileSync(file, compared().text)
  const { problems } = compared()
  for (const problem of problems) console.log(`${PAGE}, ${OTHERS}: ${problem}`)
  return problems.length > 0 ? 1 : 0
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  process.exitCode = main(process.argv.slice(2))
}
