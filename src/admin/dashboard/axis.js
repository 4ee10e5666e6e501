// The axes of the charts: one of time, which all of them share, with what happened on it, and one of numbers for each.

import { clock, moment, span } from './numbers.js'
import { clean, put, set } from './page.js'

const SVG = 'http://www.w3.org/2000/svg'
export const EDGE = { left: 54, right: 12, top: 10, bottom: 20 }
const MOST_TICKS = 8
const MINUTE = 60_000
const HOUR = 3_600_000

const hour = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' })
const weekday = new Intl.DateTimeFormat('en-GB', { weekday: 'short', day: 'numeric' })

export function shape (parent, tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
  parent.append(node)
  return node
}

// Builds the fixed parts of a chart. `follow` is told the time under the pointer, or null when it leaves.
export function buildChart (svg, classes, follow) {
  const chart = { svg, rules: [], ticks: [], paths: [], scale: null }
  for (let at = 0; at < 3; at += 1) {
    chart.rules.push({ line: shape(svg, 'line', { class: 'rule' }), text: shape(svg, 'text', { 'text-anchor': 'end', x: EDGE.left - 8 }) })
  }
  for (let at = 0; at < MOST_TICKS; at += 1) chart.ticks.push(shape(svg, 'text', { 'text-anchor': 'middle' }))
  chart.states = shape(svg, 'g')
  for (const name of classes) chart.paths.push(shape(svg, 'path', { class: name }))
  chart.marks = shape(svg, 'g', { class: 'marks' })
  chart.cross = shape(svg, 'line', { class: 'cross', visibility: 'hidden' })
  const move = (event) => {
    const x = event.clientX - svg.getBoundingClientRect().left
    follow(event.type === 'pointerleave' || !chart.scale ? null : chart.scale.time(x))
  }
  for (const name of ['pointermove', 'pointerdown', 'pointerleave']) svg.addEventListener(name, move)
  return chart
}

// Fits a chart to its size on the page: from times to x, and back.
export function fit (chart, { from, end }) {
  const { width, height } = chart.svg.getBoundingClientRect()
  if (width < 100) return null
  const inner = width - EDGE.left - EDGE.right
  chart.scale = {
    width,
    height,
    x: (at) => EDGE.left + inner * (at - from) / (end - from),
    y: (top) => (value) => EDGE.top + (height - EDGE.top - EDGE.bottom) * (1 - value / top),
    time: (x) => from + (end - from) * Math.min(1, Math.max(0, (x - EDGE.left) / inner))
  }
  set(chart.svg, 'viewBox', `0 0 ${width} ${height}`)
  return chart.scale
}

// Draws the lines of the numbers, the lowest first, and the times.
export function frame (chart, labels, time) {
  const { width, height, x, y } = chart.scale
  const at = y(2)
  chart.rules.forEach(({ line, text }, n) => {
    const level = at(n).toFixed(1)
    for (const [name, value] of [['x1', EDGE.left], ['x2', width - EDGE.right], ['y1', level], ['y2', level]]) set(line, name, value)
    set(text, 'y', Number(level) + 4)
    put(text, labels[n])
  })
  const ticks = (time.isLive ? liveTicks : clockTicks)(time, width)
  chart.ticks.forEach((text, n) => {
    const [when, label] = ticks[n] ?? [time.from, '']
    put(text, label)
    set(text, 'x', Math.min(width - EDGE.right - 8, Math.max(EDGE.left + 6, x(when))).toFixed(1))
    set(text, 'y', height - 4)
  })
}

function liveTicks ({ from, end }, width) {
  const range = end - from
  const step = range <= MINUTE ? 15_000 : range <= 2.5 * MINUTE ? 30_000 : width < 260 ? 2 * MINUTE : MINUTE
  const ticks = []
  for (let ago = 0; ago <= range; ago += step) ticks.push([end - ago, ago === 0 ? 'now' : ago % MINUTE ? `−${ago / 1000} s` : `−${ago / MINUTE} min`])
  return ticks
}

// Round times of the browser's zone. Days have 23 or 25 hours now and then: a Date knows.
function clockTicks ({ from, end }, width) {
  const room = Math.max(2, Math.min(MOST_TICKS, Math.floor(width / 62)))
  const step = [5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR, 48 * HOUR].find((one) => (end - from) / one <= room)
  const start = new Date(from)
  start.setHours(0, 0, 0, 0)
  const ticks = []
  for (let n = 0; ticks.length < room; n += 1) {
    const when = new Date(start)
    when.setMinutes(n * step / MINUTE)
    if (when.getTime() > end) break
    if (when.getTime() >= from) ticks.push([when.getTime(), (step >= 24 * HOUR ? weekday : hour).format(when)])
  }
  return ticks
}

