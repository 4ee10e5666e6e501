#!/usr/bin/env node
// Renders the packed Helm chart as people would, by the oldest and the newest Helm that it is for, and
// judges the result: by the schemas of Kubernetes, by what the objects have to say of each other, and by
// a sidecar that runs with the rules, the variables and the test that were rendered. Needs node and
// python3. There is no cluster: what Kubernetes then does, it does not show.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import process from 'node:process'
import { once } from 'node:events'
import { spawn, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { problemsOf, rulesOf, sidecarOf } from './chart/objects.mjs'
import { helms, validator, yamlReader } from './chart/tools.mjs'
import { freePorts, listening, start } from './tools.mjs'

const USAGE = `usage: tests/chart.mjs --sidecache BINARY --chart ARCHIVE --folder FOLDER

  --chart   the chart that release/packages has made
  --folder  where Helm and the schemas go: target/chart
`
const HERE = path.dirname(fileURLToPath(import.meta.url))
const TOKEN = 'a-token-of-no-sidecar-at-all'
const SECRETS = { 'admin-token': TOKEN, 'redis-url': 'redis://127.0.0.1:1/0', 'cache-secret': 'a-secret-of-no-cache-at-all' }
// Of kinds that Kubernetes itself does not have.
const CUSTOM = ['PodMonitor']

const IMAGE = { image: { repository: 'registry.example.com/your/sidecache' } }
const LEAST = { ...IMAGE, upstream: 'http://app:8000' }
const withRedis = (rules) => rules.replace(/^# (\[redis\]|url |secret |journal )/gm, '$1')

/** What people give, by what it is for; `rules` are those of the chart. */
const CASES = {
  least: () => LEAST,
  redis: (rules) => ({ ...LEAST, config: withRedis(rules), existingSecret: 'cache', replicas: 3 }),
  autoscaled: (rules) => ({ ...LEAST, config: withRedis(rules), existingSecret: 'cache', replicas: null }),
  'a volume for each pod': (rules) => ({ ...LEAST, config: withRedis(rules), existingSecret: 'cache', state: { persistent: true, size: '1Gi', storageClass: 'fast' }, strategy: { type: 'OnDelete' } }),
  'its own variables': (rules) => ({ ...IMAGE, config: withRedis(rules).replace('${UPSTREAM_URL}', 'http://shop:80'), env: [{ name: 'REDIS_URL', value: 'redis://redis:6379/0' }, { name: 'SIDECACHE_SECRET', value: SECRETS['cache-secret'] }] }),
  everything: () => ({
    ...LEAST,
    image: { ...IMAGE.image, tag: '9', pullPolicy: 'Always' },
    imagePullSecrets: [{ name: 'registry' }],
    restartOnConfigChange: true,
    existingSecret: 'cache',
    strategy: { type: 'RollingUpdate' },
    service: { type: 'LoadBalancer', port: 8080, annotations: { a: 'b' } },
    state: { size: '512Mi' },
    podMonitor: { enabled: true, interval: '10s', labels: { release: 'prometheus' } },
    serviceAccountName: 'web',
    priorityClassName: 'high',
    podAnnotations: { a: 'b' },
    podLabels: { c: 'd' },
    nodeSelector: { disk: 'ssd' },
    tolerations: [{ key: 'dedicated', operator: 'Exists', effect: 'NoSchedule' }],
    affinity: { podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 1, podAffinityTerm: { topologyKey: 'kubernetes.io/hostname' } }] } },
    topologySpreadConstraints: [{ maxSkew: 1, topologyKey: 'zone', whenUnsatisfiable: 'ScheduleAnyway', labelSelector: { matchLabels: { c: 'd' } } }],
    extraVolumes: [{ name: 'ca', secret: { secretName: 'ca' } }],
    extraVolumeMounts: [{ name: 'ca', mountPath: '/ca', readOnly: true }],
    fullnameOverride: 'front'
  })
}

