// All sidecars that share a Redis: who they are, what each does, and what all do together.

import { askWhileShown, Refused } from './api.js'
import { all, bytes, count, milliseconds, percent, plural, rate, ratioOf, span, KINDS } from './numbers.js'
import { $, banner, clean, keyed, NONE, onChange, put, set, stamp } from './page.js'

// Each sidecar tells its numbers every five seconds.
const PEERS_MS = 2500
// Text is of other processes, and a page need not show more of it than it has room for.
const MAX_TEXT = 160

const TONES = { ready: 'good', degraded: 'warn', unready: 'bad' }

let askedAt = -Infinity

const cut = (text) => {
  const shown = clean(text)
  return shown.length > MAX_TEXT ? `${shown.slice(0, MAX_TEXT)}…` : shown
}

// Asks for the sidecars from time to time, where there can be others.
export async function pollPeers (stats) {
  if (stats.redis === null) return hide()
  if (performance.now() - askedAt < PEERS_MS) return
  askedAt = performance.now()
  try {
    showPeers(await askWhileShown('peers'))
  } catch (error) {
    // The rest of the page does not depend on it. A sidecar that does not respond is seen by the others.
    if (!(error instanceof Refused)) throw error
    hide()
  }
}

function hide () {
  $('sidecars').hidden = true
  $('alert-peers').replaceChildren()
}

export function showPeers (peers) {
  const { sidecars, silent, unreadable, notes, why } = peers
  onChange('peers', notes, () => {
    const place = $('alert-peers')
    place.replaceChildren()
    const [first, ...rest] = notes.map(cut)
    if (first) banner(place, 'warn', first.charAt(0).toUpperCase() + first.slice(1), { list: rest })
  })
  const live = sidecars.filter((one) => !one.silent)
  $('sidecars').hidden = sidecars.length < 2
  put($('sidecars-count'), `${plural(live.length, 'sidecar')}${silent ? `, ${count(silent)} silent` : ''}`)
  const remarks = [why && cut(why), unreadable && `${plural(unreadable, 'value')} in Redis, in the place of summaries, that no sidecar wrote.`].filter(Boolean)
  put($('sidecars-why'), remarks.join(' '))
  const table = $('sidecars-table')
  keyed(table, sidecars, (one) => one.id, () => stamp('t-sidecar'), showSidecar)
  showTotals(live)
}

function showSidecar (row, one) {
  put(row.name, cut(one.name))
  put(row.where, one.this ? 'this sidecar' : one.silent ? `last heard ${span(one.age_s)} ago` : `up for ${span(Math.max(1, Math.floor(one.uptime_s)))}`)
  const status = one.silent ? 'silent' : one.mode === 'on' ? one.status : `${one.status}, ${one.mode}`
  put(row.status, cut(status))
  set(row.status, 'data-tone', one.silent ? 'bad' : one.mode === 'on' ? TONES[one.status] ?? '' : 'warn')
  put(row.reasons, one.silent ? '' : one.reasons.map(cut).join('; '))
  put(row.version, cut(one.version))
  set(row.version, 'data-tone', one.differs.includes('version') ? 'warn' : '')
  put(row.rate, one.silent ? NONE : rate(one.per_second))
  put(row.ratio, percent(one.hit_ratio))
  put(row.hit, milliseconds(one.latency.hit?.p50_ms))
  put(row.app, milliseconds(one.latency.app?.p50_ms))
  const { memory } = one
  put(row.memory, memory.limit_bytes === 0 ? 'off' : `${bytes(memory.bytes)} of ${bytes(memory.limit_bytes)}`)
  const isSame = !one.differs.includes('rules')
  put(row.rules, isSame ? 'same' : 'different')
  set(row.rules, 'data-tone', isSame ? '' : 'warn')
  row.rules.title = `digest ${clean(one.rules.digest)}, in force for ${span(Math.max(1, Math.floor(one.rules.age_s)))}`
}

// What all that are not silent do together. Silent ones count for nothing: what they did is in the numbers of nobody.
function showTotals (live) {
  const sum = (read) => live.reduce((total, one) => total + read(one), 0)
  const requests = Object.fromEntries(KINDS.map((kind) => [kind, sum((one) => one.requests[kind])]))
  put($('sidecars-rate'), rate(sum((one) => one.per_second)))
  put($('sidecars-ratio'), percent(ratioOf(requests)))
  put($('sidecars-requests'), count(all(requests)))
  put($('sidecars-memory'), bytes(sum((one) => one.memory.bytes)))
  put($('sidecars-saved'), bytes(sum((one) => one.bytes_from_cache)))
}
