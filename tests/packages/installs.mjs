// The ways to install a package, each into a clean place below one folder, without a registry. Each
// gives the program that people call, the folder in which they call it, and where its documents are.

import assert from 'node:assert/strict'
import crypto from 'node:crypto'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import zlib from 'node:zlib'
import { fileURLToPath } from 'node:url'

// A name that only the hosts file of the chroot knows.
const APP_IN_CHROOT = 'legacy-app'
const HERE = path.dirname(fileURLToPath(import.meta.url))
const BREW = path.join(HERE, 'brew.rb')
const FORMULA = path.join(HERE, '../../release/formula')

export function run (command, args, options = {}) {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], ...options })
}

function emptyFolder (folder) {
  fs.rmSync(folder, { recursive: true, force: true })
  fs.mkdirSync(folder, { recursive: true })
  return folder
}

// The one package whose name fits.
function packed (dist, pattern) {
  const found = fs.readdirSync(dist).filter((name) => pattern.test(name))
  if (found.length !== 1) throw new Error(`${found.length} packages fit ${pattern}: ${found}`)
  return path.join(dist, found[0])
}

// A root without a shell, a C library or anything else that the package has not brought. Its
// nsswitch.conf names a service first that no library is there for: whoever asks it, finds nothing.
function chrooted (root, inside, folder) {
  for (const name of ['etc', 'tmp']) fs.mkdirSync(path.join(root, name), { recursive: true })
  fs.chmodSync(path.join(root, 'tmp'), 0o1777)
  fs.writeFileSync(path.join(root, 'etc/hosts'), `127.0.0.1 localhost ${APP_IN_CHROOT}\n`)
  fs.writeFileSync(path.join(root, 'etc/nsswitch.conf'), 'hosts: nosuch [UNAVAIL=return] files\n')
  const program = path.join(folder, 'sidecache')
  const asRoot = process.getuid() === 0 ? '' : 'unshare --map-root-user '
  fs.writeFileSync(program, `#!/bin/sh\nexec ${asRoot}chroot '${root}' ${inside} "$@"\n`, { mode: 0o755 })
  return { program, site: root, host: APP_IN_CHROOT }
}

function archive (dist, folder) {
  const root = emptyFolder(path.join(folder, 'root'))
  run('tar', ['-xzf', packed(dist, /\.tar\.gz$/), '-C', root, '--strip-components=1'])
  return { ...chrooted(root, '/sidecache', folder), documents: root, manual: path.join(root, 'man/man1') }
}

function wheel (dist, folder) {
  const home = path.join(folder, 'venv')
  run('python3', ['-m', 'venv', home])
  const python = path.join(home, 'bin/python')
  const quiet = ['--quiet', '--disable-pip-version-check', '--no-cache-dir']
  run(python, ['-m', 'pip', 'install', ...quiet, '--no-index', packed(dist, /\.whl$/)])
  run(python, ['-m', 'pip', 'check', ...quiet])
  const program = path.join(home, 'bin/sidecache')
  const byModule = run(python, ['-m', 'sidecache', 'version', '--json'])
  if (byModule !== run(program, ['version', '--json'])) throw new Error(`python -m sidecache: ${byModule}`)
  const [libraries] = fs.readdirSync(path.join(home, 'lib')).map((name) => path.join(home, 'lib', name, 'site-packages'))
  const info = fs.readdirSync(libraries).find((name) => /^sidecache-.*\.dist-info$/.test(name))
  return { program, site: emptyFolder(path.join(folder, 'site')), documents: path.join(libraries, info, 'licenses') }
}

function npm (dist, folder) {
  const site = emptyFolder(path.join(folder, 'site'))
  fs.writeFileSync(path.join(site, 'package.json'), '{ "private": true }\n')
  const packages = [packed(dist, /^sidecache-\d[^-]*(-[a-z]+\.\d+)?\.tgz$/), packed(dist, /^sidecache-[a-z]+-[a-z0-9]+-\d.*\.tgz$/)]
  const env = { ...process.env, npm_config_cache: path.join(folder, 'cache') }
  run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--loglevel=error', ...packages], { cwd: site, env })
  const byNpx = run('npx', ['--no-install', 'sidecache', '--version'], { cwd: site, env })
  const program = path.join(site, 'node_modules/.bin/sidecache')
  if (byNpx !== run(program, ['--version'])) throw new Error(`npx sidecache: ${byNpx}`)
  const binary = run(program, ['--npm-binary']).trim()
  return { program, site, documents: path.dirname(binary) }
}

