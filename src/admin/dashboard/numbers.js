// Numbers, as people read them.

import { NONE } from './page.js'

export const KINDS = ['HIT', 'STALE', 'REVALIDATED', 'MISS', 'BYPASS']

const whole = new Intl.NumberFormat('en')
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 2 })
export const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit' })

const offset = new Intl.DateTimeFormat('en', { timeZoneName: 'shortOffset' })

export const count = (n) => n < 1e6 ? whole.format(n) : short.format(n)
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`
const digits = (n, most) => n.toFixed(n >= 100 ? 0 : n >= 10 ? Math.min(1, most) : most)
export const rate = (n) => n >= 1e4 ? short.format(n) : n === 0 ? '0' : digits(n, 2)

// Rounds to neither 100 % nor 0 % unless the ratio is exactly that.
export function percent (ratio) {
  if (ratio === null || ratio === undefined || Number.isNaN(ratio)) return NONE
  const shown = ratio === 0 || ratio === 1 ? ratio * 100 : Math.min(99.9, Math.max(0.1, ratio * 100))
  return `${shown.toFixed(shown === 0 || shown === 100 ? 0 : 1)} %`
}

export function milliseconds (ms) {
  if (ms === null || ms === undefined) return NONE
  return ms >= 1000 ? `${digits(ms / 1000, 2)} s` : `${digits(ms, 2)} ms`
}

export function span (seconds) {
  if (seconds < 0.0005) return '0 s'
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`
  if (seconds < 60) return `${Number(digits(seconds, 1))} s`
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]]
  const first = units.findIndex(([, size]) => seconds >= size)
  const [[name, size], [smaller, part]] = [units[first], units[first + 1]]
  const rest = Math.floor((seconds % size) / part)
  return `${count(Math.floor(seconds / size))} ${name}${rest ? ` ${rest} ${smaller}` : ''}`
}

export function bytes (n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let at = 0
  while (n >= 1024 && at < units.length - 1) [n, at] = [n / 1024, at + 1]
  return `${at ? digits(n, 1) : n} ${units[at]}`
}

// Pages that the sidecar has written itself, such as errors.
export const ownPages = ({ bytes_from_sidecar: own }) => own ? `, ${bytes(own)} of the sidecar’s own pages` : ''

// The browser's offset from UTC at that time, `UTC+1` for example.
export function zone (ms = Date.now()) {
  const part = offset.formatToParts(ms).find((one) => one.type === 'timeZoneName')
  return (part?.value ?? 'local time').replace('GMT', 'UTC')
}

// For lists whose heading names the zone.
export function time (ms) {
  return Date.now() - ms < 43_200_000 ? clock.format(ms) : day.format(ms)
}

export const moment = (ms) => `${time(ms)} ${zone(ms)}`

export const served = (r) => r.HIT + r.STALE + r.REVALIDATED
export const all = (r) => served(r) + r.MISS + r.BYPASS
export const ratioOfAll = (r) => all(r) > 0 ? served(r) / all(r) : null
export const ratioOf = (r) => served(r) + r.MISS > 0 ? served(r) / (served(r) + r.MISS) : null
