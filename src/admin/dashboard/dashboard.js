// The dashboard: polls the admin API once a second and shows the results.
//
// Text is set by textContent only, never as markup: paths, tags, header names and reasons are
// untrusted. Nodes are updated in place, so that focus, selections and open details survive.
// The templates are in index.html.

const POLL_MS = 1000
const BACK_OFF_MS = [1000, 2000, 4000, 8000, 15000]
const ASK_MS = 10_000
const HISTORY_MS = 300_000
const SHOWN_MS = { least: 60_000, most: HISTORY_MS }
const REORDER_MS = 5000
const SHADOW_MS = 10_000
const DESCRIBE_MS = 10_000
const TOAST_MS = 10_000
const MAX_EVENTS = 100
const REPLAY = 50
const MANY_ROUTES = 8

const KINDS = ['HIT', 'STALE', 'REVALIDATED', 'MISS', 'BYPASS']
const TONES = { HIT: 'good', REVALIDATED: 'good', STALE: 'warn', MISS: '', BYPASS: '', on: 'good', shadow: 'warn', off: 'bad' }
const NONE = '–'
const FIRST_ROUTE = '[[routes]]\npath = "/api/v1/things/{*rest}"\nttl  = "1m"\ntags = ["things"]\n\n[[purges]]\npath = "/api/v1/things/{*rest}"\ntags = ["things"]\n'

// --- The page's parts

const $ = (id) => document.getElementById(id)

function put (node, text) {
  const shown = String(text)
  if (node.textContent !== shown) node.textContent = shown
}

function set (node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value)
}

// Escapes invisible characters and those that change the direction of text.
function clean (text) {
  // eslint-disable-next-line no-control-regex
  return String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (c) => `\\u{${c.codePointAt(0).toString(16)}}`)
}

// The name of the config file, without its folder.
const fileOf = (stats) => clean(stats.config.file ?? 'proxy.toml').replace(/^.*[/\\]/, '')

// Clones a template and returns its named parts.
function stamp (id) {
  const root = $(id).content.firstElementChild.cloneNode(true)
  const parts = { root }
  for (const node of root.querySelectorAll('[data-f]')) parts[node.dataset.f] = node
  return parts
}

function make (tag, text = '', className = '') {
  const node = document.createElement(tag)
  if (text !== '') node.textContent = text
  if (className) node.className = className
  return node
}

const rowsOf = new WeakMap()

// Updates the children of `parent` to match `items`, reusing existing ones by key. Children without a key stay in front.
function keyed (parent, items, keyOf, create, update, mayMove = true) {
  const kept = rowsOf.get(parent) ?? new Map()
  const seen = new Map()
  for (const item of items) {
    const key = keyOf(item)
    if (seen.has(key)) continue
    const row = kept.get(key) ?? create(item)
    if (!row.root.parentNode) parent.append(row.root)
    update(row, item)
    seen.set(key, row)
  }
  for (const [key, row] of kept) if (!seen.has(key)) row.root.remove()
  rowsOf.set(parent, seen)
  if (mayMove) arrange(parent, [...seen.values()].map((row) => row.root))
}

// Moves only misplaced elements, because a moved element loses the focus.
function arrange (parent, wanted) {
  let place = [...parent.children].find((node) => wanted.includes(node))
  for (const node of wanted) {
    if (node === place) place = place.nextElementSibling
    else parent.insertBefore(node, place ?? null)
  }
}

const isInUse = (node) => node.matches(':hover, :focus-within')

// Fills a list of names and values.
function facts (list, pairs) {
  keyed(list, pairs.filter(([, value]) => value !== null).flatMap(([name, value]) => [['dt', name, name], ['dd', name, value]]),
    ([tag, name]) => `${tag} ${name}`, ([tag]) => ({ root: make(tag) }), ({ root }, [, , text]) => put(root, clean(text)))
}

function word (node, text) {
  put(node, clean(text))
  set(node, 'data-tone', TONES[text] ?? '')
}

async function copy (text, button) {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    // Without TLS the clipboard API exists on loopback only. execCommand works everywhere.
    const area = make('textarea', text, 'hidden')
    document.body.append(area)
    area.select()
    const done = document.execCommand('copy')
    area.remove()
    button.focus()
    if (!done) return say('failed', 'The browser did not let the page copy. Select the text instead.')
  }
  say('said', 'Copied')
}

// --- Numbers, as people read them

const whole = new Intl.NumberFormat('en')
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 2 })
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit' })

const count = (n) => n < 1e6 ? whole.format(n) : short.format(n)
const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`
const digits = (n, most) => n.toFixed(n >= 100 ? 0 : n >= 10 ? Math.min(1, most) : most)
const rate = (n) => n >= 1e4 ? short.format(n) : n === 0 ? '0' : digits(n, 2)

// Rounds to neither 100 % nor 0 % unless the ratio is exactly that.
function percent (ratio) {
  if (ratio === null || ratio === undefined || Number.isNaN(ratio)) return NONE
  const shown = ratio === 0 || ratio === 1 ? ratio * 100 : Math.min(99.9, Math.max(0.1, ratio * 100))
  return `${shown.toFixed(shown === 0 || shown === 100 ? 0 : 1)} %`
}

function milliseconds (ms) {
  if (ms === null || ms === undefined) return NONE
  return ms >= 1000 ? `${digits(ms / 1000, 2)} s` : `${digits(ms, 2)} ms`
}

function span (seconds) {
  if (seconds < 0.0005) return '0 s'
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`
  if (seconds < 60) return `${Number(digits(seconds, 1))} s`
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]]
  const first = units.findIndex(([, size]) => seconds >= size)
  const [[name, size], [smaller, part]] = [units[first], units[first + 1]]
  const rest = Math.floor((seconds % size) / part)
  return `${count(Math.floor(seconds / size))} ${name}${rest ? ` ${rest} ${smaller}` : ''}`
}

function bytes (n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let at = 0
  while (n >= 1024 && at < units.length - 1) [n, at] = [n / 1024, at + 1]
  return `${at ? digits(n, 1) : n} ${units[at]}`
}

function moment (ms) {
  return Date.now() - ms < 43_200_000 ? clock.format(ms) : day.format(ms)
}

