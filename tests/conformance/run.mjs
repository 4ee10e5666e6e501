#!/usr/bin/env node
// Runs the public suite of HTTP caching tests (npm package http-cache-tests) against a sidecar with one route without `ttl`, and judges the
// results by expected.json. Needs node 18 or newer and npm; the first run fetches the package, later ones find it in the work folder.

import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import process from 'node:process'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'

import { install, listening, start } from '../tools.mjs'
import { judge, summary } from './judge.mjs'

const USAGE = `usage: tests/conformance/run.mjs --sidecache BINARY --folder FOLDER [--only TEST]

  --sidecache  the binary under test
  --folder     where the package is installed and logs are written; best below the target folder of cargo
  --only       runs one test, shows its messages, and judges nothing
`

const PACKAGES = {
  'http-cache-tests': ['0.4.5', 'sha512-DjuwN9nUZXLTW+wav1LRESCZNVxl8SshwOy4z1pxuWbWt5/ay6sM9QQ1lebBaDO6P1IMBoK6mdf+PuVP/QNL8A=='],
  'node-fetch': ['2.7.0', 'sha512-c4FRfUm/dbcWZ7U+1Wq0AwCyFL+3nt2bEw05wfxSz+DWpWsitgmSgYmy2dQdWyKC1694ELPqMs/YzUSNozLt8A==']
}

// The suite takes about half a minute: each of its tests may pause for 3 s three times, a hundred run at a time.
const DEADLINE_MS = 150_000

// The suite's own headers, and those that its tests of `Vary` send. They are said to change nothing, so that no request passes because of
// them; what a response varies on still tells entries apart. So is what every fill of the sidecar replaces or brings into a normal form: the
// suite counts the requests of its origin, and one that is refused would go to it once more with the client's own.
const PASSED = ['accept-encoding', 'user-agent', 'x-forwarded-for', 'req-num', 'test-id', 'test-name', 'foo', 'bar', 'baz', 'abc', 'other']

const PROXY = (app) => `[listen]
address = "127.0.0.1:0"

[upstream]
url = "http://${app}"

[admin]
address = "127.0.0.1:0"

[log]
level = "info"
format = "json"

[[routes]]
path = "/{*rest}"
pass_headers = ${JSON.stringify(PASSED)}
`

const here = path.dirname(fileURLToPath(import.meta.url))

function readArguments () {
  const text = { type: 'string' }
  try {
    const { values } = parseArgs({ options: { sidecache: text, folder: text, only: text } })
    if (values.sidecache && values.folder) return values
  } catch (error) {
    process.stderr.write(`${error.message}\n`)
  }
  process.stderr.write(USAGE)
  process.exit(64)
}

function startServer (folder, suite) {
  const environment = {
    ...process.env,
    npm_config_protocol: 'http',
    npm_config_port: '0',
    npm_config_pidfile: path.join(folder, 'server.pid')
  }
  const command = [process.execPath, '--no-warnings', path.join(here, 'serve.mjs'), path.join(suite, 'server/server.mjs')]
  const address = (line) => /^Listening on http:\/\/(127\.0\.0\.1:\d+)\/$/.exec(line)?.[1]
  return start("the suite's server", path.join(folder, 'server.log'), command, { cwd: suite, env: environment }, address)
}

function startSidecar (folder, binary, app) {
  const config = path.join(folder, 'proxy.toml')
  fs.writeFileSync(config, PROXY(app))
  const environment = { ...process.env }
  delete environment.RUST_LOG
  return start('the sidecar', path.join(folder, 'sidecache.log'), [binary, '--config', config], { env: environment }, listening)
}

async function load (suite) {
  const part = (file) => import(pathToFileURL(path.join(suite, file)).href)
  const suites = [...(await part('tests/index.mjs')).default, (await part('tests/surrogate-control.mjs')).default]
  const { runTests, getResults } = await part('client/runner.mjs')
  // The suite's own client: that of node adds a `Cache-Control` of its own.
  const fetch = createRequire(path.join(suite, 'package.json'))('node-fetch')
  return { suites, runTests, getResults, fetch }
}

function only (suites, id) {
  const found = suites.map((suite) => ({ ...suite, tests: suite.tests.filter((test) => test.id === id) })).filter((suite) => suite.tests.length)
  if (found.length === 0) throw new Error(`the suite has no test ${id}`)
  found[0].tests[0].dump = true
  return found
}

async function main () {
  const options = readArguments()
  const [folder, binary] = [path.resolve(options.folder), path.resolve(options.sidecache)]
  install(folder, PACKAGES)
  const suite = path.join(folder, 'node_modules/http-cache-tests')
  const { suites, runTests, getResults, fetch } = await load(suite)
  const server = await startServer(folder, suite)
  const sidecar = await startSidecar(folder, binary, server.found)

  const tests = options.only ? only(suites, options.only) : suites
  const late = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`the suite did not end within ${DEADLINE_MS / 1000} s`)), DEADLINE_MS).unref()
    for (const [name, { child }] of Object.entries({ "the suite's server": server, 'the sidecar': sidecar })) {
      child.on('exit', (code, signal) => reject(new Error(`${name} ended with ${code ?? signal} while the suite ran; see ${folder}`)))
    }
  })
  await Promise.race([runTests(tests, fetch, false, `http://${sidecar.found}`), late])
  const results = getResults()
  fs.writeFileSync(path.join(folder, 'results.json'), `${JSON.stringify(results, null, 2)}\n`)
  if (options.only) {
    process.stdout.write(`${options.only}: ${JSON.stringify(results[options.only])}\n`)
    return 0
  }
  const expected = JSON.parse(fs.readFileSync(path.join(here, 'expected.json')))
  const verdict = judge(suites.flatMap((group) => group.tests), results, expected)
  process.stdout.write(summary(verdict))
  return verdict.problems.length === 0 ? 0 : 1
}

main().then(
  (code) => process.exit(code),
  (error) => {
    process.stderr.write(`tests/conformance: ${error.message}\n`)
    process.exit(1)
  }
)
