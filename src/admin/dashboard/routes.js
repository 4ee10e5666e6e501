// The table of routes, with their reasons and policies.

import { browse } from './memory.js'
import { askSwitch, endSwitch, left } from './mode.js'
import { all, bytes, count, KINDS, milliseconds, ownPages, percent, plural, span } from './numbers.js'
import { $, clean, copy, facts, fileOf, fileOfRule, fill, isInUse, keyed, NONE, put, rowsOf, stamp, word } from './page.js'
import { putReason } from './reasons.js'
import { state } from './state.js'

const REORDER_MS = 5000
const MANY_ROUTES = 2

const NOTHING = { requests: Object.fromEntries(KINDS.map((kind) => [kind, 0])), hit_ratio: null, app_requests_saved: 0, time_saved_s: 0, bytes_from_cache: 0, bytes_from_app: 0, bytes_from_sidecar: 0, hit_ratio_all: null, freshness: null, latency: { hit: null, miss: null, app: null }, reasons: [], learned_headers: [] }

const ORDERS = {
  file: (a, b) => (a.file ?? '').localeCompare(b.file ?? '') || (a.line ?? Infinity) - (b.line ?? Infinity),
  requests: (a, b) => all(b.requests) - all(a.requests),
  ratio: (a, b) => (a.hit_ratio ?? 2) - (b.hit_ratio ?? 2),
  saved: (a, b) => b.time_saved_s - a.time_saved_s,
  path: (a, b) => (a.path ?? '').localeCompare(b.path ?? ''),
  misses: (a, b) => b.requests.MISS - a.requests.MISS,
  bypasses: (a, b) => b.requests.BYPASS - a.requests.BYPASS,
  hit: (a, b) => (b.latency.hit?.p50_ms ?? -1) - (a.latency.hit?.p50_ms ?? -1),
  app: (a, b) => (b.latency.app?.p50_ms ?? -1) - (a.latency.app?.p50_ms ?? -1)
}

export function showRoutes (stats) {
  const known = new Set(stats.routes.map((route) => route.path))
  // A route without requests may be missing in the statistics.
  const idle = [...state.policies.values()].filter((route) => !known.has(route.path)).map((route) => ({ ...NOTHING, ...route }))
  const routes = [...stats.routes, ...idle]
  const table = document.querySelector('.routes')
  $('no-routes').hidden = routes.length > 0 || stats.config.file === null
  $('no-file').hidden = stats.config.file !== null
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

export function filterRoutes () {
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
  row.switch.addEventListener('click', () => askSwitch(row.route.path))
  row.end.addEventListener('click', () => endSwitch(row.route.path))
  row.explain.addEventListener('click', () => {
    const { target } = $('explain').elements
    target.value = samplePath({ routes: [row.route] })
    $('h-explain').scrollIntoView()
    target.focus()
  })
  row.browse.addEventListener('click', () => browse('route', row.route.path))
  return row
}

function showRoute (row, route, stats) {
  row.route = route
  row.file = fileOfRule(route, stats)
  put(row.path, route.path === null ? 'No route' : clean(route.path))
  put(row.where, route.line ? `${row.file}:${route.line}` : route.path === null ? 'requests that no route matches' : '')
  const held = strictest(route)
  word(row.mode, route.path === null ? NONE : held?.mode ?? route.mode)
  put(row.switched, held ? `for ${left(held)}` : '')
  put(row.scope, route.path === null ? NONE : clean(route.scope))
  put(row.ttl, route.path === null ? NONE : freshFor(route))
  put(row.requests, count(all(route.requests)))
  put(row.ratio, percent(route.hit_ratio))
  fill(row.bar, route.hit_ratio)
  put(row.hit, milliseconds(route.latency.hit?.p50_ms))
  put(row.app, milliseconds(route.latency.app?.p50_ms))
  put(row.saved, route.time_saved_s ? span(route.time_saved_s) : NONE)
  if (!row.more.hidden) showMore(row)
}

// The route's ttl; or what the origin has said last, which outranks it.
function freshFor ({ ttl_s: ttl, freshness }) {
  const { decided_by: decidedBy, last_s: last, last_from: from } = freshness ?? {}
  if (decidedBy === 'ttl') return span(ttl)
  if (from === 'origin') return `origin’s, last ${span(last)}`
  if (from === 'heuristic') return `estimated, last ${span(last)}`
  if (ttl === null) return 'origin’s'
  return from === 'ttl' ? span(ttl) : `${span(ttl)} or origin’s`
}

// The switch of a route, if it makes it do less than the file says.
function strictest ({ mode, switch: held }) {
  const rank = { on: 0, shadow: 1, off: 2 }
  return held && rank[held.mode] > rank[mode] ? held : null
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
    ['Hits of cacheable requests', percent(route.hit_ratio)], ['Hits of all requests', percent(route.hit_ratio_all)],
    ['Hit latency', latency(route.latency.hit)], ['Miss latency', latency(route.latency.miss)], ['Origin latency', latency(route.latency.app)],
    ['Origin saved', plural(route.app_requests_saved, 'request')], ['Bodies', `${bytes(route.bytes_from_cache)} from the cache, ${bytes(route.bytes_from_app)} from the origin${ownPages(route)}`]
  ])
  const policy = route.path === null ? null : state.policies.get(route.path)
  row['policy-title'].hidden = !policy
  row.explain.hidden = route.path === null
  row.switch.hidden = route.path === null
  row.end.hidden = !(route.switch && route.switch.route === route.path)
  row.memory.hidden = route.path === null
  facts(row.policy, policy ? policyFacts(policy, route.learned_headers) : [])
}

// What counts of the query: a word, a list, or all but some in some order.
function queryWords (query) {
  if (typeof query === 'string') return query
  if (Array.isArray(query)) return query.length ? query.join(', ') : 'none'
  const all = query.except.length ? `all but ${query.except.join(', ')}` : 'all'
  return query.order === 'ignore' ? `${all}, in any order` : all
}

function policyFacts (policy, learned) {
  const names = (list) => list.length ? list.join(', ') : 'none'
  return [
    ['Key', names(policy.key)], ['Query', queryWords(policy.query)], ['Tags', names(policy.tags)], ['Freshness', policy.origin === 'ignore' ? 'always ttl' : 'the origin decides'],
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
  putReason(item.reason, reason.reason)
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

// A path that the first route matches.
export function samplePath (stats) {
  return clean(stats.routes[0]?.path ?? '/').replace(/\/?\{\*[^}]*\}/g, '').replace(/\{[^}]*\}/g, '1') || '/'
}