const served = (r) => r.HIT + r.STALE + r.REVALIDATED
const all = (r) => served(r) + r.MISS + r.BYPASS
const ratioOf = (r) => served(r) + r.MISS > 0 ? served(r) / (served(r) + r.MISS) : null

// --- Calls to the admin API. The browser adds the token itself, as Basic credentials.

class Refused extends Error {
  constructor (status, data) {
    const hint = data?.hint ? `. ${data.hint}` : ''
    super(data?.error ? `${data.error}${hint}` : status === 401 ? 'the admin token is missing or wrong; load the page again' : `the response was ${status}, without a reason`)
    this.status = status
    this.data = data
  }
}

class Unreachable extends Error {
  constructor () {
    super('the sidecar does not respond')
  }
}

async function ask (path, body) {
  const post = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
  const options = { ...(body === undefined ? {} : post), cache: 'no-store', signal: AbortSignal.timeout(ASK_MS) }
  const response = await fetch(path, options).catch(() => { throw new Unreachable() })
  const data = await response.json().catch(() => null)
  if (!response.ok || data === null) throw new Refused(response.status, data)
  return data
}

const state = {
  stats: null, policies: new Map(), policiesOf: null, samples: [], failures: 0, timer: 0, busy: false, again: false, shadowAt: -Infinity, orderedAt: -Infinity, describedAt: -Infinity
}

async function poll () {
  clearTimeout(state.timer)
  if (state.busy) {
    state.again = true
    return
  }
  if (document.hidden) return
  state.busy = true
  try {
    const stats = await ask('stats')
    if (state.failures) recovered()
    accept(stats)
    await extras(stats)
  } catch (error) {
    // Bugs of this page must not look like a lost connection.
    if (!(error instanceof Refused || error instanceof Unreachable)) console.error(error)
    lost(error)
  }
  state.busy = false
  const wait = state.failures ? BACK_OFF_MS[Math.min(state.failures, BACK_OFF_MS.length) - 1] : POLL_MS
  state.timer = setTimeout(poll, state.again ? 0 : wait)
  state.again = false
}

// Fetches data that changes rarely, only when it has changed.
async function extras (stats) {
  const rules = `${stats.started_ms} ${stats.config.loaded_ms}`
  if (state.policiesOf !== rules) {
    const { routes } = await ask('routes')
    state.policies = new Map(routes.map((route) => [route.path, route]))
    state.policiesOf = rules
    showRoutes(stats)
  }
  const { findings, audited } = findingsOf(stats)
  const watched = stats.mode === 'shadow' || findings + audited > 0 || stats.routes.some((route) => route.mode === 'shadow')
  if (!watched) $('findings').hidden = true
  if (watched && performance.now() - state.shadowAt >= SHADOW_MS) {
    state.shadowAt = performance.now()
    showFindings(await ask('shadow'))
  }
}

// The counts of shadow mode and audits; zero if neither is in use.
function findingsOf ({ shadow }) {
  return { findings: shadow?.findings ?? 0, audited: shadow?.audited ?? 0, stale: shadow?.audited_stale ?? 0 }
}

function accept (stats) {
  if (state.stats && state.stats.started_ms !== stats.started_ms) {
    state.samples = []
    say('said', 'The sidecar has been restarted')
  }
  state.stats = stats
  const before = state.samples.at(-1)
  // Numbers polled out of turn are shown, but a rate over so short a time would be meaningless.
  if (!before || stats.now_ms >= before.at + POLL_MS / 2) state.samples.push(sample(stats, before))
  while (state.samples.length > 2 && state.samples[1].at < stats.now_ms - HISTORY_MS) state.samples.shift()
  showTop(stats)
  showAlerts(stats)
  showTiles(stats)
  showCharts()
  showState(stats)
  showRoutes(stats)
  showTags(stats)
}

// The counters at one time, and the rates since the sample before.
function sample (stats, before) {
  const made = { at: stats.now_ms, total: stats.totals.requests, rates: null }
  if (before) made.rates = difference(made, before, (made.at - before.at) / 1000)
  return made
}

function difference (later, earlier, by = 1) {
  return Object.fromEntries(KINDS.map((kind) => [kind, Math.max(0, later.total[kind] - earlier.total[kind]) / by]))
}

// The oldest sample at most `ms` before the one at this index, or else the one before it.
function earlier (ms, at = state.samples.length - 1) {
  const { samples } = state
  const first = samples.findIndex((one) => one.at >= samples[at].at - ms)
  return samples[Math.max(0, Math.min(first, at - 1))]
}

// --- Connection

function lost (error) {
  state.failures += 1
  const link = $('link')
  link.dataset.state = 'lost'
  put(link, 'Connection lost')
  if (state.failures > 1) return
  banner($('alert-lost'), 'bad', `Connection lost at ${clock.format(Date.now())}: ${error.message}.`, { text: 'The numbers below are from that time. This page keeps trying.', button: ['Try now', poll] })
}

function recovered () {
  state.failures = 0
  $('alert-lost').replaceChildren()
  say('said', 'Connected again')
}

function banner (place, tone, title, { text = '', list = [], button = null } = {}) {
  const parts = stamp('t-banner')
  parts.root.classList.add(tone)
  put(parts.title, clean(title))
  put(parts.text, clean(text))
  for (const line of list) parts.list.append(make('li', clean(line)))
  const [label, action] = button ?? ['Dismiss', () => place.replaceChildren()]
  put(parts.button, label)
  parts.button.addEventListener('click', action)
  place.replaceChildren(parts.root)
}

// Shows a message in a corner and announces it to screen readers. Failures stay until dismissed.
function say (place, text) {
  const node = $(place)
  clearTimeout(node.timer)
  banner(node, place === 'failed' ? 'bad' : 'good', text)
  if (place === 'said') node.timer = setTimeout(() => { if (!isInUse(node)) node.replaceChildren() }, TOAST_MS)
}

// Calls `show` only if the value has changed since the last call.
const remembered = new Map()
function onChange (name, value, show) {
  const now = JSON.stringify(value)
  if (remembered.get(name) === now) return
  remembered.set(name, now)
  show(value)
}