const DPKG = ['--force-not-root', '--force-script-chrootless']

function dpkg (root, ...args) {
  const ours = [`--root=${root}`, '--log=/dev/null', ...DPKG]
  // Scripts look for their programs where Debian has them, and nowhere else.
  return run('dpkg', [...ours, ...args], { env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', DEBIAN_FRONTEND: 'noninteractive' } })
}

function deb (dist, folder) {
  const root = emptyFolder(path.join(folder, 'root'))
  for (const name of ['info', 'updates', 'triggers']) fs.mkdirSync(path.join(root, 'var/lib/dpkg', name), { recursive: true })
  fs.writeFileSync(path.join(root, 'var/lib/dpkg/status'), '')
  dpkg(root, '--install', packed(dist, /\.deb$/))
  const at = (name) => path.join(root, name)
  const problems = []
  const expect = (what, holds) => holds || problems.push(what)
  const token = at('etc/sidecache/admin-token')
  expect('a token that root alone can read', (fs.statSync(token).mode & 0o777) === 0o600)
  expect('a token of 48 digits', /^[0-9a-f]{48}$/.test(fs.readFileSync(token, 'utf8')))
  const unit = fs.readFileSync(at('usr/lib/systemd/system/sidecache.service'), 'utf8')
  expect('a unit that starts what is installed', unit.includes('\nExecStart=/usr/bin/sidecache ') && !unit.includes('/usr/local'))
  expect('no unit that is enabled', !fs.existsSync(at('etc/systemd')))
  expect('proxy.toml as a conffile', dpkg(root, '--status', 'sidecache').includes('\n /etc/sidecache/proxy.toml '))
  expect('files as they were packed', dpkg(root, '--verify', 'sidecache') === '')
  if (problems.length > 0) throw new Error(`the package of Debian lacks: ${problems.join('; ')}`)
  const end = () => {
    fs.rmSync(at('proxy.toml'))
    dpkg(root, '--purge', 'sidecache')
    const left = ['etc/sidecache', 'usr/bin/sidecache', 'usr/share/doc/sidecache'].filter((name) => fs.existsSync(at(name)))
    if (left.length > 0) throw new Error(`dpkg --purge leaves ${left}`)
  }
  const documents = at('usr/share/doc/sidecache')
  return { ...chrooted(root, '/usr/bin/sidecache', folder), documents, manual: at('usr/share/man/man1'), end }
}

// Into an empty root, which has no shell for the scripts of the package: the one that makes the token is
// run as rpm would run it.
function rpm (dist, folder) {
  const root = emptyFolder(path.join(folder, 'root'))
  const file = packed(dist, /\.rpm$/)
  const asRoot = process.getuid() === 0 ? [] : ['unshare', '--map-root-user']
  const inRoot = (...args) => {
    const [program, ...all] = [...asRoot, 'rpm', `--root=${root}`, '--dbpath=/var/lib/rpm', ...args]
    return run(program, all)
  }
  inRoot('--install', '--nodeps', '--noscripts', file)
  const at = (name) => path.join(root, name)
  const problems = []
  const expect = (what, holds) => holds || problems.push(what)
  const post = run('rpm', ['--query', '--package', '--queryformat', '%{POSTIN}', file])
  run('sh', ['-ec', post, 'post', '1'], { env: { ...process.env, SIDECACHE_ROOT: root } })
  const token = at('etc/sidecache/admin-token')
  expect('a token that root alone can read', (fs.statSync(token).mode & 0o777) === 0o600)
  expect('a token of 48 digits', /^[0-9a-f]{48}$/.test(fs.readFileSync(token, 'utf8')))
  const unit = fs.readFileSync(at('usr/lib/systemd/system/sidecache.service'), 'utf8')
  expect('a unit that starts what is installed', unit.includes('\nExecStart=/usr/bin/sidecache ') && !unit.includes('/usr/local'))
  expect('a unit that names its own document', unit.includes('/README.rpm') && !unit.includes('Debian'))
  expect('proxy.toml as a file that upgrades keep', inRoot('--query', '--configfiles', 'sidecache') === '/etc/sidecache/proxy.toml\n')
  expect('files as they were packed', inRoot('--verify', '--nodeps', '--noscripts', 'sidecache') === '')
  if (problems.length > 0) throw new Error(`the RPM lacks: ${problems.join('; ')}`)
  const end = () => {
    inRoot('--erase', '--noscripts', 'sidecache')
    const left = ['usr/bin/sidecache', 'usr/share/licenses/sidecache'].filter((name) => fs.existsSync(at(name)))
    if (left.length > 0) throw new Error(`rpm --erase leaves ${left}`)
  }
  const documents = at('usr/share/licenses/sidecache')
  return { ...chrooted(root, '/usr/bin/sidecache', folder), documents, manual: at('usr/share/man/man1'), end }
}

// The formula of a release has a block for each platform whose archive is there, with its checksum.
function formulaOfRelease (dist, folder) {
  const [, version, target] = /^sidecache-(.+?)-((?:x86_64|aarch64)-.*)\.tar\.gz$/.exec(path.basename(packed(dist, /\.tar\.gz$/)))
  const names = (targets) => targets.map((each) => `sidecache-${version}-${each}.tar.gz`)
  const all = names(['aarch64-apple-darwin', 'x86_64-apple-darwin', 'aarch64-unknown-linux-gnu', 'x86_64-unknown-linux-gnu'])
  for (const archives of [all, names([target])]) {
    const place = emptyFolder(path.join(folder, 'release'))
    for (const name of archives) fs.writeFileSync(path.join(place, name), name)
    run(FORMULA, [place, '--repository', 'https://github.com/OWNER/NAME'])
    const text = fs.readFileSync(path.join(place, 'sidecache.rb'), 'utf8')
    run('ruby', ['-wc', path.join(place, 'sidecache.rb')])
    const named = [...text.matchAll(/on_(\w+) do\n +url "(\S+)"\n +sha256 "(\S+)"/g)].map(([, ...parts]) => parts.join(' '))
    const wanted = archives.map((name) => {
      const sum = crypto.createHash('sha256').update(name).digest('hex')
      return `${/aarch64/.test(name) ? 'arm' : 'intel'} https://github.com/OWNER/NAME/releases/download/v${version}/${name} ${sum}`
    })
    assert.deepEqual(named, wanted)
    const systems = [...text.matchAll(/^ {2}on_(\w+) do$/gm)].map(([, name]) => name)
    assert.deepEqual(systems, archives === all ? ['macos', 'linux'] : ['linux'])
  }
}

// Homebrew is no package of Debian: brew.rb does what it does with a formula, the test of the formula
// included. One with another checksum, and one whose test does not hold, are refused.
function brew (dist, folder) {
  formulaOfRelease(dist, folder)
  const formula = packed(dist, /\.rb$/)
  const text = fs.readFileSync(formula, 'utf8')
  const installed = (file, prefix) => run('ruby', ['-W', BREW, file, path.join(folder, prefix)])
  const wrong = path.join(folder, 'wrong.rb')
  for (const [part, other, why] of [[/sha256 "[0-9a-f]/, 'sha256 "x', /SHA-256 mismatch/], [/version\.to_s/, '"9.9.9"', /9\.9\.9 is not in/]]) {
    fs.writeFileSync(wrong, text.replace(part, other))
    assert.throws(() => installed(wrong, 'wrong'), ({ stderr }) => why.test(stderr), `a formula with ${other} is refused`)
  }
  const [program, ...service] = installed(formula, 'prefix').trim().split('\n')
  const rules = path.join(folder, 'prefix/etc/sidecache/proxy.toml')
  if (service.join() !== ['serve', '--config', rules].join()) throw new Error(`the service is started by: ${service}`)
  run(program, ['check', '--deny-warnings', '--config', rules])
  const cellar = path.join(folder, 'prefix/opt/sidecache')
  return { program, site: emptyFolder(path.join(folder, 'site')), documents: cellar, manual: path.join(cellar, 'share/man/man1') }
}

export const INSTALLS = { archive, wheel, npm, deb, rpm, brew }

/** The text of a document, which Debian compresses. */
export function documentOf (folder, name) {
  const plain = path.join(folder, name)
  if (fs.existsSync(plain)) return fs.readFileSync(plain, 'utf8')
  return zlib.gunzipSync(fs.readFileSync(`${plain}.gz`)).toString()
}
