// The top, the alerts, the tiles and the state.

import { all, bytes, count, milliseconds, moment, ownPages, percent, plural, rate, ratioOf, ratioOfAll, span, zone } from './numbers.js'
import { $, banner, clean, fileOf, fill, NONE, onChange, put, set } from './page.js'
import { justNow, lately } from './recent.js'
import { reload } from './reload.js'
import { samplePath } from './routes.js'
import { findingsOf, state } from './state.js'

export function showTop (stats) {
  const { status } = stats.ready
  set($('status'), 'data-state', status)
  put($('status'), { ready: 'Ready', degraded: 'Degraded', unready: 'Not ready' }[status] ?? status)
  set($('link'), 'data-state', 'live')
  put($('link'), 'Live')
  put($('version'), stats.commit ? `${clean(stats.version)} (${clean(stats.commit).slice(0, 12)})` : clean(stats.version))
  put($('events-zone'), zone())
  put($('top-config'), `${fileOf(stats)}, ${stats.config.loads > 1 ? 'reloaded' : 'loaded'} ${moment(stats.config.loaded_ms)}`)
  const title = stats.config.error ? 'Reload failed · Sidecache' : status === 'ready' ? 'Sidecache' : `${$('status').textContent} · Sidecache`
  if (document.title !== title) document.title = title
}

export function showAlerts (stats) {
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
  // Little, or a small part of what hits send, is not worth a note.
  const missed = stats.compress.missed_bytes
  const pays = missed > 10 * 1024 * 1024 && missed > stats.totals.bytes_from_cache / 5
  onChange('notes', [mode, config.restart_needed, unseen, pays], () => {
    const place = $('alert-notes')
    const notes = []
    if (mode === 'off') notes.push('The cache is switched off for all routes (mode = "off"): every request goes to the origin.')
    if (mode === 'shadow') notes.push('All routes are in shadow mode: every request goes to the origin, and what the cache would have done is reported below.')
    if (config.restart_needed.length) notes.push(`Changed in the file, but a restart is needed for: ${config.restart_needed.join(', ')}.`)
    if (unseen.length) notes.push(`None of ${count(requests)} requests with cookies has carried ${unseen.join(', ')} of [credential]: is the name right?`)
    if (pays) notes.push(`About ${bytes(missed)} of hits went out uncompressed to clients that accept gzip, br or zstd: with [compress] they take a fraction of that.`)
    place.replaceChildren()
    if (notes.length) banner(place, 'warn', notes[0], { list: notes.slice(1) })
  })
}

export function showTiles (stats) {
  const { totals } = stats
  const minute = lately(60_000)
  const seconds = Math.round(minute.ms / 1000)
  put($('ratio-span'), seconds === 0 || Math.abs(seconds - 60) < 8 ? 'last minute' : `last ${span(seconds)}`)
  put($('ratio-minute'), percent(ratioOf(minute.counts)))
  put($('ratio-start'), percent(totals.hit_ratio))
  put($('ratio-all-minute'), percent(ratioOfAll(minute.counts)))
  put($('ratio-all-start'), percent(totals.hit_ratio_all))
  const now = justNow(5500)
  put($('rps'), now ? rate(all(now.counts) * 1000 / now.ms) : NONE)
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

// Where there are several apps, each but that of [upstream] has a name.
function appState (app) {
  const name = app.name ? `${clean(app.name)}: ` : ''
  if (app.why) return `${name}Fails since ${moment(app.since_ms)}, ${plural(app.failures, 'request')} failed: ${clean(app.why)}. What to do: ${clean(app.advice)}`
  return `${name}${app.answers ? 'Answers' : 'Not asked yet,'} at ${clean(app.address)}`
}

const HEARING = { listening: 'listens', receiving: 'receives' }
const source = (one) => HEARING[one.state]
  ? `${clean(one.name)} ${HEARING[one.state]}: ${plural(one.events, 'event')}, ${plural(one.purged_tags, 'tag')} purged`
  : `${clean(one.name)} is ${one.state}${one.why ? `: ${clean(one.why)}` : ''}`

// Who is told of purges.
const receiver = (one) => one.why
  ? `${clean(one.name)} is not told, ${plural(one.waiting, 'tag')} wait: ${clean(one.why)}`
  : `${clean(one.name)} was told of ${plural(one.tags, 'tag')}${one.waiting ? `, ${count(one.waiting)} wait` : ''}`

export function showState (stats) {
  const { redis, memory, totals, config } = stats
  const { audited, stale } = findingsOf(stats)
  const apps = [stats.app, ...stats.apps]
  put($('app-state'), apps.map(appState).join('. '))
  put($('redis-state'), redis === null ? 'None: entries are in memory only' : redis.state === 'shared' ? 'Shared' : `Degraded${redis.why ? `: ${clean(redis.why)}` : ''}`)
  for (const node of document.querySelectorAll('.redis-only')) node.hidden = redis === null
  if (redis) {
    put($('redis-lease'), redis.lease ? 'Held: memory hits need no Redis' : 'Not held: each hit asks Redis')
    put($('redis-peers'), redis.peers === 0 ? 'None' : plural(redis.peers, 'sidecar'))
    put($('redis-journal'), redis.journal === 0 ? 'Empty' : `${plural(redis.journal, 'purge')} not in Redis yet`)
  }
  const sources = stats.sources ?? []
  for (const node of document.querySelectorAll('.sources-only')) node.hidden = sources.length === 0
  put($('sources'), sources.map(source).join('; '))
  const receivers = stats.notify ?? []
  for (const node of document.querySelectorAll('.notify-only')) node.hidden = receivers.length === 0
  put($('notify'), receivers.map(receiver).join('; '))
  const isOff = memory.limit_bytes === 0
  const used = isOff ? 0 : memory.bytes / memory.limit_bytes
  put($('memory'), isOff ? 'Off' : `${bytes(memory.bytes)} of ${bytes(memory.limit_bytes)}`)
  $('memory-bar').hidden = isOff
  set($('memory-bar'), 'data-level', used > 0.9 ? 'high' : 'fine')
  fill($('memory-bar'), used)
  put($('entries'), `${count(memory.entries)}, ${plural(memory.evictions, 'eviction')}`)
  put($('bytes'), `${bytes(totals.bytes_from_cache)} from the cache, ${bytes(totals.bytes_from_app)} from the origin${ownPages(totals)}`)
  put($('mode'), { on: 'On', off: 'Off: everything goes to the origin', shadow: 'Shadow: everything goes to the origin' }[stats.mode] ?? stats.mode)
  put($('uptime'), span(stats.uptime_s < 1 ? 1 : Math.floor(stats.uptime_s)))
  put($('config-loaded'), `${clean(config.file ?? 'no file')}, ${moment(config.loaded_ms)}${config.loads > 1 ? `, loaded ${config.loads} times` : ''}`)
  put($('audited'), audited === 0 ? 'None' : `${count(audited)}, ${count(stale)} stale`)
}