// --- The top, the alerts, the tiles

function showTop (stats) {
  const { status } = stats.ready
  set($('status'), 'data-state', status)
  put($('status'), { ready: 'Ready', degraded: 'Degraded', unready: 'Not ready' }[status] ?? status)
  set($('link'), 'data-state', 'live')
  put($('link'), 'Live')
  put($('version'), stats.version)
  put($('top-config'), `${fileOf(stats)}, ${stats.config.loads > 1 ? 'reloaded' : 'loaded'} ${moment(stats.config.loaded_ms)}`)
  const title = stats.config.error ? 'Reload failed · Sidecache' : status === 'ready' ? 'Sidecache' : `${$('status').textContent} · Sidecache`
  if (document.title !== title) document.title = title
}

function showAlerts (stats) {
  const { config, ready, mode } = stats
  onChange('config', [config.error, config.failed_ms], () => {
    if (!config.error) return $('alert-config').replaceChildren()
    const when = config.failed_ms ? ` at ${moment(config.failed_ms)}` : ''
    banner($('alert-config'), 'bad', `${fileOf(stats)} could not be loaded${when}. The rules from ${moment(config.loaded_ms)} stay in force.`,
      { text: config.error, button: ['Reload again', reload] })
  })
  // The banner above already shows the errors of the file.
  onChange('ready', [ready.status, ready.reasons], () => {
    const place = $('alert-ready')
    if (ready.status === 'ready') return place.replaceChildren()
    banner(place, ready.status === 'unready' ? 'bad' : 'warn', ready.status === 'unready' ? 'Not ready: traffic should go elsewhere.' : 'Degraded: requests are served with restrictions.', { list: ready.reasons })
  })
  const { requests, unseen } = stats.cookies
  onChange('notes', [mode, config.restart_needed, unseen], () => {
    const place = $('alert-notes')
    const notes = []
    if (mode === 'off') notes.push('The cache is switched off for all routes (mode = "off"): every request goes to the origin.')
    if (mode === 'shadow') notes.push('All routes are in shadow mode: every request goes to the origin, and what the cache would have done is reported below.')
    if (config.restart_needed.length) notes.push(`Changed in the file, but a restart is needed for: ${config.restart_needed.join(', ')}.`)
    if (unseen.length) notes.push(`None of ${count(requests)} requests with cookies has carried ${unseen.join(', ')} of [credential]: is the name right?`)
    place.replaceChildren()
    if (notes.length) banner(place, 'warn', notes[0], { list: notes.slice(1) })
  })
}

function showTiles (stats) {
  const { totals } = stats
  const { samples } = state
  const last = samples.at(-1)
  const minute = earlier(60_000)
  const seconds = Math.round((last.at - minute.at) / 1000)
  put($('ratio-span'), seconds === 0 || Math.abs(seconds - 60) < 4 ? 'last minute' : `last ${span(seconds)}`)
  put($('ratio-minute'), percent(ratioOf(difference(last, minute))))
  put($('ratio-start'), percent(totals.hit_ratio))
  const recent = earlier(5500)
  put($('rps'), recent === last ? NONE : rate(all(difference(last, recent, (last.at - recent.at) / 1000))))
  put($('requests'), count(all(totals.requests)))
  const { hit, app } = totals.latency
  put($('hit-p50'), milliseconds(hit?.p50_ms))
  put($('hit-p95'), milliseconds(hit?.p95_ms))
  put($('app-p50'), milliseconds(app?.p50_ms))
  put($('app-p95'), milliseconds(app?.p95_ms))
  put($('time-saved'), span(totals.time_saved_s))
  put($('app-saved'), count(totals.app_requests_saved))
  put($('app-asked'), count(totals.app_requests))
  const idle = all(totals.requests) === 0
  $('no-traffic').hidden = !idle
  if (idle) put($('curl'), `curl -i http://${clean(stats.listen ?? '127.0.0.1:8080')}${samplePath(stats)}`)
}

// A path that the first route matches.
function samplePath (stats) {
  return clean(stats.routes[0]?.path ?? '/').replace(/\/?\{\*[^}]*\}/g, '').replace(/\{[^}]*\}/g, '1') || '/'
}

// --- Charts: five areas and a curve over one time axis

const SVG = 'http://www.w3.org/2000/svg'
const EDGE = { left: 44, right: 12, top: 8, bottom: 20 }
const charts = { rates: null, ratio: null, legend: new Map(), cross: null }

function shape (parent, tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
  parent.append(node)
  return node
}

function buildChart (svg, classes) {
  const chart = { svg, rules: [], ticks: [], paths: [] }
  for (let at = 0; at < 3; at += 1) {
    chart.rules.push({ line: shape(svg, 'line', { class: 'rule' }), text: shape(svg, 'text', { 'text-anchor': 'end', x: EDGE.left - 8 }) })
  }
  for (let at = 0; at < 6; at += 1) chart.ticks.push(shape(svg, 'text', { 'text-anchor': 'middle' }))
  for (const name of classes) chart.paths.push(shape(svg, 'path', { class: name }))
  chart.cross = shape(svg, 'line', { class: 'cross', visibility: 'hidden' })
  const follow = (event) => {
    charts.cross = event.type === 'pointerleave' ? null : event.clientX - svg.getBoundingClientRect().left
    showCharts()
  }
  for (const name of ['pointermove', 'pointerdown', 'pointerleave']) svg.addEventListener(name, follow)
  return chart
}

function buildCharts () {
  for (const kind of KINDS) {
    const parts = stamp('t-legend')
    parts.swatch.classList.add(`is-${kind}`)
    put(parts.kind, kind)
    charts.legend.set(kind, parts.value)
    $('legend').append(parts.root)
  }
  charts.rates = buildChart($('chart-rates'), KINDS.map((kind) => `area is-${kind}`))
  charts.ratio = buildChart($('chart-ratio'), ['curve'])
  new ResizeObserver(showCharts).observe($('chart-rates'))
  $('chart-table').addEventListener('toggle', () => showChartTable())
}

// The next larger number that reads well on an axis and can be halved.
function ceiling (n) {
  const size = 10 ** Math.floor(Math.log10(Math.max(n, 1)))
  return [1, 2, 4, 6, 10].map((step) => step * size).find((step) => step >= n)
}

