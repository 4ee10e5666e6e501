#!/usr/bin/env node
// An admin listener that only plays one: for looks of the dashboard that a real sidecar shows only in trouble, and with numbers that are at hand
// at once. `node tests/dashboard/mock.mjs --state busy --port 9191` serves it to a browser; run.mjs takes it as a module.

import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const PAGES = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../src/admin/dashboard')
const TYPES = { '.css': 'text/css', '.js': 'text/javascript' }
const FILES = { '/': ['index.html', 'text/html'] }
for (const file of fs.readdirSync(PAGES)) if (path.extname(file) in TYPES) FILES[`/dashboard/${file}`] = [file, TYPES[path.extname(file)]]
const MANUAL = path.join(PAGES, '../../../docs/src/reference/reasons.md')
const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
const KINDS = ['HIT', 'STALE', 'REVALIDATED', 'MISS', 'BYPASS']

// The reasons of the manual, which are made from the same table as those of a real sidecar.
function reasons () {
  const rows = fs.readFileSync(MANUAL, 'utf8').matchAll(/^\| `([^`]+?)( NAME)?` \| `([a-z_]+)` \| (.*?) \| (.*?) \| .* \|$/gm)
  return new Map([...rows].map(([, words, name = '', label, meaning, remedy]) => [words, { heading: words + name, slug: label.replaceAll('_', '-'), meaning, remedy }]))
}

const slugs = () => `export const SLUGS = new Map(${JSON.stringify([...reasons()].map(([words, { slug }]) => [words, slug]))})\n`

function reasonsPage () {
  const plain = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  const sections = [...reasons().values()].map(({ heading, slug, meaning, remedy }) => `<section class="why" id="${slug}" aria-labelledby="h-${slug}"><h3 id="h-${slug}">${plain(heading)}</h3><dl class="facts"><dt>What it means</dt><dd>${plain(meaning)}</dd><dt>What to do</dt><dd>${plain(remedy)}</dd></dl></section>`)
  return fs.readFileSync(path.join(PAGES, 'reasons.html'), 'utf8').replace('<!-- reasons -->', `<section class="card" aria-labelledby="h-all"><h2 id="h-all">All</h2>${sections.join('')}</section>`)
}

// Made by the sidecar, and not files as they are.
const MADE = { '/dashboard/slugs.js': [slugs, 'text/javascript'], '/dashboard/reasons.html': [reasonsPage, 'text/html'] }

export const STATES = ['busy', 'idle', 'empty', 'memory', 'degraded', 'failed', 'many', 'shadow', 'hostile', 'incident', 'fleet']

// Text as strangers write it: markup, a change of direction, no space to break at.
export const HOSTILE = '<img src=x onerror="document.title=1">\u202egnp.exe\u202c' + 'x'.repeat(300)

// Texts of a real sidecar: of a lost Redis, of a bad line.
const LOST = 'redis is lost: the connection broke'
const DOWN = 'the app at 127.0.0.1:8000 does not accept connections: the connection was refused'
const BAD_TTL = '`5 minutes` is not a duration: it contains a space'

const zeros = () => Object.fromEntries(KINDS.map((kind) => [kind, 0]))

function route (path, line, policy, share, hitRate, reasons = []) {
  return { path, line, mode: 'on', scope: 'private', ttl_s: 300, share, hitRate, requests: zeros(), reasons, ...policy }
}

const reason = (disposition, reason, subject, share, remedy, why) => ({ disposition, reason, subject, share, count: 0, remedy, why, diff: remedy && `@@ -71,3 +71,4 @@\n [[routes]]\n+${remedy}\n`, does: remedy && 'It has a place in the key.', risks: remedy && 'More entries.' })

function demoRoutes () {
  const unkeyed = (name, share) => reason('BYPASS', 'unkeyed header', name, share, `key = ["${name.replaceAll('-', '_')}?"]`, 'The request has a header that the origin may read and the key does not contain. Make the header a field of the key.')
  const cold = reason('MISS', 'not stored', null, 0.05, null, 'Nothing is stored under the key. If it does not go away, compare the keys of two requests with `sidecache explain`.')
  return [
    route('/api/v1/campaigns', 71, { scope: 'shared' }, 34, 0.94, [cold, unkeyed('x-account-id', 0.012)]),
    route('/api/v1/campaigns/{id}', 79, { scope: 'shared' }, 22, 0.88, [cold, reason('MISS', 'purged', null, 0.03, null, 'The stored response was purged. If it happens too often, use narrower tags.')]),
    route('/api/v1/forms/{*rest}', 88, {}, 11, 0.71, [cold, reason('MISS', 'expired', null, 0.12, 'ttl = "15m"', 'The stored response is no longer fresh. Set a longer `ttl` if writes purge the response anyway.')]),
    route('/api/v1/dashboard', 103, { ttl_s: 30, freshness: { decided_by: 'origin_else_ttl', last_s: 60, last_from: 'origin' } }, 6, 0.52, [cold, unkeyed('x-forwarded-host', 0.2)]),
    route('/api/v1/property-areas', 112, { scope: 'public', ttl_s: 600 }, 3, 0.99, []),
    route('/api/v1/reports/{year}/{month}/summary', 120, { mode: 'shadow', ttl_s: null }, 2, 0, [reason('BYPASS', 'missing field', 'tenant', 0.4, 'key = []', "The request lacks a field that the route's `key` or `tags` need. Let clients send the field, or take it out of the route.")])
  ]
}

function routesOf (name) {
  if (name === 'empty') return []
  const routes = demoRoutes()
  if (name === 'many') {
    const made = (n) => route(`/api/v2/resource-${n}/{id}/sub-resource-with-a-rather-long-name/{*rest}`, 130 + 6 * n, {}, 1, 0.5 + (n % 50) / 100, demoRoutes()[0].reasons)
    return [...routes, ...Array.from({ length: 194 }, (_, n) => made(n))]
  }
  if (name === 'hostile') routes.push(route(`/${HOSTILE}`, 999, { scope: 'shared' }, 5, 0.5, [reason('BYPASS', HOSTILE, HOSTILE, 0.5, HOSTILE, HOSTILE)]))
  return routes
}

const latency = (count, p50) => count ? { count, mean_ms: p50 * 1.2, p50_ms: p50, p95_ms: p50 * 2.4, p99_ms: p50 * 4.1 } : null

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const RANGES = { '5m': [5000, 60], '1h': [5000, 720], '6h': [5 * MINUTE, 72], '24h': [5 * MINUTE, 288], '7d': [5 * MINUTE, 2016] }

// The incident of the state of that name, in hours before now: the app is down for half an hour, Redis for a part of it; at night the machine slept.
export const INCIDENT = { slept: [12, 11], down: [6, 5.5], lost: [5.9, 5.7], events: ['restart', 'gap', 'reload', 'reload_failed', 'purge_everything', 'app_down', 'redis_lost', 'redis_back', 'app_back'] }

// One sidecar that only exists in numbers.
export class Mock {
  constructor (state = 'busy') {
    this.state = state
    this.began = Date.now()
    this.started = this.began - (state === 'incident' ? 20 * HOUR : 8_000_000)
    this.failsHistory = false
    // Answers to `/stats` that wait, while this is a list.
    this.held = null
    this.samples = false
    this.holdsStats = false
    this.statsAsked = 0
    this.routes = routesOf(state)
    this.unrouted = route('none', null, {}, 4, 0, [reason('BYPASS', 'no route', null, 0.8, null, 'No route matches the path. Add a route for these paths if they should be cached.'), reason('BYPASS', 'method', null, 0.2, null, 'The method is neither GET nor HEAD.')])
    this.tags = ['campaigns:acme', 'campaigns:globex', 'forms:acme', 'campaign:acme:7', 'property-areas', ...(state === 'hostile' ? [HOSTILE] : [])].map((tag, n) => ({ tag, stored: 90 - 12 * n, hits: 0, purged: 0 }))
    this.events = []
    this.streams = new Set()
    this.tails = new Map()
    this.tailed = []
    this.asked = []
    this.switches = []
    this.sought = []
    this.nextId = 1
    this.config = { file: '/etc/sidecache/proxy.toml', loaded_ms: this.started, loads: 1, error: null, failed_ms: null, restart_needed: [] }
    if (state === 'failed') this.fail()
    this.seed = 7
    if (!['idle', 'empty'].includes(state)) for (let n = 0; n < 900; n += 1) this.step(2, this.started + 2000 * n)
  }

  random () {
    this.seed = (this.seed * 1103515245 + 12345) % 2147483648
    return this.seed / 2147483648
  }

  fail () {
    this.config = { ...this.config, failed_ms: Date.now(), error: `proxy.toml:72:9: error: ${BAD_TTL}\n   |\n72 | ttl   = "5 minutes"\n   |         ^^^^^^^^^^^\n  allowed: whole numbers with a unit (ms, s, m, h, d), such as "250ms", "5m", "1h30m"\n  hint: write "5m"\n\n1 error in proxy.toml` }
  }

  // Traffic of a while that begins at `at`.
  step (seconds, at = Date.now()) {
    const wave = 1 + 0.35 * Math.sin(at / 9000) + 0.2 * this.random()
    for (const one of [...this.routes, this.unrouted]) {
      const n = Math.round(one.share * wave * seconds * (0.8 + 0.4 * this.random()))
      const hits = Math.round(n * one.hitRate)
      one.requests.HIT += Math.round(hits * 0.96)
      one.requests.STALE += Math.round(hits * 0.03)
      one.requests.REVALIDATED += Math.round(hits * 0.01)
      const rest = n - hits
      const bypass = one.hitRate === 0 ? rest : Math.round(rest * 0.3)
      one.requests.BYPASS += bypass
      one.requests.MISS += rest - bypass
      for (const r of one.reasons) r.count = Math.round(r.share * Object.values(one.requests).reduce((a, b) => a + b, 0))
    }
    this.tags.forEach((tag, n) => { tag.hits += Math.round((12 - 2 * n) * seconds * wave) })
  }

  numbers (one, p50) {
    const r = one.requests
    const saved = r.HIT + r.STALE
    const app = r.MISS + r.BYPASS + r.REVALIDATED
    const eligible = saved + r.REVALIDATED + r.MISS
    return {
      requests: r, learned_headers: this.state === 'hostile' ? [HOSTILE] : [], hit_ratio: eligible ? (saved + r.REVALIDATED) / eligible : null, hit_ratio_all: app + saved ? (saved + r.REVALIDATED) / (app + saved) : null, app_requests: app, app_requests_saved: saved, time_saved_s: saved * p50 / 1000, bytes_from_cache: saved * 4100, bytes_from_app: app * 4800, bytes_from_sidecar: r.BYPASS * 90,
      latency: { hit: latency(saved, 0.31), miss: latency(r.MISS, p50 + 1.2), app: latency(app, p50) }
    }
  }

  stats () {
    const total = zeros()
    for (const one of [...this.routes, this.unrouted]) for (const kind of KINDS) total[kind] += one.requests[kind]
    const switches = this.modes().switches
    const heldBy = (path) => path === 'none' ? null : switches.find((one) => one.route === null) ?? switches.find((one) => one.route === path) ?? null
    const show = (one, n) => ({ path: one.path, line: one.line, mode: one.mode, switch: heldBy(one.path), scope: one.scope, ttl_s: one.ttl_s, freshness: one.path === null ? null : one.freshness ?? { decided_by: one.ttl_s === null ? 'origin' : 'origin_else_ttl', last_s: one.ttl_s, last_from: one.ttl_s === null ? null : 'ttl' }, ...this.numbers(one, 180 + 61 * (n % 9)), reasons: one.reasons.map(({ share, ...rest }) => rest) })
    const lost = this.state === 'degraded'
    return {
      version: '0.1.0', commit: '8658b63a1b2c4d5e', started_ms: this.started, now_ms: Date.now(), uptime_s: (Date.now() - this.started) / 1000, mode: 'on', switches, totals: this.numbers({ requests: total }, 412),
      routes: this.routes.map(show), unrouted: show(this.unrouted, 0), tags: this.state === 'idle' || this.state === 'empty' ? [] : this.tags,
      memory: { entries: 1284, bytes: 61_203_456, limit_bytes: 268_435_456, evictions: 0 },
      redis: this.state === 'memory' ? null : { state: lost ? 'degraded' : 'shared', lease: !lost, peers: lost ? 0 : 2, journal: lost ? 3 : 0, why: lost ? LOST : null },
      apps: this.state === 'hostile' ? [{ name: HOSTILE, address: HOSTILE, answers: false, why: HOSTILE, advice: HOSTILE, since_ms: Date.now() - 90_000, failures: 1 }] : [],
      notify: this.state === 'hostile' ? [{ name: HOSTILE, kind: 'cloudflare', waiting: 3, waits_s: 9, sent_ms: null, why: HOSTILE, failures: 4, sent: 0, tags: 0, everything: 0 }] : [],
      sources: this.state === 'hostile' ? [{ name: HOSTILE, kind: 'postgres', state: 'deaf', why: HOSTILE, events: 0, purged_tags: 0, refused: 0 }] : [],
      app: { address: '127.0.0.1:8000', answers: this.state === 'idle' ? null : !lost, why: lost ? DOWN : null, advice: lost ? 'start the app, or correct its `url`' : null, since_ms: lost ? Date.now() - 90_000 : null, failures: lost ? 51 : 0 },
      ready: lost ? { status: 'degraded', reasons: [DOWN, LOST] } : this.config.error ? { status: 'degraded', reasons: [`the changed file is rejected, the old rules stay in force: ${this.config.error.split('\n')[0]}`] } : { status: 'ready', reasons: [] },
      config: { ...this.config, restart_needed: lost ? ['memory.size'] : [] }, shadow: this.state === 'shadow' ? { findings: 4, audited: 210, audited_stale: 1 } : { findings: 0, audited: 0, audited_stale: 0 },
      cookies: { requests: 532, unseen: lost ? ['sessoin'] : [] },
      compress: { bodies: 0, original_bytes: 0, coded_bytes: 0, missed_bytes: lost ? 734_003_200 : 0 }
    }
  }

  // This one alone, or with others: of the same rules, of other rules for long, silent.
  peers () {
    const stats = this.stats()
    const { totals, memory, redis } = stats
    const own = {
      id: '00000000000000a1', name: 'web-1 127.0.0.1:8080', this: true, age_s: 0, silent: false, differs: [], version: stats.version, uptime_s: stats.uptime_s, mode: stats.mode, status: stats.ready.status, reasons: stats.ready.reasons, number: 40,
      requests: totals.requests, per_second: 82.4, hit_ratio: totals.hit_ratio, latency: totals.latency, bytes_from_cache: totals.bytes_from_cache, memory, redis: { lease: true, peers: redis?.peers ?? 0 }, app: { answers: true }, rules: { digest: '0123456789abcdef', age_s: 8000 }
    }
    const answer = { shared: redis !== null, why: redis === null ? 'there is no [redis], so this sidecar knows of no other' : null, sidecars: [own], silent: 0, unreadable: 0, notes: [], silent_after_s: 15, limit: 256 }
    const other = (id, name, more) => ({ ...own, id, name, this: false, age_s: 2.5, per_second: 17.6, latency: { hit: null, app: null }, ...more })
    if (this.state === 'fleet') {
      answer.sidecars.push(
        other('00000000000000a2', 'web-2 127.0.0.1:8080', { status: 'degraded', reasons: [DOWN], differs: ['rules', 'version'], version: '0.2.0', rules: { digest: 'f'.repeat(16), age_s: 900 } }),
        other('00000000000000a3', 'web-3 127.0.0.1:8080', { silent: true, age_s: 95, per_second: 500 }))
      Object.assign(answer, { silent: 1, unreadable: 2, notes: ['for 15 min, other rules than here are in force in web-2 127.0.0.1:8080: reload or correct the file that is behind'] })
    }
    if (this.state === 'hostile') {
      answer.sidecars.push(other(HOSTILE, HOSTILE, { version: HOSTILE, reasons: [HOSTILE, HOSTILE, HOSTILE], status: HOSTILE, mode: HOSTILE, rules: { digest: HOSTILE, age_s: 1e9 }, per_second: 1e15, differs: ['rules', 'version'] }))
      answer.notes = [HOSTILE]
    }
    return answer
  }

  policies () {
    const one = ({ path, line, mode, ttl_s, scope }) => ({ path, line, mode, ttl_s, scope, origin: 'respect', key: ['tenant'], query: ['page', 'limit'], tags: ['campaigns:{tenant}'], stale_while_revalidate_s: null, stale_if_error_s: 600, audit: 0.01 })
    return { routes: this.routes.map(one), purges: [] }
  }

  shadow () {
    const base = { requests: 4210, would_hit: 3105, would_miss: 900, would_bypass: 205, hit_rate: 0.775, not_stored: [{ reason: 'set-cookie', count: 41 }], audit: { asked: 0, stale: 0, refused: 0 }, languages: { finding: null, pages: 0, languages: [], differing: 0, vary: false }, sources: [] }
    if (this.state !== 'shadow') return { routes: [], advice: [] }
    const written = { path: '/api/v1/forms/7', at_ms: Date.now() - 60_000, age_s: 1.2, after: [{ method: 'PUT', path: '/api/v1/forms/7', ms_before: 12 }], source: null, told_ms_after: null }
    return {
      routes: [
        { route: '/api/v1/forms/{*rest}', mode: 'shadow', ...base, stale: { count: 3, unexplained: 0, examples: [written] }, scope: { count: 0, scope: 'private', examples: [] } },
        { route: '/api/v1/property-areas', mode: 'shadow', ...base, stale: { count: 0, unexplained: 0, examples: [] }, scope: { count: 1, scope: 'public', examples: [{ path: '/api/v1/property-areas', at_ms: Date.now() - 30_000, evidence: 'body' }] }, audit: { asked: 210, stale: 1 } }
      ],
      advice: [{ route: '/api/v1/forms/{*rest}', why: '3 responses would have been stale after PUT /api/v1/forms/7', toml: '[[purges]]\npath = "/api/v1/forms/{*rest}"\ntags = ["forms:{tenant}"]\n', line: 88 }]
    }
  }

  // What `/history` answers: quiet days, but for the incident.
  history (range) {
    const [step, slots] = RANGES[range]
    const now = Date.now()
    const from = Math.floor(now / step) * step - slots * step
    const isIncident = this.state === 'incident'
    const during = ([since, until], at) => isIncident && at >= this.began - since * HOUR && at < this.began - until * HOUR
    const times = Array.from({ length: slots }, (_, n) => from + (n + 0.5) * step)
    const isKnown = (at) => at >= this.started && !during(INCIDENT.slept, at) && !['idle', 'empty'].includes(this.state)
    const column = (read) => times.map((at) => isKnown(at) ? read(at, during(INCIDENT.down, at)) : null)
    const counts = (rate, down) => column((at, isDown) => Math.round((isDown ? down : rate) * (1 + 0.3 * Math.sin(at / (2 * HOUR))) * step / 1000))
    const noRedis = (at) => this.state === 'memory' || during(INCIDENT.lost, at)
    return {
      started_ms: this.started, range, from_ms: from, step_ms: step, slots, now_ms: now,
      series: {
        covered_ms: column(() => step),
        requests: { HIT: counts(60, 20), STALE: counts(2, 9), REVALIDATED: counts(1, 0), MISS: counts(11, 40), BYPASS: counts(6, 6) },
        hit_ratio: { cacheable: column((_, isDown) => isDown ? 0.42 : 0.851), all: column((_, isDown) => isDown ? 0.38 : 0.787) },
        latency_ms: { hit: { p50: column(() => 0.31), p95: column((_, isDown) => isDown ? 1.4 : 0.74) }, app: { p50: column((_, isDown) => isDown ? 2900 : 181), p95: column((_, isDown) => isDown ? 9800 : 430) } },
        bytes: { cache: counts(250_000, 80_000), app: counts(90_000, 20_000) },
        memory: { bytes: column(() => 61_203_456), entries: column(() => 1284), evictions: counts(0, 3) },
        redis_ms: column((at, isDown) => noRedis(at) ? null : isDown ? 41 : 0.42),
        app_failures: counts(0, 3), server_errors: counts(0, 2),
        status: column((_, isDown) => isDown ? 'degraded' : 'ready')
      },
      events: this.marks().filter((mark) => mark.until_ms >= from),
      events_dropped: isIncident ? 7 : 0
    }
  }

  marks () {
    const one = (at, kind, text, times = 1, until = at) => ({ at_ms: at, until_ms: until, kind, times, text })
    const ago = (hours) => Math.round(this.began - hours * HOUR)
    const start = one(this.started, 'restart', 'version 0.1.0 started')
    if (this.state === 'hostile') return [start, one(ago(0.01), 'reload_failed', HOSTILE), one(ago(0.005), HOSTILE, HOSTILE)]
    if (this.state !== 'incident') return [start]
    return [
      start, one(ago(11), 'gap', 'no numbers for 3600 s: the process was stopped or got no processor, the machine was suspended, or its clock was set forward'),
      one(ago(8), 'reload', '2 changes'), one(ago(7), 'reload_failed', `proxy.toml:72:9: error: ${BAD_TTL}`, 14, ago(6.9)), one(ago(6.2), 'purge_everything', 'by admin'),
      one(ago(6), 'app_down', DOWN), one(ago(5.9), 'redis_lost', LOST), one(ago(5.7), 'redis_back', ''), one(ago(5.5), 'app_back', '')
    ]
  }

  uncached () {
    const path = (path, requests, app_s, hit_share, more) => ({ path, requests, observed: requests, app_s, mean_ms: app_s * 1000 / requests, error_s: 0, compared: requests, hit_share, shared_hit_share: hit_share, saved_s: hit_share === null ? null : hit_share * app_s, credential_share: 1, cookie_share: 0, parameters: ['page'], headers: ['x-tenant-id'], writes: [], why_not: null, suggestion: null, ...more })
    const diff = '@@ -20,2 +20,12 @@\n ttl = "5m"\n+\n+[[routes]]\n+path = "/api/v1/invoices/{id}"\n+mode = "shadow"\n+ttl = "1m"\n+tags = ["invoices"]\n'
    const suggestion = { toml: '[[routes]]\npath = "/api/v1/invoices/{id}"\nmode = "shadow"\n', diff, does: 'Watches /api/v1/invoices/{id} in shadow mode.', risks: 'Writes elsewhere that change these responses do not purge them.' }
    const strange = this.state === 'hostile' ? [path(HOSTILE, 3, 900, null, { why_not: HOSTILE })] : []
    const paths = [...strange, path('/api/v1/invoices/{n}', 4210, 812.4, 0.74, { suggestion, ...(this.samples ? { observed: 85, compared: 64 } : {}) }), path('/login', 310, 41.2, 0, { why_not: 'a login, or a part of one: its responses are for one caller and one time' })]
    return { templates: paths.length, max_templates: 256, requests: 4600, observed: this.samples ? 101 : 4600, sampling: this.samples, app_s: 861, unplaced: 80, ttl_s: 60, half_life_s: 3600, paths: ['idle', 'empty'].includes(this.state) ? [] : paths }
  }

  explain ({ method, target, headers }) {
    return {
      request: `${method} ${target}`, lines: [{ name: 'route', value: '/api/v1/campaigns' }, { name: 'scope', value: 'shared' }, ...headers.map(([name, value]) => ({ name: `header ${name}`, value }))],
      stored: { tier: 'memory', status: 200, bytes: 329, age_s: 1.2, ttl_s: 298.8, fresh: true, tags: [{ tag: 'campaigns:acme', current: true }], verdict: 'HIT', reason: null }
    }
  }

  // Entries as /memory lists them, the first ones of 120.
  memory (query) {
    const [limit, after] = [Number(query.get('limit') ?? 100), Number(query.get('after')?.split('-')[1] ?? 0)]
    const [tag, route, order] = [query.get('tag'), query.get('route'), query.get('order') ?? 'hottest']
    const hostile = this.state === 'hostile'
    const total = tag === 'nothing' ? 0 : 120
    const states = ['fresh', 'stale', 'soft purged', 'purged', 'write pending', 'unverified', 'expired']
    const one = (n) => ({
      key: 'ab'.repeat(32), variant: null, method: 'GET', host: hostile ? HOSTILE : 'app.example.com', path: hostile ? `/${HOSTILE}` : `/api/v1/campaigns/${n}`, query: n % 3 ? [] : ['page', '…'],
      url: n % 2 ? null : `http://app.example.com/api/v1/campaigns/${n}`, route: n % 5 ? route ?? '/api/v1/campaigns/{id}' : null, scope: n % 4 ? 'public' : 'private', credential: n % 4 ? null : '0a1b2c3d',
      fields: ['tenant'], headers: ['accept'], varies_by: n % 7 ? [] : ['accept-language'], tier: 'memory', status: n % 6 ? 200 : 404, state: states[n % states.length], age_s: 7 * n + 0.4, ttl_s: 300 - 7 * n,
      bytes: 4096 * (n + 1), body_bytes: 4000 * n, hits: 5000 - n, tags: [tag ?? 'campaigns:acme', hostile ? HOSTILE : `campaign:acme:${n}`], more_tags: n % 9 ? 0 : 3
    })
    const entries = Array.from({ length: Math.max(0, Math.min(limit, total - after)) }, (_, n) => one(after + n))
    const next = after + entries.length < total ? `${order}-${after + entries.length}` : null
    return { entries, matched: { entries: total, bytes: total * 61_000, states: total ? { fresh: 100, purged: 20, stale: 0 } : {} }, order, next, looked_at: 1284, complete: true, took_ms: 1.2 }
  }

  release () {
    const held = this.held
    this.held = null
    for (const answer of held) answer()
  }

  tell (event) {
    const whole = { id: this.nextId++, at_ms: Date.now(), ...event }
    this.events = [...this.events.slice(-199), whole]
    for (const stream of this.streams) stream.write(this.line(whole))
  }

  line (event) {
    return `id: ${event.id}\nevent: ${event.kind}\ndata: ${JSON.stringify(event)}\n\n`
  }

  // The switches that hold: the time of one that plays is as real as any.
  modes () {
    this.switches = this.switches.filter((one) => one.ends_ms > Date.now())
    return { switches: this.switches.map((one) => ({ ...one, left_s: (one.ends_ms - Date.now()) / 1000 })), default_s: 3600, longest_s: 86400, most: 256 }
  }

  order ({ mode, route = null, for: time = '1h' }) {
    this.asked.push({ mode, route, for: time })
    const isMeant = (one) => one.route === route || (mode === 'on' && route === null)
    const ended = this.switches.filter(isMeant).length
    this.switches = this.switches.filter((one) => !isMeant(one))
    const seconds = { s: 1, m: 60, h: 3600 }[time.at(-1)] * Number(time.slice(0, -1))
    if (mode !== 'on') this.switches.push({ route, mode, by: 'admin', ends_ms: Date.now() + 1000 * seconds, shared: true })
    this.switches.sort((a, b) => (a.route ?? '') < (b.route ?? '') ? -1 : 1)
    this.tell({ kind: 'mode', change: mode === 'on' ? 'ended' : 'set', mode: mode === 'on' ? 'off' : mode, route, by: 'admin', left_s: mode === 'on' ? 0 : seconds })
    return { mode, route, ended: mode === 'on' ? ended : 0, shared: this.state !== 'degraded', why: this.state === 'degraded' ? LOST : null, switches: this.modes().switches }
  }

  // Tells readers of the tail of a request, as far as they want to know of it.
  request (line) {
    const whole = { at_ms: Date.now(), method: 'GET', path: '/', route: 'none', status: 200, disposition: 'MISS', reason: null, subject: null, tier: null, duration_ms: 1.5, app_ms: null, bytes: 2048, stored: false, collapsed: false, ...line }
    for (const [stream, wanted] of this.tails) {
      const isWanted = (name) => !wanted.get(name) || wanted.get(name) === whole[name]
      if (isWanted('route') && isWanted('disposition') && whole.path.includes(wanted.get('path') ?? '')) stream.write(`event: request\ndata: ${JSON.stringify(whole)}\n\n`)
    }
  }

  missed (more, lost) {
    for (const stream of this.tails.keys()) stream.write(`event: missed\ndata: ${JSON.stringify({ more, lost })}\n\n`)
  }

  // Some requests, as the routes have them.
  traffic () {
    for (const one of this.routes.slice(0, 4)) {
      const hit = this.random() < one.hitRate
      const reason = hit ? null : one.reasons[0]
      this.request({ path: one.path.replace('{id}', '7').replace('{*rest}', 'x'), route: one.path, disposition: hit ? 'HIT' : 'MISS', tier: hit ? 'memory' : null, reason: reason?.reason ?? null, subject: reason?.subject ?? null, duration_ms: hit ? 0.05 : 180 })
    }
  }

  purge (body) {
    this.asked.push(body)
    const event = { kind: 'purge', by: 'admin', method: null, path: null, tags: body.tags ?? (body.urls ?? []).map((url) => `uri:${url}`), more_tags: 0, everything: body.everything ?? false, soft: body.soft ?? false }
    this.tell(event)
    return { tags: event.tags, everything: event.everything, soft: event.soft, took_ms: 1.3 }
  }

  reload () {
    const problems = this.config.error ? [{ severity: 'error', line: 72, column: 9, message: BAD_TTL, hint: 'write "5m"' }] : []
    this.tell({ kind: 'reload', ok: !this.config.error, changes: 1, error: this.config.error })
    const keys = [{ key: 'ttl', from: '"5m"', to: '"10s"' }]
    return { ok: !this.config.error, changes: [{ what: 'route /api/v1/campaigns', change: 'changed', keys, effect: 'entries are left behind' }], restart_needed: [], problems, text: this.config.error ?? '' }
  }

  // A write now and then, as an app has them.
  write () {
    const tag = this.tags[Math.floor(this.random() * 4)]
    tag.purged += 1
    this.tell({ kind: 'purge', by: 'write', method: 'PUT', path: `/api/v1/campaigns/${Math.floor(this.random() * 90)}`, tags: [tag.tag], more_tags: 0, everything: false, soft: false })
  }

  answer (request, response, body) {
    const url = new URL(request.url, 'http://localhost')
    const json = (value, status = 200) => response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' }).end(JSON.stringify(value))
    const page = (type, text) => response.writeHead(200, { 'content-type': `${type}; charset=utf-8`, 'content-security-policy': CSP, 'cache-control': 'no-store' }).end(text)
    if (url.pathname in FILES) return page(FILES[url.pathname][1], fs.readFileSync(path.join(PAGES, FILES[url.pathname][0])))
    if (url.pathname in MADE) return page(MADE[url.pathname][1], MADE[url.pathname][0]())
    switch (`${request.method} ${url.pathname}`) {
      case 'GET /stats':
        this.statsAsked += 1
        // The second one is not answered, so that the page stays as the first one made it.
        if (this.holdsStats && this.statsAsked > 1) return null
        if (!this.held) return json(this.stats())
        return this.held.push(() => json(this.stats()))
      case 'GET /history':
        if (this.failsHistory) return json({ error: 'out of order' }, 500)
        return json(this.history(url.searchParams.get('range')))
      case 'GET /peers': return json(this.peers())
      case 'GET /routes': return json(this.policies())
      case 'GET /shadow': return json(this.shadow())
      case 'GET /mode': return json(this.modes())
      case 'POST /mode': return json(this.order(body))
      case 'GET /memory':
        this.sought.push(Object.fromEntries(url.searchParams))
        return url.searchParams.get('route') === '/gone' ? json({ error: 'the rules in force have no such route', hint: 'its `path` as in the file' }, 400) : json(this.memory(url.searchParams))
      case 'GET /uncached': return json(this.uncached())
      case 'POST /purge': return json(this.purge(body))
      case 'POST /explain': return json(this.explain(body))
      case 'POST /reload': return json(this.reload(), this.config.error ? 422 : 200)
      case 'GET /events':
        response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
        response.write(': events\n\n' + this.events.slice(-Number(url.searchParams.get('last') ?? 0)).map((event) => this.line(event)).join(''))
        this.streams.add(response)
        return response.on('close', () => this.streams.delete(response))
      case 'GET /tail':
        this.tailed.push(url.search)
        response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
        response.write(': tail\n\n')
        this.tails.set(response, url.searchParams)
        return response.on('close', () => this.tails.delete(response))
      default: return json({ error: 'unknown path', pages: Object.keys(FILES) }, 404)
    }
  }
}

// Serves it until `close` is called. `moves`: whether its numbers move by themselves.
export async function serve (mock, { port = 0, moves = true } = {}) {
  const server = http.createServer(async (request, response) => {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    mock.answer(request, response, chunks.length ? JSON.parse(Buffer.concat(chunks)) : null)
  })
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve))
  const isQuiet = !moves || ['idle', 'empty'].includes(mock.state)
  const timers = isQuiet ? [] : [setInterval(() => mock.step(0.25), 250), setInterval(() => mock.traffic(), 500), setInterval(() => mock.write(), 2300)]
  const close = () => {
    timers.forEach(clearInterval)
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  }
  return { url: `http://127.0.0.1:${server.address().port}/`, port: server.address().port, close }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { state: { type: 'string', default: 'busy' }, port: { type: 'string', default: '9191' } } })
  if (!STATES.includes(values.state)) {
    process.stderr.write(`usage: tests/dashboard/mock.mjs [--state ${STATES.join('|')}] [--port PORT]\n`)
    process.exit(64)
  }
  const { url } = await serve(new Mock(values.state), { port: Number(values.port) })
  process.stdout.write(`${url}\n`)
}
