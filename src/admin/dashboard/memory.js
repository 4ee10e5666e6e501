// What this process's memory holds, by tag, route or path. Nothing is asked for until somebody opens the card: each list is a search over all entries.

import { ask } from './api.js'
import { bytes, count, plural, span } from './numbers.js'
import { $, clean, complain, make, put, set, stamp } from './page.js'
import { askPurge } from './purge.js'

const SLICE = 50
// More rows than this would make the page slow. Whoever wants more narrows the search down, or takes `sidecache ls`.
const MOST_ROWS = 1000
const STATES = { fresh: 'good', stale: 'warn', 'soft purged': 'warn', 'write pending': 'warn', purged: 'bad', expired: 'bad' }

// The search whose next slice the button asks for, and the number of the latest search: an answer to an earlier one is dropped.
const search = { query: null, next: null, latest: 0 }

// Opens the card with a tag, a route, or all.
export function browse (by = 'all', name = '') {
  const { elements } = $('memory-form')
  elements.by.value = by
  elements.name.value = name
  elements.path.value = ''
  chooseBy()
  $('memory-card').hidden = false
  $('h-memory').scrollIntoView()
  $('h-memory').focus()
  look()
}

export function chooseBy () {
  const { by, name } = $('memory-form').elements
  $('memory-name').hidden = by.value === 'all'
  put($('memory-label'), by.value === 'route' ? 'Route, as in proxy.toml' : 'Tag')
  if (by.value === 'all') name.value = ''
}

export function closeMemory () {
  search.latest += 1
  $('memory-card').hidden = true
  $('memory-rows').replaceChildren()
  $('browse').focus()
}

// Looks for what the form says, from the beginning.
export function look () {
  const { by, name, path, order } = $('memory-form').elements
  complain('memory-error', name, '')
  if (by.value !== 'all' && !name.value.trim()) return complain('memory-error', name, by.value === 'tag' ? 'Which tag?' : 'Which route?')
  const query = new URLSearchParams({ order: order.value, limit: SLICE })
  if (by.value !== 'all') query.set(by.value, name.value.trim())
  if (path.value.trim()) query.set('path', path.value.trim())
  search.query = query
  list(query, true)
}

export function lookFurther () {
  const query = new URLSearchParams(search.query)
  query.set('after', search.next)
  list(query, false)
}

async function list (query, isFirst) {
  const number = search.latest += 1
  const isLatest = () => number === search.latest
  $('memory-more').disabled = true
  set($('memory-card'), 'aria-busy', true)
  try {
    const listed = await ask(`memory?${query}`)
    if (isLatest()) show(listed, isFirst)
  } catch (error) {
    if (isLatest()) complain('memory-error', null, `The memory cannot be shown: ${error.message}`)
  }
  if (!isLatest()) return
  set($('memory-card'), 'aria-busy', false)
  $('memory-more').disabled = false
}

function show ({ entries, matched, next, complete, looked_at: seen }, isFirst) {
  const rows = $('memory-rows')
  if (isFirst) rows.replaceChildren()
  rows.append(...entries.map(build))
  search.next = next
  const shown = rows.childElementCount
  const isFull = next !== null && shown >= MOST_ROWS
  $('memory-scroll').hidden = shown === 0
  $('memory-more').hidden = next === null || isFull
  const states = Object.entries(matched.states).filter(([, n]) => n > 0).map(([state, n]) => `${state} ${count(n)}`)
  const told = [
    `${count(shown)} of ${plural(matched.entries, 'entry', 'entries')} shown, ${bytes(matched.bytes)}${states.length ? `: ${states.join(', ')}` : ''}.`,
    complete ? '' : `The search took too long and ended after ${count(seen)} entries: there may be others.`,
    isFull ? 'Narrow the search down to see others.' : ''
  ]
  put($('memory-summary'), clean(told.filter(Boolean).join(' ')))
}

function build (entry) {
  const row = stamp('t-memory')
  const query = entry.query.map((name) => name === '…' ? name : `${name}=…`).join('&')
  const path = clean(`${entry.host}${entry.path}${query ? `?${query}` : ''}`)
  put(row.path, path)
  put(row.about, clean([entry.status === 200 ? '' : entry.status, entry.scope ?? '', entry.credential ? `caller ${entry.credential}` : '', entry.route === null ? 'no route finds it' : '', entry.varies_by.length ? `varies by ${entry.varies_by.join(', ')}` : ''].filter(Boolean).join(' · ')))
  put(row.state, clean(entry.state))
  set(row.state, 'data-tone', STATES[entry.state] ?? '')
  put(row.age, span(entry.age_s))
  put(row.ttl, entry.ttl_s < 0 ? `−${span(-entry.ttl_s)}` : span(entry.ttl_s))
  put(row.size, bytes(entry.bytes))
  put(row.hits, count(entry.hits))
  row.tags.append(...entry.tags.flatMap((tag) => [make('code', clean(tag)), ' ']))
  if (entry.more_tags) row.tags.append(`and ${count(entry.more_tags)} more`)
  row.purge.hidden = entry.url === null
  row.purge.setAttribute('aria-label', `Purge ${path}`)
  row.purge.addEventListener('click', () => askPurge({ urls: [entry.url] }))
  return row.root
}

export function wireMemory () {
  const form = $('memory-form')
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    look()
  })
  form.elements.by.addEventListener('change', chooseBy)
  $('browse').addEventListener('click', () => browse())
  $('memory-more').addEventListener('click', lookFurther)
  $('memory-close').addEventListener('click', closeMemory)
}
