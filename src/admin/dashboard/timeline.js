// What the charts show: the slots of the server's history and, for the last five minutes, the samples of this page.

import { KINDS, ratioOf } from './numbers.js'
import { difference, earlier, HISTORY_MS, state } from './state.js'

export const LIVE = '5m'
const LEAST_MS = 60_000
// Two samples that are further apart have a pause of the page between them, which the server's history fills.
const PAUSE_MS = 3500

// The slots as objects, with their times; those without numbers have `known: false`.
export function slotsOf (data) {
  const { series, from_ms: from, step_ms: step } = data
  return series.covered_ms.map((covered, at) => ({ at, from: from + at * step, until: from + (at + 1) * step, covered, known: covered !== null }))
}

const countsOf = (data, at) => Object.fromEntries(KINDS.map((kind) => [kind, data.series.requests[kind][at]]))

function pastPoints (data) {
  const rates = (at, covered) => Object.fromEntries(KINDS.map((kind) => [kind, data.series.requests[kind][at] * 1000 / covered]))
  return slotsOf(data).filter((slot) => slot.known).map(({ at, from, until, covered }) => (
    { at: (from + until) / 2, step: until - from, rates: rates(at, covered), counts: countsOf(data, at), ratio: data.series.hit_ratio.cacheable[at], slot: at }))
}

function livePoints () {
  const { samples } = state
  const points = samples.map((one, at) => ({ at: one.at, step: at ? one.at - samples[at - 1].at : 0, rates: one.rates, ratio: one.rates && ratioAt(one, at) }))
  return points.filter((point) => point.rates && point.step <= PAUSE_MS)
}

// The curve averages over ten seconds, because single seconds vary too much.
const ratioAt = (one, at) => ratioOf(difference(one, earlier(10_500, at)))

// The points with numbers, in order, and the time that the axis spans. `null`: nothing is known yet.
export function timeline () {
  const { data, range } = state.history
  const past = data ? pastPoints(data) : []
  if (range !== LIVE) return data && { from: data.from_ms, end: data.from_ms + data.slots * data.step_ms, points: past, isLive: false }
  const live = livePoints()
  const isSeen = ({ at, step }) => live.some((point) => point.at > at - step / 2 && point.at <= at + step / 2)
  const points = [...past.filter((point) => !isSeen(point)), ...live].sort((one, other) => one.at - other.at)
  if (!points.length) return null
  const end = Math.max(state.samples.at(-1)?.at ?? 0, points.at(-1).at)
  // The axis grows with the first minutes of a sidecar.
  const first = Math.max(end - HISTORY_MS, Math.min(points[0].at - points[0].step / 2, end - LEAST_MS))
  return { from: first, end, points: points.filter((point) => point.at >= first), isLive: true }
}

// Points without a gap between them.
export function segments (points) {
  const parts = []
  for (const point of points) {
    const before = parts.at(-1)?.at(-1)
    const isNext = before && point.at - before.at <= Math.max(PAUSE_MS, 1.6 * Math.max(point.step, before.step))
    if (isNext) parts.at(-1).push(point)
    else parts.push([point])
  }
  // A point alone is as wide as the time that it stands for.
  return parts.map((part) => part.length > 1 ? part : [{ ...part[0], at: part[0].at - part[0].step / 2 }, { ...part[0], at: part[0].at + part[0].step / 2 }])
}
