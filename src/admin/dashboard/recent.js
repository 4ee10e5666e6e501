// What happened lately: from the samples of this page, and from the server's history for the time before the page was opened.

import { KINDS } from './numbers.js'
import { difference, earlier, state } from './state.js'
import { slotsOf } from './timeline.js'

// Rates of a shorter time vary too much.
const LEAST_MS = 2000
// A slot that ended longer ago tells nothing of now.
const OLDEST_MS = 15_000

const add = (one, other) => Object.fromEntries(KINDS.map((kind) => [kind, one[kind] + other[kind]]))

// The counts of the last `ms`, and how long they took. The history comes in whole slots, so that it may be a little less.
export function lately (ms) {
  const last = state.samples.at(-1)
  const first = earlier(ms)
  const own = { counts: difference(last, first), ms: last.at - first.at }
  return own.ms >= ms - LEAST_MS ? own : before(first.at, last.at - ms).reduce((sum, slot) => ({ counts: add(sum.counts, slot.counts), ms: sum.ms + slot.covered }), own)
}

// The requests of the last seconds, and how long they took; of the latest slot, while the page has no second sample.
export function justNow (ms) {
  const last = state.samples.at(-1)
  const first = earlier(ms)
  if (first !== last) return { counts: difference(last, first), ms: last.at - first.at }
  const slot = before(last.at, last.at - OLDEST_MS).at(-1)
  return slot ? { counts: slot.counts, ms: slot.covered } : null
}

// The slots of the history between these times, with numbers.
function before (until, from) {
  const data = state.history.recent
  if (!data) return []
  const known = slotsOf(data).filter((slot) => slot.known && slot.from >= from && slot.until <= until)
  return known.map((slot) => ({ ...slot, counts: Object.fromEntries(KINDS.map((kind) => [kind, data.series.requests[kind][slot.at]])) }))
}
