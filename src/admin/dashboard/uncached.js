// What to cache next: paths without a route, and the routes that are suggested for them.

import { count, milliseconds, percent, plural, span } from './numbers.js'
import { $, clean, copy, fileOf, isInUse, keyed, NONE, put, stamp } from './page.js'
import { state } from './state.js'

export function showUncached (report) {
  const { paths } = report
  $('uncached').hidden = paths.length === 0
  put($('uncached-count'), `${plural(report.requests, 'request')} without a route, ${span(report.app_s)} in the app${sampleOf(report)}`)
  $('uncached-sampling').hidden = !report.sampling
  keyed($('uncached-rows'), paths, (one) => one.path, () => stamp('t-uncached'), showPath, !isInUse($('uncached-rows')))
  const suggested = paths.filter((one) => one.suggestion)
  $('uncached-routes-part').hidden = suggested.length === 0
  keyed($('uncached-routes'), suggested, (one) => one.path, buildRoute, showRoute, !isInUse($('uncached-routes')))
}

// Of a sample, how many were looked at.
const sampleOf = ({ requests, observed }) => observed < requests ? `, estimated from a sample of ${count(observed)}` : ''

function showPath (row, one) {
  put(row.path, clean(one.path))
  put(row.requests, count(one.requests))
  put(row.observed, one.observed < one.requests ? `of a sample of ${count(one.observed)}` : '')
  put(row.time, span(one.app_s))
  put(row.mean, milliseconds(one.mean_ms))
  put(row.share, one.hit_share === null ? NONE : percent(one.hit_share))
  put(row.compared, one.hit_share !== null && one.compared < one.requests ? `of ${count(one.compared)} compared` : '')
  put(row.saved, one.saved_s ? span(one.saved_s) : NONE)
  put(row.route, one.suggestion ? 'suggested below' : `none: ${clean(one.why_not ?? '')}`)
}

function buildRoute () {
  const item = stamp('t-uncached-route')
  item.copy.addEventListener('click', () => copy(item.diff.textContent, item.copy))
  return item
}

function showRoute (item, one) {
  put(item.path, clean(one.path))
  put(item.place, `for ${fileOf(state.stats)}`)
  put(item.does, clean(one.suggestion.does))
  put(item.risks, clean(one.suggestion.risks))
  put(item.diff, clean(one.suggestion.diff))
}
