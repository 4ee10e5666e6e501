#!/usr/bin/env node
// Checks that what the Helm chart can be given is said in one way: by values.yaml, values.schema.json,
// the table of its README.md, and its templates. Needs node alone; tests/chart.mjs runs Helm.
//
//   node tests/chart/values.mjs
//
// Prints each problem, and exits with 1 if there are any. First it shows that each check can fail.

import fs from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'

const CHART = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../deploy/helm/sidecache')
// What a parent chart says to Helm, not to the templates.
const OF_PARENTS = ['enabled', 'global']

// Each has to be found: [file, what stands there, what stands there instead, the problem].
const MISTAKES = [
  ['values.yaml', '\nreplicas: 1\n', '\n', /^values\.yaml has no replicas$/],
  ['values.yaml', '\n  port: 80\n', '\n  port: 80\n  ports: 80\n', /^values\.schema\.json does not allow service\.ports$/],
  ['values.schema.json', '"replicas": {', '"replica": {', /^values\.schema\.json does not allow replicas$/],
  ['values.schema.json', '"additionalProperties": false,\n      "properties": {\n        "repository"', '"properties": {\n        "repository"', /^values\.schema\.json allows other keys in image$/],
  ['values.schema.json', '"description": "Its tag. By default the version of the chart."', '"description": ""', /^values\.schema\.json does not describe image\.tag$/],
  ['README.md', '| `state.size` |', '| `state.sizes` |', /^README\.md does not explain state\.size$/],
  ['README.md', '| `state.size` |', '| `state.size` | |\n| `state.sizes` |', /^README\.md explains state\.sizes, which there is not$/],
  ['templates/service.yaml', '.Values.service.type', '.Values.service.kind', /^templates\/service\.yaml reads service\.kind, which there is not$/],
  ['templates/service.yaml', '{{ .Values.service.type }}', 'ClusterIP', /^no template reads service\.type$/],
  ['Chart.yaml', '\nversion: 0.0.0\n', '\nversion: 1.0.0\n', /^Chart\.yaml leaves version to release\/packages, as 0\.0\.0$/]
]

/** All files of a chart, by name. */
function filesOf (chart) {
  const names = fs.readdirSync(chart, { recursive: true }).map(String)
  const files = names.filter((name) => fs.statSync(path.join(chart, name)).isFile())
  return new Map(files.map((name) => [name, fs.readFileSync(path.join(chart, name), 'utf8')]))
}

/** Each value that a schema allows, with its schema; a section is its parts, and an object that is open is one value. */
function allowed (schema, prefix = '') {
  return Object.entries(schema.properties).flatMap(([name, value]) =>
    value.properties ? allowed(value, `${prefix}${name}.`) : [[prefix + name, value]])
}

function sections (schema, prefix = '') {
  return Object.entries(schema.properties).flatMap(([name, value]) =>
    value.properties ? [[prefix + name, value], ...sections(value, `${prefix}${name}.`)] : [])
}

/** The names of values.yaml by their indentation, down to the values that the schema has. */
function written (text, known) {
  const above = []
  const found = []
  for (const line of text.split('\n')) {
    const [, indent, name] = /^( *)([A-Za-z]+):/.exec(line) ?? []
    if (name === undefined) continue
    above.length = indent.length / 2
    above.push(name)
    const whole = above.join('.')
    const isInOpen = above.some((_, at) => at + 1 < above.length && known.has(above.slice(0, at + 1).join('.')))
    if (!isInOpen) found.push(whole)
  }
  return found.filter((name) => !found.some((other) => other.startsWith(`${name}.`)))
}

/** The values that a template reads; those of `get $.Values` are in a list before it. */
function read (text) {
  const named = [...text.matchAll(/\.Values\.([A-Za-z.]*[A-Za-z])/g)].map(([, name]) => name)
  const listed = [...text.matchAll(/range \$key := tuple ([^}]*)}}/g)].flatMap(([, list]) => [...list.matchAll(/"(\w+)"/g)])
  return [...named, ...listed.map(([, name]) => name)]
}

/** What is wrong with a chart, by its files. */
function problemsOf (files) {
  const schema = JSON.parse(files.get('values.schema.json'))
  const values = new Map(allowed(schema))
  const named = written(files.get('values.yaml'), values)
  const explained = [...files.get('README.md').matchAll(/^\| `([\w.]+)` \|/gm)].map(([, name]) => name)
  const templates = [...files].filter(([name]) => name.startsWith('templates/')).map(([name, text]) => [name, read(text)])
  const isRead = (name) => templates.some(([, names]) => names.includes(name))
  const problems = []
  const say = (holds, problem) => holds || problems.push(problem)
  for (const [name, section] of [['itself', schema], ...sections(schema)]) {
    say(section.additionalProperties === false, `values.schema.json allows other keys in ${name}`)
  }
  for (const [name, value] of values) {
    say(value.description, `values.schema.json does not describe ${name}`)
    say(explained.includes(name), `README.md does not explain ${name}`)
    if (OF_PARENTS.includes(name)) continue
    say(named.includes(name), `values.yaml has no ${name}`)
    say(isRead(name), `no template reads ${name}`)
  }
  for (const name of named) say(values.has(name), `values.schema.json does not allow ${name}`)
  for (const name of explained) say(values.has(name), `README.md explains ${name}, which there is not`)
  for (const [file, names] of templates) for (const name of names) say(values.has(name), `${file} reads ${name}, which there is not`)
  for (const line of ['version: 0.0.0', 'appVersion: "0.0.0"']) {
    say(files.get('Chart.yaml').includes(`\n${line}\n`), `Chart.yaml leaves ${line.split(':')[0]} to release/packages, as 0.0.0`)
  }
  return [...new Set(problems)]
}

function main () {
  const files = filesOf(CHART)
  for (const [name, before, after, problem] of MISTAKES) {
    if (!files.get(name).includes(before)) throw new Error(`${name} has no ${JSON.stringify(before)} to make a mistake of`)
    const wrong = new Map(files).set(name, files.get(name).replace(before, () => after))
    if (!problemsOf(wrong).some((found) => problem.test(found))) throw new Error(`not found in ${name}: ${problem}`)
  }
  const problems = problemsOf(files)
  for (const problem of problems) process.stderr.write(`deploy/helm/sidecache: ${problem}\n`)
  process.stdout.write(`the chart: ${allowed(JSON.parse(files.get('values.schema.json'))).length} values, ${problems.length} problems\n`)
  return problems.length === 0 ? 0 : 1
}

process.exitCode = main()