function showCharts () {
  const { samples } = state
  const points = samples.filter((one) => one.rates)
  const { width, height } = charts.rates.svg.getBoundingClientRect()
  if (!points.length || width < 100) return
  const end = points.at(-1).at
  const range = Math.min(SHOWN_MS.most, Math.max(SHOWN_MS.least, end - samples[0].at))
  const low = charts.ratio.svg.getBoundingClientRect().height
  const most = ceiling(Math.max(...points.map((one) => all(one.rates))))
  const x = (at) => EDGE.left + (width - EDGE.left - EDGE.right) * (1 - (end - at) / range)
  const scale = (tall, top) => (value) => EDGE.top + (tall - EDGE.top - EDGE.bottom) * (1 - value / top)
  frame(charts.rates, width, height, [0, most / 2, most].map(String), scale(height, 2), { x, end, range })
  frame(charts.ratio, width, low, ['0 %', '50 %', '100 %'], scale(low, 2), { x, end, range })
  const shown = points.filter((one) => one.at >= end - range)
  drawAreas(shown, x, scale(height, most))
  const smooth = shown.map((one) => ({ at: one.at, ratio: ratioAt(one) }))
  set(charts.ratio.paths[0], 'd', curve(smooth, x, scale(low, 1)))
  showMoment(shown, x)
  describe(shown)
}

// The curve averages over ten seconds, because single seconds vary too much.
function ratioAt (one) {
  return ratioOf(difference(one, earlier(10_500, state.samples.indexOf(one))))
}

function frame (chart, width, height, labels, y, { x, end, range }) {
  set(chart.svg, 'viewBox', `0 0 ${width} ${height}`)
  chart.rules.forEach(({ line, text }, at) => {
    const level = y(at).toFixed(1)
    for (const [name, value] of [['x1', EDGE.left], ['x2', width - EDGE.right], ['y1', level], ['y2', level]]) set(line, name, value)
    set(text, 'y', Number(level) + 4)
    put(text, labels[at])
  })
  const step = range <= 60_000 ? 15_000 : range <= 150_000 ? 30_000 : 60_000
  chart.ticks.forEach((text, at) => {
    const ago = at * step
    put(text, ago > range ? '' : ago === 0 ? 'now' : ago % 60_000 ? `−${ago / 1000} s` : `−${ago / 60_000} min`)
    set(text, 'x', Math.min(width - EDGE.right - 6, x(end - ago)).toFixed(1))
    set(text, 'y', height - 4)
  })
}

function drawAreas (points, x, y) {
  let floor = points.map(() => 0)
  KINDS.forEach((kind, at) => {
    const roof = points.map((one, i) => floor[i] + one.rates[kind])
    const up = points.map((one, i) => `${x(one.at).toFixed(1)} ${y(roof[i]).toFixed(1)}`)
    const down = points.map((one, i) => `${x(one.at).toFixed(1)} ${y(floor[i]).toFixed(1)}`).reverse()
    const isEmpty = roof.every((level, i) => level === floor[i])
    set(charts.rates.paths[at], 'd', isEmpty ? '' : `M${up.join('L')}L${down.join('L')}Z`)
    floor = roof
  })
}

// Leaves a gap where there is no ratio.
function curve (points, x, y) {
  let path = ''
  let isDown = false
  for (const { at, ratio } of points) {
    if (ratio !== null) path += `${isDown ? 'L' : 'M'}${x(at).toFixed(1)} ${y(ratio).toFixed(1)}`
    isDown = ratio !== null
  }
  return path
}

// The numbers beside the chart: the current ones, or those at the pointer.
function showMoment (points, x) {
  const last = points.at(-1)
  const nearest = (best, one) => Math.abs(x(one.at) - charts.cross) < Math.abs(x(best.at) - charts.cross) ? one : best
  const one = charts.cross === null ? last : points.reduce(nearest, last)
  for (const kind of KINDS) put(charts.legend.get(kind), rate(one.rates[kind]))
  put($('chart-when'), one === last ? 'now' : `${span(Math.round((last.at - one.at) / 1000))} ago`)
  put($('chart-ratio-now'), percent(ratioAt(one)))
  for (const { cross } of [charts.rates, charts.ratio]) {
    set(cross, 'visibility', charts.cross === null ? 'hidden' : 'visible')
    for (const name of ['x1', 'x2']) set(cross, name, x(one.at).toFixed(1))
    set(cross, 'y1', EDGE.top)
    set(cross, 'y2', cross.ownerSVGElement.getBoundingClientRect().height - EDGE.bottom)
  }
}

// The charts as text, for screen readers. Not a live region, and not updated each second.
function describe (points) {
  if (performance.now() - state.describedAt < DESCRIBE_MS) return
  state.describedAt = performance.now()
  const last = points.at(-1)
  const reach = span(Math.max(1, Math.round((last.at - points[0].at) / 1000)))
  const peak = Math.max(...points.map((one) => all(one.rates)))
  const parts = KINDS.map((kind) => `${kind} ${rate(last.rates[kind])}`).join(', ')
  set(charts.rates.svg, 'aria-label', `Requests per second over the last ${reach}: now ${rate(all(last.rates))} (${parts}), at most ${rate(peak)}. The table below has the same numbers.`)
  const ratios = points.map(ratioAt).filter((ratio) => ratio !== null)
  const extent = ratios.length ? `now ${percent(ratioAt(last))}, lowest ${percent(Math.min(...ratios))}, highest ${percent(Math.max(...ratios))}` : 'no cacheable requests'
  set(charts.ratio.svg, 'aria-label', `Hit ratio over the last ${reach}: ${extent}.`)
  showChartTable()
}

// The last two minutes in steps of ten seconds.
function showChartTable () {
  const { samples } = state
  if (!$('chart-table').open || samples.length < 2) return
  const rows = []
  for (let at = samples.length - 1; at > 0 && rows.length < 12;) {
    const [one, from] = [samples[at], earlier(10_500, at)]
    const gone = difference(one, from)
    rows.push([clock.format(one.at), ...KINDS.map((kind) => rate(gone[kind] * 1000 / (one.at - from.at))), percent(ratioOf(gone))])
    at = samples.indexOf(from)
  }
  const line = ([time, ...cells]) => {
    const row = make('tr')
    const head = make('th', time)
    head.scope = 'row'
    row.append(head, ...cells.map((cell) => make('td', cell)))
    return row
  }
  $('chart-rows').replaceChildren(...rows.map(line))
}

