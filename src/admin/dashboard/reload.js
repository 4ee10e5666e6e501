// Reloads the file.

import { ask } from './api.js'
import { plural } from './numbers.js'
import { $, banner, remembered, say } from './page.js'
import { poll } from './polling.js'

export async function reload () {
  $('reload').disabled = true
  try {
    showReloaded(await ask('reload', {}))
  } catch (error) {
    $('alert-reload').replaceChildren()
    // The next poll shows the errors of the file in the alert above.
    if (!error.data?.problems) say('failed', `Not reloaded: ${error.message}`)
  }
  $('reload').disabled = false
  remembered.delete('config')
  poll()
}

function showReloaded ({ changes, restart_needed: restart }) {
  const list = changes.map(({ what, change, keys, effect }) => {
    const details = keys.map(({ key, from, to }) => `${key} ${from ?? 'unset'} → ${to ?? 'unset'}`).join(', ')
    return `${what} ${change}${details ? `: ${details}` : ''}${effect ? ` (${effect})` : ''}`
  })
  if (restart.length) list.push(`Needs a restart: ${restart.join(', ')}`)
  banner($('alert-reload'), 'good', changes.length ? `Reloaded: ${plural(changes.length, 'change')}.` : 'Reloaded: no changes.', { list })
}
