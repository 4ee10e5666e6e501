// What the tests in JavaScript have in common: packages of npm that are pinned, and processes that end with the test.

import { execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import process from 'node:process'
import readline from 'node:readline'
import { once } from 'node:events'

const START_MS = 15_000

const children = new Set()

process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')))
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1))

function archive (folder, name) {
  try {
    const found = JSON.parse(fs.readFileSync(path.join(folder, 'node_modules/.package-lock.json'))).packages[`node_modules/${name}`]
    return [found.version, found.integrity]
  } catch {
    return []
  }
}

function isInstalled (folder, packages) {
  return Object.entries(packages).every(([name, wanted]) => archive(folder, name).join() === wanted.join())
}

// Installs packages, each with its version and the hash of its archive: what is run on this machine is what was read.
export function install (folder, packages, flags = []) {
  if (isInstalled(folder, packages)) return
  fs.mkdirSync(folder, { recursive: true })
  // Without a package of its own here, npm would look for one in the folders above.
  fs.writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n')
  const wanted = Object.entries(packages).map(([name, [version]]) => `${name}@${version}`)
  const quiet = ['--no-audit', '--no-fund', '--ignore-scripts', '--no-package-lock', '--save-exact', '--loglevel=error']
  execFileSync('npm', ['install', ...quiet, ...flags, ...wanted], { cwd: folder, stdio: 'inherit' })
  if (!isInstalled(folder, packages)) {
    const found = Object.keys(packages).map((name) => `${name} ${archive(folder, name).join(' ')}`).join(', ')
    throw new Error(`npm installed something else than what is pinned: ${found}`)
  }
}

// Starts a process and returns what `find` makes of one of its lines. All its lines go to a log.
export function start (name, log, command, options, find) {
  const child = spawn(command[0], command.slice(1), { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
  children.add(child)
  child.on('exit', () => children.delete(child))
  const file = fs.createWriteStream(log)
  return new Promise((resolve, reject) => {
    const fail = (why) => reject(new Error(`${name} ${why}; see ${log}`))
    const timer = setTimeout(() => fail(`said nothing of its address within ${START_MS / 1000} s`), START_MS)
    child.on('error', (error) => fail(`did not start: ${error.message}`))
    child.on('exit', (code, signal) => fail(`ended with ${code ?? signal}`))
    for (const stream of [child.stdout, child.stderr]) {
      readline.createInterface({ input: stream }).on('line', (line) => {
        file.write(`${line}\n`)
        const found = find(line)
        if (found) {
          clearTimeout(timer)
          resolve({ child, found })
        }
      })
    }
  })
}

// The address at which a sidecar that logs JSON says it listens.
export function listening (line) {
  try {
    const event = JSON.parse(line)
    return event.message === 'listening' ? event.address : undefined
  } catch {
    return undefined
  }
}

// Free ports, all different: each is held until the last one is known.
export async function freePorts (count) {
  const servers = Array.from({ length: count }, () => net.createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const ports = servers.map((server) => server.address().port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}
