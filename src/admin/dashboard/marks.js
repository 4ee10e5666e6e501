// What happened in the range, as a list.

import { markWords } from './axis.js'
import { count, moment } from './numbers.js'
import { $, onChange, put, set, stamp } from './page.js'

export function showMarks (data, { from }) {
  const marks = (data?.events ?? []).filter((mark) => mark.until_ms >= from).reverse()
  onChange('marks', marks, () => {
    $('marks').replaceChildren(...marks.map(line))
    $('marks-part').hidden = marks.length === 0
    put($('marks-count'), count(marks.length))
  })
  const dropped = data?.events_dropped ?? 0
  $('marks-dropped').hidden = dropped === 0
  put($('marks-dropped'), `${count(dropped)} earlier ones are no longer kept.`)
}

function line (mark) {
  const parts = stamp('t-event')
  const { name, tone, text } = markWords(mark)
  put(parts.time, moment(mark.at_ms))
  parts.time.dateTime = new Date(mark.at_ms).toISOString()
  put(parts.kind, name)
  set(parts.kind, 'data-tone', tone)
  put(parts.text, text)
  return parts.root
}