// --- State

function showState (stats) {
  const { redis, app, memory, totals, config } = stats
  const { audited, stale } = findingsOf(stats)
  put($('app-state'), app.why ? `Fails since ${moment(app.since_ms)}, ${plural(app.failures, 'request')} failed: ${clean(app.why)}. What to do: ${clean(app.advice)}` : app.answers ? `Answers at ${clean(app.address)}` : `Not asked yet, at ${clean(app.address)}`)
  put($('redis-state'), redis === null ? 'None: entries are in memory only' : redis.state === 'shared' ? 'Shared' : `Degraded${redis.why ? `: ${clean(redis.why)}` : ''}`)
  for (const node of document.querySelectorAll('.redis-only')) node.hidden = redis === null
  if (redis) {
    put($('redis-lease'), redis.lease ? 'Held: memory hits need no Redis' : 'Not held: each hit asks Redis')
    put($('redis-peers'), redis.peers === 0 ? 'None' : plural(redis.peers, 'sidecar'))
    put($('redis-journal'), redis.journal === 0 ? 'Empty' : `${plural(redis.journal, 'purge')} not in Redis yet`)
  }
  const isOff = memory.limit_bytes === 0
  const used = isOff ? 0 : memory.bytes / memory.limit_bytes
  put($('memory'), isOff ? 'Off' : `${bytes(memory.bytes)} of ${bytes(memory.limit_bytes)}`)
  $('memory-bar').hidden = isOff
  set($('memory-bar'), 'data-level', used > 0.9 ? 'high' : 'fine')
  fill($('memory-bar'), used)
  put($('entries'), `${count(memory.entries)}, ${plural(memory.evictions, 'eviction')}`)
  put($('bytes'), `${bytes(totals.bytes_from_cache)} from the cache, ${bytes(totals.bytes_from_app)} from the origin`)
  put($('mode'), { on: 'On', off: 'Off: everything goes to the origin', shadow: 'Shadow: everything goes to the origin' }[stats.mode] ?? stats.mode)
  put($('uptime'), span(stats.uptime_s < 1 ? 1 : Math.floor(stats.uptime_s)))
  put($('config-loaded'), `${clean(config.file ?? 'no file')}, ${moment(config.loaded_ms)}${config.loads > 1 ? `, loaded ${config.loads} times` : ''}`)
  put($('audited'), audited === 0 ? 'None' : `${count(audited)}, ${count(stale)} stale`)
}

function fill (bar, ratio) {
  const width = `${(100 * Math.min(1, ratio ?? 0)).toFixed(1)}%`
  if (bar.firstElementChild.style.width !== width) bar.firstElementChild.style.width = width
}

// --- Routes

const NOTHING = { requests: Object.fromEntries(KINDS.map((kind) => [kind, 0])), hit_ratio: null, app_requests_saved: 0, time_saved_s: 0, bytes_from_cache: 0, bytes_from_app: 0, latency: { hit: null, miss: null, app: null }, reasons: [], learned_headers: [] }

const ORDERS = {
  file: (a, b) => (a.line ?? Infinity) - (b.line ?? Infinity),
  requests: (a, b) => all(b.requests) - all(a.requests),
  ratio: (a, b) => (a.hit_ratio ?? 2) - (b.hit_ratio ?? 2),
  saved: (a, b) => b.time_saved_s - a.time_saved_s
}

function showRoutes (stats) {
  const known = new Set(stats.routes.map((route) => route.path))
  // A route without requests may be missing in the statistics.
  const idle = [...state.policies.values()].filter((route) => !known.has(route.path)).map((route) => ({ ...NOTHING, ...route }))
  const routes = [...stats.routes, ...idle]
  const table = document.querySelector('.routes')
  $('no-routes').hidden = routes.length > 0
  $('route-tools').hidden = routes.length < MANY_ROUTES
  const { unrouted } = stats
  table.hidden = routes.length === 0 && all(unrouted.requests) === 0
  put($('routes-count'), routes.length ? `${count(routes.length)} in ${fileOf(stats)}` : '')
  const order = ORDERS[$('route-order').value]
  const due = performance.now() - state.orderedAt >= REORDER_MS
  const mayMove = state.orderedAt === -Infinity || rowsOf.get(table)?.size !== routes.length + 1 || (due && !isInUse(table))
  if (mayMove) state.orderedAt = performance.now()
  const items = [...routes.sort(order), { ...unrouted, path: null }]
  keyed(table, items, (route) => route.path, buildRoute, (row, route) => showRoute(row, route, stats), mayMove)
  filterRoutes()
}

function filterRoutes () {
  const wanted = $('route-filter').value.trim().toLowerCase()
  for (const [path, row] of rowsOf.get(document.querySelector('.routes')) ?? []) {
    row.root.hidden = wanted !== '' && !(path ?? 'no route').toLowerCase().includes(wanted)
  }
}

let nextId = 0
function buildRoute () {
  const row = stamp('t-route')
  row.more.id = `more-${nextId += 1}`
  row.toggle.setAttribute('aria-controls', row.more.id)
  row.toggle.addEventListener('click', () => {
    row.more.hidden = !row.more.hidden
    row.toggle.setAttribute('aria-expanded', String(!row.more.hidden))
    if (!row.more.hidden) showMore(row)
  })
  row.explain.addEventListener('click', () => {
    const { target } = $('explain').elements
    target.value = samplePath({ routes: [row.route] })
    $('h-explain').scrollIntoView()
    target.focus()
  })
  return row
}

