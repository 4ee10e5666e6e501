// Requests as they are answered, streamed while somebody looks: opened by a button, closed when the page is hidden.
//
// New lines come on top, and not while the list is in use, so that nothing moves under a pointer or away from the focus. The list is no live
// region: at 200 lines a second a screen reader would never end.

import { bytes, clock, count, milliseconds, plural } from './numbers.js'
import { $, clean, isInUse, make, onChange, put, set, stamp, word } from './page.js'
import { putReason } from './reasons.js'

const MAX_LINES = 200
// How many lines wait while the list is in use; the oldest are dropped.
const MAX_WAITING = 1000
const SHOW_MS = 250
const RETRY_MS = [1000, 2000, 4000, 8000, 15000]

const tail = { source: null, wanted: false, waiting: [], missed: 0, dropped: 0, timer: 0, retry: 0, failures: 0 }

export function wireTail () {
  const form = $('tail-form')
  form.addEventListener('submit', (event) => event.preventDefault())
  form.addEventListener('change', restart)
  $('tail-toggle').addEventListener('click', () => {
    tail.wanted = !tail.wanted
    if (tail.wanted) openTail()
    else pause('Paused')
    showToggle()
  })
  $('tail-clear').addEventListener('click', clear)
}

// Fills the list of routes, keeping what is chosen.
export function showTailRoutes (stats) {
  onChange('tail-routes', stats.routes.map((route) => route.path), (paths) => {
    const select = $('tail-form').elements.route
    const chosen = select.value
    select.replaceChildren(...[['', 'all'], ['none', 'without a route'], ...paths.map((path) => [path, clean(path)])].map(([value, text]) => {
      const option = make('option', text)
      option.value = value
      return option
    }))
    select.value = chosen
    // A route that is gone is not asked for any more.
    if (select.selectedIndex < 0) {
      select.value = ''
      restart()
    }
  })
}

export function openTail () {
  clearTimeout(tail.retry)
  if (!tail.wanted || tail.source || document.hidden) return
  const form = $('tail-form').elements
  const filters = ['route', 'disposition', 'path'].map((name) => [name, form[name].value.trim()]).filter(([, value]) => value !== '')
  put($('tail-state'), 'Connecting')
  const source = new EventSource(`tail?${new URLSearchParams(filters)}`)
  tail.source = source
  source.addEventListener('open', () => {
    tail.failures = 0
    put($('tail-state'), 'Live')
  })
  source.addEventListener('request', (message) => {
    tail.waiting.push(JSON.parse(message.data))
    if (tail.waiting.length > MAX_WAITING) {
      tail.waiting.shift()
      tail.dropped += 1
    }
    schedule()
  })
  source.addEventListener('missed', (message) => {
    const { more, lost } = JSON.parse(message.data)
    tail.missed += more + lost
    schedule()
  })
  source.addEventListener('error', () => {
    if (tail.source !== source) return
    put($('tail-state'), 'Interrupted; reconnecting')
    // A browser reconnects by itself, but not after a response that is not a stream.
    if (source.readyState !== EventSource.CLOSED) return
    closeTail()
    explain()
    tail.retry = setTimeout(openTail, RETRY_MS[Math.min(tail.failures, RETRY_MS.length - 1)])
    tail.failures += 1
  })
}

export function closeTail () {
  clearTimeout(tail.retry)
  tail.source?.close()
  tail.source = null
}

function pause (why) {
  closeTail()
  put($('tail-state'), why)
}

// Another filter is another list.
function restart () {
  closeTail()
  clear()
  openTail()
}

function clear () {
  Object.assign(tail, { waiting: [], missed: 0, dropped: 0 })
  $('tail-lines').replaceChildren()
  showCount()
}

// A browser does not tell why there is no stream, so that the likely cause is said.
function explain () {
  put($('tail-state'), 'No stream: the sidecar does not respond, refuses the filter, or has all readers that it may have. Trying again')
}

function schedule () {
  if (!tail.timer) tail.timer = setTimeout(show, SHOW_MS)
}

function show () {
  tail.timer = 0
  const list = $('tail-lines')
  if (isInUse($('tail-scroll'))) {
    showCount()
    return schedule()
  }
  const fresh = tail.waiting.splice(0)
  tail.missed += tail.dropped
  tail.dropped = 0
  for (const line of fresh.slice(-MAX_LINES)) list.prepend(row(line))
  while (list.children.length > MAX_LINES) list.lastElementChild.remove()
  showCount()
}

function showToggle () {
  put($('tail-toggle'), tail.wanted ? 'Pause' : 'Start')
  $('tail-clear').hidden = !tail.wanted && $('tail-lines').children.length === 0
}

function showCount () {
  const shown = $('tail-lines').children.length
  const waits = tail.waiting.length + tail.dropped
  const parts = [
    waits ? `${plural(waits, 'new line')}, shown when the pointer and the focus leave the list` : '',
    tail.missed ? `${count(tail.missed)} more were not sent: too many at once` : ''
  ]
  put($('tail-count'), parts.filter(Boolean).join('; '))
  $('tail-scroll').hidden = shown === 0
  $('no-tail').hidden = shown > 0
  showToggle()
}

function row (line) {
  const parts = stamp('t-tail')
  put(parts.time, clock.format(line.at_ms))
  parts.time.dateTime = new Date(line.at_ms).toISOString()
  word(parts.disposition, line.disposition)
  set(parts.mark, 'class', `swatch is-${line.disposition}`)
  put(parts.status, line.status)
  if (line.status >= 500) set(parts.status, 'data-tone', 'bad')
  put(parts.request, clean(`${line.method} ${line.path}`))
  putReason(parts.reason, line.reason)
  put(parts.subject, clean(line.subject ?? ''))
  put(parts.route, clean(line.route === 'none' ? 'no route' : line.route))
  put(parts.duration, milliseconds(line.duration_ms))
  put(parts.size, line.bytes === null ? '' : bytes(line.bytes))
  return parts.root
}
