// Charts: five areas and a curve over one time axis.

import { all, clock, KINDS, percent, rate, ratioOf, span } from './numbers.js'
import { $, make, put, set, stamp } from './page.js'
import { difference, earlier, HISTORY_MS, state } from './state.js'

const SHOWN_MS = { least: 60_000, most: HISTORY_MS }
const DESCRIBE_MS = 10_000

const SVG = 'http://www.w3.org/2000/svg'
const EDGE = { left: 44, right: 12, top: 8, bottom: 20 }
const charts = { rates: null, ratio: null, legend: new Map(), cross: null }

function shape (parent, tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
  parent.append(node)
  return node
}

function buildChart (svg, classes) {
  const chart = { svg, rules: [], ticks: [], paths: [] }
  for (let at = 0; at < 3; at += 1) {
    chart.rules.push({ line: shape(svg, 'line', { class: 'rule' }), text: shape(svg, 'text', { 'text-anchor': 'end', x: EDGE.left - 8 }) })
  }
  for (let at = 0; at < 6; at += 1) chart.ticks.push(shape(svg, 'text', { 'text-anchor': 'middle' }))
  for (const name of classes) chart.paths.push(shape(svg, 'path', { class: name }))
  chart.cross = shape(svg, 'line', { class: 'cross', visibility: 'hidden' })
  const follow = (event) => {
    charts.cross = event.type === 'pointerleave' ? null : event.clientX - svg.getBoundingClientRect().left
    showCharts()
  }
  for (const name of ['pointermove', 'pointerdown', 'pointerleave']) svg.addEventListener(name, follow)
  return chart
}

export function buildCharts () {
  for (const kind of KINDS) {
    const parts = stamp('t-legend')
    parts.swatch.classList.add(`is-${kind}`)
    put(parts.kind, kind)
    charts.legend.set(kind, parts.value)
    $('legend').append(parts.root)
  }
  charts.rates = buildChart($('chart-rates'), KINDS.map((kind) => `area is-${kind}`))
  charts.ratio = buildChart($('chart-ratio'), ['curve'])
  new ResizeObserver(showCharts).observe($('chart-rates'))
  $('chart-table').addEventListener('toggle', () => showChartTable())
}

// The next larger number that reads well on an axis and can be halved.
function ceiling (n) {
  const size = 10 ** Math.floor(Math.log10(Math.max(n, 1)))
  return [1, 2, 4, 6, 10].map((step) => step * size).find((step) => step >= n)
}

export function showCharts () {
  const { samples } = state
  const points = samples.filter((one) => one.rates)
  const { width, height } = charts.rates.svg.getBoundingClientRect()
  if (!points.length || width < 100) return
  const end = points.at(-1).at
  const range = Math.min(SHOWN_MS.most, Math.max(SHOWN_MS.least, end - samples[0].at))
  const low = charts.ratio.svg.getBoundingClientRect().height
  const most = ceiling(Math.max(...points.map((one) => all(one.rates))))
  const x = (at) => EDGE.left + (width - EDGE.left - EDGE.right) * (1 - (end - at) / range)
  const scale = (tall, top) => (value) => EDGE.top + (tall - EDGE.top - EDGE.bottom) * (1 - value / top)
  frame(charts.rates, width, height, [0, most / 2, most].map(String), scale(height, 2), { x, end, range })
  frame(charts.ratio, width, low, ['0 %', '50 %', '100 %'], scale(low, 2), { x, end, range })
  const shown = points.filter((one) => one.at >= end - range)
  drawAreas(shown, x, scale(height, most))
  const smooth = shown.map((one) => ({ at: one.at, ratio: ratioAt(one) }))
  set(charts.ratio.paths[0], 'd', curve(smooth, x, scale(low, 1)))
  showMoment(shown, x)
  describe(shown)
}

// The curve averages over ten seconds, because single seconds vary too much.
function ratioAt (one) {
  return ratioOf(difference(one, earlier(10_500, state.samples.indexOf(one))))
}

function frame (chart, width, height, labels, y, { x, end, range }) {
  set(chart.svg, 'viewBox', `0 0 ${width} ${height}`)
  chart.rules.forEach(({ line, text }, at) => {
    const level = y(at).toFixed(1)
    for (const [name, value] of [['x1', EDGE.left], ['x2', width - EDGE.right], ['y1', level], ['y2', level]]) set(line, name, value)
    set(text, 'y', Number(level) + 4)
    put(text, labels[at])
  })
  const step = range <= 60_000 ? 15_000 : range <= 150_000 ? 30_000 : 60_000
  chart.ticks.forEach((text, at) => {
    const ago = at * step
    put(text, ago > range ? '' : ago === 0 ? 'now' : ago % 60_000 ? `−${ago / 1000} s` : `−${ago / 60_000} min`)
    set(text, 'x', Math.min(width - EDGE.right - 6, x(end - ago)).toFixed(1))
    set(text, 'y', height - 4)
  })
}

