// Events, streamed while the page is visible.

import { count, plural, span, time } from './numbers.js'
import { $, clean, make, put, set, stamp } from './page.js'
import { BACK_OFF_MS, poll } from './polling.js'

const MAX_EVENTS = 100
const REPLAY = 50

const events = { refused: null, source: null, seen: new Set(), waiting: [], timer: 0, failures: 0 }

export function openEvents () {
  clearTimeout(events.timer)
  if (events.source || document.hidden) return
  events.source = new EventSource(`events?last=${REPLAY}`)
  events.source.addEventListener('open', () => {
    events.failures = 0
    put($('events-state'), '')
  })
  for (const kind of ['purge', 'reload', 'state', 'finding', 'mode']) {
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

export function closeEvents () {
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
  for (const event of fresh.slice(-MAX_EVENTS)) if (!isRepeated(event)) list.prepend(eventLine(event))
  while (list.children.length > MAX_EVENTS) list.lastElementChild.remove()
  $('no-events').hidden = list.children.length > 0
  // Update the numbers at once.
  if (fresh.some((event) => ['reload', 'state', 'mode'].includes(event.kind))) poll()
}

// The same file refused again for the same reason is one event: its line tells how often, and when last.
function isRepeated (event) {
  if (event.kind !== 'reload') return false
  const { refused } = events
  if (event.ok || refused?.error !== event.error || !refused.parts.root.isConnected) {
    events.refused = null
    return false
  }
  refused.times += 1
  put(refused.parts.kind, `reload failed, ${refused.times} times`)
  stampTime(refused.parts, event)
  $('events').prepend(refused.parts.root)
  return true
}

function stampTime ({ time: node }, event) {
  put(node, time(event.at_ms))
  node.dateTime = new Date(event.at_ms).toISOString()
}

function eventLine (event) {
  const parts = stamp('t-event')
  stampTime(parts, event)
  const { label, tone = '', text, tags = [], more = 0 } = EVENT_WORDS[event.kind](event)
  put(parts.kind, label)
  set(parts.kind, 'data-tone', tone)
  put(parts.text, clean(text))
  for (const tag of tags) parts.chips.append(make('code', clean(tag)))
  if (more) parts.chips.append(`and ${count(more)} more`)
  if (event.kind === 'reload' && !event.ok) events.refused = { error: event.error, times: 1, parts }
  return parts.root
}

const EVENT_WORDS = {
  purge: (e) => ({
    label: e.soft ? 'soft purge' : 'purge',
    text: [e.by === 'admin' ? 'admin' : e.by === 'source' ? `source ${e.source}` : [e.method, e.path].filter(Boolean).join(' '), e.everything ? 'everything' : ''].filter(Boolean).join(': '),
    tags: e.everything ? [] : e.tags,
    more: e.more_tags
  }),
  reload: (e) => e.ok
    ? { label: 'reload', tone: 'good', text: e.changes ? plural(e.changes, 'change') : 'nothing changed' }
    : { label: 'reload failed', tone: 'bad', text: e.error ?? '' },
  state: (e) => ({ label: e.status, tone: { ready: 'good', degraded: 'warn' }[e.status] ?? 'bad', text: e.reasons.join('; ') }),
  finding: (e) => ({ label: `finding: ${e.finding}`, tone: 'warn', text: `${e.route}: ${e.text}` }),
  mode: (e) => ({
    label: e.change === 'set' ? `switched ${e.mode}` : 'switch ended',
    tone: e.change === 'set' ? 'warn' : 'good',
    text: `${e.by}: ${e.route ?? 'all routes'}${e.change === 'set' ? ` for ${span(e.left_s)}` : `, ${e.mode}`}`
  })
}