function showRoute (row, route, stats) {
  row.route = route
  row.file = fileOf(stats)
  put(row.path, route.path === null ? 'No route' : clean(route.path))
  put(row.where, route.line ? `${row.file}:${route.line}` : route.path === null ? 'requests that no route matches' : '')
  word(row.mode, route.path === null ? NONE : route.mode)
  put(row.scope, route.path === null ? NONE : clean(route.scope))
  put(row.ttl, route.path === null ? NONE : route.ttl_s === null ? 'origin’s' : span(route.ttl_s))
  put(row.requests, count(all(route.requests)))
  put(row.ratio, percent(route.hit_ratio))
  fill(row.bar, route.hit_ratio)
  put(row.hit, milliseconds(route.latency.hit?.p50_ms))
  put(row.app, milliseconds(route.latency.app?.p50_ms))
  put(row.saved, route.time_saved_s ? span(route.time_saved_s) : NONE)
  if (!row.more.hidden) showMore(row)
}

function showMore (row) {
  const { route } = row
  const total = all(route.requests)
  const reasons = [...route.reasons].sort((a, b) => b.count - a.count)
  row.fine.hidden = reasons.length > 0
  keyed(row.reasons, reasons, (r) => `${r.disposition}\n${r.reason}\n${r.subject}`, buildReason, (item, r) => showReason(item, r, row, total), !isInUse(row.reasons))
  const latency = (one) => one && one.count ? `${milliseconds(one.p50_ms)} p50, ${milliseconds(one.p95_ms)} p95, ${milliseconds(one.p99_ms)} p99` : 'none yet'
  facts(row.numbers, [
    ...KINDS.map((kind) => [kind, count(route.requests[kind])]),
    ['Hit latency', latency(route.latency.hit)], ['Miss latency', latency(route.latency.miss)], ['Origin latency', latency(route.latency.app)],
    ['Origin saved', plural(route.app_requests_saved, 'request')], ['Bodies', `${bytes(route.bytes_from_cache)} from the cache, ${bytes(route.bytes_from_app)} from the origin`]
  ])
  const policy = route.path === null ? null : state.policies.get(route.path)
  row['policy-title'].hidden = !policy
  row.explain.hidden = route.path === null
  facts(row.policy, policy ? policyFacts(policy, route.learned_headers) : [])
}

function policyFacts (policy, learned) {
  const names = (list) => list.length ? list.join(', ') : 'none'
  return [
    ['Key', names(policy.key)], ['Query', Array.isArray(policy.query) ? names(policy.query) : policy.query], ['Tags', names(policy.tags)], ['Freshness', policy.origin === 'ignore' ? 'always ttl' : 'the origin decides'],
    ['Stale while revalidate', policy.stale_while_revalidate_s === null ? null : span(policy.stale_while_revalidate_s)],
    ['Stale if error', policy.stale_if_error_s === null ? null : span(policy.stale_if_error_s)],
    ['Learned from Vary', learned.length ? learned.map(clean).join(', ') : null],
    ['Audit', policy.audit ? percent(policy.audit) : null]
  ]
}

function buildReason () {
  const item = stamp('t-reason')
  item.copy.addEventListener('click', () => copy(item.remedy.textContent, item.copy))
  return item
}

function showReason (item, reason, row, total) {
  word(item.disposition, reason.disposition)
  put(item.reason, clean(reason.reason))
  put(item.subject, reason.subject === null ? '' : clean(reason.subject))
  put(item.count, `${count(reason.count)}${total ? `, ${percent(reason.count / total)}` : ''}`)
  put(item.why, clean(reason.why ?? ''))
  item.why.hidden = !reason.why
  item.advice.hidden = !reason.remedy
  const place = row.route.line ? `the route at line ${row.route.line} of ${row.file}` : row.file
  put(item.place, `To change this, in ${place}:`)
  put(item.remedy, clean(reason.diff ?? reason.remedy ?? ''))
  put(item.effects, clean([reason.does, reason.risks].filter(Boolean).join(' ')))
}

// --- Tags

function showTags (stats) {
  $('no-tags').hidden = stats.tags.length > 0
  $('tags-scroll').hidden = stats.tags.length === 0
  const create = ({ tag }) => {
    const row = stamp('t-tag')
    put(row.tag, clean(tag))
    row.purge.setAttribute('aria-label', `Purge ${clean(tag)}`)
    row.purge.addEventListener('click', () => askPurge({ tags: [tag] }))
    return row
  }
  keyed($('tags'), stats.tags, ({ tag }) => tag, create, (row, tag) => {
    for (const name of ['stored', 'hits', 'purged']) put(row[name], count(tag[name]))
  }, !isInUse($('tags')))
}

// --- Events: streamed while the page is visible

const events = { source: null, seen: new Set(), waiting: [], timer: 0, failures: 0 }

function openEvents () {
  clearTimeout(events.timer)
  if (events.source || document.hidden) return
  events.source = new EventSource(`events?last=${REPLAY}`)
  events.source.addEventListener('open', () => {
    events.failures = 0
    put($('events-state'), '')
  })
  for (const kind of ['purge', 'reload', 'state', 'finding']) {
    events.source.addEventListener(kind, (message) => {
      if (events.waiting.length === 0) requestAnimationFrame(showEvents)
      events.waiting.push({ kind, ...JSON.parse(message.data) })
    })
  }
  events.source.addEventListener('error', () => {
    put($('events-state'), 'interrupted; reconnecting')
    // A browser reconnects by itself, but not after a response that is not a stream.
    if (events.source?.readyState !== EventSource.CLOSED) return
    closeEvents()
    events.timer = setTimeout(openEvents, BACK_OFF_MS[Math.min(events.failures, BACK_OFF_MS.length - 1)])
    events.failures += 1
  })
}

function closeEvents () {
  events.source?.close()
  events.source = null
}

function showEvents () {
  // Replayed events come again after each interruption; ids restart with the sidecar.
  const fresh = events.waiting.filter((event) => {
    const key = `${event.id} ${event.at_ms}`
    return !events.seen.has(key) && events.seen.add(key)
  })
  events.waiting = []
  // Drops the oldest; dropped events are older than replayed ones.
  for (const key of events.seen) {
    if (events.seen.size <= 10 * MAX_EVENTS) break
    events.seen.delete(key)
  }
  const list = $('events')
  for (const event of fresh.slice(-MAX_EVENTS)) list.prepend(eventLine(event))
  while (list.children.length > MAX_EVENTS) list.lastElementChild.remove()
  $('no-events').hidden = list.children.length > 0
  // Update the numbers at once.
  if (fresh.some((event) => event.kind === 'reload' || event.kind === 'state')) poll()
}

