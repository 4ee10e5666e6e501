// The busiest tags.

import { browse } from './memory.js'
import { count } from './numbers.js'
import { $, clean, isInUse, keyed, put, stamp } from './page.js'
import { askPurge } from './purge.js'

export function showTags (stats) {
  $('no-tags').hidden = stats.tags.length > 0
  $('tags-scroll').hidden = stats.tags.length === 0
  const create = ({ tag }) => {
    const row = stamp('t-tag')
    put(row.tag, clean(tag))
    row.browse.setAttribute('aria-label', `In memory with ${clean(tag)}`)
    row.browse.addEventListener('click', () => browse('tag', tag))
    row.purge.setAttribute('aria-label', `Purge ${clean(tag)}`)
    row.purge.addEventListener('click', () => askPurge({ tags: [tag] }))
    return row
  }
  keyed($('tags'), stats.tags, ({ tag }) => tag, create, (row, tag) => {
    for (const name of ['stored', 'hits', 'purged']) put(row[name], count(tag[name]))
  }, !isInUse($('tags')))
}
