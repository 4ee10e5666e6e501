// What has to hold between the objects that the chart renders, which no schema says: names that others
// go by, and what proxy.toml needs. Each problem is a line of text.

/** The objects of one kind. */
const ofKind = (objects, kind) => objects.filter((object) => object.kind === kind)

/** Those that have pods. */
const workloads = (objects) => objects.filter(({ kind }) => kind === 'Deployment' || kind === 'StatefulSet')

const isSelected = (selector, labels) => Object.entries(selector).every(([name, value]) => labels[name] === value)

/** The rules of the chart, as the pods get them. */
export function rulesOf (objects) {
  return ofKind(objects, 'ConfigMap').find(({ metadata }) => !metadata.annotations?.['helm.sh/hook'])?.data['proxy.toml'] ?? ''
}

export function sidecarOf (objects) {
  return workloads(objects)[0].spec.template.spec.containers.find(({ name }) => name === 'sidecache')
}

function problemsOfPod (spec, claims, objects) {
  const problems = []
  const say = (holds, problem) => holds || problems.push(problem)
  const names = (list) => (list ?? []).map(({ name }) => name)
  const sources = new Set([...names(spec.volumes), ...names(claims?.map(({ metadata }) => metadata))])
  for (const container of spec.containers) {
    const ports = names(container.ports)
    for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe']) {
      const port = container[probe]?.httpGet?.port
      say(port === undefined || ports.includes(port), `${probe} of ${container.name} asks the port ${port}, which there is not`)
    }
    for (const { name, subPath } of container.volumeMounts ?? []) {
      say(sources.has(name), `${container.name} mounts ${name}, which there is not`)
      say(subPath === undefined, `${container.name} mounts ${name} by subPath: the file would never change`)
    }
  }
  const maps = names(ofKind(objects, 'ConfigMap').map(({ metadata }) => metadata))
  for (const { configMap } of spec.volumes ?? []) say(!configMap || maps.includes(configMap.name), `there is no ConfigMap ${configMap?.name}`)
  const all = spec.containers.flatMap(({ ports }) => names(ports))
  say(new Set(all).size === all.length, `two ports of one pod have the same name: ${all}`)
  return problems
}

function problemsOfSidecar (sidecar, spec, rules) {
  const problems = []
  const say = (holds, problem) => holds || problems.push(problem)
  const port = (name) => sidecar.ports.find((each) => each.name === name)?.containerPort
  for (const name of ['sidecache', 'sidecache-admin']) {
    say(new RegExp(`^address *= "0\\.0\\.0\\.0:${port(name)}"$`, 'm').test(rules), `proxy.toml does not listen on the port ${name}`)
  }
  for (const [probe, page] of [['startupProbe', '/live'], ['livenessProbe', '/live'], ['readinessProbe', '/ready']]) {
    say(sidecar[probe]?.httpGet.path === page, `${probe} asks for ${page}`)
  }
  const given = new Set(sidecar.env.map(({ name }) => name))
  say(given.size === sidecar.env.length, `a variable is given twice: ${[...sidecar.env.map(({ name }) => name)]}`)
  for (const line of rules.split('\n').filter((each) => !each.trim().startsWith('#'))) {
    for (const [, name] of line.matchAll(/\$\{(\w+)\}/g)) say(given.has(name), `proxy.toml needs ${name}, which the container has not`)
  }
  for (const [name, value] of [['runAsNonRoot', true], ['readOnlyRootFilesystem', true], ['allowPrivilegeEscalation', false]]) {
    say(sidecar.securityContext[name] === value, `${name} is ${value}`)
  }
  const state = sidecar.env.find(({ name }) => name === 'STATE_DIRECTORY')?.value
  say(sidecar.volumeMounts.some(({ mountPath, readOnly }) => mountPath === state && !readOnly), `STATE_DIRECTORY is ${state}, where nothing is mounted`)
  // drain and stream_drain are 25 s and 5 s where proxy.toml has no others.
  const stop = sidecar.lifecycle.preStop.sleep.seconds + 25 + 5
  say(spec.terminationGracePeriodSeconds > stop, `the pod has more than ${stop} s to stop`)
  for (const { name, lifecycle } of spec.containers) {
    say(name === 'sidecache' || lifecycle?.preStop.sleep.seconds >= stop, `${name} outlives the sidecar's stop`)
  }
  return problems
}

/** All problems of what was rendered. */
export function problemsOf (objects) {
  const problems = []
  const say = (holds, problem) => holds || problems.push(problem)
  const [workload, ...others] = workloads(objects)
  if (!workload || others.length > 0) return [`${others.length + (workload ? 1 : 0)} objects have pods`]
  const { selector, template, volumeClaimTemplates } = workload.spec
  const { labels } = template.metadata
  say(isSelected(selector.matchLabels, labels), `${workload.kind} does not select its own pods`)
  const ports = template.spec.containers.flatMap((container) => container.ports ?? [])
  for (const service of ofKind(objects, 'Service')) {
    say(isSelected(service.spec.selector, labels), 'the Service does not select the pods')
    const targets = service.spec.ports.map(({ targetPort }) => targetPort)
    say(targets.join() === 'sidecache', `the Service leads to ${targets}`)
  }
  say(ofKind(objects, 'Service').length === 1, 'there is no Service, or more than one')
  for (const kind of ['PodDisruptionBudget', 'PodMonitor']) {
    for (const { spec } of ofKind(objects, kind)) say(isSelected(spec.selector.matchLabels, labels), `${kind} does not select the pods`)
  }
  for (const { spec } of ofKind(objects, 'PodMonitor')) {
    const [{ port, authorization: { credentials } }] = spec.podMetricsEndpoints
    say(ports.some(({ name }) => name === port), `PodMonitor scrapes the port ${port}, which there is not`)
    say(credentials.key === 'admin-token', 'PodMonitor sends the token')
  }
  problems.push(...problemsOfPod(template.spec, volumeClaimTemplates, objects))
  for (const { spec } of ofKind(objects, 'Pod')) problems.push(...problemsOfPod(spec, [], objects))
  problems.push(...problemsOfSidecar(sidecarOf(objects), template.spec, rulesOf(objects)))
  return problems
}
