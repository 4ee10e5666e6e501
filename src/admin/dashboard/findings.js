// Findings of shadow mode and audits.

import { count, milliseconds, moment, percent, plural, span } from './numbers.js'
import { $, clean, copy, fileOfRule, keyed, make, NONE, put, stamp } from './page.js'
import { putCounts } from './reasons.js'
import { findingsOf, state } from './state.js'

export function showFindings (report) {
  $('findings').hidden = report.routes.length + report.advice.length === 0
  const { findings } = findingsOf(state.stats)
  put($('findings-count'), findings ? plural(findings, 'finding') : 'no findings so far')
  $('advice-part').hidden = report.advice.length === 0
  keyed($('advice'), report.advice, (one) => `${one.route}\n${one.toml || one.why.replace(/\d+/g, '')}`, () => {
    const item = stamp('t-advice')
    item.copy.addEventListener('click', () => copy(item.toml.textContent, item.copy))
    return item
  }, (item, one) => {
    put(item.route, clean(one.route))
    put(item.place, one.line ? `${fileOfRule(one, state.stats)}:${one.line}` : '')
    put(item.why, clean(one.why))
    item.code.hidden = !one.toml
    put(item.toml, clean(one.diff ?? one.toml))
  })
  keyed($('shadow-rows'), report.routes, (one) => one.route, () => stamp('t-shadow'), showShadow)
  const examples = report.routes.flatMap(exampleLines)
  $('examples-part').hidden = examples.length === 0
  keyed($('examples'), examples, (line) => line, () => ({ root: make('li') }), ({ root }, line) => put(root, clean(line)))
}

function showShadow (row, one) {
  put(row.route, clean(one.route))
  put(row.mode, one.mode)
  put(row.requests, count(one.requests))
  put(row.hits, percent(one.hit_rate))
  put(row.stale, [count(one.stale.count), ...(one.sources ?? []).map(toldBy)].join('; '))
  put(row.scope, count(one.scope.count))
  put(row.audit, one.audit.asked ? `${count(one.audit.stale)} of ${count(one.audit.asked)}` : NONE)
  put(row.languages, languagesOf(one.languages))
  if (one.not_stored.length) putCounts(row.unstored, one.not_stored.map(({ reason, count: n }) => [reason, count(n)]))
  else put(row.unstored, NONE)
}

// Changes of which a source has told, in time or after a response would have been stale.
const toldBy = ({ source, in_time: inTime, late }) => `${clean(source)} told of ${plural(inTime, 'change')}${late ? `, and of ${count(late)} stale too late` : ''}`

function languagesOf ({ finding, pages, languages, differing, vary }) {
  if (finding === 'never') return `never differ: ${plural(pages, 'page')} in ${languages.map(clean).join(', ')}`
  if (finding === 'differs') return `differ on ${plural(differing, 'page')}`
  return vary ? 'named in Vary' : NONE
}

function exampleLines ({ stale, scope }) {
  const after = ({ after: list, source, told_ms_after: ms }) => source ? `told by the source ${source} ${milliseconds(ms)} later` : list.length ? `after ${list.map((write) => `${write.method} ${write.path} ${milliseconds(write.ms_before)} before`).join(', ')}` : 'after no write that was seen'
  return [
    ...stale.examples.map((e) => `${moment(e.at_ms)} ${e.path}: changed, ${span(e.age_s)} after it would have been stored, ${after(e)}`),
    ...scope.examples.map((e) => `${moment(e.at_ms)} ${e.path}: ${e.evidence === 'refusal' ? 'refused to a caller' : 'another body for another credential'}, though the scope is ${scope.scope}`)
  ]
}
