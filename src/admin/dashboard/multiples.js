// The small charts over the same time: latency, memory, evictions, Redis, failures, bytes.

import { buildChart, ceiling, ceilingOfBytes, cross, drawMarks, fit, frame } from './axis.js'
import { bytes, milliseconds, rate } from './numbers.js'
import { $, NONE, put, set, stamp } from './page.js'
import { state } from './state.js'
import { segments, slotsOf } from './timeline.js'

const per = (ms) => (counts) => (series, at) => counts[at] === null ? null : counts[at] * ms / series.covered_ms[at]
const [perSecond, perMinute] = [per(1000), per(60_000)]
const plain = (values) => (_, at) => values[at]
const size = (n) => n === null ? NONE : bytes(Math.round(n))
const frequency = (n) => n === null ? NONE : rate(n)

// Each with its lines: a name, and how a slot's number is read.
const CHARTS = [
  { name: 'hit', title: 'Latency, cached', write: milliseconds, top: (n) => ceiling(n, 0.1), lines: (s) => [['p50', plain(s.latency_ms.hit.p50)], ['p95', plain(s.latency_ms.hit.p95)]] },
  { name: 'app', title: 'Latency, origin', write: milliseconds, top: (n) => ceiling(n), lines: (s) => [['p50', plain(s.latency_ms.app.p50)], ['p95', plain(s.latency_ms.app.p95)]] },
  { name: 'failures', title: 'Failures per minute', write: frequency, top: (n) => ceiling(n), lines: (s) => [['no answer from the app', perMinute(s.app_failures)], ['5xx to clients', perMinute(s.server_errors)]] },
  { name: 'redis', title: 'Redis round trip', write: milliseconds, top: (n) => ceiling(n, 0.1), lines: (s) => [['mean', plain(s.redis_ms)]], isHidden: (s) => !state.stats?.redis && s.redis_ms.every((ms) => ms === null) },
  { name: 'memory', title: 'Memory', write: size, top: ceilingOfBytes, lines: (s) => [['entries', plain(s.memory.bytes)]] },
  { name: 'evictions', title: 'Evictions per second', write: frequency, top: (n) => ceiling(n), lines: (s) => [['entries', perSecond(s.memory.evictions)]] },
  { name: 'bytes', title: 'Bodies per second', write: size, top: ceilingOfBytes, lines: (s) => [['from the cache', perSecond(s.bytes.cache)], ['from the origin', perSecond(s.bytes.app)]] }
]

const built = []

export function buildMultiples (follow) {
  for (const chart of CHARTS) {
    const parts = stamp('t-multiple')
    parts.root.id = `multiple-${chart.name}`
    put(parts.title, chart.title)
    const drawn = buildChart(parts.svg, ['line line-1', 'line line-2'], follow)
    $('multiples').append(parts.root)
    built.push({ ...chart, parts, drawn, legend: [] })
  }
}

function legend (chart, names) {
  if (chart.legend.length === names.length) return
  chart.legend = names.map((name, at) => {
    const parts = stamp('t-legend')
    parts.swatch.classList.add(`line-${at + 1}`)
    put(parts.kind, name)
    chart.parts.legend.append(parts.root)
    return parts.value
  })
}

// `at`: the time under the pointer.
export function showMultiples (time, marks, at) {
  const { data } = state.history
  $('multiples').hidden = !data
  if (!data) return
  const slots = slotsOf(data)
  for (const chart of built) {
    chart.parts.root.hidden = chart.isHidden?.(data.series) ?? false
    if (!chart.parts.root.hidden && fit(chart.drawn, time)) draw(chart, slots, data.series, time, marks, at)
  }
}

function draw (chart, slots, series, time, marks, at) {
  const lines = chart.lines(series).map(([name, read]) => [name, pointsOf(slots, series, read, time)])
  legend(chart, lines.map(([name]) => name))
  const most = Math.max(0, ...lines.flatMap(([, points]) => points.map((point) => point.value)))
  const top = chart.top(most)
  const { x, y } = chart.drawn.scale
  frame(chart.drawn, ['0', chart.write(top / 2), chart.write(top)], time)
  lines.forEach(([, points], n) => {
    const path = segments(points).map((part) => `M${part.map((one) => `${x(one.at).toFixed(1)} ${y(top)(one.value).toFixed(1)}`).join('L')}`).join('')
    set(chart.drawn.paths[n], 'd', path)
    put(chart.legend[n], at === null ? chart.write(points.at(-1)?.value ?? null) : numberAt(chart, points, at))
  })
  drawMarks(chart.drawn, marks, time, false)
  cross(chart.drawn, at)
  const told = lines.map(([name, points]) => points.length ? `${name} latest ${chart.write(points.at(-1).value)}, highest ${chart.write(Math.max(...points.map((one) => one.value)))}` : `${name}: none`)
  set(chart.drawn.svg, 'aria-label', `${chart.title}: ${told.join('; ')}.`)
}

function pointsOf (slots, series, read, { from, end }) {
  const points = slots.filter((slot) => slot.known && slot.until > from && slot.from < end)
  return points.map((slot) => ({ at: Math.min(end, Math.max(from, (slot.from + slot.until) / 2)), step: slot.until - slot.from, value: read(series, slot.at) })).filter((point) => point.value !== null)
}

function numberAt (chart, points, at) {
  const near = points.find((point) => Math.abs(point.at - at) <= point.step / 2)
  return near ? chart.write(near.value) : NONE
}