/** What is refused, and how. */
const REFUSED = [
  [() => ({}), /image\.repository is empty/],
  [() => IMAGE, /upstream is empty/],
  [(rules) => ({ ...LEAST, config: rules.replace('${UPSTREAM_URL}', 'http://shop:80') }), /upstream has no effect/],
  [() => ({ ...LEAST, replicas: 2 }), /several replicas need \[redis\]/],
  [() => ({ ...LEAST, replicas: null }), /several replicas need \[redis\]/],
  [(rules) => ({ ...LEAST, config: withRedis(rules) }), /name a Secret .* in existingSecret/],
  [(rules) => ({ ...LEAST, config: rules.replace('0.0.0.0:8080', '127.0.0.1:8080') }), /address = "0\.0\.0\.0:8080" in \[listen\]/],
  [(rules) => ({ ...LEAST, config: rules.replace('0.0.0.0:9090', '127.0.0.1:9090') }), /address = "0\.0\.0\.0:9090" in \[admin\]/],
  [() => ({ ...LEAST, standalone: false, podMonitor: { enabled: true } }), /are for standalone: true/],
  [() => ({ ...LEAST, nonsense: 1 }), /nonsense/],
  [() => ({ ...LEAST, service: { port: 0 } }), /port/],
  [() => ({ ...LEAST, upstream: 'app:8000' }), /upstream/]
]

/** Charts that are wrong, and what has to be said of them: [file, before, after, problem, case]. */
const MISTAKES = [
  ['templates/_container.tpl', 'readinessProbe:', 'readynessProbe:', /Kubernetes .* refuses Deployment .*readynessProbe/],
  ['templates/_container.tpl', 'port: sidecache-admin }\n    periodSeconds: 2', 'port: admin }\n    periodSeconds: 2', /readinessProbe of sidecache asks the port admin/],
  ['templates/_container.tpl', 'path: /ready', 'path: /live', /readinessProbe asks for \/ready/],
  ['templates/_container.tpl', 'containerPort: 8080', 'containerPort: 8081', /does not listen on the port sidecache/],
  ['templates/_container.tpl', 'name: sidecache-state, mountPath', 'name: state, mountPath', /mounts state, which there is not/],
  ['templates/_container.tpl', 'mountPath: /etc/sidecache,', 'mountPath: /etc/sidecache, subPath: proxy.toml,', /by subPath/],
  ['templates/_container.tpl', 'mountPath: /var/lib/sidecache', 'mountPath: /var/lib/state', /where nothing is mounted/],
  ['templates/_container.tpl', 'configMap: { name: {{ include "sidecache.fullname" . }} }', 'configMap: { name: rules }', /there is no ConfigMap rules/],
  ['templates/_container.tpl', 'seconds: 5 }', 'seconds: 30 }', /has more than 60 s to stop/],
  ['templates/_helpers.tpl', '- name: POD_NAME', '- name: UPSTREAM_URL', /given twice/],
  ['templates/_helpers.tpl', '"ADMIN_TOKEN" "admin-token"', '"TOKEN" "admin-token"', /needs ADMIN_TOKEN/],
  ['templates/service.yaml', 'targetPort: sidecache', 'targetPort: sidecache-admin', /the Service leads to sidecache-admin/],
  ['templates/service.yaml', 'include "sidecache.selector" .', 'printf "app: x"', /the Service does not select the pods/],
  ['templates/service.yaml', '  type: {{', '  kind: {{', /Kubernetes 1\.30 refuses Service \/spec/],
  ['templates/service.yaml', '.Values.standalone', 'not .Values.standalone', /there is no Service/],
  ['templates/workload.yaml', 'include "sidecache.selector" .', 'printf "app: x"', /Deployment does not select its own pods/],
  ['templates/workload.yaml', '"Deployment"', '"DaemonSet"', /0 objects have pods/],
  ['templates/poddisruptionbudget.yaml', 'include "sidecache.selector" .', 'printf "app: x"', /PodDisruptionBudget does not select the pods/, 'redis'],
  ['templates/podmonitor.yaml', 'include "sidecache.selector" .', 'printf "app: x"', /PodMonitor does not select the pods/],
  ['templates/podmonitor.yaml', 'port: sidecache-admin', 'port: admin', /PodMonitor scrapes the port admin/],
  ['templates/podmonitor.yaml', 'key: admin-token', 'key: token', /PodMonitor sends the token/],
  ['values.yaml', 'readOnlyRootFilesystem: true', 'readOnlyRootFilesystem: false', /readOnlyRootFilesystem is true/],
  ['values.yaml', '\nreplicas: 1\n', '\nreplicas: "1"\n', /replicas/],
  ['Chart.yaml', 'type: application', 'type: application\nicon: nowhere', /helm lint: .*icon/s],
  ['proxy.toml', 'ttl  = "1m"', 'ttl  = "1 minute"', /sidecache check: .*ttl/s],
  ['proxy.toml', 'url = "${UPSTREAM_URL}"', 'url = "${UPSTREAM_URL}"\nca_file = "${CA}"', /needs CA/]
]

