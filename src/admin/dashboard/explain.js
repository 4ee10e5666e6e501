// Explains a request.

import { ask } from './api.js'
import { bytes, span } from './numbers.js'
import { $, clean, complain, facts, lines, make, word } from './page.js'
import { putDetail, putReason } from './reasons.js'

export async function explain (form) {
  const { method, target, headers, data, trusted } = form.elements
  for (const field of [target, headers]) complain('explain-error', field, '')
  if (!target.value.trim().startsWith('/')) return complain('explain-error', target, 'A path begins with a slash.')
  const given = lines(headers.value)
  const bad = given.find((line) => !/^[^:\s]+:/.test(line))
  if (bad !== undefined) return complain('explain-error', headers, `“${bad}” is not a header; write it as in “x-tenant-id: acme”.`)
  const pairs = given.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()])
  try {
    showExplained(await ask('explain', {
      method: method.value, target: target.value.trim(), headers: pairs, data: hasBody(method.value) && data.value ? data.value : null, trusted: trusted.checked
    }))
  } catch (error) {
    $('explained').replaceChildren()
    complain('explain-error', null, `Not explained: ${error.message}`)
  }
}

export const hasBody = (method) => !['GET', 'HEAD'].includes(method)

function showExplained ({ request, lines, stored }) {
  const list = make('dl', '', 'facts theirs')
  for (const { name, value } of lines) {
    const told = make('dd', name === 'reason' ? '' : clean(value))
    if (name === 'reason') putDetail(told, value)
    list.append(make('dt', clean(name)), told)
  }
  const place = $('explained')
  place.replaceChildren(make('h3', clean(request), 'theirs'), list)
  if (!stored) return place.append(make('p', 'No stored response.', 'quiet'))
  const title = make('p', '', 'reason')
  const verdict = make('span', '', 'word')
  word(verdict, stored.verdict)
  const why = make('span', '', 'quiet')
  putReason(why, stored.reason ?? (stored.fresh ? 'fresh' : 'stale'))
  title.append(verdict, make('b', 'Stored'), why)
  const entry = make('dl', '', 'facts')
  facts(entry, [
    ['Where', stored.tier], ['Status', stored.status], ['Body', bytes(stored.bytes)], ['Age', span(stored.age_s)],
    ['Fresh for', stored.ttl_s > 0 ? span(stored.ttl_s) : `no longer, since ${span(-stored.ttl_s)}`],
    ['Tags', stored.tags.length ? stored.tags.map(({ tag, current }) => current ? tag : `${tag} (purged)`).join(', ') : 'none']
  ])
  place.append(title, entry)
}
