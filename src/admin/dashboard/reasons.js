// Links from reasons to their sections of the page of reasons. What is no reason of this version stays text.

import { clean, make, put } from './page.js'
import { SLUGS } from './slugs.js'

// Shows a reason in this node.
export function putReason (node, reason) {
  const shown = clean(reason ?? '')
  if (node.textContent === shown) return
  const link = linkOf(shown)
  if (link) node.replaceChildren(link)
  else put(node, shown)
}

// Shows a reason that a name may follow, as in "missing field tenant".
export function putDetail (node, text) {
  const shown = clean(text)
  if (node.textContent === shown) return
  const begins = [...SLUGS.keys()].filter((reason) => shown === reason || shown.startsWith(`${reason} `))
  const reason = begins.reduce((longest, one) => one.length > longest.length ? one : longest, '')
  if (reason === '') return put(node, shown)
  node.replaceChildren(linkOf(reason), shown.slice(reason.length))
}

// Shows reasons with their counts.
export function putCounts (node, counts) {
  const shown = counts.map(([reason, count]) => `${clean(reason)} ${count}`).join(', ')
  if (node.textContent === shown) return
  node.replaceChildren(...counts.flatMap(([reason, count], at) => [at ? ', ' : '', linkOf(clean(reason)) ?? clean(reason), ` ${count}`]))
}

function linkOf (reason) {
  const slug = SLUGS.get(reason)
  if (slug === undefined) return null
  const link = make('a', reason)
  link.href = `dashboard/reasons.html#${slug}`
  return link
}
