// The charts as a table: the whole range in a few rows.

import { markWords } from './axis.js'
import { bytes, clock, KINDS, milliseconds, moment, percent, rate, ratioOf, served } from './numbers.js'
import { $, make, NONE } from './page.js'
import { state } from './state.js'
import { slotsOf } from './timeline.js'

// How many slots a row stands for: 30 s, 5 min, 30 min, 1 h, 6 h.
const SLOTS = { '5m': 6, '1h': 60, '6h': 6, '24h': 12, '7d': 72 }

export function showChartTable () {
  const { data } = state.history
  if (!$('chart-table').open || !data) return
  const slots = slotsOf(data)
  const rows = []
  for (let first = 0; first < slots.length; first += SLOTS[data.range]) rows.unshift(row(data, slots.slice(first, first + SLOTS[data.range])))
  $('chart-rows').replaceChildren(...rows)
}

function row (data, part) {
  const { series } = data
  const known = part.filter((slot) => slot.known)
  const until = part.at(-1).until
  const sum = (values) => known.reduce((sum, slot) => sum + values[slot.at], 0)
  const covered = sum(series.covered_ms)
  const highest = (values) => known.map((slot) => values[slot.at]).filter((value) => value !== null).reduce((a, b) => Math.max(a, b), -1)
  const ms = (values) => highest(values) < 0 ? NONE : milliseconds(highest(values))
  const counts = Object.fromEntries(KINDS.map((kind) => [kind, sum(series.requests[kind])]))
  const everything = KINDS.reduce((sum, kind) => sum + counts[kind], 0)
  const marks = data.events.filter((mark) => mark.at_ms >= part[0].from && mark.at_ms < until).map((mark) => markWords(mark).name)
  const cells = covered === 0
    ? [...KINDS.map(() => NONE), ...Array(8).fill(NONE)]
    : [
        ...KINDS.map((kind) => rate(counts[kind] * 1000 / covered)), percent(ratioOf(counts)), percent(everything ? served(counts) / everything : null),
        ms(series.latency_ms.hit.p95), ms(series.latency_ms.app.p95), rate((sum(series.app_failures) + sum(series.server_errors)) * 60_000 / covered),
        ms(series.redis_ms), bytes(series.memory.bytes[known.at(-1).at]), rate(sum(series.memory.evictions) * 1000 / covered)
      ]
  const line = make('tr')
  const head = make('th', (data.step_ms < 60_000 ? clock.format : moment)(until))
  head.scope = 'row'
  const told = [...new Set(marks)].join(', ')
  line.append(head, ...cells.map((cell) => make('td', cell)), make('td', covered === 0 ? ['no numbers', told].filter(Boolean).join('; ') : told || NONE))
  return line
}