function drawAreas (points, x, y) {
  let floor = points.map(() => 0)
  KINDS.forEach((kind, at) => {
    const roof = points.map((one, i) => floor[i] + one.rates[kind])
    const up = points.map((one, i) => `${x(one.at).toFixed(1)} ${y(roof[i]).toFixed(1)}`)
    const down = points.map((one, i) => `${x(one.at).toFixed(1)} ${y(floor[i]).toFixed(1)}`).reverse()
    const isEmpty = roof.every((level, i) => level === floor[i])
    set(charts.rates.paths[at], 'd', isEmpty ? '' : `M${up.join('L')}L${down.join('L')}Z`)
    floor = roof
  })
}

// Leaves a gap where there is no ratio.
function curve (points, x, y) {
  let path = ''
  let isDown = false
  for (const { at, ratio } of points) {
    if (ratio !== null) path += `${isDown ? 'L' : 'M'}${x(at).toFixed(1)} ${y(ratio).toFixed(1)}`
    isDown = ratio !== null
  }
  return path
}

// The numbers beside the chart: the current ones, or those at the pointer.
function showMoment (points, x) {
  const last = points.at(-1)
  const nearest = (best, one) => Math.abs(x(one.at) - charts.cross) < Math.abs(x(best.at) - charts.cross) ? one : best
  const one = charts.cross === null ? last : points.reduce(nearest, last)
  for (const kind of KINDS) put(charts.legend.get(kind), rate(one.rates[kind]))
  put($('chart-when'), one === last ? 'now' : `${span(Math.round((last.at - one.at) / 1000))} ago`)
  put($('chart-ratio-now'), percent(ratioAt(one)))
  for (const { cross } of [charts.rates, charts.ratio]) {
    set(cross, 'visibility', charts.cross === null ? 'hidden' : 'visible')
    for (const name of ['x1', 'x2']) set(cross, name, x(one.at).toFixed(1))
    set(cross, 'y1', EDGE.top)
    set(cross, 'y2', cross.ownerSVGElement.getBoundingClientRect().height - EDGE.bottom)
  }
}

// The charts as text, for screen readers. Not a live region, and not updated each second.
function describe (points) {
  if (performance.now() - state.describedAt < DESCRIBE_MS) return
  state.describedAt = performance.now()
  const last = points.at(-1)
  const reach = span(Math.max(1, Math.round((last.at - points[0].at) / 1000)))
  const peak = Math.max(...points.map((one) => all(one.rates)))
  const parts = KINDS.map((kind) => `${kind} ${rate(last.rates[kind])}`).join(', ')
  set(charts.rates.svg, 'aria-label', `Requests per second over the last ${reach}: now ${rate(all(last.rates))} (${parts}), at most ${rate(peak)}. The table below has the same numbers.`)
  const ratios = points.map(ratioAt).filter((ratio) => ratio !== null)
  const extent = ratios.length ? `now ${percent(ratioAt(last))}, lowest ${percent(Math.min(...ratios))}, highest ${percent(Math.max(...ratios))}` : 'no cacheable requests'
  set(charts.ratio.svg, 'aria-label', `Hit ratio over the last ${reach}: ${extent}.`)
  showChartTable()
}

// The last two minutes in steps of ten seconds.
function showChartTable () {
  const { samples } = state
  if (!$('chart-table').open || samples.length < 2) return
  const rows = []
  for (let at = samples.length - 1; at > 0 && rows.length < 12;) {
    const [one, from] = [samples[at], earlier(10_500, at)]
    const gone = difference(one, from)
    rows.push([clock.format(one.at), ...KINDS.map((kind) => rate(gone[kind] * 1000 / (one.at - from.at))), percent(ratioOf(gone))])
    at = samples.indexOf(from)
  }
  const line = ([time, ...cells]) => {
    const row = make('tr')
    const head = make('th', time)
    head.scope = 'row'
    row.append(head, ...cells.map((cell) => make('td', cell)))
    return row
  }
  $('chart-rows').replaceChildren(...rows.map(line))
}
