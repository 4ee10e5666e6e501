// What the page knows: the latest statistics, and the samples of the last minutes.

import { KINDS } from './numbers.js'

export const POLL_MS = 1000
export const HISTORY_MS = 300_000

export const state = {
  stats: null, policies: new Map(), policiesOf: null, samples: [], failures: 0, timer: 0, busy: false, again: false, shadowAt: -Infinity, uncachedAt: -Infinity, uncachedOf: null, orderedAt: -Infinity, describedAt: -Infinity, describedAs: '',
  // `recent`: the last minutes, whatever the range.
  history: { range: '5m', data: null, recent: null, fetchedAt: -Infinity }
}

// The counts of shadow mode and audits; zero if neither is in use.
export function findingsOf ({ shadow }) {
  return { findings: shadow?.findings ?? 0, audited: shadow?.audited ?? 0, stale: shadow?.audited_stale ?? 0 }
}

// The counters at one time, and the rates since the sample before.
export function sample (stats, before) {
  const made = { at: stats.now_ms, total: stats.totals.requests, rates: null }
  if (before) made.rates = difference(made, before, (made.at - before.at) / 1000)
  return made
}

export function difference (later, earlier, by = 1) {
  return Object.fromEntries(KINDS.map((kind) => [kind, Math.max(0, later.total[kind] - earlier.total[kind]) / by]))
}

// The oldest sample at most `ms` before the one at this index, or else the one before it.
export function earlier (ms, at = state.samples.length - 1) {
  const { samples } = state
  const first = samples.findIndex((one) => one.at >= samples[at].at - ms)
  return samples[Math.max(0, Math.min(first, at - 1))]
}