// The browser's zone, in words.
export function zone () {
  const offset = new Intl.DateTimeFormat('en', { timeZoneName: 'longOffset' }).formatToParts().find((part) => part.type === 'timeZoneName')?.value ?? ''
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone
  return `${name}${offset && name !== 'UTC' ? ` (${offset.replace('GMT', 'UTC')})` : ''}`
}

const MARKS = {
  restart: ['Restart', ''],
  reload: ['Reload', 'good'],
  reload_failed: ['Reload failed', 'bad'],
  purge_everything: ['Everything purged', 'warn'],
  switch: ['Switch', 'warn'],
  redis_lost: ['Redis lost', 'bad'],
  redis_back: ['Redis back', 'good'],
  app_down: ['App down', 'bad'],
  app_back: ['App back', 'good'],
  gap: ['No numbers before', 'warn']
}

// A mark's name, its tone, and what else is known of it.
export function markWords (mark) {
  const [name, tone] = MARKS[mark.kind] ?? [clean(mark.kind), '']
  const times = mark.times > 1 ? `${mark.times} times, last at ${moment(mark.until_ms)}` : ''
  return { name, tone, text: [clean(mark.text), times].filter(Boolean).join('; ') }
}

export const markTitle = (mark) => {
  const { name, text } = markWords(mark)
  return `${name}, ${moment(mark.at_ms)}${text ? `: ${text}` : ''}`
}

// Draws what happened as lines over the whole height, with a flag where there is room for it.
export function drawMarks (chart, marks, { from, end }, hasFlags) {
  const { x, height } = chart.scale
  const shown = marks.filter((mark) => mark.at_ms >= from && mark.at_ms <= end)
  while (chart.marks.children.length > shown.length) chart.marks.lastElementChild.remove()
  shown.forEach((mark, n) => {
    let group = chart.marks.children[n]
    if (!group) {
      group = shape(chart.marks, 'g')
      shape(group, 'title')
      shape(group, 'line')
      if (hasFlags) shape(group, 'path')
    }
    const [title, line, flag] = group.children
    const at = x(mark.at_ms).toFixed(1)
    set(group, 'class', `mark tone-${markWords(mark).tone || 'plain'}`)
    set(group, 'data-kind', mark.kind)
    put(title, markTitle(mark))
    for (const [name, value] of [['x1', at], ['x2', at], ['y1', hasFlags ? 2 : EDGE.top], ['y2', height - EDGE.bottom]]) set(line, name, value)
    if (flag) set(flag, 'd', `M${at} 1l7 4l-7 4z`)
  })
}

// Draws when the sidecar was not ready, as a line below the numbers.
export function drawStates (chart, states) {
  const { x, height } = chart.scale
  while (chart.states.children.length > states.length) chart.states.lastElementChild.remove()
  states.forEach(({ status, from, until }, n) => {
    const node = chart.states.children[n] ?? shape(chart.states, 'rect', { height: 4 })
    const left = Math.max(EDGE.left, x(from))
    const parts = { class: `state is-${status}`, x: left.toFixed(1), y: height - EDGE.bottom + 1, width: Math.max(1, x(until) - left).toFixed(1) }
    for (const [name, value] of Object.entries(parts)) set(node, name, value)
  })
}

export function cross (chart, at) {
  set(chart.cross, 'visibility', at === null ? 'hidden' : 'visible')
  if (at === null || !chart.scale) return
  for (const name of ['x1', 'x2']) set(chart.cross, name, chart.scale.x(at).toFixed(1))
  set(chart.cross, 'y1', EDGE.top)
  set(chart.cross, 'y2', chart.scale.height - EDGE.bottom)
}

// The next larger number that reads well on an axis and can be halved.
export function ceiling (n, least = 1) {
  const size = 10 ** Math.floor(Math.log10(Math.max(n, least)))
  return [1, 2, 4, 6, 10].map((step) => step * size).find((step) => step >= n * 0.999) ?? 10 * size
}

// The same of bytes, whose units are powers of 1024.
export function ceilingOfBytes (n) {
  let unit = 1
  while (n / unit >= 1024) unit *= 1024
  return ceiling(n / unit) * unit
}

// When a point is, in words.
export const when = (at, { end, isLive }) => isLive ? `${span(Math.max(1, Math.round((end - at) / 1000)))} ago` : end - at < 2 * HOUR ? clock.format(at) : moment(at)
