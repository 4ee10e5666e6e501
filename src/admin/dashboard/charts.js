// The charts of requests and of the hit ratio, five areas and a curve, and the small ones below them.

import { buildChart, ceiling, cross, drawMarks, drawStates, fit, frame, markTitle, when, zone } from './axis.js'
import { showMarks } from './marks.js'
import { buildMultiples, showMultiples } from './multiples.js'
import { all, KINDS, moment, percent, rate, span } from './numbers.js'
import { $, put, set, stamp } from './page.js'
import { state } from './state.js'
import { showChartTable } from './table.js'
import { segments, slotsOf, timeline } from './timeline.js'

const DESCRIBE_MS = 10_000
// How near to the pointer a mark is told, in pixels.
const NEAR = 6

const charts = { rates: null, ratio: null, legend: new Map(), at: null, end: 0 }

export function buildCharts () {
  for (const kind of KINDS) {
    const parts = stamp('t-legend')
    parts.swatch.classList.add(`is-${kind}`)
    put(parts.kind, kind)
    charts.legend.set(kind, parts.value)
    $('legend').append(parts.root)
  }
  const follow = (at) => {
    charts.at = at
    showCharts()
  }
  charts.rates = buildChart($('chart-rates'), KINDS.map((kind) => `area is-${kind}`), follow)
  charts.ratio = buildChart($('chart-ratio'), ['curve'], follow)
  buildMultiples(follow)
  put($('chart-zone'), `Times are in this browser's zone, ${zone()}.`)
  new ResizeObserver(() => showCharts()).observe($('chart-rates'))
  $('chart-table').addEventListener('toggle', () => showChartTable())
}

export function showCharts () {
  const time = timeline()
  const { data } = state.history
  $('chart-empty').hidden = time !== null && time.points.length > 0
  if (!time || !fit(charts.rates, time) || !fit(charts.ratio, time)) return
  const marks = data?.events ?? []
  const most = ceiling(Math.max(0, ...time.points.map((one) => all(one.rates))))
  frame(charts.rates, [0, most / 2, most].map(String), time)
  frame(charts.ratio, ['0 %', '50 %', '100 %'], time)
  const { scale } = charts.rates
  drawAreas(segments(time.points), scale.x, scale.y(most))
  set(charts.ratio.paths[0], 'd', curve(time.points, charts.ratio.scale.x, charts.ratio.scale.y(1)))
  drawMarks(charts.rates, marks, time, true)
  drawMarks(charts.ratio, marks, time, false)
  drawStates(charts.rates, statesOf(data, time))
  const at = charts.at === null ? null : Math.min(time.end, Math.max(time.from, charts.at))
  showMoment(time, marks, at)
  showMultiples(time, marks, at)
  describe(time)
}

function drawAreas (parts, x, y) {
  const paths = KINDS.map(() => '')
  for (const points of parts) {
    let floor = points.map(() => 0)
    KINDS.forEach((kind, at) => {
      const roof = points.map((one, i) => floor[i] + one.rates[kind])
      const line = (levels) => points.map((one, i) => `${x(one.at).toFixed(1)} ${y(levels[i]).toFixed(1)}`)
      const isEmpty = roof.every((level, i) => level === floor[i])
      if (!isEmpty) paths[at] += `M${line(roof).join('L')}L${line(floor).reverse().join('L')}Z`
      floor = roof
    })
  }
  KINDS.forEach((_, at) => set(charts.rates.paths[at], 'd', paths[at]))
}

// Leaves a gap where there is no ratio, and where there are no numbers.
function curve (points, x, y) {
  const known = points.filter((one) => one.ratio !== null)
  return segments(known).map((part) => `M${part.map((one) => `${x(one.at).toFixed(1)} ${y(one.ratio).toFixed(1)}`).join('L')}`).join('')
}

// The times in which the sidecar was not ready.
function statesOf (data, { from, end }) {
  const states = []
  for (const slot of data ? slotsOf(data) : []) {
    const status = data.series.status[slot.at]
    if (status === null || status === 'ready' || slot.until <= from || slot.from >= end) continue
    const last = states.at(-1)
    if (last?.status === status && last.until === slot.from) last.until = slot.until
    else states.push({ status, from: slot.from, until: slot.until })
  }
  return states
}

// The numbers beside the chart: the latest ones, or those at the pointer.
function showMoment (time, marks, at) {
  const last = time.points.at(-1)
  if (!last) return
  const nearest = (best, one) => Math.abs(one.at - at) < Math.abs(best.at - at) ? one : best
  const near = at === null ? last : time.points.reduce(nearest, last)
  // In a gap there is nothing to tell.
  const one = at !== null && Math.abs(near.at - at) > Math.max(2000, near.step) ? null : near
  for (const kind of KINDS) put(charts.legend.get(kind), one ? rate(one.rates[kind]) : '–')
  put($('chart-ratio-now'), percent(one?.ratio ?? null))
  const { x } = charts.rates.scale
  const away = (mark) => Math.abs(x(mark.at_ms) - x(at))
  const mark = at === null ? null : marks.filter((one) => away(one) <= NEAR).sort((one, other) => away(one) - away(other))[0]
  const moment = at === null || near === last ? (time.isLive ? 'now' : 'latest') : when(one ? one.at : at, time)
  put($('chart-when'), mark ? markTitle(mark) : one ? moment : `${moment}: no numbers`)
  for (const chart of [charts.rates, charts.ratio]) cross(chart, at === null ? null : one ? one.at : at)
}

// The charts as text, for screen readers. Not a live region, and not updated each second.
function describe (time) {
  const { data, range } = state.history
  const key = `${range} ${time.isLive ? '' : data.now_ms}`
  if (state.describedAs === key && performance.now() - state.describedAt < DESCRIBE_MS) return
  state.describedAt = performance.now()
  state.describedAs = key
  const { points } = time
  const reach = span(Math.max(1, Math.round((time.end - time.from) / 1000)))
  const marks = (data?.events ?? []).length
  const events = marks ? ` ${marks === 1 ? '1 event is' : `${marks} events are`} listed below.` : ''
  if (points.length) {
    const last = points.at(-1)
    const peak = points.reduce((best, one) => all(one.rates) > all(best.rates) ? one : best)
    const parts = KINDS.map((kind) => `${kind} ${rate(last.rates[kind])}`).join(', ')
    const top = time.isLive ? '' : ` at ${moment(peak.at)}`
    set(charts.rates.svg, 'aria-label', `Requests per second over the last ${reach}: now ${rate(all(last.rates))} (${parts}), at most ${rate(all(peak.rates))}${top}.${events} The table below has the same numbers.`)
  } else set(charts.rates.svg, 'aria-label', `Requests per second over the last ${reach}: no numbers.`)
  const ratios = points.map((one) => one.ratio).filter((ratio) => ratio !== null)
  const extent = ratios.length ? `now ${percent(points.at(-1).ratio)}, lowest ${percent(Math.min(...ratios))}, highest ${percent(Math.max(...ratios))}` : 'no cacheable requests'
  set(charts.ratio.svg, 'aria-label', `Hit ratio over the last ${reach}: ${extent}.`)
  showChartTable()
  showMarks(data, time)
}
