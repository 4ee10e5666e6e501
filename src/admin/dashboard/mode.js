// Switches: for a time, one route or all of them cache less than the file says. A switch is confirmed in a dialog first.

import { ask } from './api.js'
import { plural, span } from './numbers.js'
import { $, clean, keyed, onChange, put, say, set, stamp, word } from './page.js'
import { poll } from './polling.js'

const EFFECTS = { off: 'goes to the origin', shadow: 'goes to the origin, and what the cache would have done is noted' }

const nameOf = (route) => route === null ? 'All routes' : clean(route)

// How much of a switch is left, as people read it: whole seconds, and never none while it holds.
export const left = (one) => span(Math.max(1, Math.ceil(one.left_s)))

// Asks what is to be switched, and for how long; `null` means all routes.
export function askSwitch (route) {
  const dialog = $('switch')
  const form = dialog.querySelector('form')
  put($('switch-title'), route === null ? 'Switch all routes?' : 'Switch this route?')
  put($('switch-what'), route === null ? 'All routes, in this sidecar and in those that share its Redis.' : 'In this sidecar and in those that share its Redis:')
  put($('switch-route'), route === null ? '' : clean(route))
  form.elements.mode.value = 'off'
  form.elements.time.value = '1h'
  dialog.returnValue = ''
  dialog.onclose = () => {
    const { mode, time } = form.elements
    if (dialog.returnValue === 'switch') order({ mode: mode.value, route, for: time.value })
  }
  dialog.showModal()
}

// Ends the switch of a route; `null` ends every switch.
export const endSwitch = (route) => order({ mode: 'on', route })

async function order (body) {
  const name = nameOf(body.route)
  try {
    const done = await ask('mode', body)
    const what = body.mode === 'on' ? `${plural(done.ended, 'switch', 'switches')} ended` : `${name}: ${body.mode} for ${body.for}`
    const alone = done.shared || isAlone(done) ? '' : `. Other sidecars may not know of it: ${clean(done.why ?? '')}`
    say('said', `${what}${alone}`)
  } catch (error) {
    say('failed', `${name}: not switched: ${error.message}`)
  }
  poll()
}

// Whether there are no other sidecars, so that nothing is missing.
const isAlone = ({ why }) => /no \[redis\]/.test(why ?? '')

export function showSwitches (stats) {
  const switches = stats.switches ?? []
  $('switches').hidden = switches.length === 0
  keyed($('switch-list'), switches, (one) => one.route ?? '*', buildSwitch, showSwitch)
  // Told once per change to screen readers: the countdown is not read out.
  onChange('switches', switches.map(({ route, mode }) => [route, mode]), () => {
    put($('switches-said'), switches.map(({ route, mode }) => `${nameOf(route)}: switched to ${mode}`).join('; '))
  })
}

function buildSwitch () {
  const row = stamp('t-switch')
  row.end.addEventListener('click', () => endSwitch(row.one.route))
  return row
}

function showSwitch (row, one) {
  row.one = one
  word(row.mode, one.mode)
  put(row.route, nameOf(one.route))
  put(row.effect, `: every request ${EFFECTS[one.mode] ?? ''}, for `)
  put(row.left, left(one))
  put(row.by, one.by === 'peer' ? ' more (set at another sidecar)' : ' more')
  put(row.end, one.route === null ? 'End all switches' : 'End')
  set(row.end, 'aria-label', one.route === null ? 'End all switches' : `End the switch of ${clean(one.route)}`)
}