function eventLine (event) {
  const parts = stamp('t-event')
  put(parts.time, moment(event.at_ms))
  parts.time.dateTime = new Date(event.at_ms).toISOString()
  const { label, tone = '', text, tags = [], more = 0 } = EVENT_WORDS[event.kind](event)
  put(parts.kind, label)
  set(parts.kind, 'data-tone', tone)
  put(parts.text, clean(text))
  for (const tag of tags) parts.chips.append(make('code', clean(tag)))
  if (more) parts.chips.append(`and ${count(more)} more`)
  return parts.root
}

const EVENT_WORDS = {
  purge: (e) => ({
    label: e.soft ? 'soft purge' : 'purge',
    text: [e.by === 'write' ? [e.method, e.path].filter(Boolean).join(' ') : 'admin', e.everything ? 'everything' : ''].filter(Boolean).join(': '),
    tags: e.everything ? [] : e.tags,
    more: e.more_tags
  }),
  reload: (e) => e.ok
    ? { label: 'reload', tone: 'good', text: e.changes ? plural(e.changes, 'change') : 'nothing changed' }
    : { label: 'reload failed', tone: 'bad', text: e.error ?? '' },
  state: (e) => ({ label: e.status, tone: { ready: 'good', degraded: 'warn' }[e.status] ?? 'bad', text: e.reasons.join('; ') }),
  finding: (e) => ({ label: `finding: ${e.finding}`, tone: 'warn', text: `${e.route}: ${e.text}` })
}

// --- Findings of shadow mode and audits

function showFindings (report) {
  $('findings').hidden = report.routes.length + report.advice.length === 0
  const { findings } = findingsOf(state.stats)
  put($('findings-count'), findings ? plural(findings, 'finding') : 'no findings so far')
  $('advice-part').hidden = report.advice.length === 0
  keyed($('advice'), report.advice, (one) => `${one.route}\n${one.toml}`, () => {
    const item = stamp('t-advice')
    item.copy.addEventListener('click', () => copy(item.toml.textContent, item.copy))
    return item
  }, (item, one) => {
    put(item.route, clean(one.route))
    put(item.place, one.line ? `${fileOf(state.stats)}:${one.line}` : '')
    put(item.why, clean(one.why))
    item.code.hidden = !one.toml
    put(item.toml, clean(one.diff ?? one.toml))
  })
  keyed($('shadow-rows'), report.routes, (one) => one.route, () => stamp('t-shadow'), showShadow)
  const examples = report.routes.flatMap(exampleLines)
  $('examples-part').hidden = examples.length === 0
  keyed($('examples'), examples, (line) => line, () => ({ root: make('li') }), ({ root }, line) => put(root, clean(line)))
}

function showShadow (row, one) {
  put(row.route, clean(one.route))
  put(row.mode, one.mode)
  put(row.requests, count(one.requests))
  put(row.hits, percent(one.hit_rate))
  put(row.stale, count(one.stale.count))
  put(row.scope, count(one.scope.count))
  put(row.audit, one.audit.asked ? `${count(one.audit.stale)} of ${count(one.audit.asked)}` : NONE)
  put(row.languages, languagesOf(one.languages))
  put(row.unstored, one.not_stored.length ? one.not_stored.map(({ reason, count: n }) => `${clean(reason)} ${count(n)}`).join(', ') : NONE)
}

function languagesOf ({ finding, pages, languages, differing, vary }) {
  if (finding === 'never') return `never differ: ${plural(pages, 'page')} in ${languages.map(clean).join(', ')}`
  if (finding === 'differs') return `differ on ${plural(differing, 'page')}`
  return vary ? 'named in Vary' : NONE
}

function exampleLines ({ stale, scope }) {
  const after = (list) => list.length ? `after ${list.map((write) => `${write.method} ${write.path} ${milliseconds(write.ms_before)} before`).join(', ')}` : 'after no write that was seen'
  return [
    ...stale.examples.map((e) => `${moment(e.at_ms)} ${e.path}: changed, ${span(e.age_s)} after it would have been stored, ${after(e.after)}`),
    ...scope.examples.map((e) => `${moment(e.at_ms)} ${e.path}: ${e.evidence === 'refusal' ? 'refused to a caller' : 'another body for another credential'}, though the scope is ${scope.scope}`)
  ]
}

// --- Explain

function lines (text) {
  return text.split('\n').map((line) => line.trim()).filter(Boolean)
}

// Tells what is wrong with what was typed, beside it.
function complain (id, field, text) {
  put($(id), clean(text))
  if (!field) return
  if (!text) return field.removeAttribute('aria-invalid')
  field.setAttribute('aria-invalid', 'true')
  field.focus()
}

async function explain (form) {
  const { method, target, headers, data, trusted } = form.elements
  for (const field of [target, headers]) complain('explain-error', field, '')
  if (!target.value.trim().startsWith('/')) return complain('explain-error', target, 'A path begins with a slash.')
  const given = lines(headers.value)
  const bad = given.find((line) => !/^[^:\s]+:/.test(line))
  if (bad !== undefined) return complain('explain-error', headers, `“${bad}” is not a header; write it as in “x-tenant-id: acme”.`)
  const pairs = given.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()])
  try {
    showExplained(await ask('explain', {
      method: method.value, target: target.value.trim(), headers: pairs, data: hasBody(method.value) && data.value ? data.value : null, trusted: trusted.checked
    }))
  } catch (error) {
    $('explained').replaceChildren()
    complain('explain-error', null, `Not explained: ${error.message}`)
  }
}

const hasBody = (method) => !['GET', 'HEAD'].includes(method)

