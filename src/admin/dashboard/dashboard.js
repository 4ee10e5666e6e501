// The dashboard: polls the admin API once a second and shows the results. What each part of the page does is in the module
// of that name; the templates are in index.html.

import { buildCharts } from './charts.js'
import { closeEvents, openEvents } from './events.js'
import { explain, hasBody } from './explain.js'
import { buildRanges } from './history.js'
import { wireMemory } from './memory.js'
import { askSwitch } from './mode.js'
import { $, copy, put, set } from './page.js'
import { poll } from './polling.js'
import { choosePurge, submitPurge } from './purge.js'
import { reload } from './reload.js'
import { filterRoutes, showRoutes } from './routes.js'
import { state } from './state.js'
import { closeTail, openTail, wireTail } from './tail.js'

const FIRST_ROUTE = '[[routes]]\npath = "/api/v1/things/{*rest}"\nttl  = "1m"\ntags = ["things"]\n\n[[purges]]\npath = "/api/v1/things/{*rest}"\ntags = ["things"]\n'

function wire () {
  put($('first-route'), FIRST_ROUTE)
  for (const button of document.querySelectorAll('[data-copy]')) button.addEventListener('click', () => copy($(button.dataset.copy).textContent, button))
  $('reload').addEventListener('click', reload)
  $('switch-all').addEventListener('click', () => askSwitch(null))
  $('route-filter').addEventListener('input', filterRoutes)
  $('route-order').addEventListener('change', () => {
    state.orderedAt = -Infinity
    if (state.stats) showRoutes(state.stats)
  })
  wireMemory()
  const [explainForm, purgeForm] = [$('explain'), $('purge')]
  explainForm.addEventListener('submit', (event) => {
    event.preventDefault()
    explain(explainForm)
  })
  explainForm.elements.method.addEventListener('change', () => { $('explain-data').hidden = !hasBody(explainForm.elements.method.value) })
  purgeForm.addEventListener('submit', (event) => {
    event.preventDefault()
    submitPurge(purgeForm)
  })
  purgeForm.addEventListener('change', () => choosePurge(purgeForm))
  choosePurge(purgeForm)
  wireTail()
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) {
      put($('link'), 'Paused')
      set($('link'), 'data-state', 'waiting')
      clearTimeout(state.timer)
      closeEvents()
      closeTail()
    } else {
      poll()
      openEvents()
      openTail()
    }
  })
}

buildCharts()
buildRanges()
wire()
poll()
openEvents()
