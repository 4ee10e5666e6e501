// The range of the charts: picks it, and fetches the server's history of it, so that a page that is opened late is full at once.

import { ask, askWhileShown, Resting } from './api.js'
import { showCharts } from './charts.js'
import { moment } from './numbers.js'
import { $, clean, put } from './page.js'
import { state } from './state.js'

// Ranges with steps of seconds.
const FINE = ['5m', '1h']
// How often each range is fetched: its numbers change with its steps.
const EVERY_MS = { '5m': 5000, '1h': 10_000, '6h': 60_000, '24h': 60_000, '7d': 60_000 }

export function buildRanges () {
  for (const button of document.querySelectorAll('#ranges input')) {
    // A browser keeps what was chosen when the page is loaded again.
    if (button.checked) state.history.range = button.value
    button.addEventListener('change', () => pick(button.value))
  }
}

function pick (range) {
  state.history = { ...state.history, range, data: null }
  return fetchHistory(ask)
}

// After a restart there is a new history.
export function forgetHistory () {
  state.history = { ...state.history, data: null, recent: null, fetchedAt: -Infinity }
}

// Called with each poll.
export async function pollHistory () {
  // For the tiles, which a page that has just been opened has no numbers of its own for.
  if (!state.history.recent && !FINE.includes(state.history.range)) {
    try {
      state.history.recent = await askWhileShown('history?range=5m')
    } catch (error) {
      if (error instanceof Resting) throw error
      // The range that was picked tells of it.
    }
  }
  if (performance.now() - state.history.fetchedAt >= EVERY_MS[state.history.range]) await fetchHistory(askWhileShown)
}

async function fetchHistory (by) {
  const { range } = state.history
  const before = state.history.fetchedAt
  state.history.fetchedAt = performance.now()
  let failure = ''
  let data = null
  try {
    data = await by(`history?range=${range}`)
  } catch (error) {
    if (error instanceof Resting) {
      state.history.fetchedAt = before
      throw error
    }
    // The next poll tells of a lost connection.
    failure = `The history could not be fetched: ${clean(error.message)}.`
  }
  // Another range was picked meanwhile.
  if (range !== state.history.range) return
  if (data) state.history.data = data
  if (data && FINE.includes(range)) state.history.recent = data
  put($('chart-note'), failure || noteOf(state.history.data))
  showCharts()
}

function noteOf (data) {
  return data && data.started_ms > data.from_ms ? `There are no numbers from before the start of this process, ${moment(data.started_ms)}.` : ''
}