/** The same in the chart of an app. */
const MISTAKES_OF_APPS = [
  ['seconds: 35', 'seconds: 34', /app outlives the sidecar's stop/],
  ['name: http, containerPort', 'name: sidecache, containerPort', /two ports of one pod have the same name/]
]

function readArguments () {
  try {
    const options = { sidecache: { type: 'string' }, chart: { type: 'string' }, folder: { type: 'string' } }
    const { values: { sidecache, chart, folder } } = parseArgs({ options })
    if (sidecache && chart && folder) return [sidecache, chart, folder].map((each) => path.resolve(each))
  } catch (error) {
    process.stderr.write(`${error.message}\n`)
  }
  process.stderr.write(USAGE)
  process.exit(64)
}

/** The variables of the sidecar, as the kubelet would give them, for a machine where it has this folder. */
function variablesOf (objects, state) {
  const value = ({ value: text, valueFrom }) => text ?? SECRETS[valueFrom.secretKeyRef?.key] ?? valueFrom.fieldRef?.fieldPath
  const given = Object.fromEntries(sidecarOf(objects).env.map((each) => [each.name, value(each)]))
  return { ...given, STATE_DIRECTORY: state }
}

/** What renders and judges: for one Helm, and for all its charts. */
class Judge {
  constructor ({ helm, version }, folder, sidecache) {
    Object.assign(this, { helm, version, folder, sidecache, yaml: yamlReader(folder), refusals: validator(folder) })
  }

  render (chart, values) {
    const file = path.join(this.folder, 'values.json')
    fs.writeFileSync(file, JSON.stringify(values))
    const given = [chart, '--values', file]
    const lint = this.helm(['lint', '--strict', ...given])
    const { status, stdout, stderr } = this.helm(['template', 'web', ...given])
    if (status !== 0) return { problems: [stderr.trim()] }
    return { objects: this.yaml(stdout), problems: lint.status === 0 ? [] : [`helm lint: ${lint.stdout}${lint.stderr}`] }
  }

  check (objects) {
    const file = path.join(this.folder, 'proxy.toml')
    fs.writeFileSync(file, rulesOf(objects))
    const command = ['check', '--offline', '--deny-warnings', '--config', file]
    const { status, stdout, stderr } = spawnSync(this.sidecache, command, { encoding: 'utf8', env: variablesOf(objects, this.folder) })
    return status === 0 ? [] : [`sidecache check: ${stdout}${stderr}`]
  }

  judge (chart, values) {
    const { objects, problems } = this.render(chart, values)
    if (!objects) return { problems }
    const known = objects.filter(({ kind }) => !CUSTOM.includes(kind))
    const found = [...problems, ...known.flatMap(this.refusals), ...problemsOf(objects)]
    return { objects, problems: found.length > 0 ? found : this.check(objects) }
  }

  /** The objects of a chart that has to be right. */
  good (chart, values, what) {
    const { objects, problems } = this.judge(chart, values)
    assert.deepEqual(problems, [], `Helm ${this.version}, ${what}`)
    return objects
  }
}

function unpacked (archive, folder) {
  fs.rmSync(folder, { recursive: true, force: true })
  fs.mkdirSync(folder, { recursive: true })
  assert.equal(spawnSync('tar', ['-xzf', archive, '-C', folder]).status, 0, archive)
  return path.join(folder, 'sidecache')
}

/** Makes a mistake in a copy of a chart, and looks for what has to be said of it. */
function finds (judge, chart, name, [before, after, problem], values) {
  const wrong = path.join(judge.folder, 'wrong')
  fs.rmSync(wrong, { recursive: true, force: true })
  fs.cpSync(chart, wrong, { recursive: true })
  const text = fs.readFileSync(path.join(chart, name), 'utf8')
  assert.ok(text.includes(before), `${name} has ${before}, to make a mistake of`)
  fs.writeFileSync(path.join(wrong, name), text.replace(before, () => after))
  const found = judge.judge(wrong, values).problems
  assert.ok(found.some((each) => problem.test(each)), `${name} with ${after}: ${problem} is not in\n${found.join('\n')}`)
}

function doesWhatValuesSay (judge, chart, rules) {
  const of = (what, more = {}) => judge.good(chart, { ...CASES[what](rules), ...more }, what)
  const kinds = (objects) => objects.map(({ kind }) => kind)
  const one = (objects, kind) => objects.find((object) => object.kind === kind)
  const [least, redis, everything] = ['least', 'redis', 'everything'].map((what) => of(what))
  assert.deepEqual(kinds(least).sort(), ['ConfigMap', 'ConfigMap', 'Deployment', 'Pod', 'Secret', 'Service'])
  assert.equal(one(least, 'Deployment').spec.strategy.type, 'Recreate', 'without Redis')
  assert.equal(one(redis, 'Deployment').spec.strategy.type, 'RollingUpdate', 'with Redis')
  assert.equal(one(redis, 'PodDisruptionBudget').spec.maxUnavailable, 1)
  assert.ok(!kinds(redis).includes('Secret'), 'existingSecret')
  assert.equal(one(of('autoscaled'), 'Deployment').spec.replicas, undefined)
  const stateful = one(of('a volume for each pod'), 'StatefulSet')
  assert.equal(stateful.spec.volumeClaimTemplates[0].spec.resources.requests.storage, '1Gi')
  assert.equal(stateful.spec.updateStrategy.type, 'OnDelete')
  assert.equal(one(everything, 'PodMonitor').metadata.labels.release, 'prometheus')
  assert.equal(one(everything, 'Service').metadata.name, 'front')
  const token = (objects) => Buffer.from(one(objects, 'Secret').data['admin-token'], 'base64').toString()
  assert.match(token(least), /^[0-9A-Za-z]{48}$/)
  assert.notEqual(token(of('least')), token(least), 'the token is no constant')
  const checksum = (more) => one(of('everything', more), 'Deployment').spec.template.metadata.annotations['checksum/config']
  assert.match(checksum({}), /^[0-9a-f]{64}$/)
  assert.notEqual(checksum({ config: rules.replace('"1m"', '"2m"') }), checksum({}), 'a change of config restarts the pods')
  assert.equal(checksum({ restartOnConfigChange: false }), undefined)
  judge.good(chart, CASES['its own variables'](rules), 'its own variables')
  for (const [values, why] of REFUSED) assert.match(judge.judge(chart, values(rules)).problems.join('\n'), why)
}

/** The chart of an app, which has the sidecar in its own pods. */
function goesIntoAnotherChart (judge, chart) {
  const app = path.join(judge.folder, 'app')
  fs.rmSync(app, { recursive: true, force: true })
  fs.cpSync(path.join(HERE, 'chart/app'), app, { recursive: true })
  fs.cpSync(chart, path.join(app, 'charts/sidecache'), { recursive: true })
  const objects = judge.good(app, {}, 'in the chart of an app')
  assert.deepEqual(objects.map(({ kind }) => kind).sort(), ['ConfigMap', 'Deployment', 'Secret', 'Service'])
  for (const mistake of MISTAKES_OF_APPS) finds(judge, app, 'templates/app.yaml', mistake, {})
}

/** A sidecar with what was rendered, on this machine: its probes, its token, and the chart's own test. */
async function serves (judge, chart, rules) {
  const app = http.createServer((request, response) => response.end(`the app's ${request.url}`)).listen(0, '127.0.0.1')
  await once(app, 'listening')
  const [listen, admin] = await freePorts(2)
  const objects = judge.good(chart, { ...LEAST, upstream: `http://127.0.0.1:${app.address().port}`, config: rules }, 'to be run')
  const folder = path.join(judge.folder, 'run')
  fs.mkdirSync(folder, { recursive: true })
  const config = path.join(folder, 'proxy.toml')
  fs.writeFileSync(config, rulesOf(objects).replace('0.0.0.0:8080', `127.0.0.1:${listen}`).replace('0.0.0.0:9090', `127.0.0.1:${admin}`))
  const { args, startupProbe, livenessProbe, readinessProbe } = sidecarOf(objects)
  const command = [judge.sidecache, ...args.map((each) => each.replace('/etc/sidecache/proxy.toml', config))]
  const { child, found } = await start('sidecache', path.join(folder, 'log'), command, { env: variablesOf(objects, folder) }, listening)
  const ended = once(child, 'close')
  assert.equal(found, `127.0.0.1:${listen}`)
  for (const { httpGet } of [startupProbe, livenessProbe, readinessProbe]) {
    assert.equal((await fetch(`http://127.0.0.1:${admin}${httpGet.path}`)).status, 200, httpGet.path)
  }
  const metrics = async (headers) => (await fetch(`http://127.0.0.1:${admin}/metrics`, { headers })).status
  assert.deepEqual([await metrics({}), await metrics({ authorization: `Bearer ${TOKEN}` })], [401, 200], 'the token')
  assert.equal(await (await fetch(`http://${found}/a`)).text(), "the app's /a")

  const test = objects.find(({ kind }) => kind === 'Pod').spec
  const { data } = objects.find(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === test.volumes[0].configMap.name)
  for (const [name, text] of Object.entries(data)) fs.writeFileSync(path.join(folder, `test-${name}`), text)
  const testArgs = test.containers[0].args.map((each) => each.replace('/etc/sidecache/', `${folder}/test-`).replace('http://web-sidecache:80', `http://${found}`))
  // Not awaited by spawnSync: the app is in this process.
  const runTest = async () => {
    const [code] = await once(spawn(judge.sidecache, testArgs, { stdio: 'ignore', env: {} }), 'close')
    return code
  }
  assert.equal(await runTest(), 0, `helm test: ${testArgs.join(' ')}`)
  child.kill('SIGTERM')
  await ended
  assert.equal(await runTest(), 1, 'helm test, and nobody serves')
  app.close()
}

async function main () {
  const [sidecache, archive, folder] = readArguments()
  fs.mkdirSync(folder, { recursive: true })
  const chart = unpacked(archive, path.join(folder, 'unpacked'))
  const rules = fs.readFileSync(path.join(chart, 'proxy.toml'), 'utf8')
  const judges = helms(folder).map((each) => new Judge(each, folder, sidecache))
  for (const judge of judges) {
    judge.good(archive, LEAST, 'the archive itself')
    doesWhatValuesSay(judge, chart, rules)
    goesIntoAnotherChart(judge, chart)
    process.stdout.write(`the chart: right with Helm ${judge.version}\n`)
  }
  const newest = judges.at(-1)
  for (const [name, ...mistake] of MISTAKES) finds(newest, chart, name, mistake, CASES[mistake[3] ?? 'everything'](rules))
  await serves(newest, chart, rules)
  process.stdout.write(`the chart: ${MISTAKES.length} mistakes found; a sidecar runs as rendered\n`)
}

main().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(`tests/chart.mjs: ${error.stack}\n`)
    process.exit(1)
  }
)