function showExplained ({ request, lines, stored }) {
  const list = make('dl', '', 'facts theirs')
  for (const { name, value } of lines) list.append(make('dt', clean(name)), make('dd', clean(value)))
  const place = $('explained')
  place.replaceChildren(make('h3', clean(request), 'theirs'), list)
  if (!stored) return place.append(make('p', 'No stored response.', 'quiet'))
  const title = make('p', '', 'reason')
  const verdict = make('span', '', 'word')
  word(verdict, stored.verdict)
  title.append(verdict, make('b', 'Stored'), make('span', stored.reason ? clean(stored.reason) : stored.fresh ? 'fresh' : 'stale', 'quiet'))
  const entry = make('dl', '', 'facts')
  facts(entry, [
    ['Where', stored.tier], ['Status', stored.status], ['Body', bytes(stored.bytes)], ['Age', span(stored.age_s)],
    ['Fresh for', stored.ttl_s > 0 ? span(stored.ttl_s) : `no longer, since ${span(-stored.ttl_s)}`],
    ['Tags', stored.tags.length ? stored.tags.map(({ tag, current }) => current ? tag : `${tag} (purged)`).join(', ') : 'none']
  ])
  place.append(title, entry)
}

// --- Purge: always asks for confirmation first

const QUESTIONS = {
  tags: (n) => [n === 1 ? 'Purge this tag?' : `Purge these ${n} tags?`, 'All entries with any of these tags, in this sidecar and in those that share its Redis:'],
  urls: (n) => [n === 1 ? 'Purge this URL?' : `Purge these ${n} URLs?`, 'All their entries, in all variants and for all callers:'],
  everything: () => ['Purge everything?', 'All entries of all routes, in this sidecar and in those that share its Redis. Every request will go to the origin until the cache is filled again.']
}

function askPurge (what, kind = 'hard') {
  const [name] = Object.keys(what)
  const names = what.everything ? [] : what[name]
  const [title, text] = QUESTIONS[name](names.length)
  const dialog = $('ask')
  put($('ask-title'), title)
  put($('ask-what'), text)
  $('ask-names').replaceChildren(...names.map((one) => make('li', clean(one))))
  put($('ask-go'), what.everything ? 'Purge everything' : `Purge ${names.length === 1 ? clean(names[0]).slice(0, 40) : plural(names.length, { tags: 'tag', urls: 'URL' }[name])}`)
  dialog.querySelector('form').elements.kind.value = kind
  dialog.returnValue = ''
  dialog.onclose = () => {
    if (dialog.returnValue === 'purge') purge({ ...what, soft: dialog.querySelector('form').elements.kind.value === 'soft' })
  }
  dialog.showModal()
}

async function purge (body) {
  const names = body.everything ? 'everything' : (body.tags ?? body.urls).join(', ')
  try {
    const done = await ask('purge', body)
    const unused = done.unused?.length ? `; nothing carries ${done.unused.join(', ')}` : ''
    say('said', `${body.soft ? 'Soft purge' : 'Purge'} of ${names} done in ${milliseconds(done.took_ms)}${unused}`)
  } catch (error) {
    say('failed', `${names} was not purged: ${error.message}`)
  }
  poll()
}

function submitPurge (form) {
  const { what, kind, names } = form.elements
  complain('purge-error', names, '')
  if (what.value === 'everything') return askPurge({ everything: true }, kind.value)
  const given = [...new Set(lines(names.value))]
  if (!given.length) return complain('purge-error', names, what.value === 'tags' ? 'Which tags?' : 'Which URLs?')
  const bad = what.value === 'urls' && given.find((url) => !/^https?:\/\/[^/]+\//.test(url))
  if (bad) return complain('purge-error', names, `“${bad}” is not a URL as clients request it; write it as in “http://localhost:8080/path”.`)
  askPurge({ [what.value]: given }, kind.value)
}

function choosePurge (form) {
  const what = form.elements.what.value
  $('purge-names').hidden = what === 'everything'
  put($('purge-label'), what === 'urls' ? 'URLs, one per line, as clients request them' : 'Tags, one per line')
  form.elements.names.placeholder = what === 'urls' ? 'http://localhost:8080/api/v1/things' : 'things:acme'
}

// --- Reload

async function reload () {
  $('reload').disabled = true
  try {
    showReloaded(await ask('reload', {}))
  } catch (error) {
    $('alert-reload').replaceChildren()
    // The next poll shows the errors of the file in the alert above.
    if (!error.data?.problems) say('failed', `Not reloaded: ${error.message}`)
  }
  $('reload').disabled = false
  remembered.delete('config')
  poll()
}

function showReloaded ({ changes, restart_needed: restart }) {
  const list = changes.map(({ what, change, keys, effect }) => {
    const details = keys.map(({ key, from, to }) => `${key} ${from ?? 'unset'} → ${to ?? 'unset'}`).join(', ')
    return `${what} ${change}${details ? `: ${details}` : ''}${effect ? ` (${effect})` : ''}`
  })
  if (restart.length) list.push(`Needs a restart: ${restart.join(', ')}`)
  banner($('alert-reload'), 'good', changes.length ? `Reloaded: ${plural(changes.length, 'change')}.` : 'Reloaded: no changes.', { list })
}

// --- Event listeners

function wire () {
  put($('first-route'), FIRST_ROUTE)
  for (const button of document.querySelectorAll('[data-copy]')) button.addEventListener('click', () => copy($(button.dataset.copy).textContent, button))
  $('reload').addEventListener('click', reload)
  $('route-filter').addEventListener('input', filterRoutes)
  $('route-order').addEventListener('change', () => {
    state.orderedAt = -Infinity
    if (state.stats) showRoutes(state.stats)
  })
  const [explainForm, purgeForm] = [$('explain'), $('purge')]
  explainForm.addEventListener('submit', (event) => {
    event.preventDefault()
    explain(explainForm)
  })
  explainForm.elements.method.addEventListener('change', () => { $('explain-data').hidden = !hasBody(explainForm.elements.method.value) })
  purgeForm.addEventListener('submit', (event) => {
    event.preventDefault()
    submitPurge(purgeForm)
  })
  purgeForm.addEventListener('change', () => choosePurge(purgeForm))
  choosePurge(purgeForm)
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) {
      put($('link'), 'Paused')
      set($('link'), 'data-state', 'waiting')
      clearTimeout(state.timer)
      closeEvents()
    } else {
      poll()
      openEvents()
    }
  })
}

buildCharts()
wire()
poll()
openEvents()
