// Polls the admin API once a second, and shows the results.

import { askWhileShown, Refused, Resting, Unreachable } from './api.js'
import { showCharts } from './charts.js'
import { showFindings } from './findings.js'
import { forgetHistory, pollHistory } from './history.js'
import { showSwitches } from './mode.js'
import { all, moment } from './numbers.js'
import { showAlerts, showState, showTiles, showTop } from './overview.js'
import { $, banner, put, say } from './page.js'
import { pollPeers } from './peers.js'
import { showRoutes } from './routes.js'
import { findingsOf, HISTORY_MS, POLL_MS, sample, state } from './state.js'
import { showTags } from './tags.js'
import { showTailRoutes } from './tail.js'
import { LIVE } from './timeline.js'
import { showUncached } from './uncached.js'

export const BACK_OFF_MS = [1000, 2000, 4000, 8000, 15000]
const SHADOW_MS = 10_000
const UNCACHED_MS = 10_000

export async function poll () {
  clearTimeout(state.timer)
  if (state.busy) {
    state.again = true
    return
  }
  if (document.hidden) return
  state.busy = true
  try {
    const stats = await askWhileShown('stats')
    if (state.failures) recovered()
    accept(stats)
    await pollHistory()
    if (state.samples.length < 2) showTiles(stats)
    await extras(stats)
  } catch (error) {
    if (!(error instanceof Resting)) {
      // Bugs of this page must not look like a lost connection.
      if (!(error instanceof Refused || error instanceof Unreachable)) console.error(error)
      lost(error)
    }
  }
  state.busy = false
  const wait = state.failures ? BACK_OFF_MS[Math.min(state.failures, BACK_OFF_MS.length) - 1] : POLL_MS
  state.timer = setTimeout(poll, state.again ? 0 : wait)
  state.again = false
}

// Fetches data that changes rarely, only when it has changed.
async function extras (stats) {
  const rules = `${stats.started_ms} ${stats.config.loaded_ms}`
  if (state.policiesOf !== rules) {
    const { routes } = await askWhileShown('routes')
    state.policies = new Map(routes.map((route) => [route.path, route]))
    state.policiesOf = rules
    showRoutes(stats)
  }
  await pollPeers(stats)
  const { findings, audited } = findingsOf(stats)
  const watched = stats.mode === 'shadow' || (stats.switches ?? []).some((one) => one.mode === 'shadow') || findings + audited > 0 || stats.routes.some((route) => route.mode === 'shadow')
  if (!watched) $('findings').hidden = true
  if (watched && performance.now() - state.shadowAt >= SHADOW_MS) {
    showFindings(await askWhileShown('shadow'))
    state.shadowAt = performance.now()
  }
  const unrouted = all(stats.unrouted.requests)
  if (!unrouted) $('uncached').hidden = true
  const isNew = state.uncachedOf !== rules
  if (unrouted && (isNew || performance.now() - state.uncachedAt >= UNCACHED_MS)) {
    showUncached(await askWhileShown('uncached'))
    state.uncachedAt = performance.now()
    state.uncachedOf = rules
  }
}

function accept (stats) {
  if (state.stats && state.stats.started_ms !== stats.started_ms) {
    state.samples = []
    forgetHistory()
    say('said', 'The sidecar has been restarted')
  }
  state.stats = stats
  const before = state.samples.at(-1)
  // Numbers polled out of turn are shown, but a rate over so short a time would be meaningless.
  if (!before || stats.now_ms >= before.at + POLL_MS / 2) state.samples.push(sample(stats, before))
  while (state.samples.length > 2 && state.samples[1].at < stats.now_ms - HISTORY_MS) state.samples.shift()
  showTop(stats)
  showAlerts(stats)
  showSwitches(stats)
  showTiles(stats)
  if (state.history.range === LIVE) showCharts()
  showState(stats)
  showRoutes(stats)
  showTags(stats)
  showTailRoutes(stats)
}

function lost (error) {
  state.failures += 1
  const link = $('link')
  link.dataset.state = 'lost'
  put(link, 'Connection lost')
  if (state.failures > 1) return
  banner($('alert-lost'), 'bad', `Connection lost at ${moment(Date.now())}: ${error.message}.`, { text: 'The numbers below are from that time. This page keeps trying.', button: ['Try now', poll] })
}

function recovered () {
  state.failures = 0
  $('alert-lost').replaceChildren()
  say('said', 'Connected again')
}
