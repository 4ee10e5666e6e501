// Purges: always asks for confirmation first.

import { ask } from './api.js'
import { milliseconds, plural } from './numbers.js'
import { $, clean, complain, lines, make, put, say } from './page.js'
import { poll } from './polling.js'

const QUESTIONS = {
  tags: (n) => [n === 1 ? 'Purge this tag?' : `Purge these ${n} tags?`, 'All entries with any of these tags, in this sidecar and in those that share its Redis:'],
  urls: (n) => [n === 1 ? 'Purge this URL?' : `Purge these ${n} URLs?`, 'All their entries, in all variants and for all callers:'],
  everything: () => ['Purge everything?', 'All entries of all routes, in this sidecar and in those that share its Redis. Every request will go to the origin until the cache is filled again.']
}

export function askPurge (what, kind = 'hard') {
  const [name] = Object.keys(what)
  const names = what.everything ? [] : what[name]
  const [title, text] = QUESTIONS[name](names.length)
  const dialog = $('ask')
  put($('ask-title'), title)
  put($('ask-what'), text)
  $('ask-names').replaceChildren(...names.map((one) => make('li', clean(one))))
  put($('ask-go'), what.everything ? 'Purge everything' : `Purge ${names.length === 1 ? clean(names[0]).slice(0, 40) : plural(names.length, { tags: 'tag', urls: 'URL' }[name])}`)
  dialog.querySelector('form').elements.kind.value = kind
  dialog.returnValue = ''
  dialog.onclose = () => {
    if (dialog.returnValue === 'purge') purge({ ...what, soft: dialog.querySelector('form').elements.kind.value === 'soft' })
  }
  dialog.showModal()
}

export async function purge (body) {
  const names = body.everything ? 'everything' : (body.tags ?? body.urls).join(', ')
  try {
    const done = await ask('purge', body)
    const unused = done.unused?.length ? `; nothing carries ${done.unused.join(', ')}` : ''
    say('said', `${body.soft ? 'Soft purge' : 'Purge'} of ${names} done in ${milliseconds(done.took_ms)}${unused}`)
  } catch (error) {
    say('failed', `${names} was not purged: ${error.message}`)
  }
  poll()
}

export function submitPurge (form) {
  const { what, kind, names } = form.elements
  complain('purge-error', names, '')
  if (what.value === 'everything') return askPurge({ everything: true }, kind.value)
  const given = [...new Set(lines(names.value))]
  if (!given.length) return complain('purge-error', names, what.value === 'tags' ? 'Which tags?' : 'Which URLs?')
  const bad = what.value === 'urls' && given.find((url) => !/^https?:\/\/[^/]+\//.test(url))
  if (bad) return complain('purge-error', names, `“${bad}” is not a URL as clients request it; write it as in “http://localhost:8080/path”.`)
  askPurge({ [what.value]: given }, kind.value)
}

export function choosePurge (form) {
  const what = form.elements.what.value
  $('purge-names').hidden = what === 'everything'
  put($('purge-label'), what === 'urls' ? 'URLs, one per line, as clients request them' : 'Tags, one per line')
  form.elements.names.placeholder = what === 'urls' ? 'http://localhost:8080/api/v1/things' : 'things:acme'
}
